/* Bootstrap over pictures (Efron & Tibshirani 1993): which pictures a resample holds depends on its number only, so
 * figures of several models over the same seeds are resampled together, and differences of their draws are paired. */
#ifndef BB_TOOLS_EVAL_BOOTSTRAP_H
#define BB_TOOLS_EVAL_BOOTSTRAP_H

#include "base/compiler.h"

typedef struct bb_interval { double value, low, high; } bb_interval; /* NaN: not measured */

/* What is drawn apart: generated pictures, real ones, trajectories of the epsilon error. */
enum { BB_RESAMPLE_DRAWN, BB_RESAMPLE_REAL, BB_RESAMPLE_TRACED };

/* weight[i] = how often item i of n is in resample `number` of that kind: n draws with replacement. */
void bb_resample(uint32_t kind, uint32_t number, uint32_t n, uint32_t *weight);

/* The 2.5 and 97.5 % quantiles of the draws [n], moved so that the draws' mean lies at the value. A resample repeats
 * pictures, which raises a Fréchet distance as few pictures do; without the move the interval would lie above the value
 * itself. What remains is how far the figure would move with other pictures of the same number. Sorts the draws. */
bb_interval bb_interval_of(double value, double *draws, uint32_t n);
/* The same of a − b, draw by draw; draws_a is overwritten. */
bb_interval bb_interval_between(double a, double *draws_a, double b, const double *draws_b, uint32_t n);

#endif
