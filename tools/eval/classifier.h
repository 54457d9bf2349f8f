/* The small classifier whose penultimate values are the features of all distances here. Trained once by `bitbrush eval
 * --train-classifier` (teach.c) with a fixed recipe and seed, then frozen; runs in float through core, so that features
 * are the same bits on every CPU and for every number of threads. */
#ifndef BB_TOOLS_EVAL_CLASSIFIER_H
#define BB_TOOLS_EVAL_CLASSIFIER_H

#include "base/par.h"
#include "import/builder.h"
#include "pack/pack.h"

#define BB_CLASSIFIER_SIDE 32u     /* pixels, grey; bytes v are seen as v/127.5 − 1, smaller pictures 0 around them */
#define BB_CLASSIFIER_FEATURES 64u

typedef struct bb_classifier {
    bb_builder builder;   /* its graph: input "sample" [B, 32, 32, 1], outputs "features", "logits" */
    bb_pack pack;         /* graph and weights, for core/run */
    bb_weight *weight;    /* [n_weights] */
    float *memory;        /* of weight, 64-aligned */
    uint32_t classes;
    double accuracy;      /* on the test part when it was frozen, as its file tells; NaN: not told */
    char sha256[65];      /* of its file */
} bb_classifier;

/* Three 3 × 3 convolutions with group norms and SiLUs, means of 2 × 2 between them; a 4 × 4 convolution to the features
 * and a linear layer to the logits: 122,314 parameters for 10 classes. bb_builder_free afterwards, in any case. */
bb_status bb_classifier_graph(bb_builder *b, uint32_t classes, bb_error *err);

/* From a safetensors file with the slots' names, PyTorch's order of dimensions and "test_accuracy" [1]. Errors name the
 * file and tensor. bb_classifier_close works in every state. */
bb_status bb_classifier_open(bb_classifier *c, const char *path, bb_error *err);
void bb_classifier_close(bb_classifier *c);
/* The file's bytes; the caller frees. w: slot s at w + at[s] in the layout of our files (conv [kh][kw][in][out], linear
 * [in][out]); stored as f16. */
bb_status bb_classifier_write(const bb_graph *g, const float *w, const size_t *at, double accuracy, uint8_t **out,
                              size_t *n, bb_error *err);

/* pictures [n][32][32]. features [n][64] and found [n] (the class of the largest logit) may be NULL. */
bb_status bb_classifier_run(const bb_classifier *c, const bb_kernels *kernels, bb_par *par, const uint8_t *pictures,
                            size_t n, float *features, uint8_t *found, bb_error *err);

#endif
