/* A growing graph: one function per op, so that a model family reads like its own description.
 *
 * Weight slots are declared by the way, with the checkpoint's tensor names. Module paths come from a scope:
 * bb_build_enter("down_blocks.%u", i) … bb_build_leave(b, y) says that y is that module's output. A value that is the
 * output of several nested modules carries all their names, outermost first (bb_value.path). Rates follow from the
 * inputs. The first failure sticks; then every function returns 0 and bb_builder_finish the status. */
#ifndef BB_TOOLS_IMPORT_BUILDER_H
#define BB_TOOLS_IMPORT_BUILDER_H

#include "graph/graph.h"

#define BB_BUILD_DEPTH 8u

typedef struct bb_builder {
    bb_graph graph; /* its arrays are the ones below */
    bb_graph_input *inputs;
    bb_graph_output *outputs;
    bb_value *values;
    bb_weight_slot *weights;
    bb_op *ops;
    char *strings;
    float **constants;  /* per slot: values computed by the builder, or NULL: from the checkpoint */
    char **names;       /* per value: names of the modules it is the output of, one a line; or NULL */
    uint32_t *channels; /* per value */
    char scope[256];
    uint32_t scope_end[BB_BUILD_DEPTH], depth;
    bb_status status;
    bb_error *err;
} bb_builder;

typedef struct bb_pads { uint32_t top, left, bottom, right; } bb_pads;

/* Names the graph. bb_builder_free works in every state. */
void bb_builder_init(bb_builder *b, const char *name, bb_error *err);
void bb_builder_free(bb_builder *b);
/* Writes the paths and checks the graph (bb_graph_check); then b->graph is ready. */
bb_status bb_builder_finish(bb_builder *b);
void bb_build_refuse(bb_builder *b, bb_status code, const char *what);

void bb_build_enter(bb_builder *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint32_t bb_build_leave(bb_builder *b, uint32_t x); /* x is the module's output; returns x */

/* Inputs come before all ops. Constant dimensions: bb_dim_of; a symbol as it is: bb_dim_symbol. */
bb_dim bb_dim_of(uint32_t n);
bb_dim bb_dim_symbol(uint32_t symbol);
uint32_t bb_build_input(bb_builder *b, const char *name, uint32_t rate, bb_dim n, bb_dim h, bb_dim w, uint32_t c);
void bb_build_output(bb_builder *b, const char *name, uint32_t x);
uint32_t bb_build_channels(const bb_builder *b, uint32_t x);

/* Modules with weights: `name` is the module's, relative to the scope; weights are name.weight and name.bias. */
uint32_t bb_build_conv2d(bb_builder *b, uint32_t x, const char *name, uint32_t out, uint32_t k, uint32_t stride,
                         bb_pads pads);
uint32_t bb_build_linear(bb_builder *b, uint32_t x, const char *name, uint32_t out);
uint32_t bb_build_group_norm(bb_builder *b, uint32_t x, const char *name, uint32_t groups, float eps);
uint32_t bb_build_embedding(bb_builder *b, uint32_t rows, const char *name, uint32_t count, uint32_t columns);
/* frequencies[half] are copied; the slot is name.frequencies. */
uint32_t bb_build_timestep_embedding(bb_builder *b, uint32_t t, const char *name, const float *frequencies,
                                     uint32_t half, bool cos_first);

/* kind: BB_OP_SILU, BB_OP_GELU or BB_OP_MISH. */
uint32_t bb_build_activation(bb_builder *b, uint32_t kind, uint32_t x);
uint32_t bb_build_silu(bb_builder *b, uint32_t x);
uint32_t bb_build_avg_pool2d(bb_builder *b, uint32_t x, uint32_t factor);
uint32_t bb_build_add(bb_builder *b, uint32_t x, uint32_t y);
uint32_t bb_build_concat(bb_builder *b, uint32_t x, uint32_t y);
uint32_t bb_build_upsample(bb_builder *b, uint32_t x, uint32_t factor);
uint32_t bb_build_attention(bb_builder *b, uint32_t q, uint32_t k, uint32_t v, uint32_t heads, float scale);
uint32_t bb_build_modulate(bb_builder *b, uint32_t x, uint32_t scale, uint32_t shift);
uint32_t bb_build_slice(bb_builder *b, uint32_t x, uint32_t first, uint32_t count);
uint32_t bb_build_affine(bb_builder *b, uint32_t x, float mul, float add);

#endif
