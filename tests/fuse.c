/* What fusion leaves out changes no bit: pictures of networks with all that is fused, and with what looks like it and is
 * not, drawn fused, unfused and observed, on every kernel set of this machine. */
#include "io.h"
#include "run/fuse.h"
#include "tiny.h"

enum { STEPS = 3 };

static void ignore(void *user, const bb_run *run, uint32_t value) { (void)user, (void)run, (void)value; }

typedef enum way { FUSED, UNFUSED, OBSERVED, IN_SLICES, WAYS } way;

/* x of all pictures, to be freed; *ops: how many ran in the second step, but for the last. */
static float *draw(bb_model *model, bb_request req, way how, size_t *floats, uint32_t *ops)
{
    static const uint64_t seeds[3] = {7, 8, 9};
    const memmodel m = {.model = model};
    void *ws;
    size_t n;
    req.steps = STEPS;
    bb_session *s = mm_session(&m, req, &ws);
    if (!s) exit(check_done());
    bb_session_fuse(s, how != UNFUSED);
    if (how == OBSERVED) bb_session_observe(s, ignore, NULL);
    for (uint32_t i = 0; i < req.batch; i++) bb_condition(s, i, &(bb_cond){.label = (int32_t)i});
    bb_status status = bb_begin(s, seeds, NULL);
    *ops = 0;
    for (bb_stats stats = {0}; status >= 0 && status != BB_DONE; bb_stats_get(s, &stats)) {
        status = bb_step(s, how == IN_SLICES || stats.step == 1 ? 1 : 0);
        *ops += stats.step == 1 && status == BB_AGAIN;
    }
    CHECK(status == BB_DONE, "%s", bb_strerror(status));
    const float *x = bb_session_x(s, &n);
    float *copy = malloc((*floats = n * req.batch) * sizeof *x);
    memcpy(copy, x, *floats * sizeof *x);
    free(ws);
    return copy;
}

/* skipped: ops that fusion does inside others. */
static void compare(bb_model *model, bb_request req, uint32_t skipped, const char *what)
{
    static const uint32_t levels[] = {0, BB_CPU_AVX2, BB_CPU_AVX2 | BB_CPU_AVX512, BB_CPU_ALL};
    size_t n = 0, want_n;
    uint32_t all = 0, ops;
    bb_model_select(model, 0);
    float *want = draw(model, req, UNFUSED, &want_n, &all);
    CHECK(want[0] - want[0] == 0 && want[0] != want[want_n - 1], "%s: a picture", what);
    for (size_t level = 0; level < BB_COUNT(levels); level++) {
        bb_model_select(model, levels[level] & bb_cpu_features());
        for (way how = FUSED; how < WAYS; how++) {
            float *x = draw(model, req, how, &n, &ops);
            const bool plain = how == UNFUSED || how == OBSERVED, step_ops = how == OBSERVED;
            CHECK(n == want_n && !memcmp(x, want, n * sizeof *x), "%s, %ux%u, batch %u, way %d, level %zu", what,
                  req.width, req.height, req.batch, (int)how, level);
            CHECK(step_ops ? ops >= all : ops == all - (plain ? 0 : skipped), "%s: %u ops of %u", what, ops, all);
            free(x);
        }
    }
    free(want);
}

/* Norms with and without SiLU, one for q, k and v; segments; permuted outputs of several widths; sums with either operand
 * last, and of a vector: 5 norms of 6 (modulation reads one), 4 SiLUs, the sums in down (2) and up. */
static void test_tiny(void)
{
    static tiny t;
    bb_error err = {0};
    tiny_build(&t);
    bb_status status = mm_open(&t.m, &err);
    CHECK(status == BB_OK, "%s", err.text);
    static const uint32_t sizes[][2] = {{TINY_WIDTH, TINY_HEIGHT}, {8, 16}, {3, 2}};
    for (size_t i = 0; i < BB_COUNT(sizes); i++)
        for (uint32_t batch = 1; batch <= 3; batch++)
            compare(t.m.model, (bb_request){.width = sizes[i][0], .height = sizes[i][1], .batch = batch, .guidance = 2},
                    5 + 4 + 3, "tiny");
    tiny_free(&t);
}

/* One convolution of 24 channels, whose outputs are out of order, 8 at a time. */
static uint32_t conv(tiny *t, const char *path, uint32_t x, uint32_t quantizer)
{
    tiny_layer l = tiny_conv3(path, x, quantizer, 0.7);
    memcpy(l.width, (tiny_width[]){{4, 16, false}, {3, 8, false}}, 2 * sizeof *l.width);
    l.permuted = l.groups = true;
    return tiny_quantized(t, l);
}

/* What must not be fused, and why. */
static void test_refusals(void)
{
    static tiny t;
    bb_error err = {0};
    memset(&t, 0, sizeof t);
    mm_start(&t.m, 6, 5, 24, 0, -1);
    t.m.schedule.prediction = BB_PREDICT_V;
    uint32_t x = mm_input(&t.m, "sample", true, 24, BB_RATE_SAMPLE);
    mm_input(&t.m, "timestep", false, 1, BB_RATE_STEP);
    const uint32_t q = tiny_quantizer(&t, 6, 24, 0, 1, -3, 3, false), q2 = tiny_quantizer(&t, 4, 24, 0, 1, -3, 3, false);
    uint32_t h = conv(&t, "in", x, q);
    uint32_t shown = tiny_silu(&t, tiny_norm(&t, h, "shown.norm", 24, 4, 1e-5f), "shown"); /* an output, too */
    uint32_t a = conv(&t, "a", shown, q);
    uint32_t twice = tiny_node(&t, BB_OP_ADD, a, a, BB_NONE, "twice"); /* two readers */
    uint32_t two = tiny_norm(&t, twice, "two", 24, 3, 1e-5f); /* codes of two quantizers */
    uint32_t b = conv(&t, "b", two, q), c = conv(&t, "c", two, q2);
    uint32_t sum = tiny_node(&t, BB_OP_ADD, b, c, BB_NONE, "sum"); /* fused into c, the later one */
    uint32_t early = conv(&t, "early", sum, q), late = tiny_silu(&t, sum, "late");
    uint32_t not_yet = tiny_node(&t, BB_OP_ADD, early, late, BB_NONE, "not_yet"); /* late is made after early */
    uint32_t kept = tiny_norm(&t, not_yet, "kept", 24, 2, 1e-5f); /* has another reader than the SiLU */
    uint32_t d = conv(&t, "d", tiny_silu(&t, kept, "active"), q);
    h = conv(&t, "out", tiny_node(&t, BB_OP_ADD, d, kept, BB_NONE, "with_kept"), q);
    mm_output(&t.m, "sample", h);
    mm_output(&t.m, "shown", shown);
    t.m.out.layers = t.layers, t.m.out.quantizers = t.quantizers, t.m.out.delta = t.delta, t.m.out.offset = t.offset;
    t.m.out.inv_s = t.inv_s, t.m.out.step_key = t.step_key, t.m.out.step_delta = t.step_delta;
    t.m.out.step_zero = t.step_zero, t.m.out.multiplier = t.multiplier, t.m.out.perm = t.perm;
    bb_status status = mm_open(&t.m, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status != BB_OK) return;
    compare(t.m.model, (bb_request){.width = 6, .height = 5, .batch = 2}, 3, "refusals");
    const bb_graph *g = &t.m.model->pack.graph;
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const char *path = bb_graph_string(g, g->values[bb_op_value(g, i)].path);
        const bool want = !strcmp(path, "sum") || !strcmp(path, "active") || !strcmp(path, "with_kept");
        CHECK(t.m.model->scratch.fusion[i].skipped == want, "%s", path);
    }
    tiny_free(&t);
}

static void test_file(const char *name, uint32_t skipped)
{
    char path[512];
    bb_error err = {0};
    bb_file file = {0};
    memmodel m = {0};
    snprintf(path, sizeof path, BB_MODELS_DIR "/%s", name);
    bb_status status = bb_file_open(&file, path, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status != BB_OK) return;
    m.blob = aligned_alloc(BB_ALIGNMENT, bb_align_up(file.size, BB_ALIGNMENT));
    memcpy(m.blob, file.data, file.size);
    if (mm_read(&m, file.size, &err) == BB_OK)
        compare(m.model, (bb_request){.width = 16, .height = 24, .batch = 1, .guidance = 2}, skipped, name);
    else CHECK(false, "%s", err.text);
    bb_file_close(&file);
    mm_close(&m);
}

int main(void)
{
    test_tiny();
    test_refusals();
    test_file("fashion-w4a8.safetensors", 114);
    return check_done();
}
