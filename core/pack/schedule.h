/* A model's noise schedule and prediction type, as the packed file carries them. Here and not in core/sample, because
 * the samplers use the file's contents, not the other way round. */
#ifndef BB_PACK_SCHEDULE_H
#define BB_PACK_SCHEDULE_H

#include "base/status.h"

typedef enum bb_prediction { BB_PREDICT_EPSILON, BB_PREDICT_V, BB_PREDICT_SAMPLE } bb_prediction;
typedef enum bb_spacing { BB_SPACING_LEADING, BB_SPACING_TRAILING, BB_SPACING_LINSPACE } bb_spacing;
typedef enum bb_variance {
    BB_VARIANCE_FIXED_SMALL, BB_VARIANCE_FIXED_SMALL_LOG, BB_VARIANCE_FIXED_LARGE, BB_VARIANCE_FIXED_LARGE_LOG,
    BB_VARIANCE_LEARNED, BB_VARIANCE_LEARNED_RANGE
} bb_variance;

/* A model's scheduler configuration, as diffusers names it. */
typedef struct bb_schedule {
    const float *alphas_cumprod; /* [train_steps] */
    uint32_t train_steps;
    uint32_t sampler;            /* bb_sampler of the model's own scheduler class: DDIM or DDPM */
    uint32_t prediction, spacing, variance; /* enums above; variance is DDPM's */
    int32_t steps_offset;
    bool set_alpha_to_one, clip_sample, thresholding;
    float clip_sample_range, dynamic_thresholding_ratio, sample_max_value;
} bb_schedule;

#endif
