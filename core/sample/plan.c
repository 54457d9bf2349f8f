/* The samplers by name, and plans of them. */
#include "bitbrush.h"
#include "sample/multistep.h"

#define DPM(n, options) {.family = BB_FAMILY_DPM, .order = n, .flags = BB_SOLVER_LOWER_FINAL | (options)}
#define UNIPC(n, options) {.family = BB_FAMILY_UNIPC, .order = n, .flags = BB_SOLVER_LOWER_FINAL | (options)}
static const struct { const char *name; bb_solver solver; } samplers[] = {
    [BB_SAMPLER_DEFAULT] = {"default", {0}},
    [BB_SAMPLER_DDIM] = {"ddim", {.family = BB_FAMILY_DDIM}},
    [BB_SAMPLER_DDPM] = {"ddpm", {.family = BB_FAMILY_DDPM}},
    [BB_SAMPLER_EULER] = {"euler", {.family = BB_FAMILY_EULER}},
    [BB_SAMPLER_EULER_KARRAS] = {"euler-karras", {.family = BB_FAMILY_EULER, .flags = BB_SOLVER_KARRAS}},
    [BB_SAMPLER_EULER_A] = {"euler-a", {.family = BB_FAMILY_EULER_A}},
    [BB_SAMPLER_DPMPP_2M] = {"dpm++-2m", DPM(2, 0)},
    [BB_SAMPLER_DPMPP_2M_KARRAS] = {"dpm++-2m-karras", DPM(2, BB_SOLVER_KARRAS)},
    [BB_SAMPLER_DPMPP_2M_SDE] = {"dpm++-2m-sde", DPM(2, BB_SOLVER_SDE)},
    [BB_SAMPLER_DPMPP_2M_SDE_KARRAS] = {"dpm++-2m-sde-karras", DPM(2, BB_SOLVER_SDE | BB_SOLVER_KARRAS)},
    [BB_SAMPLER_DPMPP_3M] = {"dpm++-3m", DPM(3, 0)},
    [BB_SAMPLER_DPMPP_3M_KARRAS] = {"dpm++-3m-karras", DPM(3, BB_SOLVER_KARRAS)},
    [BB_SAMPLER_UNIPC] = {"unipc", UNIPC(2, 0)},
    [BB_SAMPLER_UNIPC_KARRAS] = {"unipc-karras", UNIPC(2, BB_SOLVER_KARRAS)},
    [BB_SAMPLER_PNDM] = {"pndm", {.family = BB_FAMILY_PNDM}},
    [BB_SAMPLER_PLMS] = {"plms", {.family = BB_FAMILY_PNDM, .flags = BB_SOLVER_SKIP_PRK}},
    [BB_SAMPLER_LCM] = {"lcm", {.family = BB_FAMILY_LCM, .lcm_steps = 50, .lcm_scaling = 10}},
};

static const struct { bb_step_fn *step; uint32_t buffers; } families[] = {
    [BB_FAMILY_DDIM] = {bb_ddim_step, 0}, [BB_FAMILY_DDPM] = {bb_ddpm_step, 0},
    [BB_FAMILY_EULER] = {bb_euler_step, 0}, [BB_FAMILY_EULER_A] = {bb_euler_step, 0},
    [BB_FAMILY_DPM] = {bb_dpm_step, BB_MAX_ORDER}, [BB_FAMILY_UNIPC] = {bb_unipc_step, BB_UNIPC_BUFFERS},
    [BB_FAMILY_PNDM] = {bb_pndm_step, BB_PNDM_BUFFERS}, [BB_FAMILY_LCM] = {bb_lcm_step, 0},
};

const char *bb_sampler_name(uint32_t sampler) { return sampler < BB_COUNT(samplers) ? samplers[sampler].name : NULL; }

static bb_status begin(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler, uint32_t steps,
                       bb_error *err)
{
    uint32_t most = sched->train_steps < BB_MAX_STEPS ? sched->train_steps : BB_MAX_STEPS, least = 1;
    if (!bb_sampler_name(sampler))
        return bb_fail(err, BB_ERR_ARGUMENT, "sampler %u is unknown; there are 0 to %u", sampler,
                       (uint32_t)BB_COUNT(samplers) - 1);
    *plan = (bb_sampler_plan){.steps = steps, .s_noise = 1};
    plan->solver = sampler ? samplers[sampler].solver : sched->solver;
    bb_solver *solver = &plan->solver;
    bool own = false; /* limits of the sampler's */
    plan->buffers = families[solver->family].buffers;
    if (solver->family == BB_FAMILY_LCM) {
        if (solver->lcm_steps > sched->train_steps) solver->lcm_steps = sched->train_steps;
        if (solver->lcm_steps < most) most = solver->lcm_steps, own = true;
    }
    if (solver->family == BB_FAMILY_PNDM && !(solver->flags & BB_SOLVER_SKIP_PRK)) least = 4, own = true;
    if (steps < least || steps > most)
        return bb_fail(err, BB_ERR_STEPS, "steps is %u; this model takes %u to %u%s", steps, least, most,
                       own ? " with this sampler" : "");
    return BB_OK;
}

bb_status bb_sampler_plan_init(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler, uint32_t steps,
                               float eta, bb_error *err)
{
    BB_TRY(begin(plan, sched, sampler, steps, err));
    if (!(eta >= 0.0f && eta <= 1.0f)) return bb_fail(err, BB_ERR_ARGUMENT, "eta must lie between 0 and 1");
    plan->eta = eta;
    if (!bb_timesteps_fill(plan, sched))
        return bb_fail(err, BB_ERR_STEPS,
                       "steps %u with the model's steps_offset %d leaves its %u timesteps; take fewer", steps,
                       sched->steps_offset, sched->train_steps);
    return BB_OK;
}

bb_status bb_sampler_plan_custom(bb_sampler_plan *plan, const bb_schedule *sched, uint32_t sampler,
                                 const int32_t *timesteps, uint32_t steps, bb_error *err)
{
    BB_TRY(begin(plan, sched, sampler, steps, err));
    if (plan->solver.family != BB_FAMILY_DDPM)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "this sampler chooses its timesteps itself; take ddpm");
    plan->custom = true;
    plan->evaluations = steps;
    plan->first_sigma = 1;
    int64_t last = sched->train_steps;
    for (uint32_t i = 0; i < steps; i++) {
        if (timesteps[i] < 0 || timesteps[i] >= last) {
            return bb_fail(err, BB_ERR_STEPS, "timestep number %u is %d; they must fall from below %u to 0 or more", i,
                           timesteps[i], sched->train_steps);
        }
        last = timesteps[i];
        plan->timesteps[i] = (float)timesteps[i];
    }
    return BB_OK;
}

float bb_sampler_input_divisor(const bb_sampler_plan *plan, uint32_t step)
{
    bool euler = plan->solver.family == BB_FAMILY_EULER || plan->solver.family == BB_FAMILY_EULER_A;
    float sigma = plan->sigmas[step];
    return euler ? bb_sqrtf(sigma * sigma + 1.0f) : 1.0f;
}

bool bb_sampler_needs_noise(const bb_sampler_plan *plan, uint32_t step)
{
    switch (plan->solver.family) {
    case BB_FAMILY_DDIM: return plan->eta > 0.0f;
    case BB_FAMILY_DDPM: return plan->timesteps[step] > 0;
    case BB_FAMILY_EULER: return plan->s_churn > 0;
    case BB_FAMILY_EULER_A: return plan->sigmas[step + 1] > 0;
    case BB_FAMILY_DPM: return plan->solver.flags & BB_SOLVER_SDE && plan->sigmas[step + 1] > 0;
    case BB_FAMILY_LCM: return step + 1 < plan->evaluations;
    default: return false;
    }
}

void bb_sampler_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    BB_ASSERT(step < plan->evaluations && (io->history || !plan->buffers));
    families[plan->solver.family].step(plan, sched, step, io);
}
