/* Fusion, forms and lifetimes of values. */
#include "train/engine/tape_plan.h"

#include <stdlib.h>

enum { F32, BF16, FORMS };

typedef struct planner {
    bb_tape_plan *p;
    const bb_tape_options *opt;
    uint32_t *last[FORMS]; /* [n_values] last moment at which a form is read */
    bool *read[FORMS];     /* [n_values] a form is read at all */
    uint32_t *readers;     /* [n_values] */
    bool bf16;
} planner;

uint32_t bb_tape_inputs(const bb_op *op)
{
    if (op->kind == BB_OP_UPSAMPLE_NEAREST) return 1;
    uint32_t n = 0;
    while (n < 4 && op->in[n] != BB_NONE) n++;
    return n;
}

bool bb_tape_differentiable(const bb_op *op, uint32_t k)
{
    return k < bb_tape_inputs(op) && op->kind != BB_OP_TIMESTEP_EMBEDDING && op->kind != BB_OP_EMBEDDING;
}

bool bb_tape_spreads(const bb_tape_plan *p, uint32_t op)
{
    const uint32_t *in = p->graph->ops[op].in;
    bb_shape a = p->shapes[in[0]], b = p->shapes[in[1]];
    return a.h != b.h || a.w != b.w;
}

uint32_t bb_tape_buffer_new(bb_tape_plan *p, size_t bytes, uint32_t from, uint32_t to)
{
    p->buffers[p->n_buffers] = (bb_tape_buffer){.bytes = bb_align_up(bytes, BB_ALIGNMENT), .from = from, .to = to};
    return p->n_buffers++;
}

static bool is_activation(uint32_t kind) { return kind == BB_OP_SILU || kind == BB_OP_GELU || kind == BB_OP_MISH; }
static bool multiplies(uint32_t kind) { return kind == BB_OP_CONV2D || kind == BB_OP_LINEAR; }
static bool takes_bf16(uint32_t kind) { return multiplies(kind) || kind == BB_OP_ATTENTION; }

bool bb_tape_writes_bf16(uint32_t kind) { return is_activation(kind) || kind == BB_OP_GROUP_NORM; }

/* ---- which ops are done together, and how ---- */

static void count_readers(planner *a)
{
    const bb_graph *g = a->p->graph;
    for (uint32_t i = 0; i < g->n_ops; i++)
        for (uint32_t k = 0; k < bb_tape_inputs(&g->ops[i]); k++) a->readers[g->ops[i].in[k]]++;
    for (uint32_t i = 0; i < g->n_outputs; i++) a->p->pinned[g->outputs[i].value] = true;
    for (uint32_t i = 0; i < a->opt->n_keep; i++) a->p->pinned[a->opt->keep[i]] = true;
}

static bool makes_output(const bb_graph *g, uint32_t i)
{
    for (uint32_t k = 0; k < g->n_outputs; k++)
        if (g->outputs[k].value == bb_op_value(g, i)) return true;
    return false;
}

static bool trains(const planner *a, uint32_t slot)
{
    return slot != BB_NONE && a->opt->backward && a->opt->params->g && !a->opt->params->fixed[slot];
}

static void plan_node(planner *a, uint32_t i)
{
    const bb_graph *g = a->p->graph;
    const bb_op *op = &g->ops[i];
    bb_tape_node *node = &a->p->nodes[i];
    *node = (bb_tape_node){.x = op->in[0], .norm = BB_NONE, .kept = BB_NONE, .work = {BB_NONE, BB_NONE},
                           .dy16 = BB_NONE, .ds16 = BB_NONE, .dx = BB_NONE};
    node->layer = multiplies(op->kind) && a->opt->layers && a->opt->layers[i].forward;
    node->bf16 = a->bf16 && !node->layer && takes_bf16(op->kind) && !(a->opt->last_f32 && makes_output(g, i));
    for (uint32_t k = 0; k < 2; k++) node->trains[k] = !node->layer && trains(a, op->weight[k]);
    if (!is_activation(op->kind) || op->in[0] < g->n_inputs) return;
    uint32_t before = op->in[0] - g->n_inputs;
    if (g->ops[before].kind != BB_OP_GROUP_NORM || a->readers[op->in[0]] != 1 || a->p->pinned[op->in[0]]) return;
    node->norm = before;
    node->x = g->ops[before].in[0];
    for (uint32_t k = 0; k < 2; k++) node->trains[k] = trains(a, g->ops[before].weight[k]);
    a->p->nodes[before].skipped = true;
}

/* A value has a gradient if something trained is behind it and an output or kept value in front of it. */
static void find_gradients(planner *a)
{
    bb_tape_plan *p = a->p;
    const bb_graph *g = p->graph;
    if (!a->opt->backward) return;
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const bb_tape_node *node = &p->nodes[i];
        bool *wants = &p->wants[bb_op_value(g, i)];
        *wants = node->layer || trains(a, g->ops[i].weight[0]) || trains(a, g->ops[i].weight[1]);
        for (uint32_t k = 0; k < 4; k++)
            if (bb_tape_differentiable(&g->ops[i], k)) *wants |= p->wants[g->ops[i].in[k]];
    }
    bool *leads = a->read[F32]; /* scratch until the forms are planned */
    for (uint32_t i = g->n_ops; i-- > 0;) {
        uint32_t y = bb_op_value(g, i);
        leads[y] |= p->pinned[y];
        p->wants[y] &= leads[y];
        for (uint32_t k = 0; k < 4 && leads[y]; k++)
            if (bb_tape_differentiable(&g->ops[i], k)) leads[g->ops[i].in[k]] = true;
        p->nodes[i].backward = p->wants[y] && !p->nodes[i].skipped;
    }
    for (uint32_t v = 0; v < g->n_values; v++) leads[v] = false;
}

/* ---- how long values live ---- */

static void use(planner *a, uint32_t v, uint32_t form, uint32_t moment)
{
    a->read[form][v] = true;
    if (a->last[form][v] < moment) a->last[form][v] = moment;
}

static bool read_again(const planner *a, uint32_t i, uint32_t k)
{
    const bb_tape_node *node = &a->p->nodes[i];
    if (!node->backward) return false;
    switch (a->p->graph->ops[i].kind) {
    case BB_OP_CONV2D: case BB_OP_LINEAR: return node->layer || node->trains[0];
    case BB_OP_GROUP_NORM: case BB_OP_SILU: case BB_OP_GELU: case BB_OP_MISH: case BB_OP_ATTENTION:
    case BB_OP_EMBEDDING: return true;
    case BB_OP_MODULATE: return k < 2;
    default: return false;
    }
}

static void find_uses(planner *a)
{
    bb_tape_plan *p = a->p;
    const bb_graph *g = p->graph;
    for (uint32_t v = 0; v < g->n_values; v++) {
        for (uint32_t form = 0; form < FORMS; form++) a->last[form][v] = v < g->n_inputs ? 0 : v - g->n_inputs;
        if (v < g->n_inputs || p->pinned[v]) use(a, v, F32, bb_tape_moment_end(p));
    }
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const bb_tape_node *node = &p->nodes[i];
        uint32_t form = node->bf16 ? BF16 : F32;
        for (uint32_t k = 0; k < bb_tape_inputs(&g->ops[i]) && !node->skipped; k++) {
            use(a, bb_tape_in(p, i, k), form, i);
            if (read_again(a, i, k)) use(a, bb_tape_in(p, i, k), form, bb_tape_moment_back(p, i));
        }
    }
}

static size_t bytes_of(const bb_tape_plan *p, uint32_t v, uint32_t form)
{
    return bb_shape_size(p->shapes[v]) * (form == F32 ? sizeof(float) : sizeof(uint16_t));
}

/* A sum takes the place of an addend that nobody reads afterwards. */
static uint32_t taken_over(const planner *a, uint32_t i)
{
    const bb_tape_plan *p = a->p;
    const bb_op *op = &p->graph->ops[i];
    if (op->kind != BB_OP_ADD) return BB_NONE;
    for (uint32_t k = 0; k < (bb_tape_spreads(p, i) ? 1u : 2u); k++)
        if (a->last[F32][op->in[k]] == i) return p->f32[op->in[k]];
    return BB_NONE;
}

static void plan_values(planner *a)
{
    bb_tape_plan *p = a->p;
    const bb_graph *g = p->graph;
    for (uint32_t v = 0; v < g->n_values; v++) {
        bool made = v >= g->n_inputs;
        uint32_t from = made ? v - g->n_inputs : 0;
        p->f32[v] = p->bf16[v] = p->grad[v] = BB_NONE;
        if (made && p->nodes[from].skipped) continue;
        if (a->read[BF16][v]) p->bf16[v] = bb_tape_buffer_new(p, bytes_of(p, v, BF16), from, a->last[BF16][v]);
        if (a->read[BF16][v] && !a->read[F32][v] && made && bb_tape_writes_bf16(g->ops[from].kind)) continue;
        p->f32[v] = made ? taken_over(a, from) : BB_NONE;
        if (p->f32[v] == BB_NONE) p->f32[v] = bb_tape_buffer_new(p, bytes_of(p, v, F32), from, a->last[F32][v]);
        else p->buffers[p->f32[v]].to = a->last[F32][v];
    }
}

/* ---- scratch of ops ---- */

static size_t norm_scratch(const bb_tape_plan *p, uint32_t norm, uint32_t x)
{
    bb_shape s = p->shapes[x];
    bb_norm_args args = {.items = s.n, .pixels = s.h * s.w, .channels = s.c, .groups = p->graph->ops[norm].norm.groups};
    return bb_norm_scratch(&args) * sizeof(float);
}

static void plan_scratch(planner *a, uint32_t i)
{
    bb_tape_plan *p = a->p;
    const bb_op *op = &p->graph->ops[i];
    bb_tape_node *node = &p->nodes[i];
    uint32_t back = bb_tape_moment_back(p, i), until = node->backward ? back : i;
    bb_shape x = p->shapes[node->x], y = p->shapes[bb_op_value(p->graph, i)];
    if (node->layer) {
        if (a->opt->layers[i].kept_bytes) node->kept = bb_tape_buffer_new(p, a->opt->layers[i].kept_bytes, i, until);
    } else if (multiplies(op->kind) && node->backward) {
        if (node->bf16) node->dy16 = bb_tape_buffer_new(p, bb_shape_size(y) * sizeof(uint16_t), back, back);
    } else if (op->kind == BB_OP_GROUP_NORM || node->norm != BB_NONE) {
        uint32_t norm = node->norm != BB_NONE ? node->norm : i;
        size_t scratch = norm_scratch(p, norm, node->x);
        size_t stats = 2 * bb_align_up((size_t)x.n * p->graph->ops[norm].norm.groups, BB_ALIGNMENT) * sizeof(float);
        node->kept = bb_tape_buffer_new(p, stats, i, until);
        node->work[0] = bb_tape_buffer_new(p, scratch, i, i);
        if (node->backward) node->work[1] = bb_tape_buffer_new(p, scratch, back, back);
    } else if (op->kind == BB_OP_ATTENTION) {
        bb_shape k = p->shapes[op->in[1]];
        size_t scores = (size_t)x.n * op->attention.heads * x.h * x.w * k.h * k.w, wide = scores * sizeof(float);
        node->kept = bb_tape_buffer_new(p, node->bf16 ? wide / 2 : wide, i, until);
        if (node->bf16) node->work[0] = bb_tape_buffer_new(p, wide, i, i);
        if (!node->backward) return;
        node->work[1] = bb_tape_buffer_new(p, wide, back, back);
        if (!node->bf16) return;
        node->dy16 = bb_tape_buffer_new(p, bb_shape_size(y) * sizeof(uint16_t), back, back);
        node->ds16 = bb_tape_buffer_new(p, wide / 2, back, back);
    }
}

/* ---- the whole ---- */

/* Buffers at most: three for each value, five for each op. */
static bool take_arrays(planner *a)
{
    bb_tape_plan *p = a->p;
    size_t values = p->graph->n_values, ops = p->graph->n_ops;
    p->shapes = calloc(values, sizeof *p->shapes);
    p->nodes = calloc(ops, sizeof *p->nodes);
    p->pinned = calloc(values, sizeof *p->pinned);
    p->wants = calloc(values, sizeof *p->wants);
    p->f32 = calloc(values, sizeof *p->f32);
    p->bf16 = calloc(values, sizeof *p->bf16);
    p->grad = calloc(values, sizeof *p->grad);
    p->guard = calloc(values, sizeof *p->guard);
    p->buffers = calloc(3 * values + 5 * ops, sizeof *p->buffers);
    a->readers = calloc(3 * values + 5 * ops, sizeof *a->readers); /* serves as the order of placing, too */
    for (uint32_t form = 0; form < FORMS; form++) {
        a->last[form] = calloc(values, sizeof *a->last[form]);
        a->read[form] = calloc(values, sizeof *a->read[form]);
    }
    return p->shapes && p->nodes && p->pinned && p->wants && p->f32 && p->bf16 && p->grad && p->guard && p->buffers &&
           a->readers && a->last[F32] && a->last[BF16] && a->read[F32] && a->read[BF16];
}

static bb_status plan_all(planner *a, bb_error *err)
{
    bb_tape_plan *p = a->p;
    if (!take_arrays(a)) return bb_fail(err, BB_ERR_SPACE, "out of memory for the plan of training");
    BB_TRY(bb_graph_shapes(p->graph, &a->opt->bind, p->shapes, err));
    count_readers(a);
    for (uint32_t i = 0; i < p->graph->n_ops; i++) plan_node(a, i);
    find_gradients(a);
    find_uses(a);
    plan_values(a);
    for (uint32_t i = 0; i < p->graph->n_ops; i++)
        if (!p->nodes[i].skipped) plan_scratch(a, i);
    bb_tape_plan_gradients(p);
    bb_tape_plan_place(p, a->readers);
    return BB_OK;
}

bb_status bb_tape_plan_make(bb_tape_plan *p, const bb_tape_options *opt, bb_error *err)
{
    *p = (bb_tape_plan){.graph = opt->graph};
    planner a = {.p = p, .opt = opt, .bf16 = opt->bf16 && bb_dnn_bf16(opt->dnn)};
    bb_status st = plan_all(&a, err);
    free(a.readers);
    for (uint32_t form = 0; form < FORMS; form++) {
        free(a.last[form]);
        free(a.read[form]);
    }
    return st;
}

void bb_tape_plan_free(bb_tape_plan *p)
{
    free(p->shapes);
    free(p->nodes);
    free(p->pinned);
    free(p->wants);
    free(p->f32);
    free(p->bf16);
    free(p->grad);
    free(p->guard);
    free(p->buffers);
}
