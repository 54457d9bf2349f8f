/* One op of a graph with numbers of no use in memory, run by the walker that runs models: what a layer of given shape
 * and widths costs, without a file. */
#ifndef BB_TOOLS_BENCH_LAYER_H
#define BB_TOOLS_BENCH_LAYER_H

#include "run/conv.h"

/* An op on [items][height][width][channels]. */
typedef struct bb_bench_shape {
    const char *name;
    uint32_t kind; /* BB_OP_CONV2D (same size, kernel × kernel), LINEAR, GROUP_NORM (32 groups), ATTENTION (4 heads) or
                      SILU; kernel is 1 but for CONV2D */
    uint32_t items, height, width, channels, outputs, kernel;
} bb_bench_shape;

/* What a conv or linear computes in; bits 0: float32. */
typedef struct bb_bench_width {
    const char *name;
    uint32_t bits;      /* of activations */
    uint32_t planes[4]; /* of the width classes, of equal numbers of outputs; 0 ends them */
    bool ladder;        /* multipliers that are no powers of two */
} bb_bench_width;

typedef struct bb_bench_layer {
    bb_bench_shape shape;
    bb_graph_input input;
    bb_graph_output output;
    bb_value values[2];
    bb_op op;
    bb_weight_slot slots[2];
    bb_weight weights[2];
    bb_layer_rec rec;
    bb_quantizer_rec quantizer_rec;
    bb_quantizer quantizer;
    bb_layer layer;
    bb_pack pack;
    bb_run run;
    uint64_t macs;      /* of one pass; 0 for ops without products */
    void *memory, *workspace; /* of the weights, and of the run */
} bb_bench_layer;

/* Makes it at an address that it keeps. A quantized one has passed the reader's checks of a layer. */
bb_status bb_bench_layer_make(bb_bench_layer *l, const bb_bench_shape *shape, const bb_bench_width *width,
                              const bb_kernels *kernels, bb_par *par, bb_error *err);
void bb_bench_layer_free(bb_bench_layer *l);

/* Computes it so many times from float input to float output; ctx is a bb_bench_layer. For bb_timed. */
void bb_bench_layer_run(void *ctx, uint32_t times);

#endif
