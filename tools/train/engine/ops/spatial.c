/* Other sizes: upsampling and pooling. */
#include "train/engine/ops/set.h"

/* Pixel (y, x) of the larger picture is (y·h/H, x·w/W) of the smaller, rounded down, as in core/run. */
static void upsample_forward(uint32_t items, bb_shape in, bb_shape out, const float *x, float *y)
{
    const size_t rows = (size_t)items * out.h, c = in.c;
#pragma omp parallel for schedule(static) if (rows * out.w * c > SMALL)
    for (size_t row = 0; row < rows; row++) {
        const size_t from = row / out.h * in.h + row % out.h * in.h / out.h;
        for (size_t column = 0; column < out.w; column++)
            memcpy(y + (row * out.w + column) * c, x + (from * in.w + column * in.w / out.w) * c, c * sizeof *y);
    }
}

/* A thread takes whole rows of the smaller picture, so that no two add to the same place. */
static void upsample_backward(uint32_t items, bb_shape in, bb_shape out, const float *dy, float *dx)
{
    const size_t rows = (size_t)items * in.h, c = in.c;
#pragma omp parallel for schedule(static) if (rows * in.w * c > SMALL)
    for (size_t row = 0; row < rows; row++) {
        const size_t item = row / in.h, iy = row % in.h;
        const size_t first = (iy * out.h + in.h - 1) / in.h, end = ((iy + 1) * out.h + in.h - 1) / in.h;
        for (size_t oy = first; oy < end; oy++) {
            for (size_t column = 0; column < out.w; column++) {
                const float *d = dy + ((item * out.h + oy) * out.w + column) * c;
                float *to = dx + (row * in.w + column * in.w / out.w) * c;
                SIMD for (size_t j = 0; j < c; j++) to[j] += d[j];
            }
        }
    }
}

static void pool_forward(bb_shape in, uint32_t factor, const float *x, float *y)
{
    const size_t h = in.h / factor, w = in.w / factor, c = in.c, rows = in.n * h;
    const float share = 1.0f / (float)(factor * factor);
#pragma omp parallel for schedule(static) if (rows * w * c > SMALL)
    for (size_t row = 0; row < rows; row++) {
        for (size_t column = 0; column < w; column++) {
            float *mean = y + (row * w + column) * c;
            const float *from = x + ((row / h * in.h + row % h * factor) * in.w + column * factor) * c;
            memset(mean, 0, c * sizeof *mean);
            for (size_t i = 0; i < (size_t)factor * factor; i++) {
                const float *one = from + (i / factor * in.w + i % factor) * c;
                SIMD for (size_t j = 0; j < c; j++) mean[j] += share * one[j];
            }
        }
    }
}

static void pool_backward(bb_shape in, uint32_t factor, const float *dy, float *dx)
{
    const size_t h = in.h / factor, w = in.w / factor, c = in.c, rows = in.n * h;
    const float share = 1.0f / (float)(factor * factor);
#pragma omp parallel for schedule(static) if (rows * w * c > SMALL)
    for (size_t row = 0; row < rows; row++) {
        for (size_t column = 0; column < w; column++) {
            const float *d = dy + (row * w + column) * c;
            float *to = dx + ((row / h * in.h + row % h * factor) * in.w + column * factor) * c;
            for (size_t i = 0; i < (size_t)factor * factor; i++) {
                float *one = to + (i / factor * in.w + i % factor) * c;
                SIMD for (size_t j = 0; j < c; j++) one[j] += share * d[j];
            }
        }
    }
}

void BB_FN(spatial)(bb_ops *t)
{
    t->upsample_forward = upsample_forward;
    t->upsample_backward = upsample_backward;
    t->pool_forward = pool_forward;
    t->pool_backward = pool_backward;
}
