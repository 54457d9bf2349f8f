#include "eval/bootstrap.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void bb_resample(uint32_t kind, uint32_t number, uint32_t n, uint32_t *weight)
{
    enum { SEED = 5, STREAM = BB_STREAM_TOOLS + 512 };
    memset(weight, 0, n * sizeof *weight);
    for (uint32_t i = 0; i < n; i++) {
        const double at = bb_uniform(SEED, STREAM + kind, (uint64_t)number * n + i) * n;
        weight[(uint32_t)at]++;
    }
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the two nearest of the sorted draws. */
static double quantile(const double *sorted, uint32_t n, double share)
{
    const double at = share * (n - 1);
    const uint32_t below = (uint32_t)at, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

bb_interval bb_interval_between(double a, double *draws_a, double b, const double *draws_b, uint32_t n)
{
    bb_interval out = {a - b, NAN, NAN};
    double mean = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (draws_b) draws_a[i] -= draws_b[i];
        mean += draws_a[i] / n;
    }
    if (!n || !isfinite(mean)) return out;
    qsort(draws_a, n, sizeof *draws_a, by_size);
    out.low = quantile(draws_a, n, .025) - mean + out.value;
    out.high = quantile(draws_a, n, .975) - mean + out.value;
    return out;
}

bb_interval bb_interval_of(double value, double *draws, uint32_t n)
{
    return bb_interval_between(value, draws, 0, NULL, n);
}
