#include "sample/multistep.h"

void bb_convert(const bb_sampler_plan *plan, const bb_schedule *sched, uint32_t step, const bb_sampler_io *io,
                float *out)
{
    bb_level level = bb_level_of(plan->sigmas[step]);
    bb_predictor p = bb_predictor_at(sched, (float)level.alpha, (float)level.sigma, io);
    bool epsilon = plan->solver.flags & BB_SOLVER_EPSILON, bounded = sched->clip_sample || sched->thresholding;
    for (size_t px = 0, i = 0; px < io->pixels; px++) {
        for (uint32_t c = 0; c < io->channels; c++, i++) {
            float x = io->x[i], y = io->model_output[px * io->out_channels + c], x0 = bb_predict_x0(&p, x, y);
            if (io->pred_x0) io->pred_x0[i] = x0;
            out[i] = !epsilon ? x0 : bounded ? bb_implied_eps(&p, x, x0) : bb_predict_eps(&p, x, y);
        }
    }
}

void bb_sum_add(bb_sum *sum, double weight, const float *term)
{
    sum->weight[sum->n] = weight;
    sum->term[sum->n++] = term;
}

void bb_sum_to_x(const bb_sum *sum, const float *x, const bb_sampler_io *io)
{
    float x_weight = (float)sum->x_weight;
    for (size_t i = 0, n = io->pixels * io->channels; i < n; i++) {
        float y = x_weight * x[i];
        for (uint32_t k = 0; k < sum->n; k++) y = y + (float)sum->weight[k] * sum->term[k][i];
        io->x[i] = y;
    }
}
