/* What is being trained, as diffusers has it: a network with its noise schedule and class names. From a unet's
 * config.json, or from a checkpoint folder; to a checkpoint folder, or into a packed file in memory, which core draws
 * with. */
#ifndef BB_TRAIN_TEACH_PIPELINE_H
#define BB_TRAIN_TEACH_PIPELINE_H

#include "import/labels.h"
#include "import/scheduler.h"
#include "import/unet2d.h"
#include "train/engine/tape.h"
#include "train/teach/data.h"

typedef enum bb_beta_kind { BB_BETAS_LINEAR, BB_BETAS_COSINE } bb_beta_kind; /* 1e-4 … 0.02; "squaredcos_cap_v2" */

typedef struct bb_pipeline_options {
    const char *config;     /* a unet's config.json; or NULL and */
    const char *from;       /* a checkpoint folder */
    const char *labels;     /* labels.json; NULL: that of `from`, else the data's names or numbers */
    bool new_schedule;      /* the three below, instead of those of `from` */
    uint32_t prediction;    /* bb_prediction */
    uint32_t betas;         /* bb_beta_kind; 1000 steps */
    uint32_t spacing;       /* bb_spacing, for drawing */
} bb_pipeline_options;

typedef struct bb_pipeline {
    bb_builder builder;
    const bb_graph *graph;        /* the builder's: a pipeline stays where it is */
    bb_unet2d_facts facts;
    bb_schedule schedule;
    bb_labels labels;
    char scheduler_class[64];     /* such as "DDIMScheduler" */
    char *config, *scheduler, *labels_text; /* the folder's JSON texts; the last is NULL without classes */
} bb_pipeline;

/* data: its classes must have rows in the network's class table, and its pictures must fit the network's. The null
 * class is the one of labels.json, or the class after the data's last. Errors name file and field. bb_pipeline_close
 * works after failures, too. */
bb_status bb_pipeline_open(bb_pipeline *p, const bb_pipeline_options *opt, const bb_data *data, bb_error *err);
void bb_pipeline_close(bb_pipeline *p);

/* Parameters (bb_params_new, with gradients). from NULL: random, drawn by (seed, number) as PyTorch's layers begin:
 * convolutions and linear layers with their biases uniform in ±1/√fan_in (Kaiming with a = √5), class table normal,
 * norms 1 and 0. Else the checkpoint's. */
bb_status bb_pipeline_params(const bb_pipeline *p, bb_params *params, const char *from, uint64_t seed, bb_error *err);

/* w: [params->n], in params' layout: the weights or their average. The packed float32 file, 64-aligned, from
 * aligned_alloc; the caller frees. */
bb_status bb_pipeline_pack(const bb_pipeline *p, const bb_params *params, const float *w, const char *command,
                           uint8_t **out, size_t *n, bb_error *err);

/* The files of the checkpoint folder `path` into the current batch (batch.h): model_index.json, unet/, scheduler/,
 * labels.json. dtype: BB_ST_F32 or BB_ST_F16. */
bb_status bb_pipeline_put(const bb_pipeline *p, const bb_params *params, const float *w, uint32_t dtype,
                          const char *path, bb_error *err);

/* One weight slot between our files' layout ([kh][kw][in][out], [in][out]) and PyTorch's ([out][in][kh][kw],
 * [out][in]); tables and vectors are alike in both. */
void bb_slot_to_torch(const bb_graph *g, uint32_t slot, const float *x, float *y);

#endif
