/* Fits uniform grids: the min-max grid, or the best of 80 shrunken ones. */
#include "quant/quant.h"

#include "base/mathf.h"

#define SHRINKS 80 /* factors 1.00, 0.99 … 0.21 (EfficientDM's search) */

/* x² · x^0.4 for x ≥ 0, to 3 digits: the exponent's bits give 2^(0.4·e), a cubic the mantissa's part. */
static float power24(float x)
{
    /* 2^(0.4·i) for i 0..4: five exponents are two powers of two */
    static const float part[5] = {1, 1.3195079f, 1.7411011f, 2.2973967f, 3.0314331f};
    int32_t e = (int32_t)(bb_f32_bits(x) >> 23) - 127, five = (e + 130) / 5 - 26;
    if (e < -60 || e > 60) return e < 0 ? 0 : x; /* beyond any sum that matters */
    float m = bb_f32_from_bits((bb_f32_bits(x) & 0x7fffffu) | 0x3f800000u) - 1;
    float root = 1 + m * (0.397522f + m * (-0.103039f + m * 0.0252f));
    return x * x * (root * part[e - 5 * five] * bb_f32_from_bits((uint32_t)(2 * five + 127) << 23));
}

static float cost(float e, bb_range range) { return range == BB_RANGE_P24 ? power24(e < 0 ? -e : e) : e * e; }

static int32_t round_to_int(float x) { return (int32_t)(x < 0 ? x - 0.5f : x + 0.5f); }

static bb_weight_grid weight_grid(float low, float high, uint32_t bits)
{
    float levels = (float)((1u << bits) - 1);
    bb_weight_grid g = {1, 0};
    if (bits == 8) {
        float a = -low / 128, b = high / 127;
        g.delta = a > b ? a : b;
        g.offset = -128;
    } else {
        g.delta = (high - low) / levels;
    }
    /* Subnormal steps would make codes of nothing. */
    if (!(g.delta > 1e-30f)) return (bb_weight_grid){1, bits == 8 ? -128 : 0};
    if (bits < 8) g.offset = (int16_t)round_to_int(low / g.delta);
    return g;
}

static float weight_error(const float *w, size_t n, bb_weight_grid g, uint32_t bits, bb_range range)
{
    float error = 0;
    for (size_t i = 0; i < n; i++) {
        float e = w[i] - g.delta * (float)(g.offset + bb_weight_code(w[i], g, bits));
        error += cost(e, range);
    }
    return error;
}

bb_weight_grid bb_weight_grid_fit(const float *w, size_t n, uint32_t bits, bb_range range)
{
    float low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        if (w[i] < low) low = w[i];
        if (w[i] > high) high = w[i];
    }
    bb_weight_grid best = weight_grid(low, high, bits);
    if (range == BB_RANGE_MINMAX) return best;
    float least = weight_error(w, n, best, bits, range);
    for (int i = 1; i < SHRINKS; i++) {
        float shrink = 1 - 0.01f * (float)i;
        bb_weight_grid g = weight_grid(low * shrink, high * shrink, bits);
        float error = weight_error(w, n, g, bits, range);
        if (error < least) {
            least = error;
            best = g;
        }
    }
    return best;
}

static bb_activation_grid activation_grid(float low, float high, uint32_t bits)
{
    float levels = (float)((1u << bits) - 1), delta = (high - low) / levels;
    if (!(delta > 1e-30f)) return (bb_activation_grid){1, 0};
    int32_t zero = round_to_int(-low / delta);
    return (bb_activation_grid){delta, (uint8_t)(zero < 0 ? 0 : zero > (int32_t)levels ? (int32_t)levels : zero)};
}

static double cost_of(float x, bb_activation_grid g, float low, float high, bb_range range)
{
    float v = x / g.delta;
    v = v > low ? v : low;
    v = v < high ? v : high;
    double e = (double)x - (double)g.delta * bb_round_even(v);
    return range == BB_RANGE_P24 ? (double)cost((float)e, range) : e * e;
}

/* Summed over all values seen, as far as the statistics tell. */
static double activation_error(const bb_activation_stats *s, bb_activation_grid g, uint32_t bits, bb_range range)
{
    float low = -(float)g.zero, high = (float)((1u << bits) - 1) - (float)g.zero;
    double tail = 0, sample = 0;
    for (size_t i = 0; i < s->n_tail; i++) tail += cost_of(s->tail[i], g, low, high, range);
    for (size_t i = 0; i < s->n_sample; i++)
        if (s->sample[i] > s->tail_low && s->sample[i] < s->tail_high)
            sample += cost_of(s->sample[i], g, low, high, range);
    return tail + (s->n_sample ? sample * s->count / (double)s->n_sample : 0);
}

bb_activation_grid bb_activation_grid_fit(const bb_activation_stats *s, uint32_t bits, bb_range range)
{
    float low = s->low < 0 ? s->low : 0, high = s->high > 0 ? s->high : 0;
    bb_activation_grid best = activation_grid(low, high, bits);
    if (range == BB_RANGE_MINMAX) return best;
    double least = activation_error(s, best, bits, range);
    for (int i = 1; i < SHRINKS; i++) {
        float shrink = 1 - 0.01f * (float)i;
        bb_activation_grid g = activation_grid(low * shrink, high * shrink, bits);
        double error = activation_error(s, g, bits, range);
        if (error < least) {
            least = error;
            best = g;
        }
    }
    return best;
}
