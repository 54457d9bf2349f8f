/* Checks a graph's untrusted words. After bb_graph_check every id, kind, attribute and weight shape can be
 * trusted; shapes of values depend on the bound sizes and are inferred in shape.c. */
#include "graph/graph.h"

static const struct op_rule {
    uint32_t kind, min_in, max_in, weights;
    const char *name;
} rules[] = {
#define BB_GRAPH_OP(NAME, name, number, min_in, max_in, weights) {number, min_in, max_in, weights, #name},
#include "graph/ops.inc"
#undef BB_GRAPH_OP
};

static const struct op_rule *rule_of(uint32_t kind)
{
    for (size_t i = 0; i < BB_COUNT(rules); i++)
        if (rules[i].kind == kind) return &rules[i];
    return NULL;
}

const char *bb_op_name(uint32_t kind)
{
    const struct op_rule *r = rule_of(kind);
    return r ? r->name : "?";
}

const char *bb_graph_string(const bb_graph *g, uint32_t id)
{
    return id < g->string_bytes ? g->strings + id : "";
}

const char *bb_op_label(const bb_graph *g, const bb_op *op)
{
    const char *path = bb_graph_string(g, op->path);
    return *path ? path : bb_op_name(op->kind);
}

static bool equal(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

uint32_t bb_graph_find_output(const bb_graph *g, const char *name)
{
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (equal(bb_graph_string(g, g->outputs[i].name), name)) return g->outputs[i].value;
    return BB_NONE;
}

uint32_t bb_graph_find_input(const bb_graph *g, const char *name)
{
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (equal(bb_graph_string(g, g->inputs[i].name), name)) return i;
    return BB_NONE;
}

static bool string_ok(const bb_graph *g, uint32_t id, bool required)
{
    return id == BB_NONE ? !required : id < g->string_bytes;
}

static bool finite_nonzero(float x) { return x == x && x != 0 && x - x == 0; }

/* Rank of a weight slot, with all dimensions at least 1, a product below 2^31 and the others 0; 0 if it is not so. */
static uint32_t slot_rank(const bb_weight_slot *w)
{
    uint64_t n = 1;
    if (w->rank < 1 || w->rank > 4) return 0;
    for (uint32_t i = 0; i < 4; i++) {
        if (i >= w->rank ? w->dim[i] != 0 : !w->dim[i] || w->dim[i] > 0x7fffffffu / n) return 0;
        n *= i < w->rank ? w->dim[i] : 1;
    }
    return w->rank;
}

/* A weight used as a vector of n (0 = any length). */
static bool vector_ok(const bb_graph *g, uint32_t id, uint32_t n)
{
    return id < g->n_weights && g->weights[id].rank == 1 && (!n || g->weights[id].dim[0] == n);
}

static bool matrix_ok(const bb_graph *g, uint32_t id, uint32_t rank)
{
    return id < g->n_weights && g->weights[id].rank == rank;
}

static bool conv_ok(const bb_graph *g, const bb_op *op)
{
    uint32_t w = op->weight[0], b = op->weight[1];
    const uint32_t *d = g->weights[w].dim;
    if (!matrix_ok(g, w, 4) || (b != BB_NONE && !vector_ok(g, b, d[0]))) return false;
    if (op->conv.kh != d[2] || op->conv.kw != d[3] || d[2] > 15 || d[3] > 15) return false;
    if (!op->conv.stride || op->conv.stride > 8) return false;
    return op->conv.top < d[2] && op->conv.bottom < d[2] && op->conv.left < d[3] && op->conv.right < d[3];
}

static bool linear_ok(const bb_graph *g, const bb_op *op)
{
    uint32_t w = op->weight[0], b = op->weight[1];
    return matrix_ok(g, w, 2) && (b == BB_NONE || vector_ok(g, b, g->weights[w].dim[0]));
}

/* The words an op does not use are for later versions: 0 until then. */
static bool spare_words_ok(const bb_op *op)
{
    uint32_t used = 0;
    switch (op->kind) {
    case BB_OP_CONV2D: used = 7; break;
    case BB_OP_GROUP_NORM: case BB_OP_ATTENTION: case BB_OP_SLICE: case BB_OP_AFFINE: used = 2; break;
    case BB_OP_UPSAMPLE_NEAREST: case BB_OP_TIMESTEP_EMBEDDING: case BB_OP_AVG_POOL2D: used = 1; break;
    }
    while (used < BB_COUNT(op->word))
        if (op->word[used++]) return false;
    return true;
}

static bool attributes_ok(const bb_graph *g, const bb_op *op)
{
    switch (op->kind) {
    case BB_OP_CONV2D: return op->weight[0] < g->n_weights && conv_ok(g, op);
    case BB_OP_LINEAR: return op->weight[0] < g->n_weights && linear_ok(g, op);
    case BB_OP_GROUP_NORM:
        return vector_ok(g, op->weight[0], 0) && vector_ok(g, op->weight[1], g->weights[op->weight[0]].dim[0]) &&
               op->norm.groups && g->weights[op->weight[0]].dim[0] % op->norm.groups == 0 &&
               op->norm.eps >= 0 && op->norm.eps < 1;
    case BB_OP_UPSAMPLE_NEAREST:
        return op->in[1] == BB_NONE ? op->upsample.factor >= 1 && op->upsample.factor <= 8 : !op->upsample.factor;
    case BB_OP_ATTENTION:
        return op->attention.heads && finite_nonzero(op->attention.scale);
    case BB_OP_TIMESTEP_EMBEDDING: return vector_ok(g, op->weight[0], 0) && op->timestep.cos_first <= 1;
    case BB_OP_EMBEDDING: return matrix_ok(g, op->weight[0], 2);
    case BB_OP_SLICE: return op->slice.count > 0;
    case BB_OP_AVG_POOL2D: return op->pool.factor >= 1 && op->pool.factor <= 8;
    default: return true;
    }
}

static bb_status check_op(const bb_graph *g, uint32_t i, bb_error *err)
{
    const bb_op *op = &g->ops[i];
    const struct op_rule *r = rule_of(op->kind);
    if (!r) return bb_fail(err, BB_ERR_UNSUPPORTED, "op %u: unknown kind %u (made by a newer bitbrush?)", i, op->kind);
    if (!string_ok(g, op->path, false)) return bb_fail(err, BB_ERR_CORRUPT, "op %u: bad path string", i);
    uint32_t rate = BB_RATE_MODEL;
    for (uint32_t k = 0; k < 4; k++) {
        uint32_t in = op->in[k];
        bool required = k < r->min_in, allowed = k < r->max_in;
        if (in == BB_NONE ? required : !allowed || in >= bb_op_value(g, i))
            return bb_fail(err, BB_ERR_CORRUPT, "op %u (%s): input %u is bad", i, bb_op_label(g, op), k);
        if (in != BB_NONE && g->values[in].rate > rate) rate = g->values[in].rate;
        if (in != BB_NONE && k && op->in[k - 1] == BB_NONE)
            return bb_fail(err, BB_ERR_CORRUPT, "op %u (%s): inputs have a gap", i, bb_op_label(g, op));
    }
    for (uint32_t k = 0; k < 2; k++)
        if (op->weight[k] != BB_NONE && (k >= r->weights || op->weight[k] >= g->n_weights))
            return bb_fail(err, BB_ERR_CORRUPT, "op %u (%s): weight %u is bad", i, bb_op_label(g, op), k);
    if (!spare_words_ok(op) || !attributes_ok(g, op))
        return bb_fail(err, BB_ERR_CORRUPT, "op %u (%s): bad attributes or weight shapes", i, bb_op_label(g, op));
    if (g->values[bb_op_value(g, i)].rate != rate)
        return bb_fail(err, BB_ERR_CORRUPT, "op %u (%s): its rate is not that of its inputs", i, bb_op_label(g, op));
    return BB_OK;
}

static bb_status check_tables(const bb_graph *g, bb_error *err)
{
    if (!g->string_bytes || g->strings[g->string_bytes - 1])
        return bb_fail(err, BB_ERR_CORRUPT, "graph: strings do not end with a zero byte");
    if (!string_ok(g, g->name, true)) return bb_fail(err, BB_ERR_CORRUPT, "graph: bad name");
    if (!g->n_inputs || !g->n_outputs || g->n_inputs > 64 || g->n_outputs > 64 ||
        g->n_ops > BB_GRAPH_MAX_VALUES || g->n_weights > BB_GRAPH_MAX_VALUES ||
        g->n_values != g->n_inputs + g->n_ops || g->n_values > BB_GRAPH_MAX_VALUES)
        return bb_fail(err, BB_ERR_CORRUPT, "graph: counts out of range");
    for (uint32_t i = 0; i < g->n_values; i++) {
        const bb_value *v = &g->values[i];
        if (!string_ok(g, v->path, false) || v->rate > BB_RATE_SAMPLE)
            return bb_fail(err, BB_ERR_CORRUPT, "graph: value %u is bad", i);
        if (v->dtype != BB_F32 || v->flags)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "graph: value %u has a dtype or flag this build does not know", i);
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const bb_graph_input *in = &g->inputs[i];
        bool ok = string_ok(g, in->name, true) && in->rate == g->values[i].rate;
        for (uint32_t k = 0; k < 4; k++) ok = ok && in->shape[k].symbol < BB_DIM_SYMBOLS && in->shape[k].div;
        if (!ok) return bb_fail(err, BB_ERR_CORRUPT, "graph: input %u is bad", i);
    }
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (!string_ok(g, g->outputs[i].name, true) || g->outputs[i].value >= g->n_values)
            return bb_fail(err, BB_ERR_CORRUPT, "graph: output %u is bad", i);
    for (uint32_t i = 0; i < g->n_weights; i++)
        if (!string_ok(g, g->weights[i].name, true) || !slot_rank(&g->weights[i]))
            return bb_fail(err, BB_ERR_CORRUPT, "graph: weight slot %u is bad", i);
    return BB_OK;
}

bb_status bb_graph_check(const bb_graph *g, bb_error *err)
{
    BB_TRY(check_tables(g, err));
    for (uint32_t i = 0; i < g->n_ops; i++) BB_TRY(check_op(g, i, err));
    return BB_OK;
}
