/* Group norm and activations of the trainer, alone and in one: against references in double; cut into parts for
 * threads; the same bits in every run. */
#include "trainop.h"

static double act_of(uint32_t act, double x)
{
    switch (act) {
    case BB_ACT_SILU: return x / (1 + exp(-x));
    case BB_ACT_GELU: return 0.5 * x * erfc(-x / sqrt(2));
    case BB_ACT_MISH: return x * tanh(log1p(exp(x)));
    default: return x;
    }
}

static void norm_reference(const problem *p, double *const x[3], double *y)
{
    const size_t width = p->channels / p->groups;
    for (size_t item = 0; item < p->items; item++) {
        for (size_t group = 0; group < p->groups; group++) {
            double mean = 0, square = 0;
            const double n = (double)p->pixels * (double)width;
            for (int pass = 0; pass < 3; pass++) {
                for (size_t i = 0; i < p->pixels * width; i++) {
                    const size_t c = group * width + i % width, at = (item * p->pixels + i / width) * p->channels + c;
                    const double v = x[0][at] - mean;
                    if (pass == 1) square += v * v / n;
                    else if (pass == 2) y[at] = act_of(p->act, v / sqrt(square + 1e-3) * x[1][c] + x[2][c]);
                    else y[at] = v / n; /* summed below */
                }
                if (pass == 0) {
                    for (size_t i = 0; i < p->pixels * width; i++)
                        mean += y[(item * p->pixels + i / width) * p->channels + group * width + i % width];
                }
            }
        }
    }
}

typedef struct norm_run { bb_norm_args a; float *mean, *rstd, *scratch; } norm_run;

static norm_run norm_arguments(const problem *p)
{
    norm_run r = {.a = {.items = p->items, .pixels = p->pixels, .channels = p->channels, .groups = p->groups,
                        .eps = 1e-3f, .act = p->act, .x = p->x[0], .scale = p->x[1], .shift = p->x[2]}};
    r.a.mean = r.mean = calloc((size_t)p->items * p->groups, sizeof(float));
    r.a.rstd = r.rstd = calloc((size_t)p->items * p->groups, sizeof(float));
    r.a.scratch = r.scratch = malloc(bb_norm_scratch(&r.a) * sizeof(float));
    return r;
}

static void norm_free(norm_run *r)
{
    free(r->mean);
    free(r->rstd);
    free(r->scratch);
}

static void norm_forward(const bb_ops *ops, const problem *p, float *y)
{
    norm_run r = norm_arguments(p);
    uint16_t *both = calloc(p->result, 2), *narrow = calloc(p->result, 2), *converted = calloc(p->result, 2);
    r.a.y = y;
    r.a.y16 = both;
    ops->norm_forward(&r.a);
    r.a.y = NULL;
    r.a.y16 = narrow;
    ops->norm_forward(&r.a);
    ops->to_bf16(p->result, y, converted);
    CHECK(!memcmp(both, converted, p->result * 2), "%s norm to both", ops->name);
    CHECK(!memcmp(narrow, converted, p->result * 2), "%s norm to bf16", ops->name);
    free(both);
    free(narrow);
    free(converted);
    norm_free(&r);
}

static void norm_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    norm_run r = norm_arguments(p);
    float *y = calloc(p->result, sizeof *y);
    r.a.y = y;
    ops->norm_forward(&r.a);
    r.a.dy = dy;
    r.a.dx = dx[0];
    r.a.dscale = dx[1];
    r.a.dshift = dx[2];
    const float start = dx[0][0]; /* of all elements */
    ops->norm_backward(&r.a);
    float *begun = calloc(p->result, sizeof *begun); /* written over what lies there, the same to roundings */
    for (size_t i = 0; i < p->result; i++) begun[i] = NAN;
    r.a.dx = begun;
    r.a.dscale = r.a.dshift = NULL;
    r.a.begin = true;
    ops->norm_backward(&r.a);
    float most = 1; /* in front of the sums that cancel */
    for (size_t i = 0; i < p->items * p->groups; i++) most = fmaxf(most, r.rstd[i]);
    float off = 0;
    for (size_t i = 0; i < p->result; i++) {
        const float d = fabsf(begun[i] + start - dx[0][i]);
        off = d <= off ? off : d; /* NaN, too */
    }
    CHECK(off < 1e-5f * most, "%s norm' written, not added: %g", ops->name, off);
    free(begun);
    free(y);
    norm_free(&r);
}

static problem norm_problem(uint32_t items, uint32_t pixels, uint32_t channels, uint32_t groups, uint32_t act)
{
    const size_t n = (size_t)items * pixels * channels;
    problem p = {.name = "norm", .items = items, .pixels = pixels, .channels = channels, .groups = groups, .act = act,
                 .n = {n, channels, channels}, .result = n, .reference = norm_reference, .forward = norm_forward,
                 .backward = norm_backward};
    float *x = normals(n, 1);
    for (size_t i = 0; i < n; i++) x[i] = x[i] * 1.5f + 2; /* a mean to be taken away */
    p.x[0] = x;
    p.x[1] = normals(channels, 2);
    p.x[2] = normals(channels, 3);
    /* One value in a group: rstd = 1/√eps = 32 and all terms cancel to 0. */
    p.cancel = pixels * (channels / groups) < 4 ? 32 : 4;
    return p;
}

static void act_reference(const problem *p, double *const x[3], double *y)
{
    for (size_t i = 0; i < p->result; i++) y[i] = act_of(p->act, x[0][i]);
}
static void act_forward(const bb_ops *ops, const problem *p, float *y)
{
    uint16_t *both = calloc(p->result, 2), *narrow = calloc(p->result, 2), *converted = calloc(p->result, 2);
    ops->act_forward(p->act, p->result, p->x[0], y, both);
    ops->act_forward(p->act, p->result, p->x[0], NULL, narrow);
    ops->to_bf16(p->result, y, converted);
    CHECK(!memcmp(both, converted, p->result * 2), "%s act to both", ops->name);
    CHECK(!memcmp(narrow, converted, p->result * 2), "%s act to bf16", ops->name);
    ops->act_forward(p->act, p->result, p->x[0], y, NULL);
    free(both);
    free(narrow);
    free(converted);
}
static void act_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    ops->act_backward(p->act, p->result, p->x[0], dy, dx[0]);
}

static void test_gradients(const bb_ops *ops)
{
    for (uint32_t act = 0; act < 4; act++)
        for (size_t i = 0; i < COUNT(shapes); i++) {
            const uint32_t *s = shapes[i];
            run_problem(ops, norm_problem(s[0], s[1], s[2], s[3], act));
        }
    for (uint32_t act = 0; act < 4; act++)
        run_problem(ops, (problem){.name = "act", .act = act, .n = {531}, .result = 531, .reference = act_reference,
                                   .forward = act_forward, .backward = act_backward});
}

static void test_nan(const bb_ops *ops)
{
    float y[24];
    problem p = norm_problem(2, 3, 4, 2, BB_ACT_SILU);
    ((float *)(uintptr_t)p.x[0])[0] = NAN;
    norm_run r = norm_arguments(&p);
    r.a.y = y;
    ops->norm_forward(&r.a);
    CHECK(isnan(y[0]) && isnan(y[1]) && !isnan(y[2]) && !isnan(y[12]), "%s a NaN spoils its group only", ops->name);
    norm_free(&r);
    for (int k = 0; k < 3; k++) free((void *)(uintptr_t)p.x[k]);
}

/* Large enough for all threads; one item, so that it is cut into parts; the same bits twice. */
static void test_parts(const bb_ops *one, const bb_ops *ops, uint32_t items)
{
    problem p = norm_problem(items, 1031, 33, 3, BB_ACT_SILU);
    float *dy = normals(p.result, 50), *y[3], *d[3][3];
    const bb_ops baseline = *one, many = *ops;
    for (int run = 0; run < 3; run++) {
        bb_ops_select(1, run ? 3 : 1); /* the table is kept, only the threads change */
        y[run] = calloc(p.result, sizeof(float));
        for (int k = 0; k < 3; k++) d[run][k] = calloc(p.n[k], sizeof(float));
        norm_forward(run ? &many : &baseline, &p, y[run]);
        norm_backward(run ? &many : &baseline, &p, dy, d[run]);
    }
    CHECK(!memcmp(y[1], y[2], p.result * 4), "%s norm: the same bits", ops->name);
    CHECK(check_error(y[1], y[0], p.result) <= 4 * CLOSE, "%s norm: %g", ops->name, check_error(y[1], y[0], p.result));
    for (int k = 0; k < 3; k++) {
        const double off = check_error(d[1][k], d[0][k], p.n[k]);
        CHECK(!memcmp(d[1][k], d[2][k], p.n[k] * 4), "%s norm': the same bits", ops->name);
        CHECK(off <= 8 * CLOSE, "%s norm' %d: %g", ops->name, k, off);
    }
    for (int run = 0; run < 3; run++) {
        free(y[run]);
        for (int k = 0; k < 3; k++) free(d[run][k]);
    }
    for (int k = 0; k < 3; k++) free((void *)(uintptr_t)p.x[k]);
    free(dy);
}

static void test(const bb_ops *ops)
{
    static bb_ops baseline;
    if (!baseline.name) baseline = *ops; /* the first */
    test_gradients(ops);
    test_nan(ops);
    for (uint32_t items = 1; items <= 4; items += 3) test_parts(&baseline, ops, items);
}

int main(void)
{
    each_set(test);
    return check_done();
}
