/* The quantizer: grids keep to the integer contract, the MSE search is never worse than min-max, and the bit planes
 * say exactly what the codes were. */
#include "check.h"

#include "base/mathf.h"
#include "base/rng.h"
#include "quant/quant.h"

static double squared_error(const float *w, size_t n, bb_weight_grid g, uint32_t bits)
{
    double e = 0;
    for (size_t i = 0; i < n; i++) {
        double d = w[i] - (double)g.delta * (g.offset + bb_weight_code(w[i], g, bits));
        e += d * d;
    }
    return e;
}

static void check_weight_grids(void)
{
    enum { N = 288 };
    float w[N];
    for (uint32_t trial = 0; trial < 200; trial++) {
        float scale = (float)exp(bb_uniform(1, 0, trial) * 40 - 20); /* 2e-9 … 5e8 */
        float shift = trial % 3 == 0 ? 0 : (float)(bb_uniform(1, 1, trial) * 8 - 4);
        bb_normals(w, N, 7 + trial, 0, 0);
        for (size_t i = 0; i < N; i++) w[i] = (w[i] + shift) * scale;
        for (uint32_t bits = 1; bits <= 8; bits++) {
            bb_weight_grid plain = bb_weight_grid_fit(w, N, bits, BB_RANGE_MINMAX);
            bb_weight_grid best = bb_weight_grid_fit(w, N, bits, BB_RANGE_MSE);
            int low = best.offset, high = best.offset + (1 << bits) - 1;
            CHECK(best.delta > 0 && low >= -128 && high <= 127, "trial %u, %u bits: levels %d to %d, step %g", trial,
                  bits, low, high, (double)best.delta);
            CHECK(low <= 0 && high >= 0, "trial %u, %u bits: zero is no level", trial, bits);
            /* The search compares errors summed in f32: 288 terms, so 288·2^-24 relative at the worst. */
            double a = squared_error(w, N, best, bits), b = squared_error(w, N, plain, bits);
            CHECK(a <= b * (1 + 2e-5), "trial %u, %u bits: MSE search %g, min-max %g", trial, bits, a, b);
            /* Every value inside the min-max range is at most half a step from its level; rounding of the range's
             * ends to whole steps can cost another half. */
            for (size_t i = 0; i < N; i++) {
                double d = fabs(w[i] - (double)plain.delta * (plain.offset + bb_weight_code(w[i], plain, bits)));
                if (d > plain.delta * 1.0001)
                    CHECK(false, "trial %u, %u bits: value %zu is %g steps off", trial, bits, i, d / plain.delta);
            }
        }
    }
    /* Finding a known grid: values that lie on 16 levels come back exactly. */
    for (size_t i = 0; i < N; i++) w[i] = 0.03f * (float)((int)(i * 7 % 16) - 5);
    CHECK(squared_error(w, N, bb_weight_grid_fit(w, N, 4, BB_RANGE_MSE), 4) < 1e-10, "levels not found again");
    memset(w, 0, sizeof w);
    bb_weight_grid zero = bb_weight_grid_fit(w, N, 8, BB_RANGE_MSE);
    CHECK(zero.delta == 1 && zero.offset == -128 && squared_error(w, N, zero, 8) == 0, "a row of zeros");
    zero = bb_weight_grid_fit(w, N, 2, BB_RANGE_MSE);
    CHECK(zero.delta == 1 && zero.offset == 0 && squared_error(w, N, zero, 2) == 0, "a row of zeros");
}

static void check_activation_grids(void)
{
    enum { N = 2048 };
    float x[N];
    for (uint32_t trial = 0; trial < 100; trial++) {
        float low = 0, high = 0, shift = (float)(bb_uniform(2, 0, trial) * 6 - 3);
        bb_normals(x, N, 99 + trial, 0, 0);
        for (size_t i = 0; i < N; i++) {
            x[i] = trial % 2 ? x[i] + shift : fabsf(x[i]) * x[i] * x[i]; /* shifted normal; heavy one-sided tail */
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
        }
        for (uint32_t bits = 4; bits <= 8; bits++) {
            double error[2];
            for (int r = 0; r < 2; r++) {
                bb_activation_stats stats = {.low = low, .high = high, .sample = x, .n_sample = N, .count = N,
                                             .tail_low = -INFINITY, .tail_high = INFINITY};
                bb_activation_grid g = bb_activation_grid_fit(&stats, bits, r ? BB_RANGE_MSE : BB_RANGE_MINMAX);
                CHECK(g.delta > 0 && g.zero < 1u << bits, "trial %u, %u bits: step %g, zero %u", trial, bits,
                      (double)g.delta, g.zero);
                error[r] = 0;
                for (size_t i = 0; i < N; i++) {
                    double v = bb_round_even(x[i] / g.delta), top = (1 << bits) - 1 - g.zero;
                    v = v < -g.zero ? -g.zero : v > top ? top : v;
                    error[r] += pow(x[i] - v * g.delta, 2);
                }
            }
            /* Both sum in f64 over f32 codes and steps; they differ by the f32 product δ·v only: 2^-24 of a value that
             * is up to 128 times the error. */
            CHECK(error[1] <= error[0] * (1 + 1e-3), "trial %u, %u bits: MSE search %g, min-max %g", trial, bits,
                  error[1], error[0]);
        }
    }
}

/* A million values of spread 1, and 128 of ±60 that the sample missed: a search that knows the sample only would cut
 * them all to a few units. */
static void check_tails(void)
{
    enum { N = 4096, TAIL = 128 };
    float sample[N], tail[TAIL];
    bb_normals(sample, N, 3, 0, 0);
    for (uint32_t i = 0; i < TAIL; i++) tail[i] = i % 2 ? 60 : -60;
    bb_activation_stats stats = {.low = -60, .high = 60, .sample = sample, .n_sample = N, .count = 1e6,
                                 .tail_low = -59, .tail_high = 59};
    bb_activation_grid blind = bb_activation_grid_fit(&stats, 8, BB_RANGE_MSE);
    stats.tail = tail;
    stats.n_tail = TAIL;
    bb_activation_grid seeing = bb_activation_grid_fit(&stats, 8, BB_RANGE_MSE);
    CHECK(blind.delta * 255 < 30, "without a tail the range is %g", (double)blind.delta * 255);
    /* 128·(60−s)² + (2s/255)²/12·1e6 is least at s = 60·128/(128 + 4e6/(12·255²)) = 57.7; the search goes by 1 %. */
    CHECK(fabs(seeing.delta * 255 / 2 - 57.7) < 0.7, "with the tail the range is ±%g", (double)seeing.delta * 255 / 2);
}

/* A layer of odd sizes: reads every bit back by the format's formula. */
static void check_planes(void)
{
    enum { N = 21, TAPS = 3, C = 13, STRIDE = 32, K = TAPS * C };
    static float w[K * STRIDE], row[K];
    const uint32_t seg[BB_MAX_SEGMENTS] = {9, 4};
    bb_normals(w, K * STRIDE, 5, 0, 0);
    bb_weight weight = {.f32 = w, .stride = STRIDE};
    uint32_t k_blocks = bb_k_blocks(TAPS, 2, seg);
    CHECK(k_blocks == TAPS * (2 + 1), "%u blocks", k_blocks);
    for (uint32_t bits = 1; bits <= 8; bits++) {
        size_t bytes = bb_plane_bytes(32, k_blocks, bits);
        uint8_t *planes = malloc(bytes);
        float delta[32];
        int16_t offset[32];
        memset(planes, 0xff, bytes);
        bb_quantize_layer_args a = {.weight = &weight, .outputs = N, .taps = TAPS, .channels = C, .segments = 2,
                                    .seg_channels = {9, 4}, .bits = bits, .range = BB_RANGE_MSE, .row = row,
                                    .planes = planes, .delta = delta, .offset = offset};
        for (uint32_t tile = 0; tile < 2; tile++) CHECK(bb_quantize_tile(&a, tile) == BB_OK, "tile %u", tile);
        uint32_t wrong = 0;
        for (uint32_t n = 0; n < 32; n++)
            for (uint32_t tap = 0; tap < TAPS; tap++)
                for (uint32_t position = 0; position < 24; position++) {
                    uint32_t block = tap * 3 + position / 8, code = 0, c = position < 9 ? position : position - 16 + 9;
                    bool real = n < N && (position < 9 || (position >= 16 && position < 20));
                    for (uint32_t p = 0; p < bits; p++) {
                        uint8_t byte = planes[((n / 16 * k_blocks + block) * bits + p) * 16 + n % 16];
                        code |= (uint32_t)(byte >> position % 8 & 1) << p;
                    }
                    uint32_t want = !real ? 0
                        : bb_weight_code(w[(tap * C + c) * STRIDE + n], (bb_weight_grid){delta[n], offset[n]}, bits);
                    wrong += code != want;
                }
        CHECK(wrong == 0, "%u bits: %u codes differ", bits, wrong);
        CHECK(delta[N] == 0 && offset[N] + (1 << bits) - 1 <= 127, "%u bits: padding rows", bits);
        free(planes);
    }
    w[5] = NAN;
    bb_quantize_layer_args bad = {.weight = &weight, .outputs = N, .taps = TAPS, .channels = C, .segments = 1,
                                  .seg_channels = {C}, .bits = 4, .row = row, .planes = malloc(4096),
                                  .delta = malloc(128), .offset = malloc(64)};
    CHECK(bb_quantize_tile(&bad, 0) == BB_ERR_ARGUMENT, "NaN weight accepted");
    free(bad.planes);
    free(bad.delta);
    free(bad.offset);
}

int main(void)
{
    check_weight_grids();
    check_activation_grids();
    check_tails();
    check_planes();
    return check_done();
}
