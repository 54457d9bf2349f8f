/* Which timesteps a run visits. "leading", "trailing", "linspace" are table 2 of S. Lin et al., "Common diffusion
 * noise schedules and sample steps are flawed" (2023); the arithmetic is numpy's arange and linspace in f64, because
 * a timestep at a rounding edge must fall to the same side as in the reference. (With "trailing" and some S, 61 of
 * 1000 for one, numpy's rounding of the length makes the reference append a timestep −1; it is left out here.) */
#include "sample/sampler.h"

/* Nearest integer, ties to even, for |x| < 2^31. */
static int32_t round_even(double x) { return (int32_t)((x + 6755399441055744.0) - 6755399441055744.0); }

static bool fill(bb_sampler_plan *plan, const bb_schedule *sched)
{
    const double train = sched->train_steps, steps = plan->steps;
    double stride = plan->steps > 1 ? (train - 1.0) / (steps - 1.0) : 0.0; /* linspace */
    double delta = (train - train / steps) - train; /* trailing: arange takes it from its first two values */
    for (uint32_t i = 0; i < plan->steps; i++) {
        uint32_t from_end = plan->steps - 1 - i;
        int64_t t = -1;
        switch (sched->spacing) {
        case BB_SPACING_LEADING:
            t = (int64_t)from_end * (sched->train_steps / plan->steps) + sched->steps_offset;
            break;
        case BB_SPACING_TRAILING: t = (int64_t)round_even(train + i * delta) - 1; break;
        case BB_SPACING_LINSPACE: t = round_even(from_end * stride); break;
        default: break;
        }
        if (t < 0 || t >= (int64_t)sched->train_steps) return false;
        plan->timesteps[i] = (int32_t)t;
    }
    return true;
}

static bb_status begin(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler, uint32_t steps,
                       bb_error *err)
{
    uint32_t most = sched->train_steps < BB_MAX_STEPS ? sched->train_steps : BB_MAX_STEPS;
    *plan = (bb_sampler_plan){.sampler = sampler == BB_SAMPLER_DEFAULT ? sched->sampler : sampler, .steps = steps};
    if (plan->sampler != BB_SAMPLER_DDIM && plan->sampler != BB_SAMPLER_DDPM) {
        return bb_fail(err, BB_ERR_ARGUMENT, "sampler %u is unknown; there are ddim and ddpm", plan->sampler);
    }
    if (steps < 1 || steps > most) {
        return bb_fail(err, BB_ERR_STEPS, "steps is %u; this model takes 1 to %u", steps, most);
    }
    return BB_OK;
}

bb_status bb_sampler_plan_init(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler, uint32_t steps,
                               float eta, bb_error *err)
{
    BB_TRY(begin(plan, sched, sampler, steps, err));
    if (!(eta >= 0.0f && eta <= 1.0f)) return bb_fail(err, BB_ERR_ARGUMENT, "eta must lie between 0 and 1");
    plan->eta = eta;
    if (!fill(plan, sched)) {
        return bb_fail(err, BB_ERR_STEPS,
                       "steps %u with the model's steps_offset %d leaves its %u timesteps; take fewer", steps,
                       sched->steps_offset, sched->train_steps);
    }
    return BB_OK;
}

bb_status bb_sampler_plan_custom(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler,
                                 const int32_t *timesteps, uint32_t steps, bb_error *err)
{
    BB_TRY(begin(plan, sched, sampler, steps, err));
    if (plan->sampler != BB_SAMPLER_DDPM) {
        return bb_fail(err, BB_ERR_UNSUPPORTED, "the ddim sampler chooses its timesteps itself; take ddpm");
    }
    plan->custom = true;
    int64_t last = sched->train_steps;
    for (uint32_t i = 0; i < steps; i++) {
        if (timesteps[i] < 0 || timesteps[i] >= last) {
            return bb_fail(err, BB_ERR_STEPS, "timestep number %u is %d; they must fall from below %u to 0 or more", i,
                           timesteps[i], sched->train_steps);
        }
        last = plan->timesteps[i] = timesteps[i];
    }
    return BB_OK;
}

bool bb_sampler_needs_noise(const bb_sampler_plan *plan, uint32_t step)
{
    return plan->sampler == BB_SAMPLER_DDIM ? plan->eta > 0.0f : plan->timesteps[step] > 0;
}

void bb_sampler_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    BB_ASSERT(step < plan->steps);
    if (plan->sampler == BB_SAMPLER_DDIM) bb_ddim_step(plan, sched, step, io);
    else bb_ddpm_step(plan, sched, step, io);
}
