/* Which channels of a value came from which part of a concatenation. A skip tensor and the tensor it is joined to
 * have different ranges, so each part gets its own activation quantizer (core/FORMAT.md §6). */
#include "graph/graph.h"

static bool per_channel(uint32_t kind)
{
    return kind == BB_OP_GROUP_NORM || kind == BB_OP_SILU || kind == BB_OP_GELU || kind == BB_OP_MISH ||
           kind == BB_OP_AFFINE || kind == BB_OP_UPSAMPLE_NEAREST || kind == BB_OP_AVG_POOL2D;
}

uint32_t bb_graph_segments(const bb_graph *g, const bb_shape *shapes, uint32_t value, uint32_t channels[4])
{
    uint32_t v = value;
    while (v >= g->n_inputs && per_channel(g->ops[v - g->n_inputs].kind)) v = g->ops[v - g->n_inputs].in[0];
    if (v < g->n_inputs || g->ops[v - g->n_inputs].kind != BB_OP_CONCAT) {
        channels[0] = shapes[value].c;
        return 1;
    }
    const bb_op *op = &g->ops[v - g->n_inputs];
    uint32_t n = 0;
    while (n < 4 && op->in[n] != BB_NONE) {
        channels[n] = shapes[op->in[n]].c;
        n++;
    }
    return n;
}
