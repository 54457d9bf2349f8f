/* The trainer's ops: every forward and backward function against a reference in double written here, gradients by
 * central differences; every instruction set against the baseline; the same bits in every run; AdamW against PyTorch. */
#include <stdint.h>

#include "base/mathf.h"
#include "base/rng.h"
#include "check.h"
#include "train/engine/optim.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define STEP 1e-5 /* of differences in double: error STEP² of the third derivative, 1e-16/STEP of rounding: ≤ 1e-9 */

/* Each result is some ten roundings of 2^-24, a sum of n terms in runs some √n more; what is computed is compared with
 * the largest of the array. 2e-6 is 32 such roundings. */
#define CLOSE 2e-6

static float *normals(size_t n, uint32_t stream)
{
    float *x = calloc(n + 1, sizeof *x);
    bb_normals(x, n, 7, stream, 0);
    return x;
}

/* max |a − b|, for a in f32; inf if one is not finite. */
static double distance(const float *a, const double *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs(a[i] - b[i]);
        if (!(d <= 1e30)) return INFINITY;
        worst = d > worst ? d : worst;
    }
    return worst;
}

static double largest(const double *x, size_t n)
{
    double most = 1e-30;
    for (size_t i = 0; i < n; i++) most = fabs(x[i]) > most ? fabs(x[i]) : most;
    return most;
}

/* ---- a function of up to three arrays, its reference, its gradient ---- */

typedef struct problem {
    const char *name;
    uint32_t items, pixels, channels, groups, act, factor;
    bb_shape in, out;
    bool flag;
    size_t n[3], result; /* elements of the inputs, 0: no such input; of the result */
    const float *x[3];
    void (*reference)(const struct problem *p, double *const x[3], double *y);
    void (*forward)(const bb_ops *ops, const struct problem *p, float *y);
    void (*backward)(const bb_ops *ops, const struct problem *p, const float *dy, float *const dx[3]);
    double cancel; /* factor by which terms that cancel exceed the result's scale; 1 */
} problem;

static void differences(const problem *p, double *const x[3], const float *weight, double *const dx[3])
{
    double *y = calloc(p->result, sizeof *y);
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < p->n[k]; i++) {
            const double at = x[k][i];
            double loss[2] = {0, 0};
            for (int side = 0; side < 2; side++) {
                x[k][i] = at + (side ? STEP : -STEP);
                p->reference(p, x, y);
                for (size_t j = 0; j < p->result; j++) loss[side] += (double)weight[j] * y[j];
            }
            x[k][i] = at;
            dx[k][i] = (loss[1] - loss[0]) / (2 * STEP);
        }
    }
    free(y);
}

/* Gradients are added to: they start at 1 here. */
static void check_problem(const bb_ops *ops, const problem *p)
{
    double *x[3], *dx[3], *y = calloc(p->result, sizeof *y);
    float *d[3], *result = calloc(p->result, sizeof *result), *weight = normals(p->result, 99);
    for (int k = 0; k < 3; k++) {
        x[k] = calloc(p->n[k] + 1, sizeof *x[k]);
        dx[k] = calloc(p->n[k] + 1, sizeof *dx[k]);
        d[k] = calloc(p->n[k] + 1, sizeof *d[k]);
        for (size_t i = 0; i < p->n[k]; i++) {
            x[k][i] = (double)p->x[k][i];
            d[k][i] = 1;
        }
    }
    p->reference(p, x, y);
    p->forward(ops, p, result);
    const double cancel = p->cancel > 1 ? p->cancel : 1, error = distance(result, y, p->result) / largest(y, p->result);
    CHECK(error <= CLOSE * cancel, "%s %s (%u %u %u %u): %g", ops->name, p->name, p->items, p->pixels, p->channels,
          p->groups, error);
    differences(p, x, weight, dx);
    p->backward(ops, p, weight, d);
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < p->n[k]; i++) dx[k][i] += 1;
        const double scale = largest(dx[k], p->n[k]) * cancel, off = distance(d[k], dx[k], p->n[k]) / scale;
        CHECK(!p->n[k] || off <= 2 * CLOSE, "%s %s' of input %d (%u %u %u %u): %g", ops->name, p->name, k, p->items,
              p->pixels, p->channels, p->groups, off);
        free(x[k]);
        free(dx[k]);
        free(d[k]);
    }
    free(y);
    free(result);
    free(weight);
}

/* ---- group norm and activations ---- */

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
    CHECK(!memcmp(both, converted, p->result * 2) && !memcmp(narrow, converted, p->result * 2), "%s norm y16", ops->name);
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
    CHECK(!memcmp(both, converted, p->result * 2) && !memcmp(narrow, converted, p->result * 2), "%s act y16", ops->name);
    ops->act_forward(p->act, p->result, p->x[0], y, NULL);
    free(both);
    free(narrow);
    free(converted);
}
static void act_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    ops->act_backward(p->act, p->result, p->x[0], dy, dx[0]);
}

/* ---- the others ---- */

static size_t per_item(const problem *p, size_t i) { return i / ((size_t)p->pixels * p->channels) * p->channels + i % p->channels; }

static void add_reference(const problem *p, double *const x[3], double *y)
{
    for (size_t i = 0; i < p->result; i++) y[i] = x[0][i] + x[1][p->flag ? per_item(p, i) : i];
}
static void add_forward(const bb_ops *ops, const problem *p, float *y)
{
    ops->add_forward(p->items, p->pixels, p->channels, p->flag, p->x[0], p->x[1], y);
}
static void add_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    ops->add_backward(p->items, p->pixels, p->channels, p->flag, dy, dx[0], NULL);
    ops->add_backward(p->items, p->pixels, p->channels, p->flag, dy, NULL, dx[1]);
    for (size_t i = 0; i < p->n[0]; i++) dx[0][i] -= dy[i];
    float *zero = calloc(p->n[1], sizeof *zero); /* both at once is the same as each alone */
    ops->add_backward(p->items, p->pixels, p->channels, p->flag, dy, dx[0], zero);
    for (size_t i = 0; i < p->n[1]; i++) CHECK(fabs(zero[i] + 1 - dx[1][i]) < 1e-5, "add of both");
    free(zero);
}

static void modulate_reference(const problem *p, double *const x[3], double *y)
{
    for (size_t i = 0; i < p->result; i++) y[i] = x[0][i] * (1 + x[1][per_item(p, i)]) + x[2][per_item(p, i)];
}
static void modulate_forward(const bb_ops *ops, const problem *p, float *y)
{
    ops->modulate_forward(p->items, p->pixels, p->channels, p->x[0], p->x[1], p->x[2], y);
}
static void modulate_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    ops->modulate_backward(p->items, p->pixels, p->channels, p->x[0], p->x[1], dy, dx[0], dx[1], dx[2]);
}

static void affine_reference(const problem *p, double *const x[3], double *y)
{
    for (size_t i = 0; i < p->result; i++) y[i] = x[0][i] * 1.5 - 0.25;
}
static void affine_forward(const bb_ops *ops, const problem *p, float *y)
{
    ops->affine_forward(p->result, 1.5f, -0.25f, p->x[0], y);
}
static void affine_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    ops->affine_backward(p->result, 1.5f, dy, dx[0]);
}

static void upsample_reference(const problem *p, double *const x[3], double *y)
{
    const size_t c = p->channels;
    for (size_t i = 0; i < p->result; i++) {
        const size_t column = i / c % p->out.w, row = i / c / p->out.w % p->out.h, item = i / c / p->out.w / p->out.h;
        const size_t from = (item * p->in.h + row * p->in.h / p->out.h) * p->in.w + column * p->in.w / p->out.w;
        y[i] = x[0][from * c + i % c];
    }
}
static void upsample_forward(const bb_ops *ops, const problem *p, float *y)
{
    ops->upsample_forward(p->items, p->in, p->out, p->x[0], y);
}
static void upsample_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    ops->upsample_backward(p->items, p->in, p->out, dy, dx[0]);
}

static void pool_reference(const problem *p, double *const x[3], double *y)
{
    const size_t c = p->channels, w = p->in.w / p->factor, h = p->in.h / p->factor, f = p->factor;
    for (size_t i = 0; i < p->result; i++) {
        const size_t column = i / c % w, row = i / c / w % h, item = i / c / w / h;
        y[i] = 0;
        for (size_t k = 0; k < f * f; k++)
            y[i] += x[0][((item * p->in.h + row * f + k / f) * p->in.w + column * f + k % f) * c + i % c] / (double)(f * f);
    }
}
static void pool_forward(const bb_ops *ops, const problem *p, float *y) { ops->pool_forward(p->in, p->factor, p->x[0], y); }
static void pool_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    ops->pool_backward(p->in, p->factor, dy, dx[0]);
}

static void softmax_reference(const problem *p, double *const x[3], double *y)
{
    for (size_t row = 0; row < p->items; row++) {
        double sum = 0;
        for (size_t i = row * p->channels; i < (row + 1) * p->channels; i++) sum += y[i] = exp(x[0][i]);
        for (size_t i = row * p->channels; i < (row + 1) * p->channels; i++) y[i] /= sum;
    }
}
static void softmax_forward(const bb_ops *ops, const problem *p, float *y)
{
    memcpy(y, p->x[0], p->result * sizeof *y);
    ops->softmax_forward(p->items, p->channels, y);
}
/* The forms in bf16 are those in f32, rounded; backward to one more rounding of f32. */
static void check_softmax_bf16(const bb_ops *ops, const problem *p, const float *y, const float *dy)
{
    uint16_t *y16 = calloc(p->result, sizeof *y16), *d16 = calloc(p->result, sizeof *d16);
    uint16_t *want = calloc(p->result, sizeof *want);
    float *x = calloc(p->result, sizeof *x), *d = calloc(p->result, sizeof *d), *wide = calloc(p->result, sizeof *wide);
    memcpy(x, p->x[0], p->result * sizeof *x);
    memcpy(d, dy, p->result * sizeof *d);
    ops->softmax_to_bf16(p->items, p->channels, x, y16);
    ops->to_bf16(p->result, y, want);
    CHECK(!memcmp(y16, want, p->result * sizeof *want), "%s softmax in bf16", ops->name);
    ops->from_bf16(p->result, y16, wide);
    ops->softmax_backward_bf16(p->items, p->channels, y16, d, d16);
    memcpy(d, dy, p->result * sizeof *d);
    ops->softmax_backward(p->items, p->channels, wide, d);
    ops->from_bf16(p->result, d16, wide);
    for (size_t i = 0; i < p->result; i++)
        CHECK(fabsf(wide[i] - d[i]) <= fabsf(d[i]) / 255 + 1e-6f, "%s softmax' in bf16: %g, not %g", ops->name,
              (double)wide[i], (double)d[i]);
    void *all[] = {y16, d16, want, x, d, wide};
    for (size_t i = 0; i < BB_COUNT(all); i++) free(all[i]);
}
static void softmax_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    float *y = calloc(p->result, sizeof *y), *d = calloc(p->result, sizeof *d);
    softmax_forward(ops, p, y);
    memcpy(d, dy, p->result * sizeof *d);
    check_softmax_bf16(ops, p, y, dy);
    ops->softmax_backward(p->items, p->channels, y, d);
    for (size_t i = 0; i < p->result; i++) dx[0][i] += d[i];
    free(y);
    free(d);
}

/* Of the student's logits x[0]; the teacher's, p->x[1], take no gradient. */
static void kl_reference(const problem *p, double *const x[3], double *y)
{
    *y = 0;
    for (size_t row = 0; row < p->items; row++) {
        const float *t = p->x[1] + row * p->channels;
        const double *s = x[0] + row * p->channels;
        double t_sum = 0, s_sum = 0;
        for (size_t i = 0; i < p->channels; i++) {
            t_sum += exp((double)t[i]);
            s_sum += exp(s[i]);
        }
        for (size_t i = 0; i < p->channels; i++)
            *y += exp((double)t[i]) / t_sum * ((double)t[i] - s[i] - log(t_sum / s_sum));
    }
}
static double kl_of(const bb_ops *ops, const problem *p, float weight, float *dx)
{
    float *t = calloc(p->n[0], sizeof *t), *s = calloc(p->n[0], sizeof *s);
    memcpy(t, p->x[1], p->n[0] * sizeof *t);
    memcpy(s, p->x[0], p->n[0] * sizeof *s);
    const double kl = ops->softmax_kl(p->items, p->channels, t, s, weight);
    if (dx) ops->axpy(p->n[0], 1, s, dx);
    free(t);
    free(s);
    return kl;
}
static void kl_forward(const bb_ops *ops, const problem *p, float *y) { *y = (float)kl_of(ops, p, 1, NULL); }
static void kl_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    kl_of(ops, p, *dy, dx[0]);
}

/* Channels 0..3 of the first and all of the second, then a slice: concat and slice forwards and backwards. */
static void channels_reference(const problem *p, double *const x[3], double *y)
{
    const size_t c = p->channels;
    for (size_t row = 0; row < p->items; row++) {
        for (size_t i = 0; i < c; i++) y[row * (c + 3) + i] = x[0][row * c + i];
        for (size_t i = 0; i < 3; i++) y[row * (c + 3) + c + i] = x[1][row * (c + 2) + 1 + i];
    }
}
static void channels_forward(const bb_ops *ops, const problem *p, float *y)
{
    float *slice = calloc(p->items * 3u, sizeof *slice);
    ops->copy_channels(p->items, p->channels + 2, 1, 3, p->x[1], slice);
    ops->put_channels(p->items, p->channels + 3, 0, p->channels, p->x[0], y, false);
    ops->put_channels(p->items, p->channels + 3, p->channels, 3, slice, y, false);
    free(slice);
}
static void channels_backward(const bb_ops *ops, const problem *p, const float *dy, float *const dx[3])
{
    float *part = calloc((size_t)p->items * (p->channels + 3), sizeof *part);
    ops->copy_channels(p->items, p->channels + 3, 0, p->channels, dy, part);
    ops->axpy(p->n[0], 1, part, dx[0]);
    ops->copy_channels(p->items, p->channels + 3, p->channels, 3, dy, part);
    ops->put_channels(p->items, p->channels + 2, 1, 3, part, dx[1], true);
    free(part);
}

static void run_problem(const bb_ops *ops, problem p)
{
    for (int k = 0; k < 3; k++)
        if (p.n[k] && !p.x[k]) p.x[k] = normals(p.n[k], 20 + (uint32_t)k);
    check_problem(ops, &p);
    for (int k = 0; k < 3; k++) free((void *)(uintptr_t)p.x[k]);
}

static void test_gradients(const bb_ops *ops)
{
    static const uint32_t shapes[][4] = {{1, 1, 1, 1}, {2, 1, 6, 2}, {1, 1, 5, 5}, {2, 7, 5, 1}, {1, 9, 12, 4}, {3, 2, 33, 11},
                                         {1, 5, 131, 131}, {2, 50, 8, 2}};
    for (uint32_t act = 0; act < 4; act++)
        for (size_t i = 0; i < COUNT(shapes); i++) {
            const uint32_t *s = shapes[i];
            run_problem(ops, norm_problem(s[0], s[1], s[2], s[3], act));
        }
    for (uint32_t act = 0; act < 4; act++)
        run_problem(ops, (problem){.name = "act", .act = act, .n = {531}, .result = 531, .reference = act_reference,
                                   .forward = act_forward, .backward = act_backward});
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const uint32_t items = shapes[i][0], pixels = shapes[i][1], c = shapes[i][2];
        const size_t n = (size_t)items * pixels * c, small = (size_t)items * c;
        for (int spread = 0; spread < 2; spread++)
            run_problem(ops, (problem){.name = "add", .items = items, .pixels = pixels, .channels = c, .flag = spread,
                                       .n = {n, spread ? small : n}, .result = n, .reference = add_reference,
                                       .forward = add_forward, .backward = add_backward});
        run_problem(ops, (problem){.name = "modulate", .items = items, .pixels = pixels, .channels = c,
                                   .n = {n, small, small}, .result = n, .reference = modulate_reference,
                                   .forward = modulate_forward, .backward = modulate_backward});
        run_problem(ops, (problem){.name = "softmax", .items = items * pixels, .channels = c, .n = {n}, .result = n,
                                   .reference = softmax_reference, .forward = softmax_forward,
                                   .backward = softmax_backward});
        const size_t rows = items * (size_t)pixels;
        if (c > 1)
            run_problem(ops, (problem){.name = "softmax_kl", .items = (uint32_t)rows, .channels = c, .n = {n}, .result = 1,
                                       .x = {NULL, normals(n, 30)}, .reference = kl_reference, .forward = kl_forward,
                                       .backward = kl_backward});
        run_problem(ops, (problem){.name = "channels", .items = (uint32_t)rows, .channels = c + 2,
                                   .n = {rows * (c + 2), rows * (c + 4)}, .result = rows * (c + 5),
                                   .reference = channels_reference, .forward = channels_forward,
                                   .backward = channels_backward});
    }
    run_problem(ops, (problem){.name = "affine", .n = {77}, .result = 77, .reference = affine_reference,
                               .forward = affine_forward, .backward = affine_backward});
    static const uint32_t sizes[][4] = {{2, 2, 4, 4}, {1, 1, 3, 2}, {3, 2, 7, 5}, {5, 4, 3, 3}};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const uint32_t *s = sizes[i];
        const bb_shape in = {2, s[0], s[1], 3}, out = {2, s[2], s[3], 3};
        run_problem(ops, (problem){.name = "upsample", .items = 2, .channels = 3, .in = in, .out = out,
                                   .n = {bb_shape_size(in)}, .result = bb_shape_size(out),
                                   .reference = upsample_reference, .forward = upsample_forward,
                                   .backward = upsample_backward});
        const uint32_t f = 1 + (uint32_t)i % 2;
        run_problem(ops, (problem){.name = "pool", .channels = 3, .in = out, .factor = f, .n = {bb_shape_size(out)},
                                   .result = (size_t)2 * (s[2] / f) * (s[3] / f) * 3, .reference = pool_reference,
                                   .forward = pool_forward, .backward = pool_backward});
    }
}

/* ---- what is no problem of that form ---- */

static void test_sums(const bb_ops *ops)
{
    static const size_t shapes[][2] = {{1, 1}, {3, 5}, {1000, 33}, {70, 600}, {17, 256}};
    for (size_t s = 0; s < COUNT(shapes); s++) {
        const size_t rows = shapes[s][0], n = shapes[s][1];
        float *x = normals(rows * n, 5), *sum = calloc(n, sizeof *sum);
        double *want = calloc(n, sizeof *want), square = 0;
        for (size_t i = 0; i < rows * n; i++) {
            want[i % n] += (double)x[i];
            square += (double)x[i] * (double)x[i];
        }
        ops->column_sums(rows, (uint32_t)n, x, sum);
        /* ≤ √rows·2^-24 of sums of √rows standard deviations, of each at most (64 + 16) roundings */
        CHECK(distance(sum, want, n) <= 80 * 6e-8 * sqrt((double)rows), "%s column sums of %zu", ops->name, rows);
        CHECK(fabs(ops->dot(rows * n, x, x) / square - 1) < 1e-13, "%s dot", ops->name);
        uint16_t *narrow = calloc(rows * n, 2), *converted = calloc(rows * n, 2);
        float *again = calloc(n, sizeof *again);
        ops->to_bf16(rows * n, x, converted);
        ops->column_sums_to_bf16(rows, (uint32_t)n, x, NULL, narrow);
        ops->column_sums_to_bf16(rows, (uint32_t)n, x, again, narrow);
        CHECK(!memcmp(narrow, converted, rows * n * 2) && !memcmp(sum, again, n * 4), "%s both in one pass", ops->name);
        free(narrow);
        free(converted);
        free(again);
        free(x);
        free(sum);
        free(want);
    }
}

static void test_embeddings(const bb_ops *ops)
{
    const float t[2] = {3, 950}, freq[3] = {1, 0.1f, 0.001f}, row[3] = {2, 0, 2}, d[6] = {1, 2, 3, 4, 5, 6};
    float y[12], table[6] = {10, 11, 12, 13, 14, 15}, e[6], dtable[6] = {0};
    for (int cos_first = 0; cos_first < 2; cos_first++) {
        ops->timestep_forward(2, 3, cos_first, t, freq, y);
        for (int i = 0; i < 6; i++) {
            const double angle = t[i / 3] * freq[i % 3];
            const float *at = y + i / 3 * 6 + i % 3;
            CHECK(fabs(at[cos_first ? 3 : 0] - sin(angle)) < 1e-7 && fabs(at[cos_first ? 0 : 3] - cos(angle)) < 1e-7,
                  "%s timestep %d", ops->name, i);
        }
    }
    ops->embedding_forward(3, 2, row, table, e);
    CHECK(e[0] == 14 && e[1] == 15 && e[2] == 10 && e[3] == 11 && e[4] == 14, "%s embedding", ops->name);
    ops->embedding_backward(3, 2, row, d, dtable);
    CHECK(dtable[4] == 6 && dtable[5] == 8 && dtable[0] == 3 && dtable[1] == 4 && !dtable[2], "%s embedding'", ops->name);
}

static void test_special(const bb_ops *ops)
{
    enum { N = 40 };
    float x[N], y[N], back[N];
    uint16_t h[N];
    for (int i = 0; i < N; i++) x[i] = (float)i - 20;
    x[7] = NAN;
    for (uint32_t act = 0; act < 4; act++) {
        ops->act_forward(act, N, x, y, h);
        ops->from_bf16(N, h, back);
        for (int i = 0; i < N; i++)
            CHECK(isnan(y[i]) == (i == 7) && isnan(back[i]) == (i == 7), "%s act %u of %g", ops->name, act, x[i]);
    }
    const float ends[4] = {INFINITY, -INFINITY, 200, -200};
    ops->act_forward(BB_ACT_SILU, 4, ends + 2 - 2, y, NULL);
    CHECK(y[0] == INFINITY && y[2] == 200 && fabs(y[3]) < 1e-30, "%s silu of inf", ops->name);
    ops->softmax_forward(1, N, x);
    CHECK(isnan(x[0]) && isnan(x[N - 1]), "%s a NaN spoils its softmax", ops->name);

    /* bf16: ties go to even, the largest floats to infinity, NaN with any payload stays NaN. */
    const uint32_t bits[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x7f7fffff, 0x7f800000, 0x7f800001, 0xffffffff, 0x80000000};
    const uint16_t want[] = {0x3f80, 0x3f82, 0x3f81, 0x7f80, 0x7f80, 0x7fc0, 0xffff, 0x8000};
    float v[8];
    memcpy(v, bits, sizeof bits);
    ops->to_bf16(8, v, h);
    for (int i = 0; i < 8; i++) CHECK(h[i] == want[i], "%s bf16 of %08x: %04x", ops->name, bits[i], h[i]);

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
static void test_threads(const bb_ops *one, const bb_ops *ops, uint32_t items)
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

/* ---- the optimizer ---- */

/* Each update is some ten roundings of numbers up to 1.5, relative 2^-24; PyTorch's clipping has 1e-6 more in its divisor,
 * which AdamW's ratio hides but for eps. */
static void test_adamw(const bb_ops *ops)
{
    enum { N = 11, FIRST = 6, APART = 16 }; /* the second group lies apart, with floats of no group between them */
    static const float torch[10][N + 1] = {
#include "golden/adamw.inc"
    };
    const bb_optim_group groups[] = {{0, FIRST, 1, 0.1f}, {APART, N - FIRST, 0.1f, 0}};
    float w[APART + N - FIRST], g[COUNT(w)];
    bb_optim o;
    CHECK(bb_optim_new(&o, ops, COUNT(w), groups, 2, NULL) == BB_OK, "optimizer");
    for (int i = 0; i < (int)COUNT(w); i++) w[i] = 5;
    for (int i = 0; i < N; i++) w[i < FIRST ? i : APART + i - FIRST] = (float)(i * 29 % 13 - 6) / 4;
    for (int step = 0; step < 10; step++) {
        for (int i = 0; i < (int)COUNT(w); i++) g[i] = 100;
        for (int i = 0; i < N; i++)
            g[i < FIRST ? i : APART + i - FIRST] =
                step % 2 ? (float)((i * 37 + step * 11) % 17) / 8 - 1 : (float)((i * 5 + step) % 7) / 8 - 0.375f;
        const double norm = bb_optim_norm(&o, g);
        CHECK(fabs(norm / (double)torch[step][0] - 1) < 1e-6, "%s norm %g", ops->name, norm);
        CHECK(bb_optim_update(&o, w, g, 0.01f, 1.5f, norm), "update");
        for (int i = 0; i < N; i++)
            CHECK(fabsf(w[i < FIRST ? i : APART + i - FIRST] - torch[step][1 + i]) < 2e-6f, "%s AdamW %d of %d: %g",
                  ops->name, i, step, w[i < FIRST ? i : APART + i - FIRST] - torch[step][1 + i]);
    }
    CHECK(w[FIRST] == 5 && w[APART - 1] == 5, "floats of no group");
    const float before = w[0];
    g[0] = NAN;
    CHECK(!bb_optim_update(&o, w, g, 0.01f, 1.5f, bb_optim_norm(&o, g)) && w[0] == before && o.step == 10, "a NaN gradient");
    g[0] = INFINITY;
    CHECK(!bb_optim_update(&o, w, g, 0.01f, 1.5f, bb_optim_norm(&o, g)) && w[0] == before, "an infinite gradient");
    bb_optim_free(&o);
    float average[2] = {1, 2}, weight[2] = {3, -2};
    ops->ema(2, 0.75f, weight, average);
    CHECK(average[0] == 1.5f && average[1] == 1, "%s ema", ops->name);
}

static void test_rates(void)
{
    CHECK(bb_rate_at(BB_DECAY_CONSTANT, 1000, 10, 0, 0) == 1, "constant");
    CHECK(fabsf(bb_rate_at(BB_DECAY_LINEAR, 0, 100, 4, 0) - 0.2f) < 1e-6f, "the first update of a warm-up does something");
    CHECK(bb_rate_at(BB_DECAY_LINEAR, 4, 100, 4, 0) == 1, "after the warm-up");
    CHECK(fabsf(bb_rate_at(BB_DECAY_LINEAR, 52, 100, 4, 0.5f) - 0.75f) < 1e-6f, "linear, half way");
    CHECK(fabsf(bb_rate_at(BB_DECAY_COSINE, 25, 100, 0, 0) - 0.853553f) < 1e-5f, "cosine, a quarter");
    CHECK(bb_rate_at(BB_DECAY_COSINE, 100, 100, 0, 0.1f) == 0.1f && bb_rate_at(BB_DECAY_LINEAR, 200, 100, 0, 0.1f) == 0.1f,
          "the last rate stays");
}

int main(void)
{
    bb_ops sets[3];
    for (uint32_t cpu = 1; cpu <= 3; cpu++) {
        const bb_ops *ops = &sets[cpu - 1];
        sets[cpu - 1] = *bb_ops_select(cpu, 2);
        if (cpu > 1 && !strcmp(ops->name, sets[cpu - 2].name)) continue; /* the CPU lacks it */
        test_gradients(ops);
        test_sums(ops);
        test_embeddings(ops);
        test_special(ops);
        test_adamw(ops);
        for (uint32_t items = 1; items <= 4; items += 3) test_threads(&sets[0], ops, items);
    }
    test_rates();
    return check_done();
}
