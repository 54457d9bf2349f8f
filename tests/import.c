/* Import of what it should take and of what it should refuse: every broken input gets the right status and one line
 * that names the culprit. Broken inputs are made from the fixtures in a temporary folder. */
#include "importcase.h"

/* ---- folders ---- */

static void test_folders(void)
{
    bb_error err;
    bb_status st = import("/nowhere/at/all", BB_F32, NULL, NULL, &err);
    expect_error(&err, st, BB_ERR_ARGUMENT, "/nowhere/at/all", "no such folder");
    st = import(CASE "/config.json", BB_F32, NULL, NULL, &err);
    expect_error(&err, st, BB_ERR_ARGUMENT, "config.json", "not a folder");
    clear_folder();
    expect(BB_ERR_ARGUMENT, folder, "config.json");
    fresh_folder();
    expect_fine("the unchanged case");
    unlink(in_folder(WEIGHTS));
    expect(BB_ERR_ARGUMENT, folder, "no weights here; looked for diffusion_pytorch_model.safetensors");
    put_text(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    expect(BB_ERR_ARGUMENT, WEIGHTS, "git lfs pull");
    unlink(in_folder(WEIGHTS));
    put_text("model_index.json", "{\"_class_name\": \"P\", \"unet\": [\"diffusers\", \"UNet2DModel\"]}");
    unlink(in_folder("config.json"));
    expect(BB_ERR_ARGUMENT, "/unet", "no such folder");
    put_text("model_index.json", "{\"_class_name\": \"P\", \"transformer\": [\"diffusers\", \"DiTTransformer\"]}");
    expect(BB_ERR_UNSUPPORTED, "transformer (DiTTransformer) of P", "UNet2DModel");
    put_text("model_index.json", "{\"_class_name\": \"StableDiffusionPipeline\", \"requires_safety_checker\": true, "
             "\"unet\": [\"diffusers\", \"UNet2DConditionModel\"], \"vae\": [\"diffusers\", \"AutoencoderKL\"]}");
    expect(BB_ERR_UNSUPPORTED, "unet (UNet2DConditionModel) of StableDiffusionPipeline is not supported",
           "supported: pipelines of a unet (UNet2DModel) and a scheduler");
    put_text("model_index.json", "{\"_class_name\": \"P\"}");
    expect(BB_ERR_UNSUPPORTED, "model_index.json", "no unet");
    put_text("model_index.json", "{\"unet\": [");
    expect(BB_ERR_CORRUPT, "model_index.json", "JSON");
}

/* ---- config.json ---- */

static void expect_config(const char *old, const char *new, bb_status status, const char *a, const char *b)
{
    char *config = get("config.json", NULL), *changed = replaced(config, old, new);
    fresh_folder();
    put_text("config.json", changed);
    if (status == BB_OK) expect_fine(new);
    else expect(status, a, b);
    free(changed);
    free(config);
}

static void test_config(void)
{
    const bb_status no = BB_ERR_UNSUPPORTED;
    expect_config("\"UNet2DModel\"", "\"UNet3DModel\"", no, "UNet3DModel", "supported: UNet2DModel");
    unlink(in_folder(WEIGHTS)); /* the class is what to say first */
    expect(no, "UNet3DModel", "supported: UNet2DModel");
    expect_config("\"_class_name\": \"UNet2DModel\",", "", no, "config.json", "_class_name");
    expect_config("\"dropout\"", "\"colour\": 3, \"dropout\"", no, "config.json", "\"colour\"");
    expect_config("\"dropout\"", "\"_colour\": 3, \"hue\": null, \"tint\": false, \"dropout\"", BB_OK, "", "");
    expect_config("\"silu\"", "\"relu\"", no, "\"act_fn\" is relu", "silu, swish, gelu, mish");
    expect_config("\"silu\"", "\"mish\"", BB_OK, "", "");
    expect_config("\"AttnDownBlock2D\"", "\"SkipDownBlock2D\"", no, "down_block_types", "SkipDownBlock2D");
    expect_config("\"AttnUpBlock2D\"", "\"ResnetUpsampleBlock2D\"", BB_ERR_CORRUPT, WEIGHTS,
                  "upsamplers.0.norm1.weight is missing");
    expect_config("\"AttnUpBlock2D\"", "\"AttnSkipUpBlock2D\"", no, "up_block_types", "AttnSkipUpBlock2D");
    expect_config("\"AttnUpBlock2D\",", "", no, "up_block_types", "as many entries");
    expect_config("\"positional\"", "\"fourier\"", no, "time_embedding_type", "fourier");
    expect_config("\"class_embed_type\": null", "\"class_embed_type\": \"identity\"", no, "class_embed_type",
                  "identity");
    expect_config("\"downsample_type\": \"conv\"", "\"downsample_type\": \"resnet\"", BB_ERR_CORRUPT, WEIGHTS,
                  "down_blocks.1.downsamplers.0.norm1.weight is missing");
    expect_config("\"upsample_type\": \"conv\"", "\"upsample_type\": \"kdown\"", no, "upsample_type", "kdown");
    expect_config("\"class_embed_type\": null", "\"class_embed_type\": \"timestep\"", BB_ERR_CORRUPT, WEIGHTS,
                  "class_embedding.linear_1.weight is missing");
    expect_config("\"sample_size\": 16", "\"sample_size\": 18", no, "sample_size", "multiple of 4");
    expect_config("\"sample_size\": 16", "\"sample_size\": [16, 24]", BB_OK, "", "");
    expect_config("\"sample_size\": 16", "\"sample_size\": null", no, "sample_size", "missing");
    expect_config("\"in_channels\": 1", "\"in_channels\": 65", no, "in_channels", "64");
    expect_config("\"act_fn\"", "\"mid_block_type\": \"UNetMidBlock2DCrossAttn\", \"act_fn\"", no, "mid_block_type",
                  "UNetMidBlock2D");
    expect_config("\"norm_eps\": 1e-05", "\"norm_eps\": \"small\"", no, "norm_eps", "number");
    expect_config("\"layers_per_block\": 1", "\"layers_per_block\": -1", no, "layers_per_block", "1 to 8");
    expect_config("\"norm_num_groups\": 16", "\"norm_num_groups\": 5", no, "norm1", "5 groups");
    expect_config("\"attention_head_dim\": 16", "\"attention_head_dim\": 512", no, "attentions.0",
                  "attention_head_dim");
    expect_config("\"freq_shift\": 0", "\"freq_shift\": 8", no, "freq_shift", "below half");
    expect_config("\"out_channels\": 1", "\"out_channels\": 2", no, "out_channels", "variance_type");
    expect_config("\"in_channels\": 1,", "\"in_channels\": 1,,", BB_ERR_CORRUPT, "config.json", "JSON");
}

/* ---- weights ---- */

/* Position of a tensor's first number in the file's bytes. */
static size_t data_of(const char *file, size_t n, const char *name)
{
    bb_st_file f;
    CHECK(bb_st_file_parse(&f, (const uint8_t *)file, n, "fixture", NULL) == BB_OK, "fixture");
    const bb_st_tensor *t = bb_safetensors_find(&f.st, name);
    size_t at = t ? (size_t)(t->data - (const uint8_t *)file) : 0;
    CHECK(t, "%s", name);
    bb_st_file_close(&f);
    return at;
}

/* Imports the case with the header's first `old` overwritten by `new` of the same length. */
static void expect_weights(const char *old, const char *new, bb_status status, const char *a, const char *b)
{
    size_t n;
    char *file = get(WEIGHTS, &n), *at = strstr(file + 8, old);
    CHECK(at && strlen(old) == strlen(new), "%s", old);
    memcpy(at, new, strlen(new));
    fresh_folder();
    unlink(in_folder(WEIGHTS));
    put(WEIGHTS, file, n);
    expect(status, a, b);
    free(file);
}

static void expect_value(float value, uint32_t dtype, bb_status status, const char *a)
{
    size_t n;
    bb_error err;
    char *file = get(WEIGHTS, &n);
    memcpy(file + data_of(file, n, "conv_out.weight") + 8, &value, 4);
    fresh_folder();
    unlink(in_folder(WEIGHTS));
    put(WEIGHTS, file, n);
    bb_status st = import(folder, dtype, NULL, NULL, &err);
    if (status == BB_OK) CHECK(st == BB_OK, "%s", err.text);
    else expect_error(&err, st, status, "conv_out.weight", a);
    free(file);
}

static void test_weights(void)
{
    size_t n;
    char *file = get(WEIGHTS, &n);
    fresh_folder();
    unlink(in_folder(WEIGHTS));
    put(WEIGHTS, file, n - 1);
    expect(BB_ERR_SHORT, WEIGHTS, "cut short");
    put(WEIGHTS, file, 0);
    expect(BB_ERR_SHORT, WEIGHTS, "0 bytes");
    free(file);
    expect_weights("\"conv_in.weight\"", "\"conv_in.weighs\"", BB_ERR_CORRUPT, "conv_in.weight is missing",
                   WEIGHTS);
    expect_weights("[16,1,3,3]", "[1,16,3,3]", BB_ERR_CORRUPT, "conv_in.weight has shape [1, 16, 3, 3]",
                   "asks for [16, 1, 3, 3]");
    expect_weights("\"dtype\":\"F32\"", "\"dtype\":\"F64\"", BB_ERR_UNSUPPORTED, "F64", "supported are F32");
    expect_config("\"num_class_embeds\": 11", "\"num_class_embeds\": null", BB_ERR_UNSUPPORTED,
                  "class_embedding.weight", "no place");
    expect_config("\"num_class_embeds\": 11", "\"num_class_embeds\": 12", BB_ERR_CORRUPT, "class_embedding.weight",
                  "asks for [12, 64]");
    expect_value(NAN, BB_F32, BB_ERR_CORRUPT, "no finite number");
    expect_value(INFINITY, BB_F16, BB_ERR_CORRUPT, "no finite number");
    expect_value(65520, BB_F16, BB_ERR_UNSUPPORTED, "--dtype f32");
    expect_value(65504, BB_F16, BB_OK, "");
    expect_value(1e30f, BB_F32, BB_OK, "");
}

/* ---- labels ---- */

static void expect_labels(const char *json, const char *null_label, bb_status status, const char *a, const char *b)
{
    bb_error err;
    char path[512];
    snprintf(path, sizeof path, "%s", in_folder("names.json"));
    if (json) put_text("names.json", json);
    bb_status st = import(folder, BB_F32, json ? path : NULL, null_label, &err);
    if (status == BB_OK) CHECK(st == BB_OK, "%s, %s: %s", json, null_label, err.text);
    else expect_error(&err, st, status, a, b);
}

static void test_labels(void)
{
#define TEN "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\"]"
    const bb_status no = BB_ERR_LABEL, bad = BB_ERR_CORRUPT; /* an option; the contents of a file */
    fresh_folder();
    expect_labels("{\"null\": 10, \"names\": " TEN "}", NULL, BB_OK, "", "");
    expect_labels("{\"null\": 10, \"names\": " TEN "}", "none", BB_OK, "", "");
    expect_labels("{\"names\": " TEN "}", "10", BB_OK, "", "");
    expect_labels(NULL, "3", BB_OK, "", "");
    expect_labels("{\"names\": " TEN "}", NULL, bad, "names.json", "10 names for 11 classes");
    expect_labels("{\"null\": 3, \"names\": " TEN "}", NULL, bad, "names.json", "10 names for 11 classes");
    expect_labels("{\"null\": 10, \"names\": [\"a\"]}", NULL, bad, "names.json", "1 names for 11 classes");
    expect_labels("{\"null\": 11, \"names\": " TEN "}", NULL, no, "names.json: \"null\"", "0 to 10");
    expect_labels("{\"null\": \"x\", \"names\": " TEN "}", NULL, bad, "names.json", "number of a class");
    expect_labels("{\"null\": 10, \"names\": [1,2,3,4,5,6,7,8,9,10]}", NULL, bad, "names.json", "string");
    expect_labels("{\"null\": 10}", NULL, bad, "names.json", "names");
    expect_labels("{\"nul\": 10, \"names\": " TEN "}", NULL, bad, "names.json", "\"nul\"");
    expect_labels("{\"null\": 10, ", NULL, BB_ERR_CORRUPT, "names.json", "JSON");
    expect_labels(NULL, "11", no, "--null-label 11", "0 to 10");
    expect_labels(NULL, "-1", no, "--null-label -1", "none");
    expect_labels(NULL, "1x", no, "--null-label 1x", "none");
    put_text("labels.json", "{\"names\": [\"a\"]}");
    expect_labels(NULL, NULL, bad, "labels.json", "1 names"); /* the default file is read */
    bb_error err;
    bb_status st = import(BB_TESTS_DIR "/golden/unet2d-ddpm", BB_F32, in_folder("labels.json"), NULL, &err);
    expect_error(&err, st, no, "labels.json", "no classes");
    st = import(BB_TESTS_DIR "/golden/unet2d-ddpm", BB_F32, NULL, "0", &err);
    expect_error(&err, st, no, "--null-label 0", "no classes");
    st = import(folder, BB_F32, "/nowhere/labels.json", NULL, &err);
    expect_error(&err, st, BB_ERR_ARGUMENT, "/nowhere/labels.json", "No such file");
#undef TEN
}

/* ---- what comes out ---- */

static void expect_metadata(const bb_pack *pack, const char *key, const char *value)
{
    char text[512] = "";
    bool there = bb_pack_metadata(pack, key, text, sizeof text);
    CHECK(value ? there && !strcmp(text, value) : !there, "%s is \"%s\"", key, text);
}

static void test_facts(void)
{
    bb_error err = {.text = ""};
    uint8_t *file = NULL;
    size_t n = 0;
    bb_import_options opt = {.path = BB_MODELS_DIR "/fashion/", .dtype = BB_F16, .command = "a \"command\""};
    CHECK(bb_import(&opt, &file, &n, &err) == BB_OK, "%s", err.text);
    if (!file) return;
    bb_info info;
    bb_pack pack;
    void *scratch = malloc(BB_PROBE_SCRATCH(n));
    CHECK(bb_pack_probe(file, n, scratch, BB_PROBE_SCRATCH(n), &info, &err) == BB_OK, "%s", err.text);
    void *memory = malloc((size_t)info.model_bytes);
    bb_arena arena = bb_arena_init(memory, (size_t)info.model_bytes);
    CHECK(bb_pack_read(&pack, file, n, &arena, &err) == BB_OK, "%s", err.text);
    CHECK(pack.info.width == 32 && pack.info.height == 32 && pack.info.channels == 1, "size");
    CHECK(pack.info.classes == 11 && pack.info.null_label == 10 && pack.info.train_steps == 1000, "classes");
    CHECK(pack.info.bits_milli == 16000, "%u bits", pack.info.bits_milli);
    expect_metadata(&pack, "architecture", "UNet2DModel");
    expect_metadata(&pack, "labels", "[\"T-shirt/top\",\"Trouser\",\"Pullover\",\"Dress\",\"Coat\",\"Sandal\","
                    "\"Shirt\",\"Sneaker\",\"Bag\",\"Ankle boot\"]");
    expect_metadata(&pack, "licence", "mit");
    expect_metadata(&pack, "source", "fashion");
    expect_metadata(&pack, "source_sha256", "dafdef921f60e00a1de78d2119ad7cb4a84eea026875ef941206045ea81aa1da");
    expect_metadata(&pack, "command", "a \"command\"");
    free(scratch);
    free(memory);
    free(file);
}

/* Every module is named where its output is made, and rates follow the inputs. */
static void test_graph(void)
{
    bb_error err = {.text = ""};
    bb_json_file file;
    CHECK(bb_json_file_open(&file, CASE "/config.json", &err) == BB_OK, "%s", err.text);
    bb_config c = bb_config_init(&file.json, 0, "config.json", "UNet2DModel", &err);
    bb_builder b;
    bb_unet2d_facts facts;
    bb_builder_init(&b, "denoiser", &err);
    CHECK(bb_unet2d_build(&b, &c, &facts) == BB_OK && bb_builder_finish(&b) == BB_OK, "%s", err.text);
    CHECK(bb_graph_check(&b.graph, &err) == BB_OK, "%s", err.text);
    static const struct { const char *path; uint32_t rate; } values[] = {
        {"time_proj", BB_RATE_STEP},
        {"time_embedding\ntime_embedding.linear_2", BB_RATE_STEP},
        {"class_embedding", BB_RATE_PROMPT},
        {"conv_in", BB_RATE_SAMPLE},
        {"down_blocks.0\ndown_blocks.0.downsamplers.0\ndown_blocks.0.downsamplers.0.conv", BB_RATE_SAMPLE},
        {"mid_block.attentions.0", BB_RATE_SAMPLE},
        {"mid_block\nmid_block.resnets.1", BB_RATE_SAMPLE},
        {"up_blocks.1.attentions.1.to_q", BB_RATE_SAMPLE},
        {"conv_out", BB_RATE_SAMPLE},
    };
    for (size_t i = 0; i < BB_COUNT(values); i++) {
        uint32_t found = 0;
        for (uint32_t v = 0; v < b.graph.n_values; v++) {
            if (strcmp(bb_graph_string(&b.graph, b.graph.values[v].path), values[i].path) != 0) continue;
            found++;
            CHECK(b.graph.values[v].rate == values[i].rate, "%s: rate %u", values[i].path, b.graph.values[v].rate);
        }
        CHECK(found == 1, "%s: %u times", values[i].path, found);
    }
    bb_builder_free(&b);
    bb_json_file_close(&file);
}

int main(void)
{
    static void (*const tests[])(void) = {test_folders, test_config, test_weights, test_labels, test_facts, test_graph};
    return run_in_folder(tests, BB_COUNT(tests));
}
