/* DDIM: J. Song, C. Meng, S. Ermon, "Denoising diffusion implicit models" (ICLR 2021), formulas (12) and (16).
 *
 *     σ = η·√((1−ᾱ_s)/(1−ᾱ_t)·(1−ᾱ_t/ᾱ_s))      x_s = √ᾱ_s·x̂0 + √(1−ᾱ_s−σ²)·ε + σ·noise      s = t − T/S
 */
#include "sample/predict.h"

void bb_ddim_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    int32_t t = (int32_t)plan->timesteps[step], before = t - (int32_t)(sched->train_steps / plan->steps);
    bb_predictor p = bb_predictor_init(sched, t, io);
    float alpha = sched->alphas_cumprod[t];
    float alpha_before = bb_alpha_before(sched, before, sched->set_alpha_to_one ? 1.0f : sched->alphas_cumprod[0]);
    float variance = ((1.0f - alpha_before) / (1.0f - alpha)) * (1.0f - alpha / alpha_before);
    float sigma = plan->eta * bb_sqrtf(variance);
    float rest = 1.0f - alpha_before - sigma * sigma;
    /* Rounding can put it just below 0 (zero terminal SNR, η = 1), where the reference draws NaN. */
    float c0 = bb_sqrtf(alpha_before), c_eps = bb_sqrtf(rest < 0 ? 0.0f : rest);
    bool noisy = bb_sampler_needs_noise(plan, step);
    BB_ASSERT(!noisy || io->noise);

    for (size_t px = 0, i = 0; px < io->pixels; px++) {
        for (uint32_t c = 0; c < io->channels; c++, i++) {
            float x = io->x[i], out = io->model_output[px * io->out_channels + c];
            float x0 = bb_predict_x0(&p, x, out);
            float eps = plan->use_clipped_model_output ? bb_implied_eps(&p, x, x0) : bb_predict_eps(&p, x, out);
            float next = c0 * x0 + c_eps * eps;
            if (noisy) next = next + sigma * io->noise[i];
            io->x[i] = next;
            if (io->pred_x0) io->pred_x0[i] = x0;
        }
    }
}
