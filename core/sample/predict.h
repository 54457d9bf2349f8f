/* What the samplers share: x̂0 and ε from x_t and the model output, element by element.
 *
 * Parity: diffusers computes scalars as f32 tensors of no dimensions, so here they are f32 too, in its order of
 * operations; 1 − ᾱ_t/ᾱ_s loses digits and would differ visibly otherwise. */
#ifndef BB_SAMPLE_PREDICT_H
#define BB_SAMPLE_PREDICT_H

#include "sample/sampler.h"

typedef struct bb_predictor {
    uint32_t prediction;
    float sqrt_alpha, sqrt_beta; /* √ᾱ_t, √(1−ᾱ_t) */
    float limit, divisor;        /* x̂0 is clamped to ±limit, then divided */
} bb_predictor;

/* For √ᾱ and √(1−ᾱ), or those of timestep t. Dynamic thresholding reads the whole picture here, so that the rest goes
 * element by element. */
bb_predictor bb_predictor_at(const bb_schedule *sched, float sqrt_alpha, float sqrt_beta, const bb_sampler_io *io);
bb_predictor bb_predictor_init(const bb_schedule *sched, int32_t t, const bb_sampler_io *io);

/* ᾱ at the timestep before, which is negative after the last step: then it is at_end. */
BB_INLINE float bb_alpha_before(const bb_schedule *sched, int32_t before, float at_end)
{
    return before >= 0 ? sched->alphas_cumprod[before] : at_end;
}

/* Zero terminal SNR has ᾱ = 0 and no noise level; the reference puts 2^-24 there. */
BB_INLINE float bb_alpha_positive(float alpha) { return alpha > 0 ? alpha : 0x1p-24f; }

/* x̂0 before any bound. */
BB_INLINE float bb_predict_raw(const bb_predictor *p, float x, float out)
{
    switch (p->prediction) {
    case BB_PREDICT_SAMPLE: return out;
    case BB_PREDICT_V: return p->sqrt_alpha * x - p->sqrt_beta * out;
    default: return (x - p->sqrt_beta * out) / p->sqrt_alpha;
    }
}

BB_INLINE float bb_predict_x0(const bb_predictor *p, float x, float out)
{
    float v = bb_predict_raw(p, x, out);
    v = v < -p->limit ? -p->limit : v;
    v = v > p->limit ? p->limit : v; /* NaN stays NaN, as in the reference */
    return v / p->divisor;
}

/* ε that leads from x0 to x. */
BB_INLINE float bb_implied_eps(const bb_predictor *p, float x, float x0)
{
    return (x - p->sqrt_alpha * x0) / p->sqrt_beta;
}

/* ε as the model means it, before x̂0 was bounded. */
BB_INLINE float bb_predict_eps(const bb_predictor *p, float x, float out)
{
    switch (p->prediction) {
    case BB_PREDICT_SAMPLE: return bb_implied_eps(p, x, out);
    case BB_PREDICT_V: return p->sqrt_alpha * out + p->sqrt_beta * x;
    default: return out;
    }
}

#endif
