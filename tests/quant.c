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
    enum { N = 21, TAPS = 3, C = 13, K = TAPS * C };
    static uint8_t codes[N][K];
    const uint32_t seg[BB_MAX_SEGMENTS] = {9, 4};
    uint32_t k_blocks = bb_k_blocks(TAPS, 2, seg);
    CHECK(k_blocks == TAPS * (2 + 1), "%u blocks", k_blocks);
    for (uint32_t bits = 1; bits <= 8; bits++) {
        size_t bytes = bb_plane_bytes(32, k_blocks, bits);
        uint8_t *planes = calloc(bytes, 1);
        for (uint32_t n = 0; n < N; n++) {
            for (uint32_t i = 0; i < K; i++) codes[n][i] = (uint8_t)(bb_uniform(5, n, i) * (1 << bits));
            bb_planes_put(planes, bits, n, TAPS, 2, seg, codes[n]);
        }
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
                    wrong += code != (real ? codes[n][tap * C + c] : 0);
                }
        CHECK(wrong == 0, "%u bits: %u codes differ", bits, wrong);
        free(planes);
    }
}

/* Weights of a row: normal, or heavy-tailed (normal / √(mean of three squares): Student's t with 3 degrees). */
static void draw_row(float *w, size_t n, uint32_t seed, bool heavy)
{
    float four[4];
    for (size_t i = 0; i < n; i++) {
        bb_normals(four, 4, seed, 0, 4 * i);
        double below = sqrt((four[1] * four[1] + four[2] * four[2] + four[3] * four[3]) / 3);
        w[i] = (float)(0.05 * (heavy ? four[0] / below : four[0]) + 0.01);
    }
}

/* The squared error of the best affine grid of 2^bits levels, by a plain search: steps and offsets in small steps, then
 * least squares in turns with rounding. Independent of core/quant but for the definition. */
static double best_uniform(const float *w, size_t n, uint32_t bits)
{
    double sigma = 0, best = INFINITY;
    int levels = 1 << bits;
    for (size_t i = 0; i < n; i++) sigma += w[i] * w[i];
    sigma = sqrt(sigma / n);
    for (int s = 1; s <= 40; s++) {
        double step = sigma * 6 * s / 40 / levels, offset = -step * (levels - 1) / 2;
        for (int round = 0; round < 30; round++) {
            double x = 0, xx = 0, y = 0, xy = 0, e = 0;
            for (size_t i = 0; i < n; i++) {
                double code = fmin(fmax(floor((w[i] - offset) / step + 0.5), 0), levels - 1);
                double d = w[i] - (offset + step * code);
                e += d * d, x += code, xx += code * code, y += w[i], xy += code * w[i];
            }
            best = fmin(best, e);
            double d = n * xx - x * x;
            if (d <= 0) break;
            step = (n * xy - x * y) / d;
            offset = (y - step * x) / n;
            if (step <= 0) break;
        }
    }
    return best;
}

static void check_bounds(const bb_row_grid *g, const char *what, uint32_t trial)
{
    int low = g->offset, high = low;
    for (uint32_t p = 0; p < g->planes; p++)
        if (g->multiplier[p] < 0) low += g->multiplier[p]; else high += g->multiplier[p];
    CHECK(g->delta > 0 && low >= -128 && high <= 127 && (g->planes == 8 || high - low <= 127),
          "%s, row %u: levels %d to %d, step %g", what, trial, low, high, (double)g->delta);
}

/* Refit and ladder: inside the integer bounds, codes of the nearest level, never worse than what they start from. */
static void check_rows(void)
{
    enum { N = 1152, ROUNDS = 25 };
    static float w[N];
    static uint8_t codes[N];
    double ratio = 0;
    for (uint32_t trial = 0; trial < 24; trial++) {
        bool heavy = trial % 2;
        draw_row(w, N, 300 + trial, heavy);
        for (uint32_t bits = 1; bits <= 5; bits++) {
            double error[3];
            for (int way = 0; way < 3; way++) {
                const bb_row_args a = {.w = w, .n = N, .planes = bits, .range = BB_RANGE_MSE,
                                       .refit = way ? ROUNDS : 0, .ladder = way == 2, .residuals = 1, .codes = codes};
                bb_row_grid g = bb_row_fit(&a);
                check_bounds(&g, way == 2 ? "ladder" : "uniform", trial);
                error[way] = bb_row_error(&g, w, N, codes);
                /* Brute force: no level is nearer than the coded one, by more than the f32 rounding of a product. */
                uint32_t wrong = 0;
                for (size_t i = 0; i < N; i++) {
                    double mine = fabs(w[i] - (double)g.delta * bb_row_level(&g, codes[i]));
                    for (uint32_t c = 0; c < 1u << bits; c++)
                        wrong += fabs(w[i] - (double)g.delta * bb_row_level(&g, (uint8_t)c)) < mine - 1e-6;
                }
                CHECK(wrong == 0, "row %u, %u bits, way %d: %u nearer levels", trial, bits, way, wrong);
            }
            CHECK(error[1] <= error[0] && error[2] <= error[1], "row %u, %u bits: %g, refitted %g, ladder %g", trial,
                  bits, error[0], error[1], error[2]);
            /* The oracle has a free offset and float levels. Rounding levels to integers of span 126 … 63 moves each
             * by at most 1/2 of at most 1/63 of the span: for 2^b levels (2^b − 1)/126 of a step, squared and against a
             * step's mean square 1/12: 12·((2^b − 1)/126)²/3 = 0.2 % at 3 bits, 5.7 % at 4. Local optima: 2 % more; of
             * heavy tails, where a few values decide, 8 %. */
            double uniform = best_uniform(w, N, bits);
            double slack = (heavy ? 1.08 : 1.02) + 4 * pow(((1 << bits) - 1) / 126.0, 2);
            CHECK(bits > 4 || error[2] <= uniform * slack, "row %u, %u bits: ladder %g, best uniform %g", trial, bits,
                  error[2], uniform);
            if (bits == 2) ratio += error[2] / uniform / 24;
        }
    }
    /* Where it is meant to help: mpq-dm's own check gives 0.99 on normal rows and 0.89 on heavy-tailed ones. */
    CHECK(ratio < 0.97, "at 2 bits the ladder has %.3f of the uniform error", ratio);
    printf("ladder at 2 bits: %.3f of the best uniform error\n", ratio);
}

/* Rows that leave nothing to fit. */
static void check_odd_rows(void)
{
    static const float constant[6] = {0.3f, 0.3f, 0.3f, 0.3f, 0.3f, 0.3f}, two[6] = {-1, 1, 1, -1, 1, -1}, zero[6];
    const float *const rows[] = {constant, two, zero, two + 1};
    const size_t sizes[] = {6, 6, 6, 1};
    uint8_t codes[6];
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t bits = 1; bits <= 8; bits++)
            for (uint32_t residuals = 0; residuals <= 2; residuals++) {
                const bb_row_args a = {.w = rows[i], .n = sizes[i], .planes = bits, .range = BB_RANGE_MSE, .refit = 25,
                                       .ladder = true, .residuals = residuals, .codes = codes};
                bb_row_grid g = bb_row_fit(&a);
                check_bounds(&g, "odd", i);
                double e = bb_row_error(&g, rows[i], sizes[i], codes), power = i == 2 ? 1 : (double)sizes[i];
                /* One value, or two: two levels reach them, up to 1/126 of rounding. At 1 bit a plain grid needs 0. */
                CHECK(e <= power * 1e-3, "row %u, %u bits, %u residuals: error %g", i, bits, residuals,
                      e);
            }
}

int main(void)
{
    check_weight_grids();
    check_activation_grids();
    check_tails();
    check_planes();
    check_rows();
    check_odd_rows();
    return check_done();
}
