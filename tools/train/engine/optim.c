#include "train/engine/optim.h"

#include <math.h>
#include <stdlib.h>

bb_status bb_optim_new(bb_optim *o, const bb_ops *ops, size_t n, const bb_optim_group *groups, uint32_t n_groups,
                       bb_error *err)
{
    *o = (bb_optim){.ops = ops, .n = n, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .n_groups = n_groups};
    for (uint32_t i = 0; i < n_groups; i++) BB_ASSERT(groups[i].first <= n && groups[i].count <= n - groups[i].first);
    o->m = calloc(n + 1, sizeof *o->m);
    o->v = calloc(n + 1, sizeof *o->v);
    o->groups = malloc((n_groups + 1) * sizeof *groups);
    if (!o->m || !o->v || !o->groups) {
        bb_optim_free(o);
        return bb_fail(err, BB_ERR_SPACE, "no memory for the moments of %z parameters", n);
    }
    if (n_groups) memcpy(o->groups, groups, n_groups * sizeof *groups);
    return BB_OK;
}

void bb_optim_free(bb_optim *o)
{
    free(o->m);
    free(o->v);
    free(o->groups);
    *o = (bb_optim){0};
}

double bb_optim_norm(const bb_optim *o, const float *g)
{
    double squares = 0;
    for (uint32_t i = 0; i < o->n_groups; i++) {
        const float *first = g + o->groups[i].first;
        squares += o->ops->dot(o->groups[i].count, first, first);
    }
    return sqrt(squares);
}

bool bb_optim_update(bb_optim *o, float *w, const float *g, float lr, float clip, double norm)
{
    if (!isfinite(norm)) return false;
    const float factor = clip > 0 && norm > (double)clip ? (float)((double)clip / norm) : 1.0f;
    const double step = (double)++o->step;
    const float correct1 = (float)(1 - pow((double)o->beta1, step));
    const float correct2 = (float)(1 - pow((double)o->beta2, step));
    for (uint32_t i = 0; i < o->n_groups; i++) {
        const bb_optim_group *group = &o->groups[i];
        o->ops->adamw(group->count, w + group->first, g + group->first, o->m + group->first, o->v + group->first,
                      lr * group->rate, o->beta1, o->beta2, o->eps, group->decay, correct1, correct2, factor);
    }
    return true;
}

float bb_rate_at(bb_decay_kind kind, uint64_t step, uint64_t steps, uint64_t warmup, float last)
{
    if (step < warmup) return (float)((double)(step + 1) / (double)(warmup + 1));
    if (kind == BB_DECAY_CONSTANT || steps <= warmup) return 1.0f;
    const double done = step >= steps ? 1.0 : (double)(step - warmup) / (double)(steps - warmup);
    const double left = kind == BB_DECAY_LINEAR ? 1 - done : 0.5 + 0.5 * cos(3.14159265358979323846 * done);
    return (float)((double)last + (1 - (double)last) * left);
}
