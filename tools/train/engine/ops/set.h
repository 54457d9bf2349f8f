/* What the files of this folder share. Each instruction set compiles them all with its own flags and BB_OPS_SET as its
 * name: BB_FN(x) is x of that set. Loops are plain C that compilers vectorize: flat, without calls or branches. */
#ifndef BB_TRAIN_ENGINE_OPS_SET_H
#define BB_TRAIN_ENGINE_OPS_SET_H

#include "base/mathf.h"
#include "train/engine/ops.h"

#define BB_JOIN_(a, b, c) a##_##b##_##c
#define BB_JOIN(a, b, c) BB_JOIN_(a, b, c)
#define BB_FN(name) BB_JOIN(bb_ops, name, BB_OPS_SET)

/* Each file fills its part of the table; table.c makes the whole. */
void BB_FN(norm)(bb_ops *t);
void BB_FN(pointwise)(bb_ops *t);
void BB_FN(channels)(bb_ops *t);
void BB_FN(spatial)(bb_ops *t);
void BB_FN(rows)(bb_ops *t);
void BB_FN(update)(bb_ops *t);
void BB_FN(table)(bb_ops *t);

/* How a group norm's work is cut (select.c): an item into `parts` of `pixels`, but for the last; loops into runs. */
typedef struct bb_norm_split { size_t parts, pixels, run; } bb_norm_split;
bb_norm_split bb_norm_parts(const bb_norm_args *a);
/* In the scratch: two sums per channel of each part of each item, then for each thread so many runs. */
#define BB_NORM_SLOTS 7

#define SMALL 16384 /* elements that are not worth a second thread */
#define SIMD _Pragma("omp simd")

BB_INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
BB_INLINE size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Nearest even; NaN stays NaN. */
BB_INLINE uint16_t bf16(float x)
{
    const uint32_t u = bb_f32_bits(x), rounded = u + 0x7fff + (u >> 16 & 1);
    return (uint16_t)((x == x ? rounded : u | 0x400000) >> 16);
}

/* e^x of x cut to ±87, error ≤ 1.7e-7 relative; NaN stays NaN. Half the work of bb_expf: five terms, 2^n in one piece
 * (n is in the low mantissa bits of the sum that rounds it). The polynomial is fitted, to equal ripple. */
BB_INLINE float exp_near(float x)
{
    float c = x < -87.0f ? -87.0f : x;
    c = c > 87.0f ? 87.0f : c;
    const float shifted = c * BB_EXP_LOG2E + 12582912.0f, n = shifted - 12582912.0f;
    const float r = (c - n * BB_EXP_LN2_HIGH) - n * BB_EXP_LN2_LOW;
    float p = 0.0083125010f;
    p = p * r + 0.0418903306f;
    p = p * r + 0.1666711569f;
    p = p * r + 0.4999923110f;
    p = (p * (r * r) + r) + 1.0f;
    return p * bb_f32_from_bits((bb_f32_bits(shifted) << 23) + 0x3f800000u);
}

/* ---- activations: `act` is a constant at every call ---- */
BB_INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp_near(-x)); }

BB_INLINE float activate(const uint32_t act, float x)
{
    if (act == BB_ACT_SILU) return x * sigmoid(x);
    if (act == BB_ACT_GELU) return bb_geluf(x);
    if (act == BB_ACT_MISH) return bb_mishf(x);
    return x;
}

/* d activate(x) / dx. GELU: Φ + x·φ. Mish, with e = e^x and n = e(e + 2) as in bb_mishf: tanh = n/(n + 2), its square's
 * complement 4(1 + e)²/(n + 2)², the softplus' slope e/(1 + e). */
BB_INLINE float act_slope(const uint32_t act, float x)
{
    if (act == BB_ACT_SILU) {
        const float s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
    if (act == BB_ACT_GELU) return bb_normal_cdff(x) + x * (0.39894228f * bb_expf(-0.5f * x * x));
    if (act == BB_ACT_MISH) {
        const float e = bb_expf(x < 20.0f ? x : 20.0f), n = e * (e + 2.0f), r = 1.0f / (n + 2.0f);
        return n * r + x * (4.0f * e * (1.0f + e) * (r * r));
    }
    return 1.0f;
}

/* CALL(act) with act as a constant. */
#define BB_EACH_ACT(act, CALL)                          \
    switch (act) {                                      \
    case BB_ACT_NONE: CALL(BB_ACT_NONE); break;         \
    case BB_ACT_SILU: CALL(BB_ACT_SILU); break;         \
    case BB_ACT_GELU: CALL(BB_ACT_GELU); break;         \
    case BB_ACT_MISH: CALL(BB_ACT_MISH); break;         \
    default: BB_ASSERT(false);                          \
    }

#endif
