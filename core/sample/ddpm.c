/* DDPM: J. Ho, A. Jain, P. Abbeel, "Denoising diffusion probabilistic models" (NeurIPS 2020), formulas (6) and (7);
 * learned variances: A. Nichol, P. Dhariwal, "Improved denoising diffusion probabilistic models" (2021), formula (15).
 *
 *     α = ᾱ_t/ᾱ_s   β = 1−α   x_s = √ᾱ_s·β/(1−ᾱ_t)·x̂0 + √α·(1−ᾱ_s)/(1−ᾱ_t)·x_t + √variance·noise
 */
#include "base/mathf.h"
#include "sample/predict.h"

/* The timestep this step leads to; negative after the last. */
static int32_t timestep_before(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step)
{
    if (plan->custom) return step + 1 < plan->steps ? (int32_t)plan->timesteps[step + 1] : -1;
    return (int32_t)plan->timesteps[step] - (int32_t)(sched->train_steps / plan->steps);
}

/* Standard deviation for the kinds that do not depend on the element; small = the posterior variance. */
static float fixed_deviation(uint32_t kind, float small, float beta)
{
    switch (kind) {
    case BB_VARIANCE_FIXED_SMALL_LOG: return (float)bb_exp(0.5f * (float)bb_log(small));
    case BB_VARIANCE_FIXED_LARGE: /* fall through */
    case BB_VARIANCE_FIXED_LARGE_LOG: return bb_sqrtf(beta); /* the reference takes the root of a logarithm: NaN */
    default: return bb_sqrtf(small);
    }
}

void bb_ddpm_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    int32_t t = (int32_t)plan->timesteps[step];
    bb_predictor p = bb_predictor_init(sched, t, io);
    float alpha_bar = sched->alphas_cumprod[t], beta_bar = 1.0f - alpha_bar;
    float alpha_bar_before = bb_alpha_before(sched, timestep_before(plan, sched, step), 1.0f);
    float beta_bar_before = 1.0f - alpha_bar_before;
    float alpha = alpha_bar / alpha_bar_before, beta = 1.0f - alpha;
    float c0 = (bb_sqrtf(alpha_bar_before) * beta) / beta_bar;
    float cx = bb_sqrtf(alpha) * beta_bar_before / beta_bar;
    float small = beta_bar_before / beta_bar * beta;
    small = small > 1e-20f ? small : 1e-20f; /* its logarithm may be taken */

    bool noisy = bb_sampler_needs_noise(plan, step);
    BB_ASSERT(!noisy || io->noise);
    /* Without the second half of channels there is nothing learned to read. */
    bool learned = io->out_channels == 2 * io->channels;
    bool learned_value = learned && sched->variance == BB_VARIANCE_LEARNED;
    bool learned_range = learned && sched->variance == BB_VARIANCE_LEARNED_RANGE;
    float deviation = fixed_deviation(sched->variance, small, beta);
    float log_small = (float)bb_log(small), log_beta = learned_range ? (float)bb_log(beta) : 0;

    for (size_t px = 0, i = 0; px < io->pixels; px++) {
        const float *out = io->model_output + px * io->out_channels;
        for (uint32_t c = 0; c < io->channels; c++, i++) {
            float x0 = bb_predict_x0(&p, io->x[i], out[c]);
            float next = c0 * x0 + cx * io->x[i];
            if (learned_value) deviation = bb_sqrtf(out[io->channels + c]);
            if (learned_range) {
                float share = (out[io->channels + c] + 1.0f) / 2.0f;
                deviation = bb_expf(0.5f * (share * log_beta + (1.0f - share) * log_small));
            }
            if (noisy) next = next + deviation * io->noise[i];
            io->x[i] = next;
            if (io->pred_x0) io->pred_x0[i] = x0;
        }
    }
}
