/* What the solvers that keep earlier predictions share (dpm.c, unipc.c, pndm.c): a step is a weighted sum of x, those
 * predictions and noise. The weights are worked out in f64 from the plan's f32 noise levels; the reference works them
 * out in f32, which is what it differs by. */
#ifndef BB_SAMPLE_MULTISTEP_H
#define BB_SAMPLE_MULTISTEP_H

#include "base/mathf.h"
#include "sample/predict.h"

#define BB_MAX_ORDER 3u
#define BB_UNIPC_BUFFERS (BB_MAX_ORDER + 2u) /* predictions, one more being corrected with; the last x */
#define BB_PNDM_BUFFERS 6u                    /* four outputs, the x of a step taken in parts, their combination */

/* A noise level σ of x = x0 + σ·ε, and the same of x = α·x0 + σ_vp·ε with α² + σ_vp² = 1. λ = log(α/σ_vp). */
typedef struct bb_level { double alpha, sigma, lambda; } bb_level; /* sigma is σ_vp */

/* σ = 0 counts as 10^-10, which no f32 weight can tell from it: so nothing is infinite. */
BB_INLINE bb_level bb_level_of(float sigma)
{
    double s = sigma > 1e-10f ? (double)sigma : 1e-10, alpha = 1.0 / bb_sqrt(s * s + 1.0);
    return (bb_level){alpha, s * alpha, -bb_log(s)};
}

BB_INLINE float *bb_history(const bb_sampler_io *io, uint32_t slot)
{
    return io->history + slot * (io->pixels * io->channels);
}

/* out = x̂0 of the model output at the plan's noise level, or ε where the solver integrates that; pred_x0 too.
 * ε is the one that leads to the bounded x̂0. Reads io->x. */
void bb_convert(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io,
                float *out);

/* io->x = x_weight·x + Σ weight·term, f32, in this order. x may be io->x. */
typedef struct bb_sum {
    double x_weight;
    uint32_t n;
    double weight[BB_MAX_ORDER + 2];
    const float *term[BB_MAX_ORDER + 2];
} bb_sum;
void bb_sum_to_x(const bb_sum *sum, const float *x, const bb_sampler_io *io);
void bb_sum_add(bb_sum *sum, double weight, const float *term);

#endif
