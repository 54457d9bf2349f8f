/* See builder.h. Arrays grow by doubling; running out of memory is a sticky failure like any other. */
#include "import/builder.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables ---- */

void bb_build_refuse(bb_builder *b, bb_status code, const char *what)
{
    if (b->status < 0) return;
    b->status = bb_fail(b->err, code, "%s%s%s", b->scope, b->depth ? ": " : "", what);
}

/* array with room for one more than count elements. Capacity is the next power of two, so it need not be stored. */
static void *grown(bb_builder *b, void *array, size_t count, size_t each)
{
    if (b->status < 0 || (count & (count - 1))) return array;
    void *more = realloc(array, (count ? 2 * count : 1) * each);
    if (!more) bb_build_refuse(b, BB_ERR_SPACE, "out of memory");
    return more ? more : array;
}

/* Offset of s among the strings, added if new. */
static uint32_t intern(bb_builder *b, const char *s)
{
    bb_graph *g = &b->graph;
    if (b->status < 0) return 0; /* the last string may have no end */
    for (uint32_t at = 0; at < g->string_bytes; at += (uint32_t)strlen(b->strings + at) + 1) {
        if (!strcmp(b->strings + at, s)) return at;
    }
    uint32_t at = g->string_bytes;
    for (size_t i = 0; i <= strlen(s); i++) {
        b->strings = grown(b, b->strings, g->string_bytes, 1);
        if (b->status < 0) return 0;
        b->strings[g->string_bytes++] = s[i];
    }
    return at;
}

static uint32_t add_slot(bb_builder *b, const char *name, uint32_t rank, const uint32_t *dim, float *constant)
{
    bb_graph *g = &b->graph;
    b->weights = grown(b, b->weights, g->n_weights, sizeof *b->weights);
    b->constants = grown(b, b->constants, g->n_weights, sizeof *b->constants);
    uint32_t id = intern(b, name);
    if (b->status < 0) {
        free(constant);
        return BB_NONE;
    }
    bb_weight_slot slot = {.name = id, .rank = rank};
    memcpy(slot.dim, dim, rank * sizeof *dim);
    b->weights[g->n_weights] = slot;
    b->constants[g->n_weights] = constant;
    return g->n_weights++;
}

/* Slot "SCOPE.suffix". */
static uint32_t add_weight(bb_builder *b, const char *suffix, uint32_t rank, const uint32_t *dim)
{
    char name[300];
    snprintf(name, sizeof name, "%s.%s", b->scope, suffix);
    return add_slot(b, name, rank, dim, NULL);
}

static uint32_t add_value(bb_builder *b, uint32_t channels, uint32_t rate)
{
    bb_graph *g = &b->graph;
    b->values = grown(b, b->values, g->n_values, sizeof *b->values);
    b->names = grown(b, b->names, g->n_values, sizeof *b->names);
    b->channels = grown(b, b->channels, g->n_values, sizeof *b->channels);
    if (b->status < 0) return 0;
    b->values[g->n_values] = (bb_value){.path = BB_NONE, .dtype = BB_F32, .rate = rate};
    b->names[g->n_values] = NULL;
    b->channels[g->n_values] = channels;
    return g->n_values++;
}

static uint32_t add_op(bb_builder *b, bb_op op, uint32_t channels)
{
    bb_graph *g = &b->graph;
    b->ops = grown(b, b->ops, g->n_ops, sizeof *b->ops);
    op.path = b->depth ? intern(b, b->scope) : BB_NONE;
    if (b->status < 0) return 0;
    uint32_t rate = BB_RATE_MODEL;
    for (size_t i = 0; i < BB_COUNT(op.in); i++) {
        if (op.in[i] != BB_NONE && b->values[op.in[i]].rate > rate) rate = b->values[op.in[i]].rate;
    }
    uint32_t value = add_value(b, channels, rate);
    if (b->status < 0) return 0;
    b->ops[g->n_ops++] = op;
    return value;
}

static bb_op op_of(uint32_t kind, uint32_t x)
{
    return (bb_op){.kind = kind, .in = {x, BB_NONE, BB_NONE, BB_NONE}, .weight = {BB_NONE, BB_NONE}};
}

/* ---- life and scope ---- */

void bb_builder_init(bb_builder *b, const char *name, bb_error *err)
{
    *b = (bb_builder){.err = err};
    b->graph.name = intern(b, name);
}

void bb_builder_free(bb_builder *b)
{
    for (uint32_t i = 0; i < b->graph.n_weights; i++) free(b->constants[i]);
    for (uint32_t i = 0; i < b->graph.n_values; i++) free(b->names[i]);
    void *all[] = {b->inputs,  b->outputs,   b->values, b->weights, b->ops,
                   b->strings, b->constants, b->names,  b->channels};
    for (size_t i = 0; i < BB_COUNT(all); i++) free(all[i]);
    *b = (bb_builder){0};
}

bb_status bb_builder_finish(bb_builder *b)
{
    BB_ASSERT(b->status < 0 || !b->depth);
    for (uint32_t i = 0; i < b->graph.n_values && b->status >= 0; i++) {
        if (b->names[i]) b->values[i].path = intern(b, b->names[i]);
    }
    b->graph.inputs = b->inputs;
    b->graph.outputs = b->outputs;
    b->graph.values = b->values;
    b->graph.weights = b->weights;
    b->graph.ops = b->ops;
    b->graph.strings = b->strings;
    return b->status < 0 ? b->status : bb_graph_check(&b->graph, b->err);
}

void bb_build_enter(bb_builder *b, const char *format, ...)
{
    BB_ASSERT(b->depth < BB_BUILD_DEPTH);
    size_t end = strlen(b->scope);
    b->scope_end[b->depth++] = (uint32_t)end;
    if (end) b->scope[end++] = '.';
    va_list args;
    va_start(args, format);
    int n = vsnprintf(b->scope + end, sizeof b->scope - end, format, args);
    va_end(args);
    BB_ASSERT(n > 0 && (size_t)n < sizeof b->scope - end); /* our own names, all short */
}

uint32_t bb_build_leave(bb_builder *b, uint32_t x)
{
    BB_ASSERT(b->depth);
    if (b->status >= 0) {
        char *inner = b->names[x];
        size_t size = strlen(b->scope) + (inner ? strlen(inner) : 0) + 2;
        char *names = malloc(size);
        if (names) {
            snprintf(names, size, "%s%s%s", b->scope, inner ? "\n" : "", inner ? inner : "");
            free(inner);
            b->names[x] = names;
        } else {
            bb_build_refuse(b, BB_ERR_SPACE, "out of memory");
        }
    }
    b->scope[b->scope_end[--b->depth]] = 0;
    return x;
}

/* ---- inputs and outputs ---- */

bb_dim bb_dim_of(uint32_t n) { return (bb_dim){BB_DIM_ONE, n, 1, 0}; }
bb_dim bb_dim_symbol(uint32_t symbol) { return (bb_dim){symbol, 1, 1, 0}; }

uint32_t bb_build_input(bb_builder *b, const char *name, uint32_t rate, bb_dim n, bb_dim h, bb_dim w, uint32_t c)
{
    bb_graph *g = &b->graph;
    BB_ASSERT(g->n_ops == 0);
    b->inputs = grown(b, b->inputs, g->n_inputs, sizeof *b->inputs);
    uint32_t id = intern(b, name), value = add_value(b, c, rate);
    if (b->status < 0) return 0;
    b->inputs[g->n_inputs++] = (bb_graph_input){.name = id, .shape = {n, h, w, bb_dim_of(c)}, .rate = rate};
    return value;
}

void bb_build_output(bb_builder *b, const char *name, uint32_t x)
{
    bb_graph *g = &b->graph;
    b->outputs = grown(b, b->outputs, g->n_outputs, sizeof *b->outputs);
    uint32_t id = intern(b, name);
    if (b->status >= 0) b->outputs[g->n_outputs++] = (bb_graph_output){.name = id, .value = x};
}

uint32_t bb_build_channels(const bb_builder *b, uint32_t x)
{
    return b->status < 0 ? 1 : b->channels[x];
}

/* ---- modules with weights ---- */

uint32_t bb_build_conv2d(bb_builder *b, uint32_t x, const char *name, uint32_t out, uint32_t k, uint32_t stride,
                         bb_pads pads)
{
    bb_build_enter(b, "%s", name);
    bb_op op = op_of(BB_OP_CONV2D, x);
    op.weight[0] = add_weight(b, "weight", 4, (uint32_t[]){out, bb_build_channels(b, x), k, k});
    op.weight[1] = add_weight(b, "bias", 1, &out);
    op.conv.kh = op.conv.kw = k;
    op.conv.stride = stride;
    op.conv.top = pads.top;
    op.conv.left = pads.left;
    op.conv.bottom = pads.bottom;
    op.conv.right = pads.right;
    return bb_build_leave(b, add_op(b, op, out));
}

uint32_t bb_build_linear(bb_builder *b, uint32_t x, const char *name, uint32_t out)
{
    bb_build_enter(b, "%s", name);
    bb_op op = op_of(BB_OP_LINEAR, x);
    op.weight[0] = add_weight(b, "weight", 2, (uint32_t[]){out, bb_build_channels(b, x)});
    op.weight[1] = add_weight(b, "bias", 1, &out);
    return bb_build_leave(b, add_op(b, op, out));
}

uint32_t bb_build_group_norm(bb_builder *b, uint32_t x, const char *name, uint32_t groups, float eps)
{
    uint32_t c = bb_build_channels(b, x);
    bb_build_enter(b, "%s", name);
    if (b->status >= 0 && c % groups) {
        char what[96];
        bb_format(what, sizeof what, "%u channels do not divide into %u groups", c, groups);
        bb_build_refuse(b, BB_ERR_UNSUPPORTED, what);
    }
    bb_op op = op_of(BB_OP_GROUP_NORM, x);
    op.weight[0] = add_weight(b, "weight", 1, &c);
    op.weight[1] = add_weight(b, "bias", 1, &c);
    op.norm.groups = groups;
    op.norm.eps = eps;
    return bb_build_leave(b, add_op(b, op, c));
}

uint32_t bb_build_embedding(bb_builder *b, uint32_t rows, const char *name, uint32_t count, uint32_t columns)
{
    bb_build_enter(b, "%s", name);
    bb_op op = op_of(BB_OP_EMBEDDING, rows);
    op.weight[0] = add_weight(b, "weight", 2, (uint32_t[]){count, columns});
    return bb_build_leave(b, add_op(b, op, columns));
}

uint32_t bb_build_timestep_embedding(bb_builder *b, uint32_t t, const char *name, const float *frequencies,
                                     uint32_t half, bool cos_first)
{
    char slot[300];
    bb_build_enter(b, "%s", name);
    snprintf(slot, sizeof slot, "%s.frequencies", b->scope);
    float *copy = malloc(half * sizeof *copy);
    if (copy) memcpy(copy, frequencies, half * sizeof *copy);
    else bb_build_refuse(b, BB_ERR_SPACE, "out of memory");
    bb_op op = op_of(BB_OP_TIMESTEP_EMBEDDING, t);
    op.weight[0] = add_slot(b, slot, 1, &half, copy);
    op.timestep.cos_first = cos_first;
    return bb_build_leave(b, add_op(b, op, 2 * half));
}

/* ---- ops without weights ---- */

uint32_t bb_build_activation(bb_builder *b, uint32_t kind, uint32_t x)
{
    return add_op(b, op_of(kind, x), bb_build_channels(b, x));
}

uint32_t bb_build_silu(bb_builder *b, uint32_t x) { return bb_build_activation(b, BB_OP_SILU, x); }

uint32_t bb_build_avg_pool2d(bb_builder *b, uint32_t x, uint32_t factor)
{
    bb_op op = op_of(BB_OP_AVG_POOL2D, x);
    op.pool.factor = factor;
    return add_op(b, op, bb_build_channels(b, x));
}

uint32_t bb_build_add(bb_builder *b, uint32_t x, uint32_t y)
{
    bb_op op = op_of(BB_OP_ADD, x);
    op.in[1] = y;
    return add_op(b, op, bb_build_channels(b, x));
}

uint32_t bb_build_concat(bb_builder *b, uint32_t x, uint32_t y)
{
    bb_op op = op_of(BB_OP_CONCAT, x);
    op.in[1] = y;
    return add_op(b, op, bb_build_channels(b, x) + bb_build_channels(b, y));
}

uint32_t bb_build_upsample(bb_builder *b, uint32_t x, uint32_t factor)
{
    bb_op op = op_of(BB_OP_UPSAMPLE_NEAREST, x);
    op.upsample.factor = factor;
    return add_op(b, op, bb_build_channels(b, x));
}

uint32_t bb_build_attention(bb_builder *b, uint32_t q, uint32_t k, uint32_t v, uint32_t heads, float scale)
{
    bb_op op = op_of(BB_OP_ATTENTION, q);
    op.in[1] = k;
    op.in[2] = v;
    op.attention.heads = heads;
    op.attention.scale = scale;
    return add_op(b, op, bb_build_channels(b, v));
}

uint32_t bb_build_modulate(bb_builder *b, uint32_t x, uint32_t scale, uint32_t shift)
{
    bb_op op = op_of(BB_OP_MODULATE, x);
    op.in[1] = scale;
    op.in[2] = shift;
    return add_op(b, op, bb_build_channels(b, x));
}

uint32_t bb_build_slice(bb_builder *b, uint32_t x, uint32_t first, uint32_t count)
{
    bb_op op = op_of(BB_OP_SLICE, x);
    op.slice.first = first;
    op.slice.count = count;
    return add_op(b, op, count);
}

uint32_t bb_build_affine(bb_builder *b, uint32_t x, float mul, float add)
{
    bb_op op = op_of(BB_OP_AFFINE, x);
    op.affine.mul = mul;
    op.affine.add = add;
    return add_op(b, op, bb_build_channels(b, x));
}
