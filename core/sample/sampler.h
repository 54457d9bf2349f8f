/* Noise schedules and samplers: pure functions on arrays, one file each (ddim.c, ddpm.c). The model file carries
 * alphas_cumprod itself, so nothing here knows how betas were made (tools/import/scheduler.c does). */
#ifndef BB_SAMPLE_SAMPLER_H
#define BB_SAMPLE_SAMPLER_H

#include "pack/schedule.h"

#define BB_MAX_STEPS 1000u

/* A run of S steps: which timesteps, with which options. Plain data, lives in the session. */
typedef struct bb_sampler_plan {
    uint32_t sampler;     /* DDIM or DDPM, resolved */
    uint32_t steps;       /* S */
    bool custom;          /* timesteps were given by the caller */
    float eta;            /* DDIM */
    bool use_clipped_model_output; /* DDIM */
    int32_t timesteps[BB_MAX_STEPS]; /* noisiest first */
} bb_sampler_plan;

/* Fills timesteps for S steps with the schedule's spacing. BB_ERR_STEPS unless 1 ≤ S ≤ min(train_steps, BB_MAX_STEPS)
 * and all timesteps lie in 0..train_steps-1 (steps_offset may push them out). sampler BB_SAMPLER_DEFAULT takes the
 * schedule's own. Equal to diffusers 0.27.2 set_timesteps. eta 0..1, used by DDIM. */
bb_status bb_sampler_plan_init(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler, uint32_t steps,
                               float eta, bb_error *err);
/* The same with given timesteps, strictly decreasing; DDPM only (diffusers' DDIM steps by a fixed stride). */
bb_status bb_sampler_plan_custom(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler,
                                 const int32_t *timesteps, uint32_t steps, bb_error *err);

/* One picture (thresholding is per picture). Layout [pixels][channels], model output [pixels][out_channels] where
 * out_channels = 2·channels for learned variances (the second half is the variance), channels otherwise. */
typedef struct bb_sampler_io {
    float *x;                  /* in: x_t, out: x of the next step */
    const float *model_output; /* the guided prediction */
    const float *noise;        /* standard normals, or NULL where bb_sampler_needs_noise says none */
    float *pred_x0;            /* out, may be NULL */
    float *scratch;            /* [pixels·channels], used by thresholding only, else may be NULL */
    size_t pixels;
    uint32_t channels, out_channels;
} bb_sampler_io;

bool bb_sampler_needs_noise(const bb_sampler_plan *plan, uint32_t step);
/* Step number `step` (0 = noisiest) of the plan. */
void bb_sampler_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io);
void bb_ddim_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io);
void bb_ddpm_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io);

/* ε = ε_null + g·(ε_label − ε_null), n values; out may be either input. Fixed order of operations: one
 * subtraction, one multiplication, one addition, in f32. */
void bb_guide(float *out, const float *eps_null, const float *eps_label, float g, size_t n);

#endif
