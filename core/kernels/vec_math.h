/* The elementary functions of base/mathf.h in vectors, with the same bits; and the inner loop of matrix products. */
#ifndef BB_KERNELS_VEC_MATH_H
#define BB_KERNELS_VEC_MATH_H

#include "base/mathf.h"
#include "kernels/vec_types.h"

/* e^±c = p·2^n in two halves, for clamped c: r, of which p is a polynomial, with *power = 2^(n + bias); and their
 * product. The halves are apart because each is one long chain of dependent operations: a loop over one half keeps more
 * of them under way than a CPU finds by itself in a loop over both. `minus` is a constant at every call; moving a sign
 * changes no rounding. */
BB_INLINE vf exp_reduce(vf c, const bool minus, int32_t bias, vf *power)
{
    const vf magic = splat(12582912.0f);
    const vf shifted = c * (minus ? -BB_EXP_LOG2E : BB_EXP_LOG2E) + magic, n = shifted - magic;
    const vf r = minus ? n * -BB_EXP_LN2_HIGH - c : c - n * BB_EXP_LN2_HIGH;
    *power = (vf)(((vi)shifted << 23) + ((127 + bias) << 23)); /* n is in the low mantissa bits */
    return r - n * BB_EXP_LN2_LOW;
}

BB_INLINE vf exp_join(vf r, vf power)
{
    vf p = splat(BB_EXP_P0);
    p = p * r + BB_EXP_P1;
    p = p * r + BB_EXP_P2;
    p = p * r + BB_EXP_P3;
    p = p * r + BB_EXP_P4;
    p = p * r + BB_EXP_P5;
    p = (p * (r * r) + r) + 1.0f;
    return p * power;
}

/* bb_expf for x ≤ 88 (and NaN): there n ≤ 127, so 2^n is a float and one multiplication does. A NaN passes the clamp as
 * greater's second operand and spoils r by itself. */
BB_INLINE vf exp_split(vf x, vf *power)
{
    const vf low = splat(BB_EXP_LOW), r = exp_reduce(greater(low, x), false, 0, power);
    *power = (vf)(~(vi)(x < low) & (vi)*power);
    return r;
}

BB_INLINE vf exp_v(vf x)
{
    vf power, r = exp_split(x, &power);
    return exp_join(r, power);
}

#define RUN 64 /* floats that go through a function half by half */

/* x / (1 + bb_expf(−x)) is silu_join(x, e) with the e that silu_split gives for n ≤ RUN floats, whole vectors: half of
 * exp(−x), as n may be 128 here. What that makes of the smallest powers does not matter, as 1 + e is 1 there; at the
 * upper clamp e is infinite. */
static __attribute__((noinline)) void silu_split(float *e, const float *x, size_t n)
{
    float power[RUN];
    for (size_t i = 0; i < n; i += BB_LANES) {
        const vf c = lesser(splat(-(BB_EXP_LOW)), greater(splat(-BB_EXP_HIGH), load(x + i)));
        vf half;
        store(e + i, exp_reduce(c, true, -1, &half));
        store(power + i, half);
    }
    for (size_t i = 0; i < n; i += BB_LANES) store(e + i, exp_join(load(e + i), load(power + i)));
}

BB_INLINE vf silu_join(vf x, vf e) { return x / (1.0f + (e + e)); }

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

/* Sums in registers: 4 rows × 2 vectors with what they need fit 16 registers; 512-bit sets have 32. */
#define ROWS (BB_LANES == 16 ? 8 : 4)
#define COLUMNS (BB_LANES == 16 ? 1 : 2)

/* sum[r][v] += Σ_k x[r][k·step]·w[k·stride + v·lanes], k ascending. The number of columns is a constant at every call:
 * so the sums stay in registers. */
BB_INLINE void products(vf (*sum)[COLUMNS], const float *const *x, size_t step, const float *w, size_t stride, size_t n,
                        const size_t columns)
{
    for (size_t k = 0; k < n; k++, w += stride) {
        vf wk[COLUMNS];
        _Pragma("GCC unroll 2") for (size_t v = 0; v < columns; v++) wk[v] = load(w + v * BB_LANES);
        _Pragma("GCC unroll 8") for (size_t r = 0; r < ROWS; r++) {
            const vf xk = splat(x[r][k * step]);
            _Pragma("GCC unroll 2") for (size_t v = 0; v < columns; v++) sum[r][v] = sum[r][v] + xk * wk[v];
        }
    }
}

#endif
