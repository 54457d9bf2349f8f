/* Packed files: the committed models/tiny.safetensors is what its maker makes; pictures do not depend on their batch;
 * damaged files and memory that is too small are refused by status, never by a crash. Blobs and workspaces are exact
 * allocations, so that AddressSanitizer sees every read or write past their end. */
#include "base/par.h"
#include "io.h"
#include "tiny.h"

enum { WORKSPACE_LIMIT = 16 << 20 };

static void *exactly(size_t n)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, n ? n : 1)) abort();
    return p;
}

/* A model in memory of exactly the size that bb_probe asks for. */
typedef struct loaded { void *mem; bb_model *model; } loaded;

static bb_status load(loaded *l, const void *blob, size_t n, bb_error *err)
{
    bb_info info = {0};
    size_t scratch_bytes = BB_PROBE_SCRATCH(n);
    void *scratch = malloc(scratch_bytes);
    *l = (loaded){0};
    bb_status status = bb_probe(blob, n, scratch, scratch_bytes, &info, err);
    free(scratch);
    if (status != BB_OK) return status;
    if (info.model_bytes > WORKSPACE_LIMIT) return BB_ERR_SPACE;
    l->mem = malloc((size_t)info.model_bytes);
    return bb_model_init(blob, n, l->mem, (size_t)info.model_bytes, &l->model, err);
}

/* One step of one picture; whatever status comes back is right, as long as something does. */
static bb_status run_one(const bb_model *model, uint32_t steps)
{
    bb_info info;
    bb_session *s;
    size_t bytes;
    uint64_t seed = 1;
    bb_request req = {.size_of = sizeof req, .steps = steps, .guidance = 1};
    bb_model_info(model, &info);
    BB_TRY(bb_session_size(model, &req, &bytes, NULL));
    if (bytes > WORKSPACE_LIMIT) return BB_ERR_SPACE;
    void *ws = malloc(bytes);
    bb_status status = bb_session_init(model, &req, ws, bytes, &s, NULL);
    if (status == BB_OK && info.classes) status = bb_condition(s, 0, &(bb_cond){0});
    if (status == BB_OK) status = bb_begin(s, &seed, NULL);
    if (status == BB_OK) status = bb_step(s, 0);
    free(ws);
    return status;
}

/* ---- the committed file ---- */

static void test_committed(const tiny *t)
{
    bb_file f;
    bb_error err = {0};
    size_t n = (size_t)bb_pack_write_size(&t->m.out);
    bb_status status = bb_file_open(&f, BB_MODELS_DIR "/tiny.safetensors", &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status != BB_OK) return;
    CHECK(f.size == n && !memcmp(f.data, t->m.blob, n), "models/tiny.safetensors is not what make_tiny writes");
    CHECK(n <= 100000, "%zu bytes", n);
    bb_file_close(&f);
}

enum { PICTURES = 3, PIXELS = TINY_WIDTH * TINY_HEIGHT };

static void draw(const bb_model *model, bb_request req, uint32_t first, uint8_t *rgba)
{
    static const uint64_t seeds[PICTURES] = {5, 6, 0xffffffffffffffffu};
    static const int32_t labels[PICTURES] = {2, 0, 3};
    bb_session *s;
    size_t bytes = 0;
    bb_status status = bb_session_size(model, &req, &bytes, NULL);
    void *ws = malloc(bytes);
    memset(ws, 0xa5, bytes);
    if (status == BB_OK) status = bb_session_init(model, &req, ws, bytes, &s, NULL);
    for (uint32_t i = 0; status == BB_OK && i < req.batch; i++)
        status = bb_condition(s, i, &(bb_cond){labels[first + i]});
    if (status == BB_OK) status = bb_begin(s, seeds + first, NULL);
    while (status == BB_OK || status == BB_AGAIN) status = bb_step(s, 5);
    CHECK(status == BB_DONE, "drawing: %s", bb_strerror(status));
    for (uint32_t i = 0; status >= 0 && i < req.batch; i++)
        status = bb_decode(s, i, &(bb_image){TINY_WIDTH, TINY_HEIGHT, 0, rgba + i * PIXELS * 4});
    CHECK(status == BB_OK, "bb_decode: %s", bb_strerror(status));
    free(ws);
}

/* Each picture alone, and all together with one thread and with two. */
static void test_batch(const tiny *t, bb_par *par)
{
    static uint8_t alone[PICTURES][PIXELS * 4], together[PICTURES][PIXELS * 4];
    const bb_request requests[] = {
        {.steps = 3, .guidance = 2},
        {.steps = 2, .guidance = 1, .sampler = BB_SAMPLER_DDPM},
        {.steps = 3, .guidance = 2, .eta = 1},
        {.steps = 3, .guidance = 2, .sampler = BB_SAMPLER_EULER_A},
        {.steps = 4, .guidance = 1, .sampler = BB_SAMPLER_PNDM},
        {.steps = 4, .guidance = 2, .sampler = BB_SAMPLER_UNIPC_KARRAS},
        {.steps = 4, .guidance = 2, .sampler = BB_SAMPLER_DPMPP_2M_SDE},
    };
    for (size_t k = 0; k < BB_COUNT(requests); k++) {
        bb_request req = requests[k];
        req.size_of = sizeof req, req.batch = 1;
        for (uint32_t i = 0; i < PICTURES; i++) draw(t->m.model, req, i, alone[i]);
        for (int threads = 1; threads <= 2; threads++) {
            req.batch = PICTURES, req.par = threads == 2 ? par : NULL;
            draw(t->m.model, req, 0, together[0]);
            CHECK(!memcmp(alone, together, sizeof alone), "request %zu: another picture in a batch, %d threads", k,
                  threads);
        }
        CHECK(memcmp(alone[0], alone[1], sizeof alone[0]) != 0, "request %zu: pictures are all the same", k);
    }
}

/* ---- cut short ---- */

static void test_truncation(const tiny *t, size_t n)
{
    uint64_t header;
    bb_info whole = {0};
    bb_error err = {0};
    void *scratch = malloc(BB_PROBE_SCRATCH(n));
    memcpy(&header, t->m.blob, 8);
    bb_status status = bb_probe(t->m.blob, n, scratch, BB_PROBE_SCRATCH(n), &whole, &err);
    CHECK(status == BB_OK && whole.blob_bytes == n && whole.head_bytes == 8 + header, "probe: %s", err.text);
    void *mem = malloc((size_t)whole.model_bytes);
    for (size_t cut = 0; cut < n; cut++) {
        bb_info info = {0};
        bb_model *model;
        void *blob = exactly(cut);
        memcpy(blob, t->m.blob, cut);
        status = bb_probe(blob, cut, scratch, BB_PROBE_SCRATCH(n), &info, &err);
        if (cut < 8 + header)
            CHECK(status == BB_ERR_SHORT && info.head_bytes > cut && info.head_bytes <= 8 + header, "probe of %zu: %s",
                  cut, err.text);
        else
            CHECK(status == BB_OK && info.blob_bytes == n, "probe of %zu: %s", cut, err.text);
        status = bb_model_init(blob, cut, mem, (size_t)whole.model_bytes, &model, &err);
        CHECK(status == BB_ERR_SHORT && strstr(err.text, "cut short"), "%zu bytes: %s", cut, err.text);
        free(blob);
    }
    free(mem);
    free(scratch);
}

/* ---- single bytes ---- */

/* Every byte of header, graph and records, each 11th of the vectors and pools; a load succeeds where nothing that
 * counts was hit, and then a step must run to some end: for every 8th of them, which bounds the time. */
static void test_bytes(const tiny *t, size_t n)
{
    uint64_t header, drawn = 0;
    uint32_t refused = 0, opened = 0, ran = 0;
    memcpy(&header, t->m.blob, 8);
    const char *text = (const char *)t->m.blob + 8, *alphas = strstr(text, "\"schedule.alphas_cumprod\"");
    size_t dense = 8 + header + strtoull(strstr(alphas, "\"data_offsets\":[") + 16, NULL, 10);
    uint8_t *blob = exactly(n);
    memcpy(blob, t->m.blob, n);
    for (size_t at = 0; at < n; at += at < dense ? 1 : 11) {
        uint8_t old = blob[at], bit = (uint8_t)(1u << (int)(8 * bb_uniform(1, BB_STREAM_TOOLS, drawn++)));
        loaded l;
        blob[at] = at % 5 == 0 ? 0xff : (uint8_t)(old ^ bit);
        bb_status status = load(&l, blob, n, NULL);
        if (status == BB_OK) opened++; else refused++;
        if (status == BB_OK && (opened % 8 == 0)) {
            status = run_one(l.model, ran++ % 2);
            CHECK(status == BB_DONE || status < 0, "byte %zu: %s", at, bb_strerror(status));
        }
        free(l.mem);
        blob[at] = old;
    }
    printf("single bytes: %u refused, %u opened, %u of these run\n", refused, opened, ran);
    CHECK(refused > 1000 && opened > 1000 && ran > 100, "the sweep reaches both sides");
    free(blob);
}

/* ---- one value at a time ---- */

static bb_layer_rec *layer(tiny *t, const char *name)
{
    for (uint32_t i = 0; i < t->m.out.n_layers; i++)
        if (!strcmp(t->m.strings + t->m.slots[t->layers[i].weight].name, name)) return &t->layers[i];
    abort();
}

#define MIXED layer(t, "down.conv1.weight")  /* five width classes and a permutation */
#define LADDER layer(t, "down.conv2.weight") /* free multipliers */
#define CONV_IN layer(t, "conv_in.weight")   /* plain: one class of 8 planes */
#define Q(l) (&t->quantizers[(l)->quantizer])

#define HUGE_COUNT 0xfffffff0u

/* X(what, status, change) */
#define DAMAGES(X)                                                                                                     \
    X(scale_nan, CORRUPT, t->delta[3] = NAN)                                                                           \
    X(scale_infinite, CORRUPT, t->delta[MIXED->row_at] = INFINITY)                                                     \
    X(step_nan, CORRUPT, t->step_delta[2] = NAN)                                                                       \
    X(step_zero, CORRUPT, t->step_delta[0] = 0)                                                                        \
    X(step_negative, CORRUPT, t->step_delta[Q(MIXED)->step_at] = -1)                                                   \
    X(smoothing_nan, CORRUPT, t->inv_s[1] = NAN)                                                                       \
    X(smoothing_zero, CORRUPT, t->inv_s[0] = 0)                                                                        \
    X(key_nan, CORRUPT, t->step_key[Q(MIXED)->key_at] = NAN)                                                           \
    X(keys_equal, CORRUPT, t->step_key[Q(MIXED)->key_at + 1] = t->step_key[Q(MIXED)->key_at])                          \
    X(zero_point, CORRUPT, t->step_zero[Q(LADDER)->step_at] = 64) /* 6 bits */                                         \
    X(quantizer_kind, UNSUPPORTED, Q(MIXED)->kind = 2)                                                                 \
    X(bits_3, CORRUPT, Q(MIXED)->bits = 3)                                                                             \
    X(bits_9, CORRUPT, Q(MIXED)->bits = 9)                                                                             \
    X(segments_0, CORRUPT, Q(MIXED)->segments = 0)                                                                     \
    X(segments_huge, CORRUPT, Q(MIXED)->segments = HUGE_COUNT)                                                         \
    X(segment_empty, CORRUPT, Q(MIXED)->segments = 2)                                                                  \
    X(segment_huge, CORRUPT, Q(MIXED)->seg_channels[0] = HUGE_COUNT)                                                   \
    X(segment_wraps, CORRUPT, (Q(MIXED)->segments = 2, Q(MIXED)->seg_channels[0] = 0x80000006u,                        \
                               Q(MIXED)->seg_channels[1] = 0x80000006u))                                               \
    X(rows_0, CORRUPT, Q(MIXED)->rows = 0)                                                                             \
    X(rows_huge, CORRUPT, Q(MIXED)->rows = HUGE_COUNT)                                                                 \
    X(key_at_huge, CORRUPT, Q(MIXED)->key_at = HUGE_COUNT)                                                             \
    X(step_at_huge, CORRUPT, Q(MIXED)->step_at = HUGE_COUNT)                                                           \
    X(inv_s_at_huge, CORRUPT, Q(MIXED)->inv_s_at = HUGE_COUNT)                                                         \
    X(quantizer_spare, CORRUPT, Q(MIXED)->reserved[4] = 1)                                                             \
    X(layer_spare, CORRUPT, MIXED->reserved[6] = 1)                                                                    \
    X(layer_quantizer, CORRUPT, MIXED->quantizer = t->m.out.n_quantizers)                                              \
    X(layer_other_quantizer, CORRUPT, MIXED->quantizer = LADDER->quantizer)                                            \
    X(layer_weight, CORRUPT, MIXED->weight = HUGE_COUNT)                                                               \
    X(outputs_huge, CORRUPT, CONV_IN->outputs = HUGE_COUNT)                                                            \
    X(taps_huge, CORRUPT, CONV_IN->taps = HUGE_COUNT)                                                                  \
    X(channels_huge, CORRUPT, CONV_IN->channels = HUGE_COUNT)                                                          \
    X(row_at_huge, CORRUPT, CONV_IN->row_at = HUGE_COUNT)                                                              \
    X(row_at_shared, CORRUPT, LADDER->row_at = MIXED->row_at)                                                          \
    X(multiplier_at_huge, CORRUPT, LADDER->multiplier_at = HUGE_COUNT)                                                 \
    X(multiplier_at_end, CORRUPT, LADDER->multiplier_at = t->m.out.n_multiplier)                                       \
    X(perm_at_huge, CORRUPT, MIXED->perm_at = HUGE_COUNT)                                                              \
    X(perm_lost, CORRUPT, MIXED->perm_at = BB_NONE)                                                                    \
    X(perm_twice, CORRUPT, t->perm[MIXED->perm_at] = t->perm[MIXED->perm_at + 1])                                      \
    X(perm_none, CORRUPT, t->perm[MIXED->perm_at] = 65535)                                                             \
    X(perm_beyond, CORRUPT, t->perm[MIXED->perm_at] = 20)                                                              \
    X(perm_in_padding, CORRUPT, t->perm[MIXED->perm_at + 15] = 0)                                                      \
    X(classes_0, CORRUPT, CONV_IN->n_classes = 0)                                                                      \
    X(classes_9, CORRUPT, CONV_IN->n_classes = 9)                                                                      \
    X(classes_huge, CORRUPT, CONV_IN->n_classes = HUGE_COUNT)                                                          \
    X(class_forgotten, CORRUPT, MIXED->n_classes = 4)                                                                  \
    X(class_rows_huge, CORRUPT, CONV_IN->class_rows[0] = HUGE_COUNT)                                                   \
    X(class_rows_wrap, CORRUPT, (MIXED->class_rows[0] += 0x80000000u, MIXED->class_rows[1] += 0x80000000u))            \
    X(class_rows_moved, CORRUPT, (MIXED->class_rows[0] = 17, MIXED->class_rows[1] = 1, MIXED->class_rows[2] = 1,       \
                                  MIXED->class_rows[3] = 1, MIXED->class_rows[4] = 0))                                 \
    X(planes_0, CORRUPT, CONV_IN->class_planes[0] = 0)                                                                 \
    X(planes_9, CORRUPT, CONV_IN->class_planes[0] = 9)                                                                 \
    X(planes_one_less, CORRUPT, CONV_IN->class_planes[0] = 7)                                                          \
    X(planes_one_more, CORRUPT, MIXED->class_planes[2] = 4)                                                            \
    X(planes_huge, CORRUPT, CONV_IN->class_planes[0] = HUGE_COUNT)                                                     \
    X(offset_high, CORRUPT, t->offset[CONV_IN->row_at] = -127)                                                         \
    X(offset_low, CORRUPT, t->offset[CONV_IN->row_at + 11] = -129)                                                     \
    X(multiplier_high, CORRUPT, t->multiplier[LADDER->multiplier_at] = 128)                                            \
    X(multiplier_spread, CORRUPT, (t->multiplier[LADDER->multiplier_at] = 127,                                         \
                                   t->multiplier[LADDER->multiplier_at + 16] = -127))                                  \
    X(ref_layer_huge, CORRUPT, t->m.refs[CONV_IN->weight].index = HUGE_COUNT)                                          \
    X(ref_layer_other, CORRUPT, t->m.refs[CONV_IN->weight].index ^= 1)                                                 \
    X(ref_pool_huge, CORRUPT, t->m.refs[t->m.ops[0].weight[0]].index = HUGE_COUNT)                                     \
    X(ref_store, CORRUPT, t->m.refs[CONV_IN->weight].store = 3)                                                        \
    X(layer_unused, CORRUPT, t->m.out.n_layers++)                                                                      \
    X(schedule_prediction, CORRUPT, t->m.schedule.prediction = 3)                                                      \
    X(schedule_sampler, CORRUPT, t->m.schedule.solver.family = 0)                                                      \
    X(schedule_solver, CORRUPT, t->m.schedule.solver.flags = BB_SOLVER_KARRAS)                                         \
    X(schedule_order, CORRUPT, t->m.schedule.solver.order = 1)                                                         \
    X(schedule_lcm, CORRUPT, t->m.schedule.solver = ((bb_solver){.family = BB_FAMILY_LCM, .lcm_steps = 1001,           \
                                                                 .lcm_scaling = 10}))                                  \
    X(schedule_clip, CORRUPT, t->m.schedule.clip_sample_range = NAN)                                                   \
    X(schedule_alpha, CORRUPT, t->m.alphas[999] = NAN)                                                                 \
    X(schedule_offset, CORRUPT, t->m.schedule.steps_offset = -1)                                                       \
    X(width_0, CORRUPT, t->m.out.info.width = 0)                                                                       \
    X(channels_other, CORRUPT, t->m.out.info.channels = 4)                                                             \
    X(classes_lost, CORRUPT, (t->m.out.info.classes = 0, t->m.out.info.null_label = -1))                               \
    X(null_label_5, CORRUPT, t->m.out.info.null_label = 5)                                                             \
    X(string_huge, CORRUPT, t->m.slots[0].name = HUGE_COUNT)                                                           \
    X(op_unknown, UNSUPPORTED, t->m.ops[2].kind = 99)                                                                  \
    X(op_itself, CORRUPT, t->m.ops[2].in[0] = 5)                                                                       \
    X(op_spare, CORRUPT, t->m.ops[2].word[7] = 1)                                                                      \
    X(op_weight_huge, CORRUPT, t->m.ops[0].weight[0] = HUGE_COUNT)                                                     \
    X(slot_huge, CORRUPT, t->m.slots[CONV_IN->weight].dim[0] = HUGE_COUNT)                                             \
    X(output_huge, CORRUPT, t->m.outputs[0].value = HUGE_COUNT)

#define X(what, status, change) static void what##_damage(tiny *t) { (void)(change); }
DAMAGES(X)
#undef X

static const struct damage {
    const char *what;
    bb_status status;
    void (*make)(tiny *t);
} damages[] = {
#define X(what, status, change) {#what, BB_ERR_##status, what##_damage},
    DAMAGES(X)
#undef X
};

static void test_values(tiny *t)
{
    for (size_t k = 0; k < BB_COUNT(damages); k++) {
        bb_error err = {0};
        tiny_build(t);
        uint32_t n_layers = t->m.out.n_layers;
        damages[k].make(t);
        bb_status status = mm_open(&t->m, &err);
        CHECK(status == damages[k].status, "%s: %s (%s)", damages[k].what, bb_strerror(status), err.text);
        CHECK(status >= 0 || (err.text[0] && !strchr(err.text, '\n')), "%s: no message of one line", damages[k].what);
        t->m.out.n_layers = n_layers;
        tiny_free(t);
    }
}

/* The counts at the head of the graph, near 2^32, and a version from the future. */
static void test_heads(const tiny *t, size_t n)
{
    uint64_t header;
    bb_error err = {0};
    loaded l;
    uint8_t *blob = exactly(n);
    memcpy(&header, t->m.blob, 8);
    for (uint32_t word = 0; word < 12; word++)
        for (uint32_t k = 0; k < 4; k++) {
            static const uint32_t values[] = {0xffffffffu, 0xfffffff0u, 0x80000000u, 0x10000000u};
            memcpy(blob, t->m.blob, n);
            memcpy(blob + 8 + header + 4 * word, &values[k], 4);
            bb_status status = load(&l, blob, n, &err);
            CHECK(status == BB_ERR_CORRUPT || status == BB_ERR_UNSUPPORTED, "head word %u: %s", word,
                  bb_strerror(status));
            free(l.mem);
        }
    memcpy(blob, t->m.blob, n);
    char *version = strstr((char *)blob + 8, "\"format_version\":\"1\"");
    CHECK(version != NULL, "the version is in the header");
    if (version) version[18] = '2';
    bb_status status = load(&l, blob, n, &err);
    CHECK(status == BB_ERR_VERSION && strstr(err.text, "update bitbrush"), "newer version: %s", err.text);
    free(l.mem);
    free(blob);
}

/* ---- too little memory ---- */

/* Sizes below what is asked for, in steps that hit all residues of 64. The last few bytes are slack for alignment. */
static void test_space(const tiny *t, size_t n)
{
    bb_info info;
    bb_error err = {0};
    bb_model *model;
    bb_session *s;
    size_t need = 0, fitted = 0;
    bb_request req = {.size_of = sizeof req, .steps = 2, .guidance = 2};
    bb_model_info(t->m.model, &info);
    for (size_t size = 0; size < info.model_bytes; size += 61) {
        void *mem = malloc(size ? size : 1);
        bb_status status = bb_model_init(t->m.blob, n, mem, size, &model, &err);
        CHECK(status == BB_ERR_SPACE || status == BB_OK, "model in %zu bytes: %s", size, bb_strerror(status));
        fitted += status == BB_OK;
        free(mem);
    }
    CHECK(fitted * 61 < 4096, "bb_probe asks for far more than is needed: %zu sizes below do too", fitted);
    CHECK(bb_session_size(t->m.model, &req, &need, &err) == BB_OK && need > 0, "%s", err.text);
    for (size_t size = 0; size + 64 < need; size += 61) {
        void *ws = malloc(size ? size : 1);
        bb_status status = bb_session_init(t->m.model, &req, ws, size, &s, &err);
        CHECK(status == BB_ERR_SPACE, "session in %zu of %zu bytes: %s", size, need, bb_strerror(status));
        free(ws);
    }
}

int main(void)
{
    static tiny t;
    bb_error err = {0};
    tiny_build(&t);
    bb_status status = mm_open(&t.m, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status != BB_OK) return check_done();
    size_t n = (size_t)bb_pack_write_size(&t.m.out);
    bb_par *par = bb_par_start(2);
    test_committed(&t);
    test_batch(&t, par);
    test_truncation(&t, n);
    test_bytes(&t, n);
    test_heads(&t, n);
    test_space(&t, n);
    tiny_free(&t);
    test_values(&t);
    bb_par_stop(par);
    return check_done();
}
