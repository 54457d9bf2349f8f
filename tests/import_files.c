/* The same weights in other files import to the same model: parts, old names, wrappers, the schedulers and folders of
 * early releases, shards. */
#include "importcase.h"

/* ---- other files with the same weights ---- */

#define SMALL BB_TESTS_DIR "/golden/unet2d-noattn"

/* What the import makes, from the data part on: the header differs by the source's name. malloc'd. */
static uint8_t *imported(const char *path, size_t *n)
{
    bb_error err = {.text = ""};
    uint8_t *out = NULL;
    uint64_t header = 0;
    bb_import_options opt = {.path = path, .dtype = BB_F32};
    CHECK(bb_import(&opt, &out, n, &err) == BB_OK, "%s", err.text);
    if (!out) return NULL;
    memcpy(&header, out, 8);
    *n -= 8 + (size_t)header;
    memmove(out, out + 8 + header, *n);
    return out;
}

/* The folder gives what the small case gives. */
static void expect_same(const char *what)
{
    size_t n = 0, m = 0;
    uint8_t *a = imported(SMALL, &n), *b = imported(folder, &m);
    CHECK(a && b && n == m && !memcmp(a, b, n), "%s: another model", what);
    free(a);
    free(b);
}

static void link_file(const char *from, const char *name)
{
    CHECK(symlink(from, in_folder(name)) == 0, "%s", name);
}

static void small_folder(void)
{
    clear_folder();
    link_file(SMALL "/config.json", "config.json");
}

/* Tensors first to last−1 of the small case as a file of their own, named by `rename`; with a copy of the first if
 * asked for. */
static void put_part(const char *name, size_t first, size_t last, void (*rename)(char *), bool twice)
{
    bb_st_file f;
    bb_st_out list[128];
    char names[128][96];
    float *data[128];
    uint8_t *bytes = NULL;
    size_t size = 0, n = 0;
    bb_error err = {.text = ""};
    CHECK(bb_st_file_open(&f, SMALL "/" WEIGHTS, &err) == BB_OK, "%s", err.text);
    CHECK(f.st.n < 127, "%zu tensors", f.st.n);
    for (size_t i = first; i < (last < f.st.n ? last : f.st.n); i++, n++) {
        const bb_st_tensor *t = &f.st.tensors[i];
        data[n] = malloc(t->count * sizeof *data[n]);
        bb_st_to_f32(t, data[n]);
        snprintf(names[n], sizeof names[n], "%s", t->name);
        if (rename) rename(names[n]);
        list[n] = (bb_st_out){.name = names[n], .rank = t->rank, .data = data[n]};
        for (uint32_t d = 0; d < t->rank; d++) list[n].shape[d] = (uint32_t)t->shape[d];
    }
    if (twice) {
        list[n] = list[0];
        list[n].name = "conv_out.op.weight";
    }
    CHECK(bb_safetensors_write(list, n + twice, &bytes, &size, &err) == BB_OK, "%s", err.text);
    put(name, bytes, size);
    for (size_t i = 0; i < n; i++) free(data[i]);
    free(bytes);
    bb_st_file_close(&f);
}

static void swap_begin(char *name, const char *now, const char *old)
{
    char rest[96];
    if (strncmp(name, now, strlen(now)) != 0) return;
    snprintf(rest, sizeof rest, "%s", name + strlen(now));
    snprintf(name, 96, "%.20s%.75s", old, rest);
}

static void old_names(char *name)
{
    swap_begin(name, "mid_block.", "mid.");
    swap_begin(name, "down_blocks.", "downsample_blocks.");
    swap_begin(name, "up_blocks.", "upsample_blocks.");
}

static void inside_module(char *name) { swap_begin(name, "", "module."); }

static const char small_old_config[] =
    "{\"_class_name\": \"UNetUnconditionalModel\", \"image_size\": 8, \"in_channels\": 1, \"out_channels\": 1,"
    "\"block_channels\": [8], \"down_blocks\": [\"UNetResDownBlock2D\"], \"up_blocks\": [\"UNetResUpBlock2D\"],"
    "\"num_res_blocks\": 2, \"add_attention\": false, \"resnet_num_groups\": 2, \"mid_block_scale_factor\": 0.5,"
    "\"downscale_freq_shift\": 0, \"resnet_eps\": 1e-5, \"resnet_act_fn\": \"silu\", \"num_head_channels\": null,"
    "\"flip_sin_to_cos\": false, \"decay\": 0.9999, \"optimization_step\": 7}";

static void test_other_files(void)
{
    small_folder();
    link_file(BB_TESTS_DIR "/fixtures/torch/noattn.bin", "diffusion_pytorch_model.bin");
    expect_same("a .bin of PyTorch");
    small_folder();
    link_file(BB_TESTS_DIR "/fixtures/torch/noattn.bin", "model.pth");
    expect_same("a .pth of PyTorch");
    small_folder();
    link_file(SMALL "/" WEIGHTS, "diffusion_pytorch_model.fp16.safetensors");
    expect_same("a variant");
    link_file(SMALL "/config.json", "diffusion_pytorch_model.bin"); /* nonsense, but second choice is not looked at */
    expect(BB_ERR_CORRUPT, "diffusion_pytorch_model.bin", "no zip archive"); /* without variant goes first */
    small_folder();
    put_part(WEIGHTS, 0, 128, inside_module, false);
    expect_same("names inside a module");
    clear_folder();
    put_text("config.json", small_old_config);
    put_part(WEIGHTS, 0, 128, old_names, false);
    expect_same("names from before diffusers 0.1");
    put_text("model_index.json", "{\"_class_name\": \"DDPMPipeline\", \"_diffusers_version\": \"0.0.4\","
             "\"scheduler\": [\"diffusers\", \"DDPMScheduler\"], \"unet\": [\"diffusers\", \"UNet2DModel\"]}");
    expect_same("a pipeline in one folder");
    put_part(WEIGHTS, 0, 128, old_names, true);
    expect(BB_ERR_UNSUPPORTED, "conv_out.op.weight", "no place"); /* conv_in's numbers: no copy of conv_out's */
}

/* ---- schedulers of early releases ---- */

static void expect_scheduler(const char *json, bb_status status, const char *a)
{
    bb_error err;
    put_text("scheduler_config.json", json);
    bb_status st = import(folder, BB_F32, NULL, NULL, &err);
    if (status == BB_OK) CHECK(st == BB_OK, "%s: %s", json, err.text);
    else expect_error(&err, st, status, "scheduler_config.json", a);
}

static void test_old_schedulers(void)
{
    const char *betas = "\"beta_start\": 0.0001, \"beta_end\": 0.02, \"beta_schedule\": \"linear\", "
                        "\"trained_betas\": null, \"timestep_values\": null, \"clip_sample\": true";
    char json[512];
    small_folder();
    link_file(SMALL "/" WEIGHTS, WEIGHTS);
    snprintf(json, sizeof json, "{\"_class_name\": \"DDPMScheduler\", \"_diffusers_version\": \"0.0.4\", %s, "
             "\"timesteps\": 1000, \"tensor_format\": \"np\", \"variance_type\": \"fixed_small\"}", betas);
    expect_scheduler(json, BB_OK, "");
    expect_same("a scheduler of diffusers 0.0.4"); /* the defaults */
    snprintf(json, sizeof json, "{\"_class_name\": \"DDIMScheduler\", %s, \"tensor_format\": \"pt\"}", betas);
    expect_scheduler(json, BB_OK, "");
    snprintf(json, sizeof json, "{\"_class_name\": \"PNDMScheduler\", %s, \"timesteps\": 500}", betas);
    expect_scheduler(json, BB_OK, "");
    expect_scheduler("{\"_class_name\": \"DDPMScheduler\", \"timesteps\": \"many\"}", BB_ERR_UNSUPPORTED,
                     "num_train_timesteps");
    expect_scheduler("{\"_class_name\": \"ScoreSdeVeScheduler\"}", BB_ERR_UNSUPPORTED, "ScoreSdeVeScheduler");
}

/* ---- shards ---- */

#define INDEX "diffusion_pytorch_model.safetensors.index.json"

/* An index of the small case with its tensors in a.safetensors and b.safetensors, the first `split` in a. Text `old` is
 * replaced by `new` if given. */
static void put_index(size_t split, const char *old, const char *new)
{
    bb_st_file f;
    bb_error err = {.text = ""};
    char *text = calloc(1, 1 << 16), *changed;
    CHECK(bb_st_file_open(&f, SMALL "/" WEIGHTS, &err) == BB_OK, "%s", err.text);
    size_t n = (size_t)sprintf(text, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (size_t i = 0; i < f.st.n; i++) {
        n += (size_t)sprintf(text + n, "%s\"%s\": \"%s.safetensors\"", i ? ", " : "", f.st.tensors[i].name,
                             i < split ? "a" : "b");
    }
    strcpy(text + n, "}}");
    changed = old ? replaced(text, old, new) : text;
    put_text(INDEX, changed);
    if (old) free(changed);
    free(text);
    bb_st_file_close(&f);
}

static void expect_index(const char *old, const char *new, bb_status status, const char *a)
{
    put_index(20, old, new);
    expect(status, INDEX, a);
}

/* All tensors in one shard of PyTorch's. */
static void test_torch_shard(void)
{
    bb_file f;
    small_folder();
    put_index(128, NULL, NULL);
    CHECK(bb_file_open(&f, in_folder(INDEX), NULL) == BB_OK, "index");
    char *text = calloc(1, f.size + 1);
    memcpy(text, f.data, f.size);
    bb_file_close(&f);
    for (char *at; (at = strstr(text, "a.safetensors"));) memcpy(at, "torch_123.bin", 13);
    put_text("diffusion_pytorch_model.bin.index.json", text);
    unlink(in_folder(INDEX));
    link_file(BB_TESTS_DIR "/fixtures/torch/noattn.bin", "torch_123.bin");
    expect_same("a shard of PyTorch");
    free(text);
}

static void test_shards(void)
{
    const bb_status bad = BB_ERR_CORRUPT;
    small_folder();
    put_part("a.safetensors", 0, 20, NULL, false);
    put_part("b.safetensors", 20, 128, NULL, false);
    put_index(20, NULL, NULL);
    expect_same("two shards");
    expect_index("\"a.safetensors\"", "\"../a.safetensors\"", bad, "../a.safetensors: must be");
    expect_index("\"a.safetensors\"", "\"/etc/a.safetensors\"", bad, "same folder");
    expect_index("\"a.safetensors\"", "\"a.bin\"", bad, "must be a .safetensors file");
    expect_index("\"a.safetensors\"", "\"..\\\\a.safetensors\"", bad, "must be");
    expect_index("\"a.safetensors\"", "7", bad, "must name a file");
    expect_index("\"a.safetensors\"", "\"c.safetensors\"", BB_ERR_ARGUMENT, "c.safetensors is missing");
    expect_index("\"a.safetensors\"", "\"b.safetensors\"", bad, "is in a.safetensors, but weight_map says b");
    expect_index("\"weight_map\": {", "\"weight_map\": {\"x.weight\": \"a.safetensors\", ", bad,
                 "x.weight is not in a.safetensors");
    expect_index("\"weight_map\": {", "\"weight_map\": {\"conv_in.bias\": \"b.safetensors\", ", bad, "twice");
    expect_index("\"weight_map\"", "\"weight\"", bad, "no weight_map");
    expect_index("\"metadata\"", "metadata", bad, "JSON");
    small_folder();
    put_part("a.safetensors", 0, 20, NULL, false);
    put_part("b.safetensors", 19, 128, NULL, false); /* one tensor in both */
    put_index(20, NULL, NULL);
    expect(bad, INDEX, "weight_map says a.safetensors");
}

int main(void)
{
    static void (*const tests[])(void) = {test_other_files, test_old_schedulers, test_shards, test_torch_shard};
    return run_in_folder(tests, BB_COUNT(tests));
}
