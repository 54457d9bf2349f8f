/* Activation statistics from the model's own sampling trajectories: no data set is needed. */
#ifndef BB_TOOLS_CALIBRATE_CALIBRATE_H
#define BB_TOOLS_CALIBRATE_CALIBRATE_H

#include "api/model.h"
#include "quant/quant.h"

#define BB_CALIBRATION_SAMPLES 4096u /* values kept per site, step and segment, for the range search */
#define BB_CALIBRATION_TAIL 64u      /* lowest and highest values kept, each */

typedef struct bb_range_stats {
    float low, high;
    float *samples;     /* [BB_CALIBRATION_SAMPLES]; then the tails: [TAIL] lowest, [TAIL] highest */
    uint32_t n, n_low, n_high;
    float bound_low, bound_high; /* largest of the lowest, smallest of the highest, once those are full */
    double count;
} bb_range_stats;

/* A value that quantized layers read. */
typedef struct bb_site {
    uint32_t value, first_op;   /* the first conv or linear that reads it */
    uint32_t segments, seg_channels[BB_MAX_SEGMENTS];
    uint32_t rows;              /* steps, or 1 where the value does not change between steps */
    bb_range_stats *stats;      /* [rows][segments] */
} bb_site;

typedef struct bb_calibration {
    bb_site *sites; uint32_t n_sites;
    float timesteps[BB_MAX_STEP_ROWS]; uint32_t steps; /* noisiest first */
} bb_calibration;

typedef struct bb_calibration_options {
    uint32_t images, steps;  /* steps ≤ BB_MAX_STEP_ROWS */
    float guidance;          /* 1 = none */
    uint64_t seed;           /* image i uses seed + i and label i mod classes */
    bb_par *par;
    bool quiet;
} bb_calibration_options;

/* Draws with the unquantized model and fills out; free with bb_calibration_free in every case. */
bb_status bb_calibrate(bb_calibration *out, const bb_model *model, const bb_calibration_options *opt, bb_error *err);
void bb_calibration_free(bb_calibration *c);
/* One site's statistics at a step row, for the range search; tail: room for 2·BB_CALIBRATION_TAIL values. */
bb_activation_stats bb_calibration_stats(const bb_range_stats *s, float *tail);
/* The site of a value; NULL if no conv or linear reads it. */
const bb_site *bb_calibration_site(const bb_calibration *c, uint32_t value);

#endif
