/* Noise schedules and samplers: pure functions on arrays, one file a family. The model file carries alphas_cumprod
 * itself, so nothing here knows how betas were made (tools/import/scheduler.c does). */
#ifndef BB_SAMPLE_SAMPLER_H
#define BB_SAMPLE_SAMPLER_H

#include "pack/schedule.h"

#define BB_MAX_STEPS 1000u
#define BB_MAX_EVALUATIONS (BB_MAX_STEPS + 9u) /* PNDM's three Runge-Kutta steps of four */

/* A run: at which timesteps the model is evaluated, with which options. Plain data, lives in the session. */
typedef struct bb_sampler_plan {
    bb_solver solver;     /* resolved */
    uint32_t steps;       /* S, as asked for */
    uint32_t evaluations; /* of the model: S but for PNDM (S + 1, or S + 9 with Runge-Kutta) and DPM's clipped λ */
    uint32_t buffers;     /* pictures of history it keeps */
    bool custom;          /* timesteps were given by the caller */
    float eta;            /* DDIM */
    bool use_clipped_model_output; /* DDIM */
    float s_churn, s_tmin, s_noise; /* Euler: T. Karras et al. (2022), algorithm 2; 0, 0, 1 unless set after init */
    float first_sigma;    /* x begins as noise times this */
    float timesteps[BB_MAX_EVALUATIONS];  /* noisiest first; Euler's have fractions */
    float sigmas[BB_MAX_EVALUATIONS + 1]; /* √((1−ᾱ)/ᾱ) for Euler, DPM and UniPC; one more for the end */
} bb_sampler_plan;

/* Fills the plan for S steps with the schedule's spacing. sampler: a bb_sampler; BB_SAMPLER_DEFAULT takes the
 * schedule's own solver, others keep its betas, prediction type, spacing and bounds of x̂0. Timesteps and noise levels
 * are those of diffusers 0.27.2 set_timesteps. BB_ERR_STEPS unless 1 ≤ S ≤ min(train_steps, BB_MAX_STEPS), within the
 * sampler's own limits, and all timesteps lie in 0 … train_steps−1 (steps_offset may push them out). eta 0..1: DDIM. */
bb_status bb_sampler_plan_init(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler, uint32_t steps,
                               float eta, bb_error *err);
/* The same with given timesteps, strictly decreasing; DDPM only. */
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
    float *history;            /* [plan.buffers][pixels·channels], kept from step to step; NULL if there are none */
    size_t pixels;
    uint32_t channels, out_channels;
} bb_sampler_io;

/* What x is divided by before the model sees it. */
float bb_sampler_input_divisor(const bb_sampler_plan *plan, uint32_t step);
bool bb_sampler_needs_noise(const bb_sampler_plan *plan, uint32_t step);
/* After evaluation number `step` (0 = noisiest) of the plan; they must come in order. */
void bb_sampler_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io);

typedef void bb_step_fn(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io);
bb_step_fn bb_ddim_step, bb_ddpm_step, bb_euler_step, bb_dpm_step, bb_unipc_step, bb_pndm_step, bb_lcm_step;

/* Of a plan whose solver and steps are set: evaluations, timesteps, noise levels. False if a timestep lies outside. */
bool bb_timesteps_fill(bb_sampler_plan *plan, const bb_schedule *sched);

/* ε = ε_null + g·(ε_label − ε_null), n values; out may be either input. Fixed order of operations: one
 * subtraction, one multiplication, one addition, in f32. */
void bb_guide(float *out, const float *eps_null, const float *eps_label, float g, size_t n);

#endif
