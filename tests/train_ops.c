/* The trainer's other ops: forward and backward functions against references in double; sums, embeddings, bf16; the
 * same with every instruction set. Group norm and activations: train_norm.c. */
#include "trainop.h"

/* Element of [items][channels] that belongs to i of [items][pixels][channels]. */
static size_t per_item(const problem *p, size_t i)
{
    return i / ((size_t)p->pixels * p->channels) * p->channels + i % p->channels;
}

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
            y[i] += x[0][((item * p->in.h + row * f + k / f) * p->in.w + column * f + k % f) * c + i % c];
        y[i] /= (double)(f * f);
    }
}
static void pool_forward(const bb_ops *ops, const problem *p, float *y)
{
    ops->pool_forward(p->in, p->factor, p->x[0], y);
}
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

static void test_gradients(const bb_ops *ops)
{
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
            run_problem(ops, (problem){.name = "softmax_kl", .items = (uint32_t)rows, .channels = c, .n = {n},
                                       .result = 1, .x = {NULL, normals(n, 30)}, .reference = kl_reference,
                                       .forward = kl_forward, .backward = kl_backward});
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

static void test_sums(const bb_ops *ops)
{
    static const size_t blocks[][2] = {{1, 1}, {3, 5}, {1000, 33}, {70, 600}, {17, 256}, {40000, 7}, {3000, 130}};
    for (size_t s = 0; s < COUNT(blocks); s++) {
        const size_t rows = blocks[s][0], n = blocks[s][1];
        float *x = normals(rows * n, 5), *sum = calloc(n, sizeof *sum);
        double *want = calloc(n, sizeof *want), square = 0;
        for (size_t i = 0; i < rows * n; i++) {
            want[i % n] += (double)x[i];
            square += (double)x[i] * (double)x[i];
        }
        ops->column_sums(rows, (uint32_t)n, x, sum);
        /* ≤ √rows·2^-24 of sums of √rows standard deviations, of each at most (64 + 16) roundings */
        CHECK(distance(sum, want, n) <= 80 * 6e-8 * sqrt((double)rows), "%s column sums of %zu", ops->name, rows);
        const double bound = 1.2e-16 * (double)(rows * n); /* roundings of the sum here, one term after the other */
        CHECK(fabs(ops->dot(rows * n, x, x) / square - 1) < 1e-15 + bound, "%s dot", ops->name);
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
    CHECK(dtable[4] == 6 && dtable[5] == 8 && dtable[0] == 3 && dtable[1] == 4 && !dtable[2], "%s embedding'",
          ops->name);
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
    const uint32_t bits[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x7f7fffff, 0x7f800000, 0x7f800001, 0xffffffff,
                             0x80000000};
    const uint16_t want[] = {0x3f80, 0x3f82, 0x3f81, 0x7f80, 0x7f80, 0x7fc0, 0xffff, 0x8000};
    float v[8];
    memcpy(v, bits, sizeof bits);
    ops->to_bf16(8, v, h);
    for (int i = 0; i < 8; i++) CHECK(h[i] == want[i], "%s bf16 of %08x: %04x", ops->name, bits[i], h[i]);
}

static void test(const bb_ops *ops)
{
    test_gradients(ops);
    test_sums(ops);
    test_embeddings(ops);
    test_special(ops);
}

int main(void)
{
    each_set(test);
    return check_done();
}
