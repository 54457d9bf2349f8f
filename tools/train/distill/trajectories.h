/* What a student learns from: pictures that the teacher draws (data-free, mpq-dm §1.6), every step of each. The teacher
 * runs in core's own session, so it is exactly the one that `bitbrush eval` and a page compare with; the answers are
 * drawn once and kept, because in distillation along the teacher's own way they never change. */
#ifndef BB_TRAIN_DISTILL_TRAJECTORIES_H
#define BB_TRAIN_DISTILL_TRAJECTORIES_H

#include "api/model.h"
#include "sample/predict.h"
#include "train/engine/ranks.h"

typedef struct bb_trajectories_options {
    uint32_t held_out, count; /* pictures never trained on, which come first and depend on no seed; the others */
    uint32_t steps;           /* of DDIM, at most 64 */
    float guidance;           /* 1: the label alone */
    uint64_t seed;
    uint32_t together;        /* the number of pictures is rounded up to a multiple of it */
    bool features;            /* keep what enters the last norm, too: the last up block's output (mpq-dm §3.2) */
    bb_par *par;
} bb_trajectories_options;

typedef struct bb_trajectories {
    bb_trajectories_options opt;
    const bb_model *teacher;
    uint32_t total;           /* held_out + count, rounded up */
    uint32_t halves;          /* items of a picture: 2 with guidance, the one without class first; else 1 */
    size_t x_size, out_size;  /* floats of a picture: the model's input, its output */
    uint32_t feature_value;   /* of the graph; BB_NONE without features */
    bb_shape feature;         /* of one item */
    float timestep[64];       /* [steps], noisiest first */
    bb_predictor at[64];
    int32_t *label;           /* [total]; never the null class; 0 without classes */
    float *x, *target;        /* [total][steps][x_size], [total][steps][out_size]: input, guided output */
    uint16_t *features;       /* [total][steps][halves][h·w·c], f16; NULL without */
} bb_trajectories;

/* Memory, labels, timesteps; nothing is drawn yet. BB_ERR_UNSUPPORTED where the graph has no such features. On failure
 * nothing needs freeing. */
bb_status bb_trajectories_new(bb_trajectories *t, const bb_model *teacher, const bb_trajectories_options *opt,
                              bb_error *err);
void bb_trajectories_free(bb_trajectories *t);
size_t bb_trajectories_bytes(const bb_trajectories *t);

/* Draws pictures first … first+n−1 together. */
bb_status bb_trajectories_draw(bb_trajectories *t, uint32_t first, uint32_t n, bb_error *err);

/* Process r has drawn the n pictures first + r·n …: afterwards all have all of them. */
bb_status bb_trajectories_share(bb_trajectories *t, const bb_ranks *ranks, uint32_t first, uint32_t n, bb_error *err);

BB_INLINE float *bb_trajectory_x(const bb_trajectories *t, uint32_t picture, uint32_t step)
{
    return t->x + ((size_t)picture * t->opt.steps + step) * t->x_size;
}
BB_INLINE float *bb_trajectory_target(const bb_trajectories *t, uint32_t picture, uint32_t step)
{
    return t->target + ((size_t)picture * t->opt.steps + step) * t->out_size;
}
BB_INLINE uint16_t *bb_trajectory_feature(const bb_trajectories *t, uint32_t picture, uint32_t step, uint32_t half)
{
    size_t n = bb_shape_size(t->feature);
    return t->features + (((size_t)picture * t->opt.steps + step) * t->halves + half) * n;
}

/* Squared error of a guided output, and square of the teacher's, both in units of ε (predict.h): what `bitbrush eval`
 * divides into its relative error. */
typedef struct bb_eps_error { double error, power; } bb_eps_error;
bb_eps_error bb_trajectory_error(const bb_trajectories *t, uint32_t picture, uint32_t step, const float *guided);

/* Of a model as its integer kernels run it, over the held-out pictures: errors[steps] are added to. */
bb_status bb_trajectories_measure(const bb_trajectories *t, const bb_model *model, bb_eps_error *errors, bb_error *err);

#endif
