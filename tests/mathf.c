/* core/base/mathf against libm in long double (64-bit mantissa on x86: its own error is nothing here) over dense
 * ranges, and the half-precision conversions over all their values. */
#include "base/mathf.h"
#include "check.h"

/* Relative error; a result that should be 0 must be 0. */
static double relative(double got, long double want)
{
    if (want == 0) return got == 0 ? 0 : INFINITY;
    long double e = fabsl(((long double)got - want) / want);
    return e == e ? (double)e : INFINITY;
}

/* The bound: a Horner chain whose tail weighs at most as much as its head loses about 2 ulp, the reduction 2 and the
 * last operations 2 more: 6·2^-53 = 7e-16. mathf.h promises 1e-14. */
#define BOUND 7e-16

static void test_trigonometry(void)
{
    double worst_sin = 0, worst_cos = 0;
    for (int k = -400000; k <= 400000; k++) {
        double x = k < 0 ? -1e6 * pow(k / -400000.0, 3) : 1e6 * pow(k / 400000.0, 3); /* dense near 0 */
        worst_sin = fmax(worst_sin, relative(bb_sin(x), sinl(x)));
        worst_cos = fmax(worst_cos, relative(bb_cos(x), cosl(x)));
    }
    for (int k = -630000; k <= 630000; k += 7) { /* next to the zeros, where the reduction has to be exact */
        double x = k * 1.5707963267948966;
        worst_sin = fmax(worst_sin, relative(bb_sin(x), sinl(x)));
        worst_cos = fmax(worst_cos, relative(bb_cos(x), cosl(x)));
    }
    CHECK(worst_sin <= BOUND, "sin: %g", worst_sin);
    CHECK(worst_cos <= BOUND, "cos: %g", worst_cos);
    CHECK(bb_sin(0.0) == 0 && bb_cos(0.0) == 1, "at 0");
}

static void test_log_exp(void)
{
    double worst_log = 0, worst_near = 0, worst_exp = 0;
    for (int k = 0; k <= 1000000; k++) {
        double x = exp2(-1022.0 + k * 2045.9e-6);
        worst_log = fmax(worst_log, relative(bb_log(x), logl(x)));
        double y = 0.5 + k * 1.5e-6; /* round 1, where log x is small */
        worst_near = fmax(worst_near, relative(bb_log(y), logl(y)));
        double z = -708.0 + k * 1417e-6;
        worst_exp = fmax(worst_exp, relative(bb_exp(z), expl(z)));
    }
    CHECK(worst_log <= BOUND, "log: %g", worst_log);
    CHECK(worst_near <= BOUND, "log near 1: %g", worst_near);
    CHECK(worst_exp <= BOUND, "exp: %g", worst_exp);
    CHECK(bb_log(1.0) == 0 && bb_exp(0.0) == 1, "exact points");
    CHECK(bb_exp(-746) == 0 && bb_exp(-INFINITY) == 0 && isinf(bb_exp(710)) && isinf(bb_exp(INFINITY)), "ends of exp");
    CHECK(isnan(bb_exp(NAN)), "exp NaN");
    for (double x = -745; x < -708; x += 0.01) { /* denormal results: half a unit of 2^-1074 beside the relative part */
        double e = fabs(bb_exp(x) - (double)expl(x));
        CHECK(e <= 0x1p-1074 + BOUND * exp(x), "exp(%g) off by %g", x, e);
    }
}

/* Error in units of the last place of the correctly rounded result. */
static double ulps(float got, double want)
{
    int e;
    frexp(want, &e);
    return fabs(got - want) / ldexp(1.0, (e < -125 ? -125 : e) - 24);
}

static void test_expf(void)
{
    double worst = 0, near = 0;
    for (uint32_t sign = 0; sign < 2; sign++) { /* one float in 211, by its bits: every binade alike */
        for (uint32_t bits = 0; bits <= 0x42b00000u; bits += 211) { /* to 88 */
            float x = bb_f32_from_bits(bits | sign << 31);
            if (x < -87.0f) continue;
            worst = fmax(worst, ulps(bb_expf(x), exp(x)));
        }
    }
    for (float x = -87.33f; x < -87.0f; x += 1e-5f) near = fmax(near, ulps(bb_expf(x), exp(x)));
    CHECK(worst <= 2, "expf: %g ulp", worst);
    CHECK(near <= 2, "expf at the smallest normals: %g ulp", near);
    CHECK(bb_expf(0.0f) == 1 && bb_expf(-0.0f) == 1, "exp 0");
    CHECK(bb_expf(-INFINITY) == 0 && bb_expf(-87.5f) == 0 && bb_expf(-1e30f) == 0, "below");
    CHECK(isinf(bb_expf(INFINITY)) && isinf(bb_expf(88.9f)) && isinf(bb_expf(1e30f)), "above");
    CHECK(isnan(bb_expf(NAN)) && isnan(bb_expf(-NAN)), "NaN");
    for (float x = 88.0f; x < 88.9f; x += 1e-4f) { /* finite below ln FLT_MAX, inf above */
        float y = bb_expf(x);
        CHECK(exp(x) < 3.40282e38 ? isfinite(y) && ulps(y, exp(x)) <= 2 : exp(x) > 3.40283e38 ? isinf(y) : 1, "%g", x);
    }
    for (float x = -87.4f; x < -87.33f; x += 1e-5f) CHECK(bb_expf(x) > 0 && ulps(bb_expf(x), exp(x)) <= 2, "%g", x);
}

/* One float in 211 up to 88: gelu's error as a part of x, where x is no denormal (1 + erf would leave no more); mish's
 * own as far down as e^x is normal. */
static void test_activations(void)
{
    double gelu = 0, mish = 0;
    for (uint32_t sign = 0; sign < 2; sign++) {
        for (uint32_t bits = 0; bits <= 0x42b00000u; bits += 211) {
            float x = bb_f32_from_bits(bits | sign << 31);
            if (bits > 0x01000000u) gelu = fmax(gelu, fabs(bb_geluf(x) - x * (erfc(-x / sqrt(2)) / 2)) / fabs(x));
            if (x > -80) mish = fmax(mish, ulps(bb_mishf(x), x * tanh(log1p(exp((double)x)))));
        }
    }
    CHECK(gelu <= 5e-7, "gelu: %g of x", gelu);
    CHECK(mish <= 8, "mish: %g ulp", mish);
    CHECK(bb_geluf(0.0f) == 0 && bb_mishf(0.0f) == 0 && bb_geluf(50.0f) == 50 && bb_mishf(50.0f) == 50, "fixed points");
    CHECK(bb_geluf(-50.0f) == 0 && fabsf(bb_mishf(-120.0f)) < 1e-30f, "far below");
    CHECK(isnan(bb_geluf(NAN)) && isnan(bb_mishf(NAN)) && isinf(bb_geluf(INFINITY)) && isinf(bb_mishf(INFINITY)),
          "special values");
}

static void test_round_even(void)
{
    for (int k = -40000; k <= 40000; k++) {
        float x = k * 0.25f;
        CHECK(bb_round_even(x) == nearbyintf(x), "%g", x);
    }
    CHECK(bb_round_even(4194303.5f) == 4194304 && bb_round_even(-4194302.5f) == -4194302, "at the end of the range");
}

/* The value of a half by its definition. */
static double half_value(uint32_t h)
{
    double sign = h & 0x8000 ? -1 : 1;
    uint32_t exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + mantissa, (int)exponent - 25) : ldexp(mantissa, -24));
}

static void test_half(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float x = bb_f16_to_f32((uint16_t)h);
        double want = half_value(h);
        CHECK(isnan(want) ? isnan(x) : x == want && !signbit(x) == !signbit(want), "0x%04x", h);
        uint16_t back = bb_f32_to_f16(x);
        CHECK(isnan(want) ? (back & 0x7c00) == 0x7c00 && (back & 0x3ff) : back == h, "0x%04x → 0x%04x", h, back);
    }
    /* Between neighbours: below, at and above the midpoint (exact in f32). */
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double low = half_value(h), high = h == 0x7bff ? 65536 : half_value(h + 1);
        float middle = (float)((low + high) / 2), below = nextafterf(middle, 0), above = nextafterf(middle, 1e9f);
        uint32_t even = h + (h & 1);
        CHECK(bb_f32_to_f16(below) == h && bb_f32_to_f16(above) == h + 1 && bb_f32_to_f16(middle) == even, "0x%04x", h);
        CHECK(bb_f32_to_f16(-middle) == (even | 0x8000), "-0x%04x", h);
    }
    CHECK(bb_f32_to_f16(1e30f) == 0x7c00 && bb_f32_to_f16(-INFINITY) == 0xfc00, "too large");
    CHECK(bb_f32_to_f16(1e-30f) == 0 && bb_f32_to_f16(-1e-30f) == 0x8000, "too small");
    CHECK(bb_bf16_to_f32(0x3f80) == 1 && bb_bf16_to_f32(0xc2f7) == -123.5f, "bf16");
}

int main(void)
{
    test_trigonometry();
    test_log_exp();
    test_expf();
    test_activations();
    test_round_even();
    test_half();
    return check_done();
}
