/* The graph forwards and backwards: core's graph is the tape. Parameters lie in one flat array, so that optimizer, EMA,
 * clipping, checkpoints and sums over ranks are loops over floats. */
#ifndef BB_TRAIN_ENGINE_TAPE_H
#define BB_TRAIN_ENGINE_TAPE_H

#include "pack/pack.h"
#include "train/engine/dnn.h"
#include "train/engine/ops.h"

/* The weights of a graph. Slot s has count[s] floats at w + at[s], dense, in the order of our files (conv
 * [kh][kw][in][out], linear [in][out], embedding [rows][columns], vectors [n]); at[s] is a multiple of 16. */
typedef struct bb_params {
    const bb_graph *graph;
    size_t n;            /* floats in all, padding included */
    size_t *at, *count;  /* [graph->n_weights] */
    bool *fixed;         /* [graph->n_weights]: not trained (frequencies of time embeddings) */
    float *w, *g;        /* [n]; padding stays 0. g: NULL if nothing is trained */
} bb_params;

/* From a model that is not quantized (params.c). weights NULL: all 0. On failure nothing needs freeing. */
bb_status bb_params_new(bb_params *p, const bb_graph *graph, const bb_weight *weights, bool gradients, bb_error *err);
void bb_params_free(bb_params *p);

struct bb_tape;
/* What a conv or linear op does instead of its float arithmetic: a student's quantized layer. x, y, dy, dx are f32
 * NHWC; dx is added to and may be NULL; parameters' gradients are the layer's own business. kept: `kept_bytes` that
 * last from forward to backward, 64-aligned. timestep: [items], or NULL where the graph has none. */
typedef struct bb_layer_pass {
    const bb_op *op;
    bb_shape in, out;
    const float *x, *dy, *timestep;
    float *y, *dx;
    void *kept;
} bb_layer_pass;
typedef struct bb_tape_layer {
    void *self;
    size_t kept_bytes;
    void (*forward)(void *self, const bb_layer_pass *pass);
    void (*backward)(void *self, const bb_layer_pass *pass);
} bb_tape_layer;

typedef struct bb_tape_options {
    const bb_graph *graph;
    bb_bindings bind;             /* items, height, width */
    bb_params *params;            /* borrowed; gradients are added to params->g */
    bb_dnn *dnn; const bb_ops *ops;
    bool bf16;                    /* operands of float conv, linear and attention; ignored without bb_dnn_bf16 */
    bool last_f32;                /* the op that makes the output stays in f32 all the same */
    bool backward;                /* else memory is reused as values die */
    const uint32_t *keep; uint32_t n_keep; /* values to be readable after forward, and to take gradients: features */
    const bb_tape_layer *layers;  /* [n_ops], forward NULL where the op is done as usual; NULL: no op is replaced */
} bb_tape_options;

typedef struct bb_tape bb_tape;
/* Memory that the tape will take, for stating it first; with what oneDNN keeps for it, unless it has that already. */
bb_status bb_tape_bytes(const bb_tape_options *opt, size_t *bytes, bb_error *err);
bb_status bb_tape_new(bb_tape **out, const bb_tape_options *opt, bb_error *err);
void bb_tape_free(bb_tape *t);
bb_shape bb_tape_shape(const bb_tape *t, uint32_t value);
float *bb_tape_input(bb_tape *t, const char *name); /* to be filled before forward; NULL: no such input */
/* The weights in params changed: repacks them. Once before the first forward, too. */
void bb_tape_weights(bb_tape *t);
void bb_tape_forward(bb_tape *t);
const float *bb_tape_value(const bb_tape *t, uint32_t value); /* of an output or a kept value */
/* Gradient of an output or kept value: zero after forward; to be filled (added to) before backward. */
float *bb_tape_grad(bb_tape *t, uint32_t value);
/* Adds to params->g. Inputs get no gradients. */
void bb_tape_backward(bb_tape *t);

#define BB_TAPE_KINDS 17u /* more than any bb_op_kind */
/* Seconds that passes took since the last call, by kind of op; [0] forward, [1] backward. A norm that is done with the
 * activation behind it counts as that. */
void bb_tape_times(bb_tape *t, double seconds[2][BB_TAPE_KINDS]);

#endif
