/* The elementary functions of base/mathf.h in vectors, with the same bits. */
#ifndef BB_KERNELS_VEC_MATH_H
#define BB_KERNELS_VEC_MATH_H

#include "base/mathf.h"
#include "kernels/vec_types.h"

/* e^c for clamped c as p·2^n: returns p; n as an integer is in the low mantissa bits of *shifted. */
BB_INLINE vf exp_parts(vf c, vf *shifted)
{
    const vf magic = splat(12582912.0f);
    *shifted = c * BB_EXP_LOG2E + magic;
    const vf n = *shifted - magic;
    const vf r = (c - n * BB_EXP_LN2_HIGH) - n * BB_EXP_LN2_LOW;
    vf p = splat(BB_EXP_P0);
    p = p * r + BB_EXP_P1;
    p = p * r + BB_EXP_P2;
    p = p * r + BB_EXP_P3;
    p = p * r + BB_EXP_P4;
    p = p * r + BB_EXP_P5;
    return (p * (r * r) + r) + 1.0f;
}

/* bb_expf for x ≤ 88 (and NaN): there n ≤ 127, so 2^n is a float and one multiplication does. A NaN passes the clamp as
 * greater's second operand and spoils p by itself. */
BB_INLINE vf exp_v(vf x)
{
    vf shifted;
    const vf low = splat(BB_EXP_LOW), p = exp_parts(greater(low, x), &shifted);
    const vf power = (vf)(((vi)shifted << 23) + (127 << 23));
    return (vf)(~(vi)(x < low) & (vi)(p * power));
}

/* x / (1 + bb_expf(−x)). n may be 128: p is doubled and n lowered instead. What that makes of the smallest powers does
 * not matter, as 1 + e is 1 there; at the upper clamp e is infinite. */
BB_INLINE vf silu_v(vf x)
{
    vf shifted;
    const vf p = exp_parts(greater(splat(BB_EXP_LOW), lesser(splat(BB_EXP_HIGH), -x)), &shifted);
    const vf power = (vf)(((vi)shifted << 23) + (126 << 23));
    return x / (1.0f + (p + p) * power);
}

/* bb_geluf and bb_mishf, step by step. */
BB_INLINE vf gelu_v(vf x)
{
    const vi negative = x < 0.0f;
    const vf z = choose(negative, -x, x) * BB_GELU_SQRT_HALF, t = 1.0f / (1.0f + 0.5f * z);
    vf p = splat(BB_GELU_P8);
    p = p * t + BB_GELU_P7;
    p = p * t + BB_GELU_P6;
    p = p * t + BB_GELU_P5;
    p = p * t + BB_GELU_P4;
    p = p * t + BB_GELU_P3;
    p = p * t + BB_GELU_P2;
    p = p * t + BB_GELU_P1;
    p = p * t + BB_GELU_P0;
    const vf tail = (p * t) * exp_v(-(z * z));
    return x * choose(negative, tail, 1.0f - tail);
}

BB_INLINE vf mish_v(vf x)
{
    const vf e = exp_v(lesser(splat(20.0f), x)), n = e * (e + 2.0f);
    return x * (n / (n + 2.0f));
}

#endif
