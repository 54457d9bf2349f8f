/* Euler steps in σ, plain and ancestral: T. Karras et al., "Elucidating the design space of diffusion-based generative
 * models" (2022), algorithm 2 without its second order; ancestral: K. Crowson's k-diffusion. x here is x0 + σ·ε.
 *
 *     σ̂ = σ·(1+γ)   x̂ = x + √(σ̂²−σ²)·noise        γ > 0 only with s_churn
 *     x' = x̂ + (x̂ − x̂0)/σ̂·(σ_down − σ̂) + σ_up·noise    plain: σ_down is the next σ, σ_up = 0 */
#include "sample/predict.h"

/* The model's own parametrization of x̂0 at noise level σ, or σ̂ where it predicts ε. */
static bb_predictor predictor(const bb_schedule *sched, float sigma, float hat, const bb_sampler_io *io)
{
    float square = sigma * sigma + 1.0f;
    if (sched->prediction == BB_PREDICT_V) return bb_predictor_at(sched, 1.0f / square, sigma / bb_sqrtf(square), io);
    return bb_predictor_at(sched, 1.0f, hat, io);
}

static float churn(const bb_sampler_plan *plan, float sigma)
{
    float gamma = plan->s_churn / (float)(plan->evaluations);
    gamma = gamma < 0.41421356f ? gamma : 0.41421356f; /* √2 − 1 */
    return sigma >= plan->s_tmin ? gamma : 0.0f;
}

void bb_euler_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    float sigma = plan->sigmas[step], down = plan->sigmas[step + 1], up = 0, hat = sigma, before = 0;
    size_t n = io->pixels * io->channels;
    if (plan->solver.family == BB_FAMILY_EULER_A) {
        up = sigma > 0 ? bb_sqrtf(down * down * (sigma * sigma - down * down) / (sigma * sigma)) : 0;
        down = bb_sqrtf(down * down - up * up);
    } else {
        hat = sigma * (churn(plan, sigma) + 1.0f);
        before = bb_sqrtf(hat * hat - sigma * sigma) * plan->s_noise;
    }
    BB_ASSERT(io->noise || !bb_sampler_needs_noise(plan, step));
    for (size_t i = 0; hat > sigma && i < n; i++) io->x[i] += io->noise[i] * before;
    bb_predictor p = predictor(sched, sigma, hat, io);
    for (size_t px = 0, i = 0; px < io->pixels; px++) {
        for (uint32_t c = 0; c < io->channels; c++, i++) {
            float x = io->x[i], x0 = bb_predict_x0(&p, x, io->model_output[px * io->out_channels + c]);
            float next = hat > 0 ? x + (x - x0) / hat * (down - hat) : x; /* σ = 0: nothing left to do */
            if (up > 0) next = next + io->noise[i] * up;
            io->x[i] = next;
            if (io->pred_x0) io->pred_x0[i] = x0;
        }
    }
}
