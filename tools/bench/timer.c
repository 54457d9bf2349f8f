#include "bench/timer.h"

#include "platform.h"
#include "progress.h"

#include <math.h>
#include <stdlib.h>

enum { LEAST_ROUNDS = 3, MOST_ROUNDS = 400, AIM_ROUNDS = 25 };
#define LEAST_SLICE 20e-6 /* seconds at a time: the clock counts in fractions of a microsecond */
#define MOST_SLICE 5e-3

double bb_timing_now(const bb_par *par) { return bb_par_threads(par) > 1 ? bb_now() : bb_thread_seconds(); }

static double run(const bb_timed *t, const bb_timing *how)
{
    const double start = bb_timing_now(how->par);
    t->run(t->ctx, t->times);
    return bb_timing_now(how->par) - start;
}

/* As many times as fill a slice; the runs until then are the warm-up. */
static void warm_up(bb_timed *t, const bb_timing *how, double slice)
{
    t->times = 1;
    run(t, how);
    for (double seconds; (seconds = run(t, how)) < slice && t->times < 1u << 30;) {
        const double more = slice / (seconds > 1e-9 ? seconds : 1e-9);
        t->times = (uint32_t)(t->times * (more < 1.5 ? 1.5 : more > 16 ? 16 : more)) + 1;
    }
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bb_median(double *x, size_t n)
{
    if (!n) return 0;
    qsort(x, n, sizeof *x, by_size);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

double bb_middle_mean(double *x, size_t n)
{
    double sum = 0;
    qsort(x, n, sizeof *x, by_size);
    for (size_t i = n / 4; i < n - n / 4; i++) sum += x[i];
    return n ? sum / (double)(n - 2 * (n / 4)) : 0;
}

double bb_fit_exponent(const double *x, const double *y, size_t n)
{
    double sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (size_t i = 0; i < n; i++) {
        const double a = log(x[i]), b = log(y[i]);
        sx += a, sy += b, sxx += a * a, sxy += a * b;
    }
    return ((double)n * sxy - sx * sy) / ((double)n * sxx - sx * sx);
}

/* Round after round, everyone in turn, until the time is over. */
static void run_rounds(bb_timed *timed, size_t n, const bb_timing *how)
{
    const uint32_t most = how->times ? 1 : MOST_ROUNDS;
    bb_progress progress = bb_progress_start("measuring (ms)", (size_t)(how->seconds * 1000) + 1,
                                            how->quiet || how->times);
    const double start = bb_now();
    for (uint32_t round = 0; round < most; round++) {
        const double elapsed = bb_now() - start;
        if (round >= LEAST_ROUNDS && elapsed >= how->seconds) break;
        if (elapsed < how->seconds) bb_progress_step(&progress, (size_t)(elapsed * 1000));
        for (size_t i = 0; i < n; i++) timed[i].sample[timed[i].rounds++] = run(&timed[i], how) / timed[i].times;
    }
    bb_progress_step(&progress, progress.total);
}

bb_status bb_time_all(bb_timed *timed, size_t n, const bb_timing *how, bb_error *err)
{
    const double aim = how->seconds / (double)(n ? n : 1) / AIM_ROUNDS;
    double *samples = malloc((n + 1) * MOST_ROUNDS * sizeof *samples);
    if (!samples) return bb_fail(err, BB_ERR_SPACE, "out of memory for the measured times");
    for (size_t i = 0; i < n; i++) {
        timed[i].sample = samples + i * MOST_ROUNDS;
        timed[i].rounds = 0;
        timed[i].times = how->times;
        if (!how->times) warm_up(&timed[i], how, aim < LEAST_SLICE ? LEAST_SLICE : aim > MOST_SLICE ? MOST_SLICE : aim);
    }
    run_rounds(timed, n, how);
    for (size_t i = 0; i < n; i++) {
        timed[i].median = bb_median(timed[i].sample, timed[i].rounds);
        timed[i].best = timed[i].sample[0]; /* sorted now */
        timed[i].sample = NULL;
    }
    free(samples);
    return BB_OK;
}
