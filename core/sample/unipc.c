/* UniPC: W. Zhao et al., "UniPC: a unified predictor-corrector framework for fast sampling of diffusion models" (2023),
 * B(h) form. Each evaluation first corrects the x it was made at (UniC), then predicts the next one (UniP):
 *
 *     x' = cx·x − B·(e^q−1)·m0 − B·B(h)·Σ ρ_k·(m_k − m0)/r_k        q = −h, or h for ε
 *
 * with r_k = (λ_k − λ_0)/h and r = 1 for the new prediction. ρ solves Σ_k ρ_k·r_k^(i−1) = b_i. */
#include "sample/multistep.h"

enum { SLOTS = BB_UNIPC_BUFFERS - 1 };

/* Solves Σ_k rho_k·r_k^i = b_i, i = 0 … n−1, for distinct r. */
static void solve(uint32_t n, const double *r, const double *b, double *rho)
{
    double a[BB_MAX_ORDER][BB_MAX_ORDER + 1];
    for (uint32_t k = 0; k < n; k++) {
        a[0][k] = 1;
        for (uint32_t i = 1; i < n; i++) a[i][k] = a[i - 1][k] * r[k];
    }
    for (uint32_t i = 0; i < n; i++) a[i][n] = b[i];
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t i = p + 1; i < n; i++) {
            double f = a[i][p] / a[p][p];
            for (uint32_t k = p; k <= n; k++) a[i][k] -= f * a[p][k];
        }
    for (uint32_t i = n; i-- > 0;) {
        rho[i] = a[i][n];
        for (uint32_t k = i + 1; k < n; k++) rho[i] -= a[i][k] * rho[k];
        rho[i] /= a[i][i];
    }
}

/* From noise level `from` to from + 1 with predictions m[0] (at `from`) … m[order−1] of earlier ones, and `made`, that
 * at from + 1, when correcting. */
static void update(const bb_sampler_plan *plan, uint32_t from, uint32_t order, const float *const *m,
                   const float *made, const float *x, const bb_sampler_io *io)
{
    bb_level next = bb_level_of(plan->sigmas[from + 1]), now = bb_level_of(plan->sigmas[from]);
    double h = next.lambda - now.lambda, r[BB_MAX_ORDER], b[BB_MAX_ORDER], rho[BB_MAX_ORDER] = {0.5};
    bool epsilon = plan->solver.flags & BB_SOLVER_EPSILON;
    double scale = epsilon ? next.sigma : next.alpha, q = epsilon ? h : -h, e = bb_exp(q) - 1;
    bb_sum sum = {epsilon ? next.alpha / now.alpha : next.sigma / now.sigma, 0, {0}, {0}};
    if (!(h > 0)) order = 0; /* the same noise level twice: x stays, and nothing may be divided by h */
    for (uint32_t k = 1; k < order; k++) {
        r[k - 1] = (bb_level_of(plan->sigmas[from - k]).lambda - now.lambda) / h;
        if (!(plan->sigmas[from - k] > plan->sigmas[from - k + 1])) order = k;
    }
    uint32_t n = order ? order - 1 : 0;
    if (order && made) r[n++] = 1;
    double bh = plan->solver.flags & BB_SOLVER_BH1 ? q : e, phi = e / q - 1, factorial = 1;
    for (uint32_t i = 0; i < n; i++) {
        b[i] = phi * factorial / bh;
        factorial *= i + 2;
        phi = phi / q - 1 / factorial;
    }
    if (n > 1) solve(n, r, b, rho); /* one term: ½ */
    if (order) bb_sum_add(&sum, -scale * e, m[0]);
    for (uint32_t k = 0; k < n; k++) {
        double w = -scale * bh * rho[k] / r[k];
        sum.weight[0] -= w;
        bb_sum_add(&sum, w, made && k == n - 1 ? made : m[k + 1]);
    }
    bb_sum_to_x(&sum, x, io);
}

/* Order of the predictor after evaluation `step`. */
static uint32_t order_at(const bb_sampler_plan *plan, uint32_t step)
{
    uint32_t order = plan->solver.order, left = plan->evaluations - step;
    bool to_zero = left == 1 && !(plan->solver.flags & BB_SOLVER_SIGMA_MIN);
    if (to_zero) order = 1;
    if (plan->solver.flags & BB_SOLVER_LOWER_FINAL && order > left) order = left;
    return order > step + 1 ? step + 1 : order;
}

void bb_unipc_step(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io)
{
    const float *m[SLOTS]; /* m[k]: prediction of evaluation step − k */
    float *last = bb_history(io, SLOTS);
    for (uint32_t k = 0; k < SLOTS && k <= step; k++) m[k] = bb_history(io, (step - k) % SLOTS);
    bb_convert(plan, sched, step, io, bb_history(io, step % SLOTS));
    bool off = step && step <= 32 && plan->solver.no_corrector >> (step - 1) & 1;
    if (step && !off) update(plan, step - 1, order_at(plan, step - 1), m + 1, m[0], last, io);
    memcpy(last, io->x, io->pixels * io->channels * sizeof *last);
    update(plan, step, order_at(plan, step), m, NULL, last, io);
}
