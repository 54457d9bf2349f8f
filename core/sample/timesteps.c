/* Which timesteps a run visits and their noise levels, as diffusers 0.27.2 set_timesteps has them: "leading",
 * "trailing", "linspace" are table 2 of S. Lin et al., "Common diffusion noise schedules and sample steps are flawed"
 * (2023); Karras levels: T. Karras et al. (2022), formula (5), ρ = 7; Lu levels: uniform in λ = −log σ.
 *
 * The arithmetic is numpy's arange, linspace and interp in f64, because a timestep at a rounding edge must fall to the
 * same side as in the reference. (With "trailing" and some S, 61 of 1000 for one, numpy's rounding of the length makes
 * the reference append a timestep −1; it is left out here.) */
#include "base/mathf.h"
#include "sample/predict.h"

/* Nearest integer, ties to even, for |x| < 2^31. */
static double round_even(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

static float sigma_at(const bb_schedule *sched, uint32_t t)
{
    float alpha = bb_alpha_positive(sched->alphas_cumprod[t]);
    return bb_sqrtf((1.0f - alpha) / alpha);
}

static double log_of(double sigma) { return bb_log(sigma > 1e-10 ? sigma : 1e-10); }

/* Step i of n among timesteps 0 … top−1. skip_first: n + 1 points of which the last, t = 0, is left out. */
static double spaced(const bb_schedule *sched, uint32_t top, uint32_t n, uint32_t i, bool skip_first)
{
    uint32_t from_end = n - 1 - i + skip_first, points = n + skip_first;
    double train = sched->train_steps, delta = ((double)top - train / n) - (double)top; /* arange's own step */
    switch (sched->spacing) {
    case BB_SPACING_LEADING: return (double)from_end * (top / points) + sched->steps_offset;
    case BB_SPACING_TRAILING: return round_even(top + i * delta) - 1.0;
    default: return points > 1 ? from_end * ((top - 1.0) / (points - 1.0)) : 0.0;
    }
}

/* numpy.interp of the training noise levels. */
static double interpolated(const bb_schedule *sched, double t)
{
    uint32_t k = (uint32_t)t;
    double low = sigma_at(sched, k);
    return t > k ? ((double)sigma_at(sched, k + 1) - low) * (t - k) + low : low;
}

/* The fractional timestep of a noise level: linear in log σ, in the reference's mixture of f32 and f64. */
static double timestep_of(const bb_schedule *sched, double sigma)
{
    uint32_t low = 0, high = sched->train_steps - 1; /* σ(low) ≤ σ < σ(high) where possible */
    if (high == 0) return 0;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if ((double)sigma_at(sched, middle) <= sigma) low = middle;
        else high = middle;
    }
    float a = (float)log_of(sigma_at(sched, low)), b = (float)log_of(sigma_at(sched, low + 1));
    float w = (a - (float)log_of(sigma)) / (a - b);
    w = w > 0 ? w : 0; /* NaN too */
    w = w < 1 ? w : 1;
    return (double)(1.0f - w) * low + (double)w * (low + 1);
}

/* n levels from σ `first` down to `last`, and the timesteps they lie at. */
static void levels(bb_sampler_plan *plan, const bb_schedule *sched, double first, double last, bool whole)
{
    const double rho = 7, log_first = log_of(first), log_last = log_of(last);
    const double a = bb_exp(log_first / rho), b = bb_exp(log_last / rho);
    uint32_t n = plan->evaluations;
    bool karras = plan->solver.flags & BB_SOLVER_KARRAS;
    for (uint32_t i = 0; i < n; i++) {
        double ramp = n == 1 ? 0 : i == n - 1 ? 1 : i * (1.0 / (n - 1)), sigma;
        if (karras) sigma = bb_exp(rho * log_of(a + ramp * (b - a)));
        else sigma = bb_exp((float)log_first + ramp * ((double)(float)log_last - (float)log_first));
        double t = timestep_of(sched, sigma);
        plan->sigmas[i] = (float)sigma;
        plan->timesteps[i] = (float)(whole ? round_even(t) : t);
    }
}

/* Training timesteps with λ ≥ lambda_min: the others are noisier than the solver can use. */
static uint32_t usable(const bb_schedule *sched, const bb_solver *solver)
{
    uint32_t n = sched->train_steps;
    if (!(solver->flags & BB_SOLVER_CLIP_LAMBDA)) return n;
    while (n > 1 && -log_of(sigma_at(sched, n - 1)) < (double)solver->lambda_min) n--;
    return n;
}

static bool fill_euler(bb_sampler_plan *plan, const bb_schedule *sched)
{
    uint32_t n = plan->evaluations, train = sched->train_steps, flags = plan->solver.flags;
    for (uint32_t i = 0; i < n; i++) {
        plan->timesteps[i] = (float)spaced(sched, train, n, i, false);
        if (!(plan->timesteps[i] >= 0 && plan->timesteps[i] <= (float)(train - 1))) return false;
        plan->sigmas[i] = (float)interpolated(sched, (double)plan->timesteps[i]);
    }
    double first = interpolated(sched, (double)plan->timesteps[0]);
    double end = interpolated(sched, (double)plan->timesteps[n - 1]);
    plan->sigmas[n] = 0;
    if (flags & BB_SOLVER_LOG_LINEAR) { /* n + 1 points, so that the last stands where 0 would */
        double top = (float)log_of(sigma_at(sched, train - 1)), bottom = (float)log_of(sigma_at(sched, 0));
        for (uint32_t i = 0; i <= n; i++) plan->sigmas[i] = (float)bb_exp(top + (bottom - top) * i / n);
        first = (double)plan->sigmas[0];
        end = (double)plan->sigmas[n];
    }
    if (flags & BB_SOLVER_KARRAS) {
        levels(plan, sched, first, end, false);
        plan->sigmas[n] = 0;
    }
    float top = 0;
    for (uint32_t i = 0; i <= n; i++) top = plan->sigmas[i] > top ? plan->sigmas[i] : top;
    plan->first_sigma = sched->spacing == BB_SPACING_LEADING ? bb_sqrtf(top * top + 1.0f) : top;
    return true;
}

static bool fill_multistep(bb_sampler_plan *plan, const bb_schedule *sched)
{
    uint32_t n = plan->evaluations, train = sched->train_steps, top = usable(sched, &plan->solver), made = 0;
    for (; made < n; made++) {
        double t = round_even(spaced(sched, top, n, made, sched->spacing != BB_SPACING_TRAILING));
        if (made && sched->spacing == BB_SPACING_TRAILING && t < 0) break; /* top is below train */
        if (!(t >= 0 && t < train)) return false;
        plan->timesteps[made] = (float)t;
        plan->sigmas[made] = sigma_at(sched, (uint32_t)t);
    }
    if (sched->spacing == BB_SPACING_LEADING && !(top / (n + 1))) return false;
    float lowest = sigma_at(sched, 0);
    if (plan->solver.flags & (BB_SOLVER_KARRAS | BB_SOLVER_LU))
        levels(plan, sched, (double)sigma_at(sched, train - 1), (double)lowest, true);
    else plan->evaluations = made;
    plan->sigmas[plan->evaluations] = plan->solver.flags & BB_SOLVER_SIGMA_MIN ? lowest : 0;
    return true;
}

/* PNDM repeats timesteps: with Runge-Kutta the first three steps twice at the middle and once more at the end. */
static void repeat_pndm(bb_sampler_plan *plan, const bb_schedule *sched)
{
    float *t = plan->timesteps;
    uint32_t n = plan->steps;
    if (plan->solver.flags & BB_SOLVER_SKIP_PRK) {
        if (n < 2) return;
        memmove(t + 2, t + 1, (n - 1) * sizeof *t);
        plan->evaluations = n + 1;
        return;
    }
    float half = (float)(sched->train_steps / n / 2), four[4];
    memcpy(four, t, sizeof four);
    memmove(t + 12, t + 3, (n - 3) * sizeof *t);
    for (uint32_t i = 0; i < 3; i++) {
        t[4 * i] = four[i];
        t[4 * i + 1] = t[4 * i + 2] = four[i + 1] + half;
        t[4 * i + 3] = four[i + 1];
    }
    plan->evaluations = n + 9;
}

static bool fill_lcm(bb_sampler_plan *plan, const bb_schedule *sched)
{
    uint32_t origin = plan->solver.lcm_steps, k = sched->train_steps / origin;
    for (uint32_t i = 0; i < plan->steps; i++) /* numpy's linspace without its end, rounded down */
        plan->timesteps[i] = (float)((origin - (uint32_t)(i * ((double)origin / plan->steps))) * k - 1);
    return true;
}

bool bb_timesteps_fill(bb_sampler_plan *plan, const bb_schedule *sched)
{
    plan->evaluations = plan->steps;
    plan->first_sigma = 1;
    switch (plan->solver.family) {
    case BB_FAMILY_EULER: case BB_FAMILY_EULER_A: return fill_euler(plan, sched);
    case BB_FAMILY_DPM: case BB_FAMILY_UNIPC: return fill_multistep(plan, sched);
    case BB_FAMILY_LCM: return fill_lcm(plan, sched);
    default: break;
    }
    for (uint32_t i = 0; i < plan->steps; i++) {
        double t = round_even(spaced(sched, sched->train_steps, plan->steps, i, false));
        if (!(t >= 0 && t < sched->train_steps)) return false;
        plan->timesteps[i] = (float)t;
    }
    if (plan->solver.family == BB_FAMILY_PNDM) repeat_pndm(plan, sched);
    return true;
}
