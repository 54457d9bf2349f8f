/* LoRA fold-in: networks with a LoRA against PyTorch (peft merged, kohya's unmerged; tests/fixtures/make_lora.py), the
 * merged weights, every way of naming the same numbers, what is refused, and the way through the maker. */
#include "check.h"

#include "api/model.h"
#include "import/import.h"
#include "import/safetensors.h"
#include "make.h"

#define FOLDER BB_TESTS_DIR "/golden/unet2d-class"
#define PEFT BB_TESTS_DIR "/golden/lora-peft/adapter_model.safetensors"
#define KOHYA BB_TESTS_DIR "/golden/lora-kohya/lora.safetensors"

/* As in tests/parity.c: the references are f32 sums themselves. */
#define TOLERANCE 2e-5
/* PyTorch adds W and the product, each rounded to f32: the product of rank ≤ 3 has at most 4 roundings, the sum one,
 * and neither term is above 3 times the largest result: 5·3·6e-8. */
#define MERGED 9e-7

typedef struct model {
    uint8_t *blob;
    size_t n;
    void *memory;
    bb_model *m;
    bb_blocks blocks;
} model;

static void *block(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

static model open_bytes(uint8_t *blob, size_t n)
{
    model m = {.blob = blob, .n = n, .blocks.memory = bb_tools_memory};
    bb_error err = {.text = ""};
    bb_info info;
    void *scratch = malloc(BB_PROBE_SCRATCH(n));
    bb_status st = bb_probe(blob, n, scratch, BB_PROBE_SCRATCH(n), &info, &err);
    free(scratch);
    m.memory = block(info.model_bytes);
    if (st == BB_OK) st = bb_model_init(blob, n, m.memory, info.model_bytes, &m.m, &err);
    CHECK(st == BB_OK, "%s", err.text);
    return m;
}

static model open_model(uint32_t dtype, const char *lora)
{
    uint8_t *blob = NULL;
    size_t n = 0;
    bb_error err = {.text = ""};
    bb_import_options opt = {.path = FOLDER, .dtype = dtype};
    if (lora) opt.lora = (bb_list){.item = {lora}, .n = 1};
    CHECK(bb_import(&opt, &blob, &n, &err) == BB_OK, "%s", err.text);
    return open_bytes(blob, n);
}

static void close_model(model *m)
{
    bb_blocks_give(&m->blocks, NULL);
    free(m->memory);
    free(m->blob);
}

/* ---- the network ---- */

static float *channels_last(const bb_st_tensor *t)
{
    float *x = malloc(t->count * sizeof *x + 1), *y = malloc(t->count * sizeof *y + 1);
    bb_st_to_f32(t, x);
    size_t n = (size_t)t->shape[0], c = t->rank == 4 ? (size_t)t->shape[1] : 1, pixels = n && c ? t->count / n / c : 0;
    for (size_t i = 0; i < t->count; i++) y[(i / c / pixels * pixels + i % pixels) * c + i / pixels % c] = x[i];
    free(x);
    return y;
}

static void give(bb_session *s, const bb_safetensors *in, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "in.%s", name);
    const bb_st_tensor *t = bb_safetensors_find(in, full);
    float *x = channels_last(t);
    CHECK(bb_input(s, name, x, t->count) == BB_OK, "%s", name);
    free(x);
}

static double network_error(const model *m, const char *golden)
{
    bb_st_file in, out;
    bb_error err = {.text = ""};
    bb_session *s = NULL;
    size_t bytes = 0;
    const float *y;
    uint32_t shape[4];
    CHECK(bb_st_file_open(&in, FOLDER "/golden.safetensors", &err) == BB_OK, "%s", err.text);
    CHECK(bb_st_file_open(&out, golden, &err) == BB_OK, "%s", err.text);
    const bb_st_tensor *x = bb_safetensors_find(&in.st, "in.sample"), *ref = bb_safetensors_find(&out.st, "out.sample");
    bb_request req = {.size_of = sizeof req, .batch = (uint32_t)x->shape[0], .height = (uint32_t)x->shape[2],
                      .width = (uint32_t)x->shape[3]};
    CHECK(bb_session_size(m->m, &req, &bytes, &err) == BB_OK, "%s", err.text);
    void *workspace = block(bytes);
    CHECK(bb_session_init(m->m, &req, workspace, bytes, &s, &err) == BB_OK, "%s", err.text);
    CHECK(bb_begin(s, NULL, NULL) == BB_OK, "begin");
    give(s, &in.st, "sample");
    give(s, &in.st, "timestep");
    give(s, &in.st, "class_labels");
    CHECK(bb_step(s, 0) == BB_DONE && bb_output(s, "sample", &y, shape) == BB_OK, "step");
    float *want = channels_last(ref);
    double e = check_error(y, want, ref->count);
    free(want);
    free(workspace);
    bb_st_file_close(&in);
    bb_st_file_close(&out);
    return e;
}

static void test_network(const char *lora, const char *golden)
{
    bb_error err = {.text = ""};
    model m = open_model(BB_F32, NULL), with = open_model(BB_F32, lora);
    double without = network_error(&m, golden);
    CHECK(without > 0.01, "%s: the LoRA changes only %.1e", lora, without);
    CHECK(bb_lora_fold_list(m.m, &(bb_list){.item = {lora}, .n = 1}, &m.blocks, &err) == BB_OK, "%s", err.text);
    double e = network_error(&m, golden), f = network_error(&with, golden);
    CHECK(e <= TOLERANCE, "%s: %.2e", lora, e);
    CHECK(e == f, "%s: folding in import gives another network", lora);
    printf("%s: %.1e (without it %.1e)\n", strrchr(lora, '/') + 1, e, without);
    close_model(&m);
    close_model(&with);
}

/* ---- the weights ---- */

static uint32_t find_slot(const bb_graph *g, const char *name)
{
    for (uint32_t i = 0; i < g->n_weights; i++) {
        if (!strcmp(bb_graph_string(g, g->weights[i].name), name)) return i;
    }
    CHECK(false, "no slot %s", name);
    return 0;
}

/* A weight in the checkpoint's order. */
static float *natural(const bb_pack *p, uint32_t slot, size_t *count)
{
    const bb_weight_slot *s = &p->graph.weights[slot];
    const bb_weight *w = &p->weights[slot];
    size_t taps = s->rank == 4 ? (size_t)s->dim[2] * s->dim[3] : 1, ins = s->dim[1], outs = s->dim[0];
    float *x = malloc(outs * ins * taps * sizeof *x);
    for (size_t o = 0; o < outs; o++) {
        for (size_t k = 0; k < ins * taps; k++) {
            x[o * ins * taps + k] = w->f32[(k % taps * ins + k / taps) * w->stride + o];
        }
    }
    *count = outs * ins * taps;
    return x;
}

static void test_merged(void)
{
    bb_error err = {.text = ""};
    bb_st_file golden;
    model m = open_model(BB_F32, PEFT);
    CHECK(bb_st_file_open(&golden, BB_TESTS_DIR "/golden/lora-peft/golden.safetensors", &err) == BB_OK, "%s", err.text);
    for (size_t i = 0; i < golden.st.n; i++) {
        const bb_st_tensor *t = &golden.st.tensors[i];
        if (strncmp(t->name, "w.", 2)) continue;
        size_t n;
        float *x = natural(&m.m->pack, find_slot(&m.m->pack.graph, t->name + 2), &n), *ref = malloc(t->bytes);
        bb_st_to_f32(t, ref);
        double e = n == t->count ? check_error(x, ref, n) : INFINITY;
        CHECK(e <= MERGED, "%s: %.2e", t->name, e);
        free(x);
        free(ref);
    }
    bb_st_file_close(&golden);
    close_model(&m);
}

/* ---- the same numbers under other names ---- */

typedef struct named {
    bb_st_out list[128];
    char names[128][200];
    float *data[128];
    size_t n;
} named;

static void replace(char *s, const char *from, const char *to)
{
    char *at = strstr(s, from), rest[200];
    if (!at) return;
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    snprintf(at, 200 - (size_t)(at - s), "%s%s", to, rest);
}

static void read_named(named *x)
{
    bb_st_file f;
    bb_error err = {.text = ""};
    CHECK(bb_st_file_open(&f, PEFT, &err) == BB_OK, "%s", err.text);
    *x = (named){.n = f.st.n};
    for (size_t i = 0; i < f.st.n; i++) {
        const bb_st_tensor *t = &f.st.tensors[i];
        x->data[i] = malloc(t->count * sizeof(float));
        bb_st_to_f32(t, x->data[i]);
        snprintf(x->names[i], sizeof x->names[i], "%s", t->name);
        x->list[i] = (bb_st_out){.name = x->names[i], .rank = t->rank, .data = x->data[i]};
        for (uint32_t d = 0; d < t->rank; d++) x->list[i].shape[d] = (uint32_t)t->shape[d];
    }
    bb_st_file_close(&f);
}

static void free_named(named *x)
{
    for (size_t i = 0; i < x->n; i++) free(x->data[i]);
}

/* Folds the list; the configuration is peft's of the fixture, or the text given. */
static bb_status fold(const model *m, const named *x, const char *config, bb_weight *weights, bb_blocks *blocks,
                      bb_lora_report *report, bb_error *err)
{
    uint8_t *bytes = NULL;
    bb_file own = {0};
    bb_lora_file file = {.name = "x.safetensors", .scale = 1, .config = config};
    *err = (bb_error){.text = ""};
    CHECK(bb_safetensors_write(x->list, x->n, &bytes, &file.bytes, err) == BB_OK, "%s", err->text);
    file.data = bytes;
    if (!config)
        CHECK(bb_file_open(&own, BB_TESTS_DIR "/golden/lora-peft/adapter_config.json", err) == BB_OK, "%s", err->text);
    if (!config) file.config = (const char *)own.data;
    file.config_bytes = config ? strlen(config) : own.size;
    memcpy(weights, m->m->pack.weights, m->m->pack.graph.n_weights * sizeof *weights);
    bb_status st = bb_lora_fold(&m->m->pack, weights, &file, blocks, report, err);
    bb_file_close(&own);
    free(bytes);
    return st;
}

static void rename_all(named *x, int how)
{
    for (size_t i = 0; i < x->n; i++) {
        char *s = x->names[i];
        bb_st_out *t = &x->list[i];
        bool attention = strstr(s, ".to_") != NULL;
        switch (how) {
        case 0: replace(s, "base_model.model.", "unet."); break;
        case 1: replace(s, "base_model.model.", ""); break;
        case 2: replace(s, "_A.weight", "_A.default.weight"), replace(s, "_B.weight", "_B.default.weight"); break;
        case 3:
            replace(s, "base_model.model.", "unet.");
            replace(s, "lora_A", "lora.down"), replace(s, "lora_B", "lora.up");
            break;
        case 4: /* attention processors, and the old names of their layers */
            replace(s, "base_model.model.", attention ? "unet." : "");
            if (attention) replace(s, ".lora_A", "_lora.down"), replace(s, ".lora_B", "_lora.up");
            if (attention) replace(s, ".to_out.0", ".to_out"), replace(s, ".to_", ".processor.to_");
            break;
        case 5:
            replace(s, ".to_q", ".query"), replace(s, ".to_v", ".value"), replace(s, ".to_out.0", ".proj_attn");
            break;
        case 6: /* kohya, with old names, and matrices for convolutions and the reverse */
            replace(s, "base_model.model.", "lora_unet_");
            replace(s, "lora_A", "lora_down"), replace(s, "lora_B", "lora_up");
            replace(s, ".to_q", "_query"), replace(s, ".to_out.0", "_proj_attn");
            for (char *c = s, *end = strstr(s, ".lora_"); c < end; c++) *c = *c == '.' ? '_' : *c;
            if (t->rank == 2) t->rank = 4, t->shape[2] = t->shape[3] = 1;
            else if (t->shape[2] == 1) t->rank = 2;
            break;
        case 7: replace(s, "lora_A", "lora_linear_layer.down"), replace(s, "lora_B", "lora_linear_layer.up"); break;
        default: break;
        }
    }
}

/* All matrices of convolutions and linear layers; a table has its rows in another order, and no LoRA. */
static bool same_weights(const bb_pack *p, const bb_weight *a, const bb_weight *b)
{
    for (uint32_t i = 0; i < p->graph.n_weights; i++) {
        const bb_weight_slot *s = &p->graph.weights[i];
        size_t taps = s->rank == 4 ? (size_t)s->dim[2] * s->dim[3] : 1, n = a[i].stride * s->dim[1] * taps;
        if (s->rank == 1 || !strcmp(bb_graph_string(&p->graph, s->name), "class_embedding.weight")) continue;
        if (a[i].stride != b[i].stride || memcmp(a[i].f32, b[i].f32, n * sizeof(float))) return false;
    }
    return true;
}

static void test_names(void)
{
    model m = open_model(BB_F32, NULL), want = open_model(BB_F32, PEFT);
    uint32_t n = m.m->pack.graph.n_weights;
    bb_weight *weights = malloc(n * sizeof *weights);
    CHECK(!same_weights(&m.m->pack, m.m->pack.weights, want.m->pack.weights), "the comparison sees no change");
    for (int how = 0; how <= 8; how++) {
        named x;
        bb_error err;
        bb_lora_report report = {0};
        read_named(&x);
        rename_all(&x, how);
        bb_status st = fold(&m, &x, NULL, weights, &m.blocks, &report, &err);
        CHECK(st == BB_OK, "names %d: %s", how, err.text);
        CHECK(report.layers == x.n / 2 && !report.skipped, "names %d: %u layers", how, report.layers);
        if (st == BB_OK) CHECK(same_weights(&m.m->pack, weights, want.m->pack.weights), "names %d: other weights", how);
        bb_blocks_give(&m.blocks, NULL);
        free_named(&x);
    }
    free(weights);
    close_model(&m);
    close_model(&want);
}

/* ---- factors ---- */

/* The file with a text in its metadata; frees the old bytes. */
static uint8_t *with_metadata(uint8_t *file, size_t *n, const char *key, const char *value)
{
    uint64_t header;
    char text[1024], *end = text + sprintf(text, "{\"__metadata__\":{\"%s\":\"", key);
    memcpy(&header, file, 8);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\') *end++ = '\\';
        *end++ = *value;
    }
    end += sprintf(end, "\"},");
    size_t more = (size_t)(end - text) - 1; /* the header's own '{' goes */
    uint8_t *out = malloc(*n + more);
    memcpy(out + 8, text, more + 1);
    memcpy(out + 8 + more + 1, file + 9, *n - 9);
    header += more;
    memcpy(out, &header, 8);
    *n += more;
    free(file);
    return out;
}

/* What one number of W becomes: W + scale·B·A, rank 1. A config that begins with '@' goes into the file. */
static float one_number(const model *m, const char *config, const float *alpha, float scale, bb_status *st,
                        bb_error *err)
{
    static float a[16], b[16];
    a[0] = 2, b[0] = 0.5f; /* product 1 at [0][0] */
    const bb_st_out list[] = {{"down_blocks.1.attentions.0.to_q.lora_A.weight", 2, {1, 16}, a, 0},
                              {"down_blocks.1.attentions.0.to_q.lora_B.weight", 2, {16, 1}, b, 0},
                              {"down_blocks.1.attentions.0.to_q.alpha", 0, {0}, alpha, 0}};
    bb_lora_file file = {.name = "one", .scale = scale, .config = config, .config_bytes = config ? strlen(config) : 0};
    const bb_pack *p = &m->m->pack;
    uint8_t *bytes = NULL;
    bb_weight weights[256];
    bb_blocks blocks = {.memory = bb_tools_memory};
    uint32_t slot = find_slot(&p->graph, "down_blocks.1.attentions.0.to_q.weight");
    memcpy(weights, p->weights, p->graph.n_weights * sizeof *weights);
    CHECK(bb_safetensors_write(list, alpha ? 3 : 2, &bytes, &file.bytes, err) == BB_OK, "write");
    if (config && *config == '@') {
        bytes = with_metadata(bytes, &file.bytes, "lora_adapter_metadata", config + 1);
        file.config = NULL;
    }
    file.data = bytes;
    *st = bb_lora_fold(p, weights, &file, &blocks, NULL, err);
    float change = weights[slot].f32[0] - p->weights[slot].f32[0];
    bb_blocks_give(&blocks, NULL);
    free(bytes);
    return change;
}

static void test_factors(void)
{
    static const float three = 3, infinite = INFINITY, huge = 3e38f;
    static const struct {
        const char *config; const float *alpha; float scale; bb_status status; double change;
    } cases[] = {
        {NULL, NULL, 1, BB_OK, 1},
        {NULL, NULL, -0.5f, BB_OK, -0.5},
        {NULL, &three, 2, BB_OK, 6},
        {"{\"r\":1,\"lora_alpha\":8}", NULL, 1, BB_OK, 8},
        {"{\"r\":1,\"lora_alpha\":0.125,\"use_rslora\":true}", NULL, 1, BB_OK, 0.125},
        {"{\"r\":1,\"lora_alpha\":8}", &three, 1, BB_OK, 3}, /* the file's own alpha counts */
        {"{\"r\":4,\"lora_alpha\":16,\"rank_pattern\":{\"to_q\":1}}", NULL, 1, BB_OK, 16},
        {"{\"r\":1,\"lora_alpha\":2,\"alpha_pattern\":{\"o_q\":4}}", NULL, 1, BB_OK, 2}, /* not at a '.' */
        {"{\"r\":1,\"lora_alpha\":2,\"alpha_pattern\":{\"^to_q\":4,\"attentions\\\\.0\\\\.to_q\":5}}", NULL, 1, BB_OK,
         5},
        {"{\"unet.r\":1,\"unet.lora_alpha\":7}", NULL, 1, BB_OK, 7},
        {"@{\"unet.r\":1,\"unet.lora_alpha\":7,\"unet.alpha_pattern\":{\"to_q\":5}}", NULL, 1, BB_OK, 5},
        {"@{\"text_encoder.r\":4,\"text_encoder.lora_alpha\":8}", NULL, 1, BB_OK, 1},
        {"@{\"unet.r\":1}", NULL, 1, BB_ERR_CORRUPT, 0},
        {"@not JSON", NULL, 1, BB_ERR_CORRUPT, 0},
        {"{}", NULL, 1, BB_ERR_CORRUPT, 0},
        {"{\"r\":4,\"lora_alpha\":16}", NULL, 1, BB_ERR_CORRUPT, 0},
        {"{\"r\":1,\"lora_alpha\":2,\"alpha_pattern\":{\"to_(q|k)\":4}}", NULL, 1, BB_ERR_UNSUPPORTED, 0},
        {"{\"r\":1,\"lora_alpha\":2,\"use_dora\":true}", NULL, 1, BB_ERR_UNSUPPORTED, 0},
        {"{\"r\":1,\"lora_alpha\":2,\"init_lora_weights\":\"pissa_niter_4\"}", NULL, 1, BB_ERR_UNSUPPORTED, 0},
        {"{\"peft_type\":\"LOHA\",\"r\":1,\"alpha\":2}", NULL, 1, BB_ERR_UNSUPPORTED, 0},
        {"{\"r\":1,\"lora_alpha\":\"2\"}", NULL, 1, BB_ERR_CORRUPT, 0},
        {"{\"r\":1,\"lora_alpha\":2", NULL, 1, BB_ERR_CORRUPT, 0},
        {"[]", NULL, 1, BB_ERR_CORRUPT, 0},
        {NULL, &infinite, 1, BB_ERR_CORRUPT, 0},
        {NULL, &huge, 2, BB_ERR_UNSUPPORTED, 0},
        {NULL, NULL, INFINITY, BB_ERR_OPTION, 0},
    };
    model m = open_model(BB_F32, NULL);
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        bb_status st;
        bb_error err = {.text = ""};
        float change = one_number(&m, cases[i].config, cases[i].alpha, cases[i].scale, &st, &err);
        CHECK(st == cases[i].status, "%zu: status %d: %s", i, st, err.text);
        if (st != BB_OK) continue;
        /* W is below 16: the sum is rounded to 2e-6, the difference is exact or rounded less */
        CHECK(fabs(change - cases[i].change) < 4e-6, "%zu: %g, not %g", i, (double)change, cases[i].change);
    }
    close_model(&m);
}

/* ---- what is refused ---- */

static void test_refused(void)
{
    static const struct { const char *from, *to; bb_status status; const char *needle, *also; } cases[] = {
        {"conv_in.lora_A.weight", "conv_in.lora_magnitude_vector", BB_ERR_UNSUPPORTED, "conv_in.lora_magnitude_vector",
         "DoRA"},
        {"conv_in.lora_A.weight", "conv_in.dora_scale", BB_ERR_UNSUPPORTED, "dora_scale", "DoRA"},
        {"conv_in.lora_A.weight", "conv_in.hada_w1_a", BB_ERR_UNSUPPORTED, "hada_w1_a", "LoHa"},
        {"conv_in.lora_A.weight", "conv_in.lokr_w1", BB_ERR_UNSUPPORTED, "lokr_w1", "merge"},
        {"conv_in.lora_A.weight", "conv_in.lora_mid.weight", BB_ERR_UNSUPPORTED, "lora_mid", "merge"},
        {"conv_in.lora_A.weight", "conv_in.weight", BB_ERR_UNSUPPORTED, "conv_in.weight", "not a name"},
        {"conv_in.lora_A.weight", "conv_inn.lora_A.weight", BB_ERR_UNSUPPORTED, "no layer conv_inn", "another model"},
        {"conv_in.lora_A.weight", "lora_A.weight", BB_ERR_UNSUPPORTED, "lora_A.weight", "not a name"},
        {"conv_in.lora_A.weight", "class_embedding.lora_A.weight", BB_ERR_UNSUPPORTED, "class_embedding", "another"},
        {"conv_in.lora_A.weight", "time_embedding.linear_1.lora.down.weight", BB_ERR_UNSUPPORTED, "same layer",
         "lora.down"},
        {"conv_in.lora_A.weight", "time_embedding.linear_2.lora_A.weight", BB_ERR_CORRUPT, "half", "lora_"},
        {"base_model.model.conv_in.lora_A.weight", "lora_unet_input_blocks_0_0.lora_down.weight", BB_ERR_UNSUPPORTED,
         "LDM", "diffusers"},
        {"conv_in.lora_A.weight", "conv_out.lora_A.weight", BB_ERR_CORRUPT, "half", "conv_"},
    };
    model m = open_model(BB_F32, NULL);
    bb_weight *weights = malloc(m.m->pack.graph.n_weights * sizeof *weights);
    bb_error err;
    named x;
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        read_named(&x);
        for (size_t k = 0; k < x.n; k++) replace(x.names[k], cases[i].from, cases[i].to);
        bb_status st = fold(&m, &x, NULL, weights, &m.blocks, NULL, &err);
        CHECK(st == cases[i].status, "%s: %d: %s", cases[i].to, st, err.text);
        CHECK(strstr(err.text, cases[i].needle) && strstr(err.text, cases[i].also), "%s: %s", cases[i].to, err.text);
        CHECK(strstr(err.text, "x.safetensors"), "%s", err.text);
        bb_blocks_give(&m.blocks, NULL);
        free_named(&x);
    }
    /* wrong shapes, numbers that are none, nothing that fits, nothing at all */
    for (int i = 0; i < 5; i++) {
        static const char *const needles[] = {"do not make a change", "do not make a change", "no finite number",
                                              "text encoder", "none of its 0"};
        read_named(&x);
        size_t n = x.n;
        if (i == 0) x.list[0].shape[2] = 1, x.list[0].shape[3] = 9;
        if (i == 1) x.list[1].shape[0] = 8;
        if (i == 2) x.data[0][3] = NAN;
        for (size_t k = 0; k < n && i == 3; k++) replace(x.names[k], "base_model.model.", "text_encoder.");
        if (i == 4) x.n = 0;
        bb_status st = fold(&m, &x, NULL, weights, &m.blocks, NULL, &err);
        CHECK(st < 0 && strstr(err.text, needles[i]), "%d: %s", i, err.text);
        bb_blocks_give(&m.blocks, NULL);
        x.n = n;
        free_named(&x);
    }
    free(weights);
    close_model(&m);
}

/* ---- through the maker ---- */

static uint8_t *make(const model *m, const char *lora, size_t *n)
{
    bb_make_options opt;
    bb_make *make;
    bb_error err = {.text = ""};
    bb_lora_input in;
    const uint8_t *bytes;
    uint8_t *copy = NULL;
    bb_make_defaults(&opt);
    opt.images = 1, opt.steps = 2;
    bb_status st = bb_make_begin(m->m, &opt, &bb_tools_memory, &make, &err);
    CHECK(st == BB_OK, "%s", err.text);
    if (st < 0) return NULL;
    if (lora && (st = bb_lora_input_open(&in, lora, &err)) == BB_OK) {
        st = bb_make_lora(make, &in.lora, NULL, &err);
        bb_lora_input_close(&in);
    }
    while (st >= 0 && st != BB_DONE) st = bb_make_step(make, NULL, &err);
    CHECK(st == BB_DONE, "%s", err.text);
    if (st == BB_DONE && bb_make_result(make, &bytes, n) == BB_OK) {
        copy = block(*n);
        memcpy(copy, bytes, *n);
    }
    CHECK(bb_make_lora(make, NULL, NULL, &err) == BB_ERR_ORDER, "a LoRA after the first step");
    bb_make_end(make);
    return copy;
}

/* Folding before and inside the maker: the same file, which says what was folded in. */
static void test_make(void)
{
    static const char scaled[] = KOHYA ":0.75";
    model plain = open_model(BB_F32, NULL), folded = open_model(BB_F32, scaled);
    size_t n = 0, k = 0;
    uint8_t *a = make(&plain, scaled, &n), *b = make(&folded, NULL, &k), *c;
    CHECK(a && b && n == k && !memcmp(a, b, n), "folding before and inside differ");
    model packed = open_bytes(a, n);
    char text[300];
    CHECK(bb_pack_metadata(&packed.m->pack, "lora", text, sizeof text), "no metadata");
    CHECK(!strncmp(text, "[{\"file\":\"lora.safetensors\",\"scale\":0.75,\"sha256\":\"", 51), "%s", text);
    bb_error err = {.text = ""};
    bb_list list = {.item = {scaled}, .n = 1};
    CHECK(bb_lora_fold_list(packed.m, &list, &packed.blocks, &err) == BB_ERR_UNSUPPORTED, "%s", err.text);
    CHECK(strstr(err.text, "quantized already"), "%s", err.text);
    c = make(&folded, KOHYA ":-0.75", &k); /* a second one, which takes the first away but for rounding */
    model twice = open_bytes(c, k);
    CHECK(bb_pack_metadata(&twice.m->pack, "lora", text, sizeof text) && strstr(text, "},{\"file\"") &&
          strstr(text, "\"scale\":-0.75"), "%s", text);
    close_model(&twice);
    free(b);
    close_model(&packed);
    close_model(&plain);
    close_model(&folded);
}

/* ---- memory ---- */

typedef struct counter { size_t left, taken; } counter;

static void *take_some(void *user, size_t bytes)
{
    counter *c = user;
    if (!c->left) return NULL;
    c->left--;
    c->taken++;
    return malloc(bytes);
}

static void give_some(void *user, void *block, size_t bytes)
{
    (void)bytes;
    ((counter *)user)->taken--;
    free(block);
}

/* Each request for memory fails once: said so, and nothing is kept. */
static void test_memory(void)
{
    model m = open_model(BB_F16, NULL);
    bb_make_options opt;
    bb_error err = {.text = ""};
    bb_lora_input in;
    bb_make_defaults(&opt);
    CHECK(bb_lora_input_open(&in, PEFT, &err) == BB_OK, "%s", err.text);
    size_t n = 0;
    for (bb_status st = BB_ERR_SPACE; st == BB_ERR_SPACE && n < 1000; n++) {
        counter c = {.left = n};
        bb_make_memory memory = {&c, take_some, give_some};
        bb_make *make = NULL;
        st = bb_make_begin(m.m, &opt, &memory, &make, &err);
        if (st == BB_OK) st = bb_make_lora(make, &in.lora, NULL, &err);
        CHECK(st == BB_OK || (st == BB_ERR_SPACE && strstr(err.text, "memory")), "%zu: %d %s", n, st, err.text);
        bb_make_end(make);
        CHECK(!c.taken, "%zu: %zu blocks are kept", n, c.taken);
    }
    CHECK(n > 20 && n < 1000, "%zu requests", n);
    bb_lora_input_close(&in);
    close_model(&m);
}

/* FILE[:SCALE] */
static void test_option(void)
{
    static const struct { const char *text; bb_status status; float scale; } cases[] = {
        {KOHYA, BB_OK, 1}, {KOHYA ":0.5", BB_OK, 0.5f}, {KOHYA ":-2", BB_OK, -2}, {KOHYA ":1e-1", BB_OK, 0.1f},
        {KOHYA ":", BB_ERR_ARGUMENT, 0}, {KOHYA ":x", BB_ERR_ARGUMENT, 0}, {KOHYA ":nan", BB_ERR_OPTION, 0},
        {KOHYA ":1e9", BB_ERR_OPTION, 0}, {"", BB_ERR_OPTION, 0}, {":2", BB_ERR_OPTION, 0},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        bb_lora_input in;
        bb_error err = {.text = ""};
        bb_status st = bb_lora_input_open(&in, cases[i].text, &err);
        CHECK(st == cases[i].status, "%s: %d %s", cases[i].text, st, err.text);
        if (st != BB_OK) continue;
        CHECK(in.lora.scale == cases[i].scale && !in.lora.config, "%s: %g", cases[i].text, (double)in.lora.scale);
        bb_lora_input_close(&in);
    }
}

int main(void)
{
    test_network(PEFT, BB_TESTS_DIR "/golden/lora-peft/golden.safetensors");
    test_network(KOHYA ":0.75", BB_TESTS_DIR "/golden/lora-kohya/golden.safetensors");
    test_merged();
    test_names();
    test_factors();
    test_refused();
    test_make();
    test_option();
    test_memory();
    return check_done();
}
