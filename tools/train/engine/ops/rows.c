/* Row by row: softmax, embeddings. */
#include "train/engine/ops/set.h"

/* A NaN is passed over here: its exponential and the sum become NaN. */
static float row_max(size_t n, const float *x)
{
    float max = x[0];
#pragma omp simd reduction(max : max)
    for (size_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    return max;
}

static void softmax_row(size_t n, float *x)
{
    const float max = row_max(n, x);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        const float e = exp_near(x[i] - max);
        x[i] = e;
        sum += e;
    }
    const float share = 1.0f / sum;
    SIMD for (size_t i = 0; i < n; i++) x[i] *= share;
}

static void softmax_forward(size_t rows, uint32_t n, float *x)
{
#pragma omp parallel for schedule(static) if (rows * n > SMALL / 4)
    for (size_t row = 0; row < rows; row++) softmax_row(n, x + row * n);
}

static void softmax_backward(size_t rows, uint32_t n, const float *y, float *dy)
{
#pragma omp parallel for schedule(static) if (rows * n > SMALL)
    for (size_t row = 0; row < rows; row++) {
        const float *p = y + row * n;
        float *d = dy + row * n, mean = 0;
#pragma omp simd reduction(+ : mean)
        for (size_t i = 0; i < n; i++) mean += p[i] * d[i];
        SIMD for (size_t i = 0; i < n; i++) d[i] = p[i] * (d[i] - mean);
    }
}

static void softmax_to_bf16(size_t rows, uint32_t n, float *x, uint16_t *y16)
{
#pragma omp parallel for schedule(static) if (rows * n > SMALL / 4)
    for (size_t row = 0; row < rows; row++) {
        softmax_row(n, x + row * n);
        SIMD for (size_t i = row * n; i < (row + 1) * n; i++) y16[i] = bf16(x[i]);
    }
}

static void softmax_backward_bf16(size_t rows, uint32_t n, const uint16_t *y16, float *dy, uint16_t *dx16)
{
#pragma omp parallel for schedule(static) if (rows * n > SMALL)
    for (size_t row = 0; row < rows; row++) {
        const uint16_t *restrict p = y16 + row * n;
        float *restrict d = dy + row * n, mean = 0;
        uint16_t *restrict dx = dx16 + row * n;
#pragma omp simd reduction(+ : mean)
        for (size_t i = 0; i < n; i++) mean += bb_bf16_to_f32(p[i]) * d[i];
        SIMD for (size_t i = 0; i < n; i++) dx[i] = bf16(bb_bf16_to_f32(p[i]) * (d[i] - mean));
    }
}

/* With logits relative to their maxima, p = e^t/P and q = e^s/Q: KL = Σ p(t − s) − log P/Q. Errors are 2^-24 of the
 * logits' differences, not of the logits. */
static double kl_row(size_t n, float *restrict t, float *restrict s, float weight)
{
    const float t_max = row_max(n, t), s_max = row_max(n, s);
    float t_sum = 0, s_sum = 0, cross = 0;
#pragma omp simd reduction(+ : t_sum, s_sum, cross)
    for (size_t i = 0; i < n; i++) {
        const float a = t[i] - t_max, b = s[i] - s_max, p = exp_near(a), q = exp_near(b);
        cross += p * (a - b);
        t_sum += p;
        s_sum += q;
        t[i] = p;
        s[i] = q;
    }
    const float p = weight / t_sum, q = weight / s_sum;
    SIMD for (size_t i = 0; i < n; i++) s[i] = s[i] * q - t[i] * p;
    const double kl = (double)(cross / t_sum) - bb_log((double)(t_sum / s_sum));
    return kl < 0 ? 0 : kl; /* by rounding only */
}

static double softmax_kl(size_t rows, uint32_t n, float *teacher, float *student, float weight)
{
    enum { SLICES = 64 }; /* a number that does not depend on the threads' */
    const size_t length = (rows + SLICES - 1) / SLICES;
    double sums[SLICES] = {0}, sum = 0;
#pragma omp parallel for schedule(static) if (rows * n > SMALL / 4)
    for (size_t slice = 0; slice < SLICES; slice++)
        for (size_t row = slice * length; row < smaller(rows, (slice + 1) * length); row++)
            sums[slice] += kl_row(n, teacher + row * n, student + row * n, weight);
    for (size_t slice = 0; slice < SLICES; slice++) sum += sums[slice];
    return sum;
}

/* As in core/run: the product is rounded to f32, sine and cosine once. */
static void timestep_forward(uint32_t items, uint32_t half, bool cos_first, const float *t, const float *freq, float *y)
{
    const size_t sin_at = cos_first ? half : 0, cos_at = half - sin_at;
    for (size_t item = 0; item < items; item++) {
        float *row = y + item * 2 * half;
        for (size_t i = 0; i < half; i++) {
            const float angle = t[item] * freq[i];
            row[sin_at + i] = (float)bb_sin(angle);
            row[cos_at + i] = (float)bb_cos(angle);
        }
    }
}

static void embedding_forward(uint32_t items, uint32_t columns, const float *row, const float *table, float *y)
{
    for (size_t item = 0; item < items; item++)
        memcpy(y + item * columns, table + (size_t)row[item] * columns, columns * sizeof *y);
}

static void embedding_backward(uint32_t items, uint32_t columns, const float *row, const float *dy, float *dtable)
{
    for (size_t item = 0; item < items; item++) {
        float *to = dtable + (size_t)row[item] * columns;
        SIMD for (size_t j = 0; j < columns; j++) to[j] += dy[item * columns + j];
    }
}

void BB_FN(rows)(bb_ops *t)
{
    t->softmax_forward = softmax_forward;
    t->softmax_backward = softmax_backward;
    t->softmax_to_bf16 = softmax_to_bf16;
    t->softmax_backward_bf16 = softmax_backward_bf16;
    t->softmax_kl = softmax_kl;
    t->timestep_forward = timestep_forward;
    t->embedding_forward = embedding_forward;
    t->embedding_backward = embedding_backward;
}
