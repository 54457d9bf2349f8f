/* PNDM: L. Liu et al., "Pseudo numerical methods for diffusion models on manifolds" (2022): three Runge-Kutta steps
 * (PRK, four evaluations each), then linear multistep (PLMS); with SKIP_PRK multistep from the start, whose first step
 * is taken twice. Both combine model outputs e and go by formula (9), exact DDIM for a constant ε:
 *
 *     x' = √(ᾱ'/ᾱ)·x − (ᾱ'−ᾱ)·ε / (ᾱ·√(1−ᾱ') + √(ᾱ·(1−ᾱ)·ᾱ')) */
#include "sample/multistep.h"

enum { KEPT = 4, SAVED_X = KEPT, COMBINED = BB_PNDM_BUFFERS - 1 };

/* x = formula (9) from timestep t to `to` with the combined model output. */
static void transfer(const bb_schedule *sched, int32_t t, int32_t to, const float *combined, const bb_sampler_io *io)
{
    bb_sampler_io own = *io;
    own.model_output = combined;
    own.out_channels = io->channels;
    t = t < (int32_t)sched->train_steps ? t : (int32_t)sched->train_steps - 1;
    float a = bb_alpha_positive(sched->alphas_cumprod[t]), b = 1.0f - a;
    float a_to = bb_alpha_before(sched, to, sched->set_alpha_to_one ? 1.0f : sched->alphas_cumprod[0]);
    float b_to = 1.0f - a_to;
    bb_predictor p = bb_predictor_at(sched, bb_sqrtf(a), bb_sqrtf(b), &own);
    bool bounded = sched->clip_sample || sched->thresholding;
    float divisor = a * bb_sqrtf(b_to) + bb_sqrtf(a * b * a_to), x_weight = bb_sqrtf(a_to / a);
    float eps_weight = divisor > 0 ? 1.0f / divisor : 0; /* no noise before or after: no way to go */
    for (size_t i = 0; i < io->pixels * io->channels; i++) {
        float x = io->x[i], x0 = bb_predict_x0(&p, x, combined[i]);
        float eps = bounded ? bb_implied_eps(&p, x, x0) : bb_predict_eps(&p, x, combined[i]);
        io->x[i] = x_weight * x - (a_to - a) * eps * eps_weight;
        if (io->pred_x0) io->pred_x0[i] = x0;
    }
}

/* Weights of the newest outputs by how many there are; the Adams-Bashforth ones. */
static const float MULTISTEP[KEPT][KEPT] = {
    {1}, {1.5f, -0.5f}, {23 / 12.0f, -16 / 12.0f, 5 / 12.0f}, {55 / 24.0f, -59 / 24.0f, 37 / 24.0f, -9 / 24.0f}};

static void combine(const bb_sampler_io *io, const float *weight, uint32_t n, uint32_t newest)
{
    float *out = bb_history(io, COMBINED);
    for (size_t i = 0; i < io->pixels * io->channels; i++) {
        float sum = 0;
        for (uint32_t k = 0; k < n; k++) sum = sum + weight[k] * bb_history(io, (newest - k) % KEPT)[i];
        out[i] = sum;
    }
}

static void runge_kutta(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, float *e,
                        const bb_sampler_io *io)
{
    static const float share[] = {1 / 6.0f, 1 / 3.0f, 1 / 3.0f, 1 / 6.0f};
    float *sum = bb_history(io, COMBINED), *saved = bb_history(io, SAVED_X);
    size_t n = io->pixels * io->channels;
    uint32_t stage = step % 4;
    if (stage == 0) memcpy(saved, io->x, n * sizeof *saved);
    else memcpy(io->x, saved, n * sizeof *saved);
    for (size_t i = 0; i < n; i++) sum[i] = (stage ? sum[i] : 0.0f) + share[stage] * e[i];
    int32_t half = stage % 2 ? 0 : (int32_t)(sched->train_steps / plan->steps / 2);
    transfer(sched, (int32_t)plan->timesteps[step - stage], (int32_t)plan->timesteps[step] - half,
             stage == 3 ? sum : e, io);
}

void bb_pndm_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    bool skip = plan->solver.flags & BB_SOLVER_SKIP_PRK, prk = !skip && step < 12, second = skip && step == 1;
    /* Number of this output among those kept. Runge-Kutta keeps its first stages; the others, and the second
     * evaluation of the doubled first step, borrow the next one's place. */
    uint32_t number = prk ? (step + 3) / 4 : skip ? (step > 1 ? step - 1 : step) : step - 9;
    float *e = bb_history(io, number % KEPT), *saved = bb_history(io, SAVED_X);
    for (size_t px = 0, i = 0; px < io->pixels; px++)
        for (uint32_t c = 0; c < io->channels; c++, i++) e[i] = io->model_output[px * io->out_channels + c];
    if (prk) {
        runge_kutta(plan, sched, step, e, io);
        return;
    }
    int32_t t = (int32_t)plan->timesteps[step], stride = (int32_t)(sched->train_steps / plan->steps), to = t - stride;
    size_t bytes = io->pixels * io->channels * sizeof *saved;
    if (skip && step == 0) memcpy(saved, io->x, bytes);
    if (second) {
        memcpy(io->x, saved, bytes);
        to = t;
        t += stride;
    }
    const float mean[] = {0.5f, 0.5f};
    uint32_t n = number < KEPT ? number + 1 : KEPT;
    combine(io, second ? mean : MULTISTEP[n - 1], second ? 2 : n, number);
    transfer(sched, t, to, bb_history(io, COMBINED), io);
}
