/* Row by row: softmax, embeddings. */
#include "train/engine/ops/set.h"

static void softmax_row(size_t n, float *x)
{
    float max = x[0], sum = 0;
#pragma omp simd reduction(max : max)
    for (size_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max; /* a NaN makes its exponential and the sum NaN */
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        const float e = bb_expf(x[i] - max);
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
    t->timestep_forward = timestep_forward;
    t->embedding_forward = embedding_forward;
    t->embedding_backward = embedding_backward;
}
