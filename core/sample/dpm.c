/* DPM-Solver and DPM-Solver++, multistep, orders 1–3, and their SDE forms of orders 1–2: C. Lu et al., "DPM-Solver"
 * (2022), "DPM-Solver++" (2022). h = λ_next − λ, m_k the prediction k steps ago, r_k = (λ_{k} − λ_{k+1})/h.
 *
 *     D1 = (m0−m1)/r0   third order: D1' = D1 + r0/(r0+r1)·(D1 − (m1−m2)/r1)   D2 = (D1 − (m1−m2)/r1)/(r0+r1)
 *     x' = cx·x − B·(e^q−1)·m0 − B·k1·D1 − B·k2·D2 + cn·noise
 *     k1 = (e^q−1)/2 (midpoint) or (e^q−1)/q − 1 (heun, third order)      k2 = (e^q−1−q)/q² − 1/2
 *
 *     ++: q = −h, B = α, cx = σ'/σ        ++ SDE: q = −2h, cx = σ'/σ·e^−h, cn = σ'·√(1−e^q)
 *     ε:  q = h,  B = σ', cx = α'/α       ε SDE:  B = 2σ', cn = σ'·√(e^2h−1) */
#include "sample/multistep.h"

/* Second and third order need as many predictions, at falling noise levels; the last steps may be cut back. */
static uint32_t order_at(const bb_sampler_plan *plan, uint32_t step)
{
    uint32_t left = plan->evaluations - step, flags = plan->solver.flags, order = plan->solver.order;
    bool lower = flags & BB_SOLVER_LOWER_FINAL && plan->evaluations < 15;
    if (left == 1 && (lower || flags & BB_SOLVER_EULER_FINAL || !(flags & BB_SOLVER_SIGMA_MIN))) order = 1;
    if (left == 2 && lower && order > 2) order = 2;
    if (order > step + 1) order = step + 1;
    for (uint32_t k = 0; k < order; k++)
        if (!(plan->sigmas[step - k] > plan->sigmas[step - k + 1])) return k ? k : 1;
    return order;
}

void bb_dpm_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    uint32_t flags = plan->solver.flags, order = order_at(plan, step), kept = plan->solver.order;
    const float *m[BB_MAX_ORDER];
    for (uint32_t k = 0; k < order; k++) m[k] = bb_history(io, (step - k) % kept);
    bb_convert(plan, sched, step, io, bb_history(io, step % kept));

    bb_level next = bb_level_of(plan->sigmas[step + 1]), now = bb_level_of(plan->sigmas[step]);
    bool epsilon = flags & BB_SOLVER_EPSILON, sde = flags & BB_SOLVER_SDE;
    double h = next.lambda - now.lambda, q = epsilon ? h : sde ? -2 * h : -h, e = bb_exp(q) - 1;
    double b = epsilon ? next.sigma * (sde ? 2 : 1) : next.alpha;
    bb_sum sum = {epsilon ? next.alpha / now.alpha : next.sigma / now.sigma * (sde ? bb_exp(-h) : 1), 0, {0}, {0}};
    double w[BB_MAX_ORDER] = {-b * e, 0, 0};
    if (order > 1) {
        double r0 = (now.lambda - bb_level_of(plan->sigmas[step - 1]).lambda) / h;
        double k1 = order == 2 && !(flags & BB_SOLVER_HEUN) ? e / 2 : e / q - 1;
        double first = -b * k1, second = 0; /* of D1 = (m0−m1)/r0 and (m1−m2)/r1 */
        if (order > 2) {
            double r1 = (bb_level_of(plan->sigmas[step - 1]).lambda - bb_level_of(plan->sigmas[step - 2]).lambda) / h;
            second = -(first * r0 - b * ((e - q) / (q * q) - 0.5)) / (r0 + r1);
            first -= second;
            second /= r1;
        }
        w[0] += first / r0;
        w[1] = second - first / r0;
        w[2] = -second;
    }
    for (uint32_t k = 0; k < order; k++) bb_sum_add(&sum, w[k], m[k]);
    if (bb_sampler_needs_noise(plan, step)) {
        BB_ASSERT(io->noise);
        bb_sum_add(&sum, next.sigma * bb_sqrt(epsilon ? bb_exp(2 * h) - 1 : -e), io->noise);
    }
    bb_sum_to_x(&sum, io->x, io);
}
