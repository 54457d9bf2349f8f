/* Weights of a pipeline: how they begin, from a checkpoint or at random, and their order in PyTorch's files. */
#include "train/teach/pipeline.h"

#include "api/model.h"
#include "base/rng.h"
#include "import/import.h"
#include "train/teach/streams.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t slot_taps(const bb_weight_slot *w) { return w->rank == 4 ? w->dim[2] * w->dim[3] : 1; }

static bool is_table(const bb_graph *g, uint32_t slot)
{
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (g->ops[i].kind == BB_OP_EMBEDDING && g->ops[i].weight[0] == slot) return true;
    return false;
}

void bb_slot_to_torch(const bb_graph *g, uint32_t slot, const float *x, float *y)
{
    const bb_weight_slot *w = &g->weights[slot];
    const bool alike = w->rank == 1 || is_table(g, slot);
    const size_t outs = alike ? 1 : w->dim[0], taps = slot_taps(w);
    const size_t ins = alike ? (size_t)w->dim[0] * (w->rank == 1 ? 1 : w->dim[1]) : w->dim[1];
    for (size_t o = 0; o < outs; o++)
        for (size_t i = 0; i < ins; i++)
            for (size_t t = 0; t < taps; t++) y[(o * ins + i) * taps + t] = x[(t * ins + i) * outs + o];
}

/* ---- at random ---- */

static void fill(bb_params *p, uint32_t slot, float value)
{
    for (size_t i = 0; slot != BB_NONE && i < p->count[slot]; i++) p->w[p->at[slot] + i] = value;
}

/* The numbers drawn are those of the weights' places, so that every weight has its own. */
static void fill_uniform(bb_params *p, uint32_t slot, double bound, uint64_t seed)
{
    for (size_t i = 0; slot != BB_NONE && i < p->count[slot]; i++)
        p->w[p->at[slot] + i] = (float)(bound * (2 * bb_uniform(seed, BB_STREAM_INIT, p->at[slot] + i) - 1));
}

static void init_op(bb_params *p, const bb_op *op, uint64_t seed)
{
    const bb_weight_slot *w = op->weight[0] == BB_NONE ? NULL : &p->graph->weights[op->weight[0]];
    switch (op->kind) {
    case BB_OP_CONV2D:
    case BB_OP_LINEAR: {
        double bound = 1 / sqrt((double)w->dim[1] * slot_taps(w));
        fill_uniform(p, op->weight[0], bound, seed);
        fill_uniform(p, op->weight[1], bound, seed);
        break;
    }
    case BB_OP_GROUP_NORM:
        fill(p, op->weight[0], 1);
        fill(p, op->weight[1], 0);
        break;
    case BB_OP_EMBEDDING:
        bb_normals(p->w + p->at[op->weight[0]], p->count[op->weight[0]], seed, BB_STREAM_INIT + 1, 0);
        break;
    default: break;
    }
}

static void init_random(const bb_pipeline *pipe, bb_params *p, uint64_t seed)
{
    for (uint32_t i = 0; i < p->graph->n_ops; i++) init_op(p, &p->graph->ops[i], seed);
    for (uint32_t s = 0; s < p->graph->n_weights; s++)
        if (pipe->builder.constants[s]) memcpy(p->w + p->at[s], pipe->builder.constants[s], p->count[s] * sizeof *p->w);
}

/* ---- from a checkpoint ---- */

static bb_status open_model(const uint8_t *blob, size_t n, void **mem, bb_model **model, bb_error *err)
{
    bb_info info = {0};
    uint64_t head = 0;
    BB_TRY(bb_pack_head_bytes(blob, n, &head, err));
    size_t scratch_bytes = BB_PROBE_SCRATCH((size_t)head);
    void *scratch = malloc(scratch_bytes);
    bb_status status = scratch ? bb_probe(blob, (size_t)head, scratch, scratch_bytes, &info, err) : BB_ERR_SPACE;
    free(scratch);
    if (status == BB_OK) *mem = malloc((size_t)info.model_bytes);
    if (status == BB_ERR_SPACE || (status == BB_OK && !*mem))
        return bb_fail(err, BB_ERR_SPACE, "out of memory for the weights");
    return status < 0 ? status : bb_model_init(blob, n, *mem, (size_t)info.model_bytes, model, err);
}

static bb_status load(const bb_pipeline *pipe, bb_params *p, const char *from, bb_error *err)
{
    const bb_import_options opt = {.path = from, .dtype = BB_F32, .command = "in memory"};
    uint8_t *blob = NULL;
    size_t n = 0;
    void *mem = NULL;
    bb_model *model = NULL;
    BB_TRY(bb_import(&opt, &blob, &n, err));
    bb_status status = open_model(blob, n, &mem, &model, err);
    if (status == BB_OK) { /* the same builder made both graphs, so slots are the same */
        BB_ASSERT(model->pack.graph.n_weights == pipe->graph->n_weights);
        status = bb_params_new(p, pipe->graph, model->pack.weights, true, err);
    }
    free(mem);
    free(blob);
    return status;
}

bb_status bb_pipeline_params(const bb_pipeline *p, bb_params *params, const char *from, uint64_t seed, bb_error *err)
{
    if (from) return load(p, params, from, err);
    BB_TRY(bb_params_new(params, p->graph, NULL, true, err));
    init_random(p, params, seed);
    return BB_OK;
}
