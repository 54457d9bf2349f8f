/* Elementary functions in f64: exact argument reduction, then the Taylor series with enough terms that the first one
 * left out is below half an ulp. Slow beside libm and the same everywhere; nothing hot calls them. */
#include "base/mathf.h"

#define ROUND_F64 6755399441055744.0 /* 1.5·2^52: adding and subtracting it rounds to an integer */

/* c[0] + c[1]·x + … + c[n−1]·x^(n−1) */
static double horner(const double *c, size_t n, double x)
{
    double p = c[n - 1];
    for (size_t i = n - 1; i-- > 0;) p = p * x + c[i];
    return p;
}

/* ---- sine and cosine ---- */

/* π/2 in three parts of 33 bits and a rest: for |n| < 2^20 the first three products are exact, and each
 * subtraction is exact or rounds relative to its result, so even next to a multiple of π/2 r is right to an ulp. */
#define HALF_PI_1 0x1.921fb544p+0
#define HALF_PI_2 0x1.0b4611a6p-34
#define HALF_PI_3 0x1.3198a2ep-69
#define HALF_PI_4 0x1.b839a252049c1p-104
#define TWO_BY_PI 0x1.45f306dc9c883p-1

/* x = n·π/2 + r, |r| ≤ π/4 and a little. Returns n mod 4. */
static uint32_t reduce(double x, double *r)
{
    double n = (x * TWO_BY_PI + ROUND_F64) - ROUND_F64;
    *r = ((x - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3 - n * HALF_PI_4;
    return (uint32_t)(int32_t)n & 3;
}

/* |r| ≤ 0.79: the next terms are r^18/19! < 2e-19 relative and r^18/18! < 3e-18. */
static double sin_series(double r)
{
    static const double c[] = {-1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0,
                               -1.0 / 1307674368000.0, 1.0 / 355687428096000.0};
    double s = r * r;
    return r + r * s * horner(c, BB_COUNT(c), s);
}

static double cos_series(double r)
{
    static const double c[] = {1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600.0,
                               -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
    double s = r * r;
    return (1.0 - 0.5 * s) + s * s * horner(c, BB_COUNT(c), s);
}

double bb_sin(double x)
{
    double r;
    uint32_t quadrant = reduce(x, &r);
    double y = quadrant & 1 ? cos_series(r) : sin_series(r);
    return quadrant & 2 ? -y : y;
}

double bb_cos(double x)
{
    double r;
    uint32_t quadrant = reduce(x, &r);
    double y = quadrant & 1 ? sin_series(r) : cos_series(r);
    return (quadrant + 1) & 2 ? -y : y;
}

/* ---- logarithm and exponential ---- */

#define LN2_HIGH 0x1.62e42fefa38p-1 /* 42 bits: n·LN2_HIGH is exact for |n| < 2^11 */
#define LN2_LOW 0x1.ef35793c7673p-45
#define LOG2_E 0x1.71547652b82fep+0

/* x = 2^n·m with m in [√½, √2); log m = 2·atanh(f), f = (m−1)/(m+1), f² ≤ 0.0295: next term f^22/23 < 1e-18. */
double bb_log(double x)
{
    static const double c[] = {2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11, 2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19,
                               2.0 / 21};
    uint64_t bits = bb_f64_bits(x);
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcdu;
    int32_t n = (int32_t)((bits - sqrt_half) >> 52 & 0x7ff);
    n = n > 1024 ? n - 2048 : n; /* −1022 … 1024 */
    double m = bb_f64_from_bits(bits - ((uint64_t)(int64_t)n << 52));
    double f = (m - 1.0) / (m + 1.0), s = f * f;
    double log_m = 2.0 * f + f * s * horner(c, BB_COUNT(c), s);
    return n * LN2_HIGH + (n * LN2_LOW + log_m);
}

/* x = n·ln 2 + r, |r| ≤ 0.347: next term r^14/14! < 5e-18. 2^n in two steps, so that only the last one can round. */
double bb_exp(double x)
{
    static const double c[] = {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
                               1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
    if (x != x) return x;
    if (x < -745.0) return 0.0;
    if (x > 709.0) return bb_f64_from_bits(0x7ff0000000000000u);
    double n = (x * LOG2_E + ROUND_F64) - ROUND_F64;
    double r = (x - n * LN2_HIGH) - n * LN2_LOW;
    int32_t i = (int32_t)n, half = i / 2;
    double low = bb_f64_from_bits((uint64_t)(half + 1023) << 52);
    double high = bb_f64_from_bits((uint64_t)(i - half + 1023) << 52);
    return horner(c, BB_COUNT(c), r) * low * high;
}

/* ---- half precision ---- */

float bb_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31) return bb_f32_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return bb_f32_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float tiny = (float)mantissa * 0x1p-24f; /* zero and denormals: exact */
    return bb_f32_from_bits(sign | bb_f32_bits(tiny));
}

uint16_t bb_f32_to_f16(float x)
{
    uint32_t bits = bb_f32_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff)); /* quiet NaN */
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);                           /* ≥ 65520 */
    if (magnitude < 0x38800000) { /* below the smallest normal: units of 2^-24, rounded by the addition */
        float shifted = bb_f32_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bb_f32_bits(shifted) - 0x3f000000));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + odd) >> 13);
}
