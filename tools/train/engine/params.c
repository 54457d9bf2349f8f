/* The weights of a graph as one flat array. */
#include "train/engine/tape.h"

#include "base/mathf.h"

#include <stdlib.h>

#define STEP 16u /* floats: slots begin at multiples of it */

typedef struct rows { size_t n, width; } rows; /* of a slot, as our files store it */

/* The op that reads a slot: a matrix is stored [in][out] for a linear, [rows][columns] for an embedding. */
static rows rows_of(const bb_params *p, uint32_t slot)
{
    const bb_weight_slot *w = &p->graph->weights[slot];
    if (w->rank == 1) return (rows){1, w->dim[0]};
    for (uint32_t i = 0; i < p->graph->n_ops; i++)
        if (p->graph->ops[i].kind == BB_OP_EMBEDDING && p->graph->ops[i].weight[0] == slot)
            return (rows){w->dim[0], w->dim[1]};
    return (rows){p->count[slot] / w->dim[0], w->dim[0]};
}

static void read_slot(bb_params *p, uint32_t slot, const bb_weight *weight)
{
    rows r = rows_of(p, slot);
    size_t stride = weight->stride > r.width ? weight->stride : r.width;
    for (size_t i = 0; i < r.n; i++) {
        float *w = p->w + p->at[slot] + i * r.width;
        if (weight->f32) memcpy(w, weight->f32 + i * stride, r.width * sizeof *w);
        else for (size_t k = 0; k < r.width; k++) w[k] = bb_f16_to_f32(weight->f16[i * stride + k]);
    }
}

static bb_status fill(bb_params *p, const bb_weight *weights, bool gradients, bb_error *err)
{
    const bb_graph *g = p->graph;
    p->at = calloc(g->n_weights + 1, sizeof *p->at);
    p->count = calloc(g->n_weights + 1, sizeof *p->count);
    p->fixed = calloc(g->n_weights + 1, sizeof *p->fixed);
    if (!p->at || !p->count || !p->fixed) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    for (uint32_t s = 0; s < g->n_weights; s++) {
        p->at[s] = p->n;
        p->count[s] = 1;
        for (uint32_t k = 0; k < g->weights[s].rank; k++) p->count[s] *= g->weights[s].dim[k];
        p->n += bb_align_up(p->count[s], STEP);
    }
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (g->ops[i].kind == BB_OP_TIMESTEP_EMBEDDING) p->fixed[g->ops[i].weight[0]] = true;
    size_t bytes = bb_align_up((p->n + 1) * sizeof *p->w, BB_ALIGNMENT);
    p->w = aligned_alloc(BB_ALIGNMENT, bytes);
    p->g = gradients ? aligned_alloc(BB_ALIGNMENT, bytes) : NULL;
    if (!p->w || (gradients && !p->g)) return bb_fail(err, BB_ERR_SPACE, "out of memory for %z weights", p->n);
    memset(p->w, 0, bytes);
    if (p->g) memset(p->g, 0, bytes);
    for (uint32_t s = 0; s < g->n_weights && weights; s++) {
        if (weights[s].layer)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "%s is quantized: only float models can be trained further",
                           bb_graph_string(g, g->weights[s].name));
        read_slot(p, s, &weights[s]);
    }
    return BB_OK;
}

bb_status bb_params_new(bb_params *p, const bb_graph *graph, const bb_weight *weights, bool gradients, bb_error *err)
{
    *p = (bb_params){.graph = graph};
    bb_status st = fill(p, weights, gradients, err);
    if (st < 0) bb_params_free(p);
    return st;
}

void bb_params_free(bb_params *p)
{
    free(p->at);
    free(p->count);
    free(p->fixed);
    free(p->w);
    free(p->g);
    *p = (bb_params){0};
}
