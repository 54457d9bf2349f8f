/* Training of a float diffusion model: what an update does, and measuring on held-out pictures. Loading and saving it
 * all is state.h's. */
#ifndef BB_TRAIN_TEACH_TEACH_H
#define BB_TRAIN_TEACH_TEACH_H

#include "train/engine/optim.h"
#include "train/engine/ranks.h"
#include "train/teach/noise.h"

typedef struct bb_teach_options {
    bb_noise_options noise;
    uint32_t batch, accumulate; /* pictures at a time in each rank; times so many for an update */
    uint64_t updates;           /* in all: what the rate's decay is made for */
    float lr, last;             /* highest learning rate; share of it at the end */
    uint32_t warmup, decay;     /* updates; bb_decay_kind */
    float weight_decay;         /* of convolution and linear weights */
    float clip, ema;            /* norm of gradients; decay of the average, at most */
    bool ema_warm;              /* it has that decay from the start, because the weights are good already */
    bool bf16;
    uint32_t threads, cpu;      /* 0: all cores; the choice number of --cpu */
    uint32_t held_out;          /* items of the held-out loss, at most; rounded up to whole batches */
} bb_teach_options;

typedef struct bb_teach {
    bb_teach_options opt;
    bb_ranks ranks;
    const bb_pipeline *pipe;
    const bb_data *held_out;    /* NULL: none */
    bb_dnn *dnn;
    const bb_ops *ops;
    bb_params params;
    bb_optim optim;             /* its step counts the updates */
    float *ema;                 /* [params.n] */
    bb_tape *tape;
    bb_noise noise;
    bb_noised part;             /* what goes through the tape at a time */
    double *losses;             /* work space [batch] */
    uint32_t output;            /* value id */
    uint32_t not_finite;        /* updates in a row that could not be done */
    size_t bytes;
} bb_teach;

typedef struct bb_update { double loss, norm, rate; } bb_update;

/* params: from bb_pipeline_params; the teach owns them from here, on failure too. Everything else is borrowed. Then
 * t->bytes tells what bb_teach_begin will take, with what the parameters took. bb_teach_close works after failures. */
bb_status bb_teach_open(bb_teach *t, const bb_teach_options *opt, const bb_pipeline *pipe, bb_params *params,
                        const bb_data *data, const bb_data *held_out, const bb_ranks *ranks, bb_error *err);
bb_status bb_teach_begin(bb_teach *t, bb_error *err);
void bb_teach_close(bb_teach *t);

uint32_t bb_teach_whole(const bb_teach *t); /* pictures of an update, over all ranks */
/* One update. Gradients that are not finite are left out; after 20 such in a row it fails. */
bb_status bb_teach_update(bb_teach *t, bb_update *out, bb_error *err);
/* Mean loss of the averaged weights; NaN without held-out pictures. */
double bb_teach_held_out(bb_teach *t);
/* Forgets what updates have done to moments, average and count; the weights are not looked at. */
void bb_teach_restart(bb_teach *t);
/* After the weights were changed from outside. */
void bb_teach_changed(bb_teach *t);

#endif
