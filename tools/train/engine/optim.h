/* AdamW (Loshchilov & Hutter 2019, PyTorch's form: decay is decoupled and multiplied by the rate), exponential moving
 * average, clipping by the global norm, rate schedules. Everything works on flat arrays in groups. */
#ifndef BB_TRAIN_ENGINE_OPTIM_H
#define BB_TRAIN_ENGINE_OPTIM_H

#include "train/engine/ops.h"

typedef struct bb_optim_group { size_t first, count; float rate, decay; } bb_optim_group; /* rate: factor of lr */

typedef struct bb_optim {
    const bb_ops *ops;
    size_t n;
    float *m, *v;      /* [n] moments */
    uint64_t step;     /* updates done */
    float beta1, beta2, eps;
    bb_optim_group *groups; uint32_t n_groups; /* disjoint; floats in none are not changed */
} bb_optim;

bb_status bb_optim_new(bb_optim *o, const bb_ops *ops, size_t n, const bb_optim_group *groups, uint32_t n_groups,
                       bb_error *err);
void bb_optim_free(bb_optim *o);
/* √Σ g² over all groups, in f64. */
double bb_optim_norm(const bb_optim *o, const float *g);
/* One update; gradients are scaled by clip/norm if norm > clip > 0. Not finite norm: no update, false. */
bool bb_optim_update(bb_optim *o, float *w, const float *g, float lr, float clip, double norm);

typedef enum bb_decay_kind { BB_DECAY_CONSTANT, BB_DECAY_LINEAR, BB_DECAY_COSINE } bb_decay_kind;
/* Rate at update `step` of `steps`: linear warm-up from 0, then the decay from 1 to `last`. */
float bb_rate_at(bb_decay_kind kind, uint64_t step, uint64_t steps, uint64_t warmup, float last);

#endif
