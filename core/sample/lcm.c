/* Latent consistency models: S. Luo et al. (2023), "Latent consistency models: synthesizing high-resolution images with
 * few-step inference", with the boundary condition of consistency models (σ_data = ½). Only models that were distilled
 * for it give good pictures.
 *
 *     x̂ = c_out·x̂0 + c_skip·x      x' = √ᾱ'·x̂ + √(1−ᾱ')·noise, or x̂ at the end */
#include "sample/predict.h"

void bb_lcm_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    int32_t t = (int32_t)plan->timesteps[step];
    bb_predictor p = bb_predictor_init(sched, t, io);
    double scaled = (double)t * (double)plan->solver.lcm_scaling, square = scaled * scaled + 0.25;
    float skip = (float)(0.25 / square), out = (float)(scaled / bb_sqrt(square));
    bool noisy = bb_sampler_needs_noise(plan, step);
    BB_ASSERT(!noisy || io->noise);
    float alpha = noisy ? sched->alphas_cumprod[(int32_t)plan->timesteps[step + 1]] : 1.0f;
    float x_weight = bb_sqrtf(alpha), noise_weight = bb_sqrtf(1.0f - alpha);
    for (size_t px = 0, i = 0; px < io->pixels; px++) {
        for (uint32_t c = 0; c < io->channels; c++, i++) {
            float x = io->x[i], x0 = bb_predict_x0(&p, x, io->model_output[px * io->out_channels + c]);
            float denoised = out * x0 + skip * x;
            io->x[i] = noisy ? x_weight * denoised + noise_weight * io->noise[i] : denoised;
            if (io->pred_x0) io->pred_x0[i] = denoised;
        }
    }
}
