/* Element by element. */
#include "train/engine/ops/set.h"

#define PARALLEL _Pragma("omp parallel for simd schedule(static) if (n > SMALL)")

BB_INLINE void act_run(const uint32_t act, const bool wide, const bool narrow, size_t n, const float *x, float *y,
                       uint16_t *y16)
{
    SIMD for (size_t i = 0; i < n; i++) {
        const float v = activate(act, x[i]);
        if (wide) y[i] = v;
        if (narrow) y16[i] = bf16(v);
    }
}

/* What is constant in a loop would be none in the function that OpenMP makes of it: so threads take blocks. */
#define BLOCK 4096
static void act_forward(uint32_t act, size_t n, const float *x, float *y, uint16_t *y16)
{
#pragma omp parallel for schedule(static) if (n > SMALL)
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t some = smaller(BLOCK, n - at);
#define FORWARD(act)                                                         \
    if (y && y16) act_run(act, true, true, some, x + at, y + at, y16 + at);  \
    else if (y) act_run(act, true, false, some, x + at, y + at, NULL);       \
    else act_run(act, false, true, some, x + at, NULL, y16 + at)
        BB_EACH_ACT(act, FORWARD)
#undef FORWARD
    }
}

static void act_backward(uint32_t act, size_t n, const float *x, const float *dy, float *dx)
{
#define BACKWARD(act) PARALLEL for (size_t i = 0; i < n; i++) dx[i] += dy[i] * act_slope(act, x[i])
    BB_EACH_ACT(act, BACKWARD)
#undef BACKWARD
}

static void affine_forward(size_t n, float mul, float add, const float *x, float *y)
{
    PARALLEL for (size_t i = 0; i < n; i++) y[i] = x[i] * mul + add;
}

static void axpy(size_t n, float a, const float *x, float *y)
{
    PARALLEL for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

static void to_bf16(size_t n, const float *x, uint16_t *y)
{
    PARALLEL for (size_t i = 0; i < n; i++) y[i] = bf16(x[i]);
}

static void from_bf16(size_t n, const uint16_t *x, float *y)
{
    PARALLEL for (size_t i = 0; i < n; i++) y[i] = bb_bf16_to_f32(x[i]);
}

/* By slices whose number does not depend on the threads'. */
#define SLICES 64
static double dot(size_t n, const float *a, const float *b)
{
    const size_t length = (n + SLICES - 1) / SLICES;
    double sums[SLICES], sum = 0;
#pragma omp parallel for schedule(static) if (n > SMALL)
    for (size_t slice = 0; slice < SLICES; slice++) {
        const size_t end = smaller(n, (slice + 1) * length);
        double s = 0;
#pragma omp simd reduction(+ : s)
        for (size_t i = slice * length; i < end; i++) s += (double)a[i] * (double)b[i];
        sums[slice] = s;
    }
    for (size_t slice = 0; slice < SLICES; slice++) sum += sums[slice];
    return sum;
}

void BB_FN(pointwise)(bb_ops *t)
{
    t->act_forward = act_forward;
    t->act_backward = act_backward;
    t->affine_forward = affine_forward;
    t->affine_backward = axpy;
    t->to_bf16 = to_bf16;
    t->from_bf16 = from_bf16;
    t->axpy = axpy;
    t->dot = dot;
}
