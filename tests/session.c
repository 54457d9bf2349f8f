/* Sessions on small graphs whose pictures can be told beforehand: guidance and its two halves, conditions and batches,
 * slices of a step, the order of calls, group norm's epsilon, and shapes that a damaged file might promise. */
#include "memmodel.h"

enum { SIDE = 3, CLASSES = 4, NULL_CLASS = 3 };

/* A model that predicts a flat picture: x̂0 = table[label] + 0·x. With one DDIM step the drawing is that prediction. */
static void open_flat(memmodel *m, const float *table)
{
    bb_error err = {0};
    uint32_t dim[2] = {CLASSES, 1}, zeroed, row, y;
    mm_start(m, SIDE, SIDE, 1, CLASSES, NULL_CLASS);
    m->schedule.prediction = BB_PREDICT_SAMPLE;
    uint32_t x = mm_input(m, "sample", true, 1, BB_RATE_SAMPLE);
    mm_input(m, "timestep", false, 1, BB_RATE_STEP);
    uint32_t label = mm_input(m, "class_labels", false, 1, BB_RATE_PROMPT);
    mm_op(m, BB_OP_AFFINE, x, BB_NONE, BB_NONE, &zeroed); /* mul = add = 0 */
    bb_op *op = mm_op(m, BB_OP_EMBEDDING, label, BB_NONE, BB_NONE, &row);
    op->weight[0] = mm_slot(m, "table", 2, dim, BB_STORE_TENSOR, 0);
    mm_tensor(m, "table", BB_F32, 2, dim, table);
    mm_op(m, BB_OP_ADD, zeroed, row, BB_NONE, &y);
    mm_output(m, "sample", y);
    bb_status status = mm_open(m, &err);
    CHECK(status == BB_OK, "%s", err.text);
}

/* Grey level of a prediction: round half even of 127.5·x + 127.5. */
static int grey(double x)
{
    double v = nearbyint(127.5 * x + 127.5);
    return v < 0 ? 0 : v > 255 ? 255 : (int)v;
}

static void check_picture(const bb_session *s, uint32_t image, double level, const char *what)
{
    uint8_t rgba[SIDE * SIDE * 4] = {0};
    bb_image out = {.width = SIDE, .height = SIDE, .rgba = rgba};
    bb_status status = bb_decode(s, image, &out);
    int wrong = status != BB_OK;
    for (int i = 0; i < SIDE * SIDE; i++)
        wrong += rgba[4 * i] != grey(level) || rgba[4 * i + 1] != rgba[4 * i] || rgba[4 * i + 3] != 255;
    CHECK(!wrong, "%s: picture %u is %d, not %d (%s)", what, image, rgba[0], grey(level), bb_strerror(status));
}

/* −0.5 for no class, 0.25 for class 1: with g = 2 the drawing is −0.5 + 2·0.75 = 1; with the halves swapped −1.25. */
static void test_guidance(void)
{
    static const float table[CLASSES] = {0.125f, 0.25f, -0.625f, -0.5f};
    const struct { float g; double scale; } runs[] = {{2, 2}, {1, 1}, {0, 1}, {0.5f, 0.5}, {-1, -1}};
    memmodel *m = malloc(sizeof *m);
    open_flat(m, table);
    for (size_t k = 0; k < BB_COUNT(runs); k++) {
        void *ws;
        char what[64];
        const uint64_t seeds[2] = {7, 8};
        snprintf(what, sizeof what, "guidance %g", runs[k].g);
        bb_session *s = mm_session(m, (bb_request){.batch = 2, .steps = 1, .guidance = runs[k].g}, &ws);
        if (s) {
            CHECK(bb_begin(s, seeds, NULL) == BB_ERR_ORDER, "bb_begin without labels");
            bb_condition(s, 0, &(bb_cond){1});
            bb_condition(s, 1, &(bb_cond){2});
            CHECK(bb_begin(s, seeds, NULL) == BB_OK, "%s: bb_begin", what);
            CHECK(bb_step(s, 0) == BB_DONE, "%s: bb_step", what);
            for (uint32_t i = 0; i < 2; i++)
                check_picture(s, i, -0.5 + runs[k].scale * ((double)table[i + 1] + 0.5), what);
        }
        free(ws);
    }
    mm_close(m);
    free(m);
}

/* Other pictures, given up in the middle of a step: nothing of their history may be in the next ones. */
static void abandon(bb_session *s, const uint64_t *seeds)
{
    bb_condition(s, 0, &(bb_cond){1});
    bb_condition(s, 1, &(bb_cond){1});
    CHECK(bb_begin(s, seeds, NULL) == BB_OK, "bb_begin");
    for (int i = 0; i < 7; i++) CHECK(bb_step(s, 0) == BB_OK, "step %d", i);
    CHECK(bb_step(s, 1) == BB_AGAIN, "a slice");
    bb_cancel(s);
    CHECK(bb_step(s, 0) == BB_ERR_CANCELLED, "cancel");
}

/* A model that always predicts the same x̂0 leads every sampler there, however it goes: what a step adds of x and noise
 * is gone at the end. Its pictures say how far they are, and the progress ends with them. A drawing before leaves
 * nothing behind. */
static void test_samplers(void)
{
    static const float table[CLASSES] = {0.125f, 0.25f, -0.625f, -0.5f};
    memmodel *m = malloc(sizeof *m);
    open_flat(m, table);
    for (uint32_t sampler = 0; bb_sampler_name(sampler); sampler++) {
        void *ws;
        const uint64_t seeds[2] = {7, 8};
        bb_session *s = mm_session(m, (bb_request){.batch = 2, .steps = 12, .guidance = 2, .sampler = sampler}, &ws);
        if (s) {
            bb_stats stats;
            uint32_t evaluations = 1;
            abandon(s, seeds);
            bb_condition(s, 0, &(bb_cond){0});
            bb_condition(s, 1, &(bb_cond){2});
            CHECK(bb_begin(s, seeds, NULL) == BB_OK, "bb_begin");
            while (bb_step(s, 0) == BB_OK) evaluations++;
            bb_stats_get(s, &stats);
            uint32_t more = sampler == BB_SAMPLER_PNDM ? 9 : sampler == BB_SAMPLER_PLMS;
            CHECK(stats.step == stats.steps && stats.steps == evaluations && evaluations == 12 + more, "%s: %u of %u",
                  bb_sampler_name(sampler), stats.step, stats.steps);
            check_picture(s, 0, -0.5 + 2 * 0.625, bb_sampler_name(sampler));
            check_picture(s, 1, -0.5 - 2 * 0.125, bb_sampler_name(sampler));
        }
        free(ws);
    }
    mm_close(m);
    free(m);
}

/* Several steps, in slices of one op, a second drawing on the same session, and calls in the wrong order. */
static void test_slices(void)
{
    static const float table[CLASSES] = {0.125f, 0.25f, -0.625f, -0.5f};
    memmodel *m = malloc(sizeof *m);
    void *ws;
    uint64_t seed = 1;
    open_flat(m, table);
    bb_session *s = mm_session(m, (bb_request){.steps = 3, .guidance = 1}, &ws);
    for (int label = 0; s && label < 3; label++) {
        uint8_t rgba[SIDE * SIDE * 4];
        int again = 0, ok = 0;
        bb_status status;
        bb_condition(s, 0, &(bb_cond){label});
        CHECK(bb_begin(s, &seed, NULL) == BB_OK, "bb_begin");
        CHECK(bb_decode(s, 0, &(bb_image){SIDE, SIDE, 0, rgba}) == BB_ERR_ORDER, "decode before the end");
        while ((status = bb_step(s, 1)) == BB_AGAIN || status == BB_OK) {
            if (status == BB_OK) ok++; else again++;
        }
        /* The embedding depends on the label alone, so it is made once; affine and add run at each of three steps.
         * A call that finishes a step reports the step, so the last op of each is not seen as AGAIN. */
        CHECK(status == BB_DONE && ok == 2 && again == 4, "status %d, %d steps, %d slices", (int)status, ok, again);
        check_picture(s, 0, table[label], "three steps");
        CHECK(bb_step(s, 0) == BB_ERR_ORDER, "bb_step after the end");
    }
    if (s) {
        bb_begin(s, &seed, NULL);
        bb_cancel(s);
        CHECK(bb_step(s, 0) == BB_ERR_CANCELLED, "cancel");
        CHECK(bb_begin(s, &seed, NULL) == BB_OK && bb_step(s, 0) == BB_OK, "a cancelled session starts anew");
        CHECK(bb_condition(s, 0, &(bb_cond){CLASSES}) == BB_ERR_LABEL, "label out of range");
        CHECK(bb_condition(s, 1, &(bb_cond){0}) == BB_ERR_ARGUMENT, "image out of range");
    }
    free(ws);
    mm_close(m);
    free(m);
}

enum { WIDE = 128 };

/* x̂0 = 0·x + W·silu(embedding(t) + row(label)): what depends on the step is a vector, read by the last add. */
static void open_timed(memmodel *m)
{
    static float table[CLASSES][WIDE], weight[WIDE], f[WIDE / 2];
    bb_error err = {0};
    uint32_t rows[2] = {CLASSES, WIDE}, dim[2] = {1, WIDE}, shape[2] = {WIDE, 1};
    uint32_t time, row, both, active, vector, y;
    for (int i = 0; i < CLASSES * WIDE; i++) table[i / WIDE][i % WIDE] = (float)(i * 5 % 7) / 8;
    for (int i = 0; i < WIDE; i++) weight[i] = (float)(i % 9 - 4) / 256;
    for (int i = 0; i < WIDE / 2; i++) f[i] = 1 / (float)(1 + i);
    mm_start(m, SIDE, SIDE, 1, CLASSES, NULL_CLASS);
    m->schedule.prediction = BB_PREDICT_SAMPLE;
    uint32_t x = mm_input(m, "sample", true, 1, BB_RATE_SAMPLE), zeroed;
    uint32_t t = mm_input(m, "timestep", false, 1, BB_RATE_STEP);
    uint32_t label = mm_input(m, "class_labels", false, 1, BB_RATE_PROMPT);
    mm_op(m, BB_OP_AFFINE, x, BB_NONE, BB_NONE, &zeroed); /* mul = add = 0 */
    bb_op *op = mm_op(m, BB_OP_TIMESTEP_EMBEDDING, t, BB_NONE, BB_NONE, &time);
    op->weight[0] = mm_vector(m, "frequencies", f, WIDE / 2);
    op = mm_op(m, BB_OP_EMBEDDING, label, BB_NONE, BB_NONE, &row);
    op->weight[0] = mm_slot(m, "table", 2, rows, BB_STORE_TENSOR, 0);
    mm_tensor(m, "table", BB_F32, 2, rows, table);
    mm_op(m, BB_OP_ADD, time, row, BB_NONE, &both);
    mm_op(m, BB_OP_SILU, both, BB_NONE, BB_NONE, &active);
    op = mm_op(m, BB_OP_LINEAR, active, BB_NONE, BB_NONE, &vector);
    op->weight[0] = mm_slot(m, "weight", 2, dim, BB_STORE_TENSOR, 0);
    mm_tensor(m, "weight", BB_F32, 2, shape, weight);
    mm_op(m, BB_OP_ADD, zeroed, vector, BB_NONE, &y);
    mm_output(m, "sample", y);
    bb_status status = mm_open(m, &err);
    CHECK(status == BB_OK, "%s", err.text);
}

typedef struct seen_values { uint32_t count, last; } seen_values;

static void count_value(void *user, const bb_run *run, uint32_t value)
{
    seen_values *seen = user;
    const bool next_step = value < seen->last && run->pack->graph.values[value].rate > BB_RATE_PROMPT;
    CHECK(run->shapes[value].n == 4, "an observer sees one step: %u items", run->shapes[value].n);
    CHECK(value > seen->last || next_step, "an observer sees value %u after %u", value, seen->last);
    if (next_step) CHECK(seen->last + 1 == run->pack->graph.n_values, "a step ended with value %u", seen->last);
    seen->last = value;
    seen->count++;
}

/* Draws two guided pictures of 8 × 8 in slices of one op: x of both, and how many ops ran. */
static uint32_t draw_timed(bb_session *s, const int32_t label[2], float x[2 * SIDE * SIDE])
{
    static const uint64_t seeds[2] = {7, 8};
    uint32_t ops = 1;
    size_t n;
    bb_stats stats = {0}, last;
    for (uint32_t i = 0; i < 2; i++) bb_condition(s, i, &(bb_cond){label[i]});
    CHECK(bb_begin(s, seeds, NULL) == BB_OK, "bb_begin");
    for (bb_status status; (status = bb_step(s, 1)) != BB_DONE; ops++) {
        last = stats;
        bb_stats_get(s, &stats);
        CHECK(status >= 0 && stats.op < stats.ops, "%s, op %u", bb_strerror(status), stats.op);
        if (status == BB_AGAIN && stats.step == last.step) CHECK(stats.op > last.op, "progress");
    }
    const float *at = bb_session_x(s, &n);
    memcpy(x, at, 2 * n * sizeof *x);
    return ops;
}

/* Values of step rate are made once for all steps, and again only for other labels: the pictures are those of a run that
 * makes them at every step, as one with an observer does, or one whose schedule is too long to be kept. */
static void test_schedule(uint32_t sampler, uint32_t steps, bool kept)
{
    enum { PROMPT_OPS = 1, STEP_OPS = 4, SAMPLE_OPS = 2 };
    static const int32_t labels[][2] = {{0, 2}, {0, 2}, {1, 2}, {1, 2}};
    memmodel *m = malloc(sizeof *m);
    void *ws, *ws_seen;
    open_timed(m);
    const bb_request req = {.batch = 2, .steps = steps, .guidance = 2, .sampler = sampler};
    bb_session *s = mm_session(m, req, &ws), *seen = mm_session(m, req, &ws_seen);
    for (size_t i = 0; s && seen && i < BB_COUNT(labels); i++) {
        float x[2 * SIDE * SIDE], y[2 * SIDE * SIDE];
        uint32_t made = i == 0 || labels[i][0] != labels[i - 1][0];
        seen_values values = {0};
        bb_session_observe(seen, count_value, &values);
        draw_timed(seen, labels[i], y);
        const uint32_t ops = draw_timed(s, labels[i], x);
        bb_stats stats;
        bb_stats_get(s, &stats);
        const uint32_t want = made * PROMPT_OPS + (kept ? made : stats.steps) * STEP_OPS + stats.steps * SAMPLE_OPS;
        CHECK(ops == want, "%s: picture %zu took %u ops, not %u", bb_sampler_name(sampler), i, ops, want);
        CHECK(values.count == PROMPT_OPS + stats.steps * (STEP_OPS + SAMPLE_OPS), "%u values observed",
              values.count);
        CHECK(!memcmp(x, y, sizeof x), "%s: picture %zu differs", bb_sampler_name(sampler), i);
        CHECK(x[0] != x[SIDE * SIDE], "the classes look the same");
    }
    free(ws);
    free(ws_seen);
    mm_close(m);
    free(m);
}

/* Group norm with an epsilon as large as the variance, against double precision. Inputs are within ±1 and 72 values
 * are summed: the f32 sums are off by less than 72·2^−24 each, so 1e-4 is ten times what rounding can do. */
static void test_norm(float eps)
{
    enum { C = 4, GROUPS = 2, N = SIDE * SIDE * C };
    static const float scale[C] = {1, 2, -1, 0.5f}, shift[C] = {0, 0.5f, 1, -1};
    float x[N], t = 0, worst = 0;
    const float *y = NULL;
    uint32_t shape[4], value;
    bb_error err = {0};
    void *ws;
    memmodel *m = malloc(sizeof *m);
    mm_start(m, SIDE, SIDE, C, 0, -1);
    uint32_t in = mm_input(m, "sample", true, C, BB_RATE_SAMPLE);
    mm_input(m, "timestep", false, 1, BB_RATE_STEP);
    bb_op *op = mm_op(m, BB_OP_GROUP_NORM, in, BB_NONE, BB_NONE, &value);
    op->norm.groups = GROUPS, op->norm.eps = eps;
    op->weight[0] = mm_vector(m, "scale", scale, C), op->weight[1] = mm_vector(m, "shift", shift, C);
    mm_output(m, "sample", value);
    bb_status status = mm_open(m, &err);
    CHECK(status == BB_OK, "%s", err.text);
    bb_session *s = status == BB_OK ? mm_session(m, (bb_request){0}, &ws) : NULL;
    for (int i = 0; i < N; i++) x[i] = (float)((i * 37 + 11) % 64) / 32 - 1;
    if (s) {
        bb_input(s, "sample", x, N), bb_input(s, "timestep", &t, 1), bb_begin(s, NULL, NULL);
        CHECK(bb_step(s, 0) == BB_DONE && bb_output(s, "sample", &y, shape) == BB_OK, "norm run");
        for (int c = 0; c < C; c++) {
            double mean = 0, var = 0, count = SIDE * SIDE * (C / GROUPS);
            int first = c / (C / GROUPS) * (C / GROUPS);
            for (int i = 0; i < N; i++) if (i % C >= first && i % C < first + C / GROUPS) mean += x[i] / count;
            for (int i = 0; i < N; i++)
                if (i % C >= first && i % C < first + C / GROUPS) var += (x[i] - mean) * (x[i] - mean) / count;
            for (int i = c; i < N; i += C)
                worst = fmaxf(worst, (float)fabs(y[i] - ((x[i] - mean) / sqrt(var + eps) * scale[c] + shift[c])));
        }
        CHECK(worst < 1e-4f, "group norm with eps %g is off by %g", eps, worst);
    }
    free(ws);
    mm_close(m);
    free(m);
}

/* A file whose inputs do not follow the request must be refused when a session is asked for, not read past its end. */
static void test_fixed_shapes(void)
{
    for (int which = 0; which < 3; which++) {
        memmodel *m = malloc(sizeof *m);
        bb_error err = {0};
        size_t bytes;
        mm_start(m, SIDE, SIDE, 1, 0, -1);
        uint32_t x = mm_input(m, "sample", true, 1, BB_RATE_SAMPLE);
        mm_input(m, "timestep", false, 1, BB_RATE_STEP);
        const float one = 1;
        uint32_t y;
        bb_op *op = mm_op(m, BB_OP_GROUP_NORM, x, BB_NONE, BB_NONE, &y);
        op->norm.groups = 1;
        op->weight[0] = mm_vector(m, "scale", &one, 1), op->weight[1] = mm_vector(m, "shift", &one, 1);
        mm_output(m, "sample", y);
        if (which == 1) m->inputs[1].shape[0] = (bb_dim){BB_DIM_ONE, 1, 1, 0};
        if (which == 2) m->inputs[0].shape[1] = (bb_dim){BB_DIM_ONE, SIDE, 1, 0};
        bb_status status = mm_open(m, &err);
        bb_request req = {.size_of = sizeof req, .batch = 40, .steps = 2, .guidance = 1, .height = 2 * SIDE,
                          .width = SIDE};
        if (status == BB_OK) status = bb_session_size(m->model, &req, &bytes, &err);
        CHECK((status == BB_OK) == (which == 0), "case %d: %s %s", which, bb_strerror(status), err.text);
        mm_close(m);
        free(m);
    }
}

int main(void)
{
    test_guidance();
    test_samplers();
    test_slices();
    test_schedule(BB_SAMPLER_DEFAULT, 5, true);
    test_schedule(BB_SAMPLER_PNDM, 6, true); /* evaluates some timesteps twice */
    test_schedule(BB_SAMPLER_DDPM, 600, true);
    test_schedule(BB_SAMPLER_DDPM, 900, false); /* 900 · 4 items · (3 · 128 + 1) floats are more than 4 MB */
    test_norm(0.25f);
    test_norm(1e-5f);
    test_fixed_shapes();
    return check_done();
}
