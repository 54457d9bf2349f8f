/* Fits uniform grids: the min-max grid, or the best of 80 shrunken ones by squared error. */
#include "quant/quant.h"

#include "base/mathf.h"

#define SHRINKS 80 /* factors 1.00, 0.99 … 0.21 (EfficientDM's search) */

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

static float weight_error(const float *w, size_t n, bb_weight_grid g, uint32_t bits)
{
    float error = 0;
    for (size_t i = 0; i < n; i++) {
        float e = w[i] - g.delta * (float)(g.offset + bb_weight_code(w[i], g, bits));
        error += e * e;
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
    float least = weight_error(w, n, best, bits);
    for (int i = 1; i < SHRINKS; i++) {
        float shrink = 1 - 0.01f * (float)i;
        bb_weight_grid g = weight_grid(low * shrink, high * shrink, bits);
        float error = weight_error(w, n, g, bits);
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

static double squared_error(float x, bb_activation_grid g, float low, float high)
{
    float v = x / g.delta;
    v = v > low ? v : low;
    v = v < high ? v : high;
    double e = (double)x - (double)g.delta * bb_round_even(v);
    return e * e;
}

/* Summed over all values seen, as far as the statistics tell. */
static double activation_error(const bb_activation_stats *s, bb_activation_grid g, uint32_t bits)
{
    float low = -(float)g.zero, high = (float)((1u << bits) - 1) - (float)g.zero;
    double tail = 0, sample = 0;
    for (size_t i = 0; i < s->n_tail; i++) tail += squared_error(s->tail[i], g, low, high);
    for (size_t i = 0; i < s->n_sample; i++)
        if (s->sample[i] > s->tail_low && s->sample[i] < s->tail_high)
            sample += squared_error(s->sample[i], g, low, high);
    return tail + (s->n_sample ? sample * s->count / (double)s->n_sample : 0);
}

bb_activation_grid bb_activation_grid_fit(const bb_activation_stats *s, uint32_t bits, bb_range range)
{
    float low = s->low < 0 ? s->low : 0, high = s->high > 0 ? s->high : 0;
    bb_activation_grid best = activation_grid(low, high, bits);
    if (range == BB_RANGE_MINMAX) return best;
    double least = activation_error(s, best, bits);
    for (int i = 1; i < SHRINKS; i++) {
        float shrink = 1 - 0.01f * (float)i;
        bb_activation_grid g = activation_grid(low * shrink, high * shrink, bits);
        double error = activation_error(s, g, bits);
        if (error < least) {
            least = error;
            best = g;
        }
    }
    return best;
}
