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

#endif
