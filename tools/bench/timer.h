/* Times of things that differ by little, on a machine that does other work too: all are run in turn, round after round,
 * and the median of the rounds counts. */
#ifndef BB_TOOLS_BENCH_TIMER_H
#define BB_TOOLS_BENCH_TIMER_H

#include "base/par.h"
#include "base/status.h"

typedef struct bb_timed {
    void (*run)(void *ctx, uint32_t times); /* does it so many times */
    void *ctx;
    double median, best; /* seconds of one time */
    uint32_t times, rounds;
    double *sample;      /* [rounds], the timer's own */
} bb_timed;

typedef struct bb_timing {
    double seconds;    /* to measure in all, about; three rounds at least */
    uint32_t times;    /* not 0: one round of exactly so many times, and nothing before */
    const bb_par *par; /* threads that things run on */
    bool quiet;
} bb_timing;

/* Warms each of n up and measures. Fills median, best, times and rounds. */
bb_status bb_time_all(bb_timed *timed, size_t n, const bb_timing *how, bb_error *err);

/* Seconds of a core if things run on one thread: then other work takes turns with them, but not their time. Else of the
 * clock. */
double bb_timing_now(const bb_par *par);

/* Sorts x. 0 if there are none. */
double bb_median(double *x, size_t n);

/* Mean of the middle half: what a clock that counts coarsely tells of short times. Sorts x. */
double bb_middle_mean(double *x, size_t n);

/* Exponent b of y = a·x^b, least squares over the logarithms; n ≥ 2. */
double bb_fit_exponent(const double *x, const double *y, size_t n);

#endif
