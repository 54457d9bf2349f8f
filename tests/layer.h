/* Random quantized layers as the integer contract states them (core/FORMAT.md §6–7), in natural
 * order and without any packing, and their naive value: int64 sums of w·(a − z), float operations in the order
 * written there. Nothing here knows tiles, planes in bytes, permutations or codes in memory. */
#ifndef BB_TESTS_LAYER_H
#define BB_TESTS_LAYER_H

#include "check.h"

#include <stdbool.h>
#include <stdint.h>

enum { MAX_SEG = 3, MAX_ROWS = 5, MAX_C = 64, MAX_N = 48, MAX_TAPS = 15, MAX_K = MAX_C * MAX_TAPS };

static uint64_t rnd_state;

/* splitmix64 */
static uint64_t rnd(void)
{
    uint64_t z = rnd_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static int between(int low, int high) { return low + (int)((rnd() >> 33) % (uint64_t)(high - low + 1)); }
static bool coin(void) { return rnd() >> 63; }
static float uniform(float low, float high) { return low + (high - low) * (float)(rnd() >> 40) / 16777216.0f; }

typedef struct quantizer {
    int bits, segments, seg[MAX_SEG], channels, rows;
    float key[MAX_ROWS], delta[MAX_ROWS][MAX_SEG];
    int zero[MAX_ROWS][MAX_SEG];
    bool has_inv_s;
    float inv_s[MAX_C];
} quantizer;

typedef struct layer {
    bool linear, has_bias, powers; /* powers: multipliers are 1, 2, 4, … */
    bool groups; /* 8 outputs of a width at a time, in order, as `quantize` makes them */
    int quantizer;
    int n, c, kh, kw, stride, top, left, bottom, right;
    int planes[MAX_N], offset[MAX_N], multiplier[MAX_N][8];
    uint8_t bits[MAX_N][MAX_K]; /* bit p of [n][k]: plane p; k = (ky·kw + kx)·c + ci */
    float delta[MAX_N], bias[MAX_N];
} layer;

/* Scales are powers of two half of the time: then products x·m land on exact halves and show how ties are rounded. */
static float random_scale(bool power) { return power ? ldexpf(1.0f, between(-7, -2)) : uniform(0.005f, 0.3f); }

static void random_quantizer(quantizer *q, int segments, const int *seg, bool power)
{
    *q = (quantizer){.bits = between(4, 8), .segments = segments, .rows = between(1, MAX_ROWS), .has_inv_s = coin()};
    for (int g = 0; g < segments; g++) q->channels += q->seg[g] = seg[g];
    for (int r = 0; r < q->rows; r++) {
        q->key[r] = (float)(900 - 150 * r - 2 * between(0, 50)); /* even: midpoints are whole timesteps */
        for (int g = 0; g < segments; g++) {
            q->delta[r][g] = random_scale(power);
            int how = between(0, 3), most = (1 << q->bits) - 1;
            q->zero[r][g] = how == 0 ? 0 : how == 1 ? most : between(0, most);
        }
    }
    for (int i = 0; i < q->channels; i++) q->inv_s[i] = power ? ldexpf(1.0f, between(-2, 2)) : uniform(0.3f, 3.0f);
}

/* Multipliers and offset of one output such that all its weights are legal: inside −128..127, and spread over at most
 * 127 below 8 planes. */
static void random_grid(layer *l, int n)
{
    int left = l->planes[n] == 8 ? 255 : 127, low = 0, high = 0;
    for (int p = 0; p < l->planes[n]; p++) {
        int m = l->powers ? 1 << p : between(1, 1 + left / 3);
        left -= m;
        l->multiplier[n][p] = !l->powers && coin() ? -m : m;
        if (l->multiplier[n][p] < 0) low += l->multiplier[n][p]; else high += l->multiplier[n][p];
    }
    l->offset[n] = between(-128 - low, 127 - high);
}

static void random_layer(layer *l, const quantizer *q, bool linear)
{
    int width[3] = {between(1, 8), between(1, 8), between(1, 8)}, widths = between(1, 3);
    memset(l, 0, sizeof *l);
    l->linear = linear;
    l->has_bias = coin();
    l->powers = coin();
    l->n = between(1, MAX_N);
    l->c = q->channels;
    l->kh = linear ? 1 : between(1, 3);
    l->kw = linear ? 1 : between(1, 5);
    l->stride = linear ? 1 : between(1, 2);
    l->top = between(0, l->kh - 1), l->bottom = between(0, l->kh - 1);
    l->left = between(0, l->kw - 1), l->right = between(0, l->kw - 1);
    l->groups = coin();
    for (int n = 0; n < l->n; n++) {
        l->planes[n] = l->groups && n % 8 ? l->planes[n - 1] : width[between(0, widths - 1)];
        random_grid(l, n);
        l->delta[n] = uniform(0.001f, 0.02f);
        l->bias[n] = uniform(-1, 1);
        for (int k = 0; k < l->kh * l->kw * l->c; k++) l->bits[n][k] = (uint8_t)(rnd() >> 56);
    }
}

static int weight(const layer *l, int n, int k)
{
    int w = l->offset[n];
    for (int p = 0; p < l->planes[n]; p++) w += l->multiplier[n][p] * (l->bits[n][k] >> p & 1);
    return w;
}

/* The nearest key, ties to the noisier, which is the larger. */
static inline int table_row(const quantizer *q, float timestep)
{
    int best = 0;
    for (int r = 1; q->rows > 1 && r < q->rows; r++) {
        double now = fabs((double)q->key[r] - timestep), before = fabs((double)q->key[best] - timestep);
        if (now < before || (now == before && q->key[r] > q->key[best])) best = r;
    }
    return best;
}

/* a − z. nearbyint rounds half to even in the default rounding mode. */
static int code_above_zero(const quantizer *q, int row, int g, int channel, float x)
{
    float m = (q->has_inv_s ? q->inv_s[channel] : 1.0f) / q->delta[row][g];
    float low = -(float)q->zero[row][g], high = (float)((1 << q->bits) - 1 - q->zero[row][g]);
    float v = x * m;
    if (!(v > low)) v = low; /* NaN too */
    if (!(v < high)) v = high;
    return (int)nearbyint((double)v);
}

/* Output n at (oy, ox) of one item x [h][w][c]. Padding is a real zero, so it adds nothing. */
static inline float naive_output(const layer *l, const quantizer *q, int row, const float *x, int h, int w, int n,
                                 int oy, int ox)
{
    float y = 0;
    for (int g = 0, first = 0; g < q->segments; first += q->seg[g], g++) {
        int64_t acc = 0;
        for (int tap = 0; tap < l->kh * l->kw; tap++) {
            int iy = oy * l->stride + tap / l->kw - l->top, ix = ox * l->stride + tap % l->kw - l->left;
            if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue;
            for (int c = first; c < first + q->seg[g]; c++)
                acc += weight(l, n, tap * l->c + c) * code_above_zero(q, row, g, c, x[(iy * w + ix) * l->c + c]);
        }
        float e = q->delta[row][g] * l->delta[n];
        float term = (float)acc * e;
        y = y + term;
    }
    return y + (l->has_bias ? l->bias[n] : 0.0f);
}

#endif
