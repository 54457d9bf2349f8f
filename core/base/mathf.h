/* Elementary functions with the same bits on every target: only + − × ÷ √ and integer operations, no libm,
 * no FMA (the build sets -ffp-contract=off). The f32 ones have a vector form in kernels/vec.h with the
 * same sequence of operations. */
#ifndef BB_BASE_MATHF_H
#define BB_BASE_MATHF_H

#include "base/compiler.h"

/* f64, error below 1e-14 relative for the ranges named; used where cost does not matter (rng, embeddings). */
double bb_sin(double x);  /* |x| < 1e6 */
double bb_cos(double x);  /* |x| < 1e6 */
double bb_log(double x);  /* x > 0, normal */
double bb_exp(double x);  /* result 0 below -745, inf above 709 */

/* f32 e^x, error ≤ 2 ulp in [-87, 88]; 0 below (also for -inf), inf above, NaN stays NaN. */
BB_INLINE float bb_expf(float x);

/* Φ(x), the normal distribution's, error ≤ 5e-7; x·Φ(x) (GELU without approximation); and x·tanh(ln(1 + e^x)), error
 * ≤ 8 ulp. NaN stays NaN. */
BB_INLINE float bb_normal_cdff(float x);
BB_INLINE float bb_geluf(float x);
BB_INLINE float bb_mishf(float x);

/* x to the nearest integer, ties to even, for |x| < 2^22. */
BB_INLINE float bb_round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

/* IEEE half and bfloat16, exact both ways where representable; to_f16 rounds to nearest even. */
float bb_f16_to_f32(uint16_t h);
uint16_t bb_f32_to_f16(float x);
BB_INLINE float bb_bf16_to_f32(uint16_t h) { return bb_f32_from_bits((uint32_t)h << 16); }

/* Cephes-style: n = round(x·log2 e), r = x − n·ln 2 in two parts, degree-6 polynomial, scale by 2^n in
 * two exact multiplications so that results down to the smallest normal are right. */
#define BB_EXP_HIGH 88.8f
#define BB_EXP_LOW (-87.4f)
#define BB_EXP_LOG2E 1.44269504f
#define BB_EXP_LN2_HIGH 0.693359375f
#define BB_EXP_LN2_LOW (-2.12194440e-4f)
#define BB_EXP_P0 1.9875691500e-4f
#define BB_EXP_P1 1.3981999507e-3f
#define BB_EXP_P2 8.3334519073e-3f
#define BB_EXP_P3 4.1665795894e-2f
#define BB_EXP_P4 1.6666665459e-1f
#define BB_EXP_P5 5.0000001201e-1f
BB_INLINE float bb_expf(float x)
{
    float c = x < BB_EXP_HIGH ? x : BB_EXP_HIGH; /* NaN → 88.8: restored below */
    c = c > BB_EXP_LOW ? c : BB_EXP_LOW;
    float n = bb_round_even(c * BB_EXP_LOG2E);
    float r = (c - n * BB_EXP_LN2_HIGH) - n * BB_EXP_LN2_LOW;
    float p = BB_EXP_P0;
    p = p * r + BB_EXP_P1;
    p = p * r + BB_EXP_P2;
    p = p * r + BB_EXP_P3;
    p = p * r + BB_EXP_P4;
    p = p * r + BB_EXP_P5;
    p = (p * (r * r) + r) + 1.0f;
    int32_t i = (int32_t)n, half = i >> 1;
    p = p * bb_f32_from_bits((uint32_t)(half + 127) << 23);
    p = p * bb_f32_from_bits((uint32_t)(i - half + 127) << 23);
    p = x < BB_EXP_LOW ? 0.0f : p;
    p = x > BB_EXP_HIGH ? bb_f32_from_bits(0x7f800000u) : p;
    return x == x ? p : x;
}

/* Φ(−√2·z) = e^−z²·t·P(t), t = 1/(1 + z/2), for z ≥ 0: P is a least-squares fit with weights iterated towards equal
 * ripple, 4.5e-8 relative in 0 ≤ z ≤ 14, where the result is below the smallest float. */
#define BB_GELU_SQRT_HALF 0.70710678f
#define BB_GELU_P0 (0.2820843458175659f / 2)
#define BB_GELU_P1 (0.2824120819568634f / 2)
#define BB_GELU_P2 (0.2428351491689682f / 2)
#define BB_GELU_P3 (0.20375235378742218f / 2)
#define BB_GELU_P4 (-0.02914801798760891f / 2)
#define BB_GELU_P5 (0.28173238039016724f / 2)
#define BB_GELU_P6 (-0.49040547013282776f / 2)
#define BB_GELU_P7 (0.28612345457077026f / 2)
#define BB_GELU_P8 (-0.05938634276390076f / 2)
BB_INLINE float bb_normal_cdff(float x)
{
    float z = (x < 0 ? -x : x) * BB_GELU_SQRT_HALF, t = 1.0f / (1.0f + 0.5f * z);
    float p = BB_GELU_P8;
    p = p * t + BB_GELU_P7;
    p = p * t + BB_GELU_P6;
    p = p * t + BB_GELU_P5;
    p = p * t + BB_GELU_P4;
    p = p * t + BB_GELU_P3;
    p = p * t + BB_GELU_P2;
    p = p * t + BB_GELU_P1;
    p = p * t + BB_GELU_P0;
    float tail = (p * t) * bb_expf(-(z * z));
    return x < 0 ? tail : 1.0f - tail;
}

BB_INLINE float bb_geluf(float x) { return x * bb_normal_cdff(x); }

/* With e = e^x: tanh(ln(1 + e)) = n/(n + 2), n = e·(e + 2). From 20 on that is 1. */
BB_INLINE float bb_mishf(float x)
{
    float e = bb_expf(x < 20.0f ? x : 20.0f), n = e * (e + 2.0f);
    return x * (n / (n + 2.0f));
}

#endif
