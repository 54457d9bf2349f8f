/* A model's noise schedule, prediction type and solver, as the packed file carries them. Here and not in core/sample,
 * because the samplers use the file's contents, not the other way round. */
#ifndef BB_PACK_SCHEDULE_H
#define BB_PACK_SCHEDULE_H

#include "base/status.h"

typedef enum bb_prediction { BB_PREDICT_EPSILON, BB_PREDICT_V, BB_PREDICT_SAMPLE } bb_prediction;
typedef enum bb_spacing { BB_SPACING_LEADING, BB_SPACING_TRAILING, BB_SPACING_LINSPACE } bb_spacing;
typedef enum bb_variance {
    BB_VARIANCE_FIXED_SMALL, BB_VARIANCE_FIXED_SMALL_LOG, BB_VARIANCE_FIXED_LARGE, BB_VARIANCE_FIXED_LARGE_LOG,
    BB_VARIANCE_LEARNED, BB_VARIANCE_LEARNED_RANGE
} bb_variance;

/* Families of samplers, one file each in core/sample. */
typedef enum bb_family {
    BB_FAMILY_DDIM = 1, BB_FAMILY_DDPM, BB_FAMILY_EULER, BB_FAMILY_EULER_A, BB_FAMILY_DPM, BB_FAMILY_UNIPC,
    BB_FAMILY_PNDM, BB_FAMILY_LCM
} bb_family;

/* Options of a family; diffusers' names in quotes. */
enum {
    BB_SOLVER_KARRAS = 1,       /* "use_karras_sigmas": Euler, DPM, UniPC */
    BB_SOLVER_LU = 2,           /* "use_lu_lambdas": DPM */
    BB_SOLVER_LOG_LINEAR = 4,   /* "interpolation_type": Euler */
    BB_SOLVER_SIGMA_MIN = 8,    /* "final_sigmas_type" is sigma_min, not zero: DPM, UniPC */
    BB_SOLVER_LOWER_FINAL = 16, /* "lower_order_final": DPM, UniPC */
    BB_SOLVER_EULER_FINAL = 32, /* "euler_at_final": DPM */
    BB_SOLVER_EPSILON = 64,     /* integrates ε instead of x̂0: DPM "dpmsolver", UniPC without "predict_x0" */
    BB_SOLVER_SDE = 128,        /* "sde-…" */
    BB_SOLVER_HEUN = 256,       /* "solver_type" is heun, not midpoint: DPM */
    BB_SOLVER_BH1 = 512,        /* "solver_type" is bh1, not bh2: UniPC */
    BB_SOLVER_SKIP_PRK = 1024,  /* "skip_prk_steps": PNDM */
    BB_SOLVER_CLIP_LAMBDA = 2048 /* "lambda_min_clipped" is finite: DPM */
};
typedef struct bb_solver {
    uint32_t family;       /* bb_family */
    uint32_t flags;        /* BB_SOLVER_*, those that the family knows */
    uint32_t order;        /* "solver_order", 1–3: DPM, UniPC; else 0 */
    float lambda_min;      /* with CLIP_LAMBDA, else 0 */
    uint32_t no_corrector; /* "disable_corrector", bit i = step i: UniPC; else 0 */
    uint32_t lcm_steps;    /* "original_inference_steps", 1 … train_steps: LCM; else 0 */
    float lcm_scaling;     /* "timestep_scaling", above 0: LCM; else 0 */
} bb_solver;

/* A model's scheduler configuration, as diffusers names it. */
typedef struct bb_schedule {
    const float *alphas_cumprod; /* [train_steps] */
    uint32_t train_steps;
    bb_solver solver;            /* the model's own */
    uint32_t prediction, spacing, variance; /* enums above; variance is DDPM's */
    int32_t steps_offset;
    bool set_alpha_to_one, clip_sample, thresholding;
    float clip_sample_range, dynamic_thresholding_ratio, sample_max_value;
} bb_schedule;

/* Whether everything in it is in range and the family knows all of its options. */
bool bb_solver_valid(const bb_solver *solver, uint32_t train_steps);

#endif
