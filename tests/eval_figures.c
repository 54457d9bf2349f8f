/* Figures of `bitbrush eval` on cases whose answer is known in closed form or by enumeration. */
#include "check.h"

#include "base/rng.h"
#include "eval/bootstrap.h"
#include "eval/distance.h"
#include "eval/linear.h"
#include "eval/ssim.h"

enum { STREAM = BB_STREAM_TOOLS + 77 };

static void eigen(void)
{
    enum { N = 40 };
    static double a[N * N], again[N * N], values[N], vectors[N * N], root[N * N], scratch[N * N + N];
    float draws[N];
    for (uint32_t v = 0; v < 60; v++) { /* Σ x xᵀ with falling scales: positive, of a condition of 10⁴ or so */
        bb_normals(draws, N, 1, STREAM, (uint64_t)v * N);
        for (uint32_t i = 0; i < N; i++)
            for (uint32_t j = 0; j < N; j++)
                a[i * N + j] += (double)draws[i] * draws[j] * pow(10, -2.0 * (i + j) / N);
    }
    memcpy(again, a, sizeof a);
    bb_eigen(again, N, values, vectors);
    double worst = 0, largest = 0, unit = 0;
    for (uint32_t k = 0; k < N; k++) {
        largest = fmax(largest, values[k]);
        for (uint32_t i = 0; i < N; i++) {
            double av = 0, dot = 0;
            for (uint32_t j = 0; j < N; j++) {
                av += a[i * N + j] * vectors[k * N + j];
                dot += vectors[k * N + j] * vectors[i * N + j];
            }
            worst = fmax(worst, fabs(av - values[k] * vectors[k * N + i]));
            unit = fmax(unit, fabs(dot - (i == k)));
        }
    }
    /* Rotations are backward stable: n roundings of the whole, some sweeps. */
    CHECK(worst < 1e-13 * N * largest, "A v − λ v: %g of %g", worst, largest);
    CHECK(unit < 1e-13 * N, "vectors: %g", unit);
    memcpy(again, a, sizeof a);
    bb_root(again, N, root, scratch);
    worst = 0;
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < N; j++) {
            double square = 0;
            for (uint32_t k = 0; k < N; k++) square += root[i * N + k] * root[k * N + j];
            worst = fmax(worst, fabs(square - a[i * N + j]));
        }
    CHECK(worst < 1e-13 * N * largest, "root²: %g", worst);
    double known[4] = {2, 1, 1, 2};
    bb_eigen(known, 2, values, NULL);
    CHECK(fabs(fmax(values[0], values[1]) - 3) < 1e-15 * 8 && fabs(fmin(values[0], values[1]) - 1) < 1e-15 * 8, "%g %g",
          values[0], values[1]);
}

static void moments(void)
{
    const float x[] = {1, 2, 3, 5, 5, 11}, repeated[] = {1, 2, 5, 11, 5, 11};
    const uint32_t weight[] = {1, 0, 2};
    double mean[2], cov[4], mean2[2], cov2[4];
    bb_moments(x, NULL, 3, 2, mean, cov);
    CHECK(mean[0] == 3 && mean[1] == 6 && cov[0] == 4 && cov[1] == 9 && cov[2] == 9 && cov[3] == 21, "%g %g %g %g",
          mean[0], cov[0], cov[1], cov[3]);
    bb_moments(x, weight, 3, 2, mean, cov);
    bb_moments(repeated, NULL, 3, 2, mean2, cov2);
    for (int i = 0; i < 4; i++)
        CHECK(fabs(cov[i] - cov2[i]) < 1e-13, "weights are not repetitions: %g %g", cov[i], cov2[i]);
}

static void frechet(void)
{
    enum { D = 3 };
    double scratch[4 * D * D + D];
    /* Commuting covariances: Σ (√λ₁ − √λ₂)² + |μ₁ − μ₂|², here in axes turned by 45° in the first two. */
    const double mean1[D] = {1, 2, 3}, mean2[D] = {1, 0, 4};
    const double cov1[D * D] = {2.5, 1.5, 0, 1.5, 2.5, 0, 0, 0, 9}, cov2[D * D] = {5, -4, 0, -4, 5, 0, 0, 0, 4};
    const double expected = 5 + (2 - 1) * (2 - 1) + (1 - 3) * (1 - 3) + (3 - 2) * (3 - 2);
    double got = bb_frechet(D, mean1, cov1, mean2, cov2, scratch);
    CHECK(fabs(got - expected) < 1e-12, "%.15g instead of %g", got, expected);
    /* Not commuting: tr (Σ₁Σ₂)^½ in two dimensions is √(tr Σ₁Σ₂ + 2 √(det Σ₁ det Σ₂)). */
    const double a[4] = {3, 1, 1, 2}, b[4] = {1, -.5, -.5, 4}, zero[2] = {0};
    const double trace = 3 * 1 + 1 * -.5 + 1 * -.5 + 2 * 4, root = sqrt(trace + 2 * sqrt(5 * 3.75));
    got = bb_frechet(2, zero, a, zero, b, scratch);
    CHECK(fabs(got - (3 + 2 + 1 + 4 - 2 * root)) < 1e-12, "%.15g", got);
    CHECK(fabs(bb_frechet(2, zero, a, zero, a, scratch)) < 1e-12, "of a thing to itself");
    const double flat[4] = {1, 1, 1, 1}; /* singular */
    got = bb_frechet(2, zero, flat, zero, b, scratch); /* √ of rank 1: tr = √(1ᵀ b 1) */
    CHECK(fabs(got - (2 + 5 - 2 * sqrt(4))) < 1e-12, "singular: %.15g", got);
}

/* Unbiased: over many pairs of sets from one distribution the mean is zero within its error. */
static void mmd(void)
{
    enum { N = 40, M = 30, D = 8, TIMES = 400 };
    static float x[N * D], y[M * D], xx[N * N], yy[M * M], xy[N * M];
    double sum = 0, squares = 0;
    for (uint32_t t = 0; t < TIMES; t++) {
        bb_normals(x, N * D, 2, STREAM, (uint64_t)t * N * D);
        bb_normals(y, M * D, 3, STREAM, (uint64_t)t * M * D);
        bb_kernel(NULL, x, N, x, N, D, xx);
        bb_kernel(NULL, y, M, y, M, D, yy);
        bb_kernel(NULL, x, N, y, M, D, xy);
        const double value = bb_mmd(xx, yy, xy, NULL, N, NULL, M);
        sum += value;
        squares += value * value;
    }
    const double mean = sum / TIMES, error = sqrt((squares / TIMES - mean * mean) / TIMES);
    CHECK(fabs(mean) < 4 * error, "mean %g ± %g", mean, error);
    CHECK(error < .02, "error %g: the test could not see a bias", error); /* self pairs alone would add about 8/40 */
    /* By enumeration: polynomial kernel of two vectors. */
    float k1;
    bb_kernel(NULL, (const float[]){1, 2}, 1, (const float[]){3, -1}, 1, 2, &k1);
    CHECK(k1 == 1.5f * 1.5f * 1.5f, "%g", (double)k1);
    /* Multiplicity is repetition, but a picture and its repetition are no pair. */
    uint32_t weight[N];
    for (uint32_t i = 0; i < N; i++) weight[i] = 1 + (i == 5) * 2 - (i == 6);
    double pairs = 0, total = 0, cross = 0, others = 0;
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < N; j++)
            if (i != j) pairs += (double)weight[i] * weight[j] * xx[i * N + j], total += (double)weight[i] * weight[j];
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < M; j++) cross += (double)weight[i] * xy[i * M + j];
    for (uint32_t i = 0; i < M; i++)
        for (uint32_t j = 0; j < M; j++) others += i != j ? (double)yy[i * M + j] : 0;
    const double expected = pairs / total + others / (M * (M - 1)) - 2 * cross / ((N + 1.0) * M);
    const double got = bb_mmd(xx, yy, xy, weight, N, NULL, M);
    CHECK(fabs(got - expected) < 1e-12, "%.15g instead of %.15g", got, expected);
}

static void manifolds(void)
{
    /* On a line: 0 1 3 7, and 100 alone. */
    const float x[] = {0, 1, 3, 7, 100}, y[] = {-2, 4.5, 9.9f, 50, 196};
    float radius2[5];
    uint8_t inside[5];
    bb_radii(NULL, x, 5, 1, 1, radius2);
    const float first[] = {1, 1, 4, 16, 93 * 93};
    for (int i = 0; i < 5; i++) CHECK(radius2[i] == first[i], "%d: %g", i, (double)radius2[i]);
    bb_radii(NULL, x, 5, 1, 3, radius2);
    const float third[] = {49, 36, 16, 49, 99 * 99};
    for (int i = 0; i < 5; i++) CHECK(radius2[i] == third[i], "%d: %g", i, (double)radius2[i]);
    bb_radii(NULL, x, 4, 1, 1, radius2); /* without the far one */
    bb_inside(NULL, x, radius2, 4, y, 5, 1, inside);
    CHECK(inside[0] == 0 && inside[1] == 1 && inside[2] == 1 && inside[3] == 0 && inside[4] == 0, "%u%u%u%u%u",
          inside[0], inside[1], inside[2], inside[3], inside[4]);
    /* More than a block of rows, by threads: against the plain loop. */
    enum { N = 150, D = 5 };
    static float a[N * D], r1[N], r2[N];
    static uint8_t in[N];
    bb_normals(a, N * D, 4, STREAM, 0);
    bb_par *par = bb_par_start(3);
    bb_radii(NULL, a, N, D, 3, r1);
    bb_radii(par, a, N, D, 3, r2);
    CHECK(memcmp(r1, r2, sizeof r1) == 0, "threads change radii");
    bb_inside(par, a, r1, N, a, N, D, in);
    for (int i = 0; i < N; i++) CHECK(in[i] == 1, "row %d is outside of its own manifold", i);
    bb_par_stop(par);
}

static void ssim(void)
{
    enum { H = 16, W = 20 };
    static uint8_t a[H * W], b[H * W];
    for (uint32_t i = 0; i < H * W; i++) a[i] = (uint8_t)(bb_uniform(7, STREAM, i) * 200);
    CHECK(fabs(bb_ssim(a, a, H, W, 1) - 1) < 1e-12, "of a picture to itself: %.15g", bb_ssim(a, a, H, W, 1));
    /* Two flat pictures: the variances drop out, (2 p q + C₁) / (p² + q² + C₁). */
    memset(a, 100, sizeof a);
    memset(b, 140, sizeof b);
    const double c1 = 6.5025, expected = (2.0 * 100 * 140 + c1) / (100.0 * 100 + 140.0 * 140 + c1);
    CHECK(fabs(bb_ssim(a, b, H, W, 1) - expected) < 1e-9, "%.15g", bb_ssim(a, b, H, W, 1));
    CHECK(fabs(bb_ssim(a, b, 8, 10, 4) - expected) < 1e-9, "a window that is cut, four channels");
    /* The window is 11 wide: a change in a corner pixel of an 11 × 11 picture has the corner's weight. */
    memset(b, 100, sizeof b);
    b[0] = 200;
    double sum = 0, corner = exp(-25 / 4.5);
    for (int i = -5; i <= 5; i++) sum += exp(-i * i / 4.5);
    const double w = corner / sum * corner / sum, mean = 100 + 100 * w, variance = 100.0 * 100 * w * (1 - w);
    const double by_hand = (2 * 100 * mean + c1) * 58.5225 / ((100.0 * 100 + mean * mean + c1) * (variance + 58.5225));
    CHECK(fabs(bb_ssim(a, b, 11, 11, 1) - by_hand) < 1e-9, "%.15g instead of %.15g", bb_ssim(a, b, 11, 11, 1), by_hand);
}

/* 95 % intervals of a mean cover it in about 95 % of the sets; of the 200 sets here the count is binomial, σ 3.1. */
static void coverage(void)
{
    enum { SETS = 200, N = 100, DRAWS = 300 };
    float x[N];
    double draws[DRAWS];
    uint32_t weight[N], covered = 0;
    for (uint32_t s = 0; s < SETS; s++) {
        double mean = 0;
        bb_normals(x, N, 9, STREAM, (uint64_t)s * N);
        for (uint32_t i = 0; i < N; i++) mean += x[i] / N;
        for (uint32_t r = 0; r < DRAWS; r++) {
            bb_resample(BB_RESAMPLE_DRAWN, r, N, weight);
            draws[r] = 0;
            for (uint32_t i = 0; i < N; i++) draws[r] += weight[i] * (double)x[i] / N;
        }
        const bb_interval in = bb_interval_of(mean, draws, DRAWS);
        covered += in.low <= 0 && in.high >= 0;
    }
    CHECK(covered >= 178 && covered <= 200, "%u of 200 intervals cover the mean", covered); /* 190 ± 4σ */
    uint32_t total = 0, other[N], same = 0;
    bb_resample(BB_RESAMPLE_REAL, 3, N, weight);
    bb_resample(BB_RESAMPLE_REAL, 4, N, other);
    for (uint32_t i = 0; i < N; i++) total += weight[i], same += weight[i] == other[i];
    CHECK(total == N && same < N, "a resample of %u, %u as in the next", total, same);
    for (uint32_t r = 0; r < DRAWS; r++) draws[r] = r;
    double again[DRAWS];
    memcpy(again, draws, sizeof draws);
    const bb_interval none = bb_interval_between(5, draws, 5, again, DRAWS);
    CHECK(none.value == 0 && none.low == 0 && none.high == 0, "a model against itself: %g %g", none.low, none.high);
    for (uint32_t r = 0; r < DRAWS; r++) draws[r] = r * 7 % DRAWS; /* in another order */
    const bb_interval ramp = bb_interval_of(10, draws, DRAWS); /* 0…299: quantiles 7.475 and 291.525, mean 149.5 */
    CHECK(fabs(ramp.low - (10 - 142.025)) < 1e-9 && fabs(ramp.high - (10 + 142.025)) < 1e-9, "%g %g", ramp.low,
          ramp.high);
    draws[7] = NAN;
    CHECK(isnan(bb_interval_of(10, draws, DRAWS).low), "an interval of something unknown");
}

int main(void)
{
    eigen();
    moments();
    frechet();
    mmd();
    manifolds();
    ssim();
    coverage();
    return check_done();
}
