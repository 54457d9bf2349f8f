/* A forward and a backward function for each kind of op, side by side. */
#include "train/engine/tape_ops.h"

#define CLEAR_RUN ((ptrdiff_t)1 << 16) /* floats */

void bb_tape_clear(float *x, size_t n)
{
    ptrdiff_t runs = ((ptrdiff_t)n + CLEAR_RUN - 1) / CLEAR_RUN;
#pragma omp parallel for schedule(static) if (runs > 1)
    for (ptrdiff_t r = 0; r < runs; r++) {
        ptrdiff_t first = r * CLEAR_RUN, left = (ptrdiff_t)n - first;
        memset(x + first, 0, (size_t)(left < CLEAR_RUN ? left : CLEAR_RUN) * sizeof *x);
    }
}

float *bb_tape_dx_sum(const bb_tape *t, uint32_t op, uint32_t k)
{
    float *dx = bb_tape_dx(t, op, k);
    if (dx && t->plan.nodes[op].target[k] == BB_TARGET_BEGIN)
        bb_tape_clear(dx, bb_shape_size(bb_tape_in_shape(t, op, k)));
    return dx;
}

/* Weight k of an op, and its gradient: NULL where there is none. */
static const float *weight(const bb_tape *t, uint32_t i, uint32_t k)
{
    uint32_t slot = t->plan.graph->ops[i].weight[k];
    return slot == BB_NONE ? NULL : t->opt.params->w + t->opt.params->at[slot];
}

static float *weight_grad(const bb_tape *t, uint32_t i, uint32_t k, bool trains)
{
    return trains ? t->opt.params->g + t->opt.params->at[t->plan.graph->ops[i].weight[k]] : NULL;
}

static size_t rows_of(bb_shape s) { return (size_t)s.n * s.h * s.w; }

/* ---- conv, linear ---- */

static bb_layer_pass layer_pass(const bb_tape *t, uint32_t i)
{
    return (bb_layer_pass){.op = &t->plan.graph->ops[i], .in = bb_tape_in_shape(t, i, 0),
                           .out = bb_tape_out_shape(t, i), .x = bb_tape_x(t, i, 0), .timestep = t->timestep,
                           .y = bb_tape_y(t, i), .kept = bb_tape_at(t, t->plan.nodes[i].kept)};
}

static void conv_forward(bb_tape *t, uint32_t i)
{
    if (t->plan.nodes[i].layer) {
        bb_layer_pass pass = layer_pass(t, i);
        t->opt.layers[i].forward(t->opt.layers[i].self, &pass);
    } else {
        bb_conv_forward(t->products[i].conv, bb_tape_operand(t, i, 0), weight(t, i, 1), bb_tape_y(t, i));
    }
}

static void conv_backward(bb_tape *t, uint32_t i)
{
    const bb_tape_node *node = &t->plan.nodes[i];
    bb_shape y = bb_tape_out_shape(t, i);
    if (node->layer) {
        bb_layer_pass pass = layer_pass(t, i);
        pass.dy = bb_tape_dy(t, i);
        pass.dx = bb_tape_dx_sum(t, i, 0);
        t->opt.layers[i].backward(t->opt.layers[i].self, &pass);
        return;
    }
    const void *dy = bb_tape_dy(t, i);
    float *db = weight_grad(t, i, 1, node->trains[1]);
    if (node->bf16) {
        uint16_t *dy16 = bb_tape_at(t, node->dy16);
        t->opt.ops->column_sums_to_bf16(rows_of(y), y.c, dy, db, dy16);
        dy = dy16;
    } else if (db) {
        t->opt.ops->column_sums(rows_of(y), y.c, dy, db);
    }
    float *dw = weight_grad(t, i, 0, node->trains[0]), *dx = bb_tape_dx(t, i, 0), *part = bb_tape_at(t, node->dx);
    bb_conv_backward(t->products[i].conv, dw ? bb_tape_operand(t, i, 0) : NULL, dy, dx && part ? part : dx, dw, true);
    if (dx && part) t->opt.ops->axpy(bb_shape_size(bb_tape_in_shape(t, i, 0)), 1, part, dx);
}

static bb_conv_shape conv_shape(const bb_op *op, bb_shape x, uint32_t out)
{
    if (op->kind == BB_OP_LINEAR)
        return (bb_conv_shape){.n = 1, .h = 1, .w = x.n * x.h * x.w, .c = x.c, .out = out, .kh = 1, .kw = 1,
                               .stride = 1};
    return (bb_conv_shape){.n = x.n, .h = x.h, .w = x.w, .c = x.c, .out = out, .kh = op->conv.kh, .kw = op->conv.kw,
                           .stride = op->conv.stride, .top = op->conv.top, .left = op->conv.left,
                           .bottom = op->conv.bottom, .right = op->conv.right};
}

static uint32_t directions_of(const bb_tape_node *node)
{
    return BB_DNN_FORWARD | (node->target[0] ? BB_DNN_DATA : 0u) |
           (node->backward && node->trains[0] ? BB_DNN_WEIGHTS : 0u);
}

bb_status bb_tape_products_new(bb_tape_products *products, const bb_tape_options *opt, const bb_tape_plan *p,
                               uint32_t i, bb_error *err)
{
    const bb_op *op = &p->graph->ops[i];
    const bb_tape_node *node = &p->nodes[i];
    if (op->kind == BB_OP_ATTENTION) return bb_tape_attention_new(products, opt, p, i, err);
    if ((op->kind != BB_OP_CONV2D && op->kind != BB_OP_LINEAR) || node->layer) return BB_OK;
    bb_conv_shape shape = conv_shape(op, p->shapes[op->in[0]], p->shapes[bb_op_value(p->graph, i)].c);
    return bb_conv_new(&products->conv, opt->dnn, &shape, node->bf16, directions_of(node), err);
}

size_t bb_tape_products_bytes(const bb_tape_products *products, const bb_tape_node *node)
{
    enum { LIBRARY = 72 << 10 }; /* oneDNN's code and descriptions of a primitive: measured over models/fashion */
    size_t bytes = 0;
    uint32_t directions = products->conv ? directions_of(node) : 0;
    if (products->conv) bytes += bb_conv_bytes(products->conv);
    for (; directions; directions &= directions - 1) bytes += LIBRARY;
    for (uint32_t k = 0; k < BB_PRODUCTS; k++) bytes += products->matmul[k] ? LIBRARY : 0;
    return bytes;
}

void bb_tape_products_free(bb_tape_products *products)
{
    if (products->conv) bb_conv_free(products->conv);
    for (uint32_t k = 0; k < BB_PRODUCTS; k++)
        if (products->matmul[k]) bb_matmul_free(products->matmul[k]);
}

/* ---- group norm, activations, and both at once ---- */

static uint32_t act_of(uint32_t kind)
{
    switch (kind) {
    case BB_OP_SILU: return BB_ACT_SILU;
    case BB_OP_GELU: return BB_ACT_GELU;
    case BB_OP_MISH: return BB_ACT_MISH;
    default: return BB_ACT_NONE;
    }
}

/* norm: the op of the norm; i: the op that runs, itself or its activation. */
static bb_norm_args norm_args(const bb_tape *t, uint32_t i, uint32_t norm, uint32_t pass)
{
    const bb_op *op = &t->plan.graph->ops[norm];
    const bb_tape_node *node = &t->plan.nodes[i];
    bb_shape s = bb_tape_in_shape(t, i, 0);
    float *mean = bb_tape_at(t, node->kept);
    return (bb_norm_args){.items = s.n, .pixels = s.h * s.w, .channels = s.c, .groups = op->norm.groups,
                          .eps = op->norm.eps, .act = act_of(t->plan.graph->ops[i].kind), .x = bb_tape_x(t, i, 0),
                          .scale = weight(t, norm, 0), .shift = weight(t, norm, 1), .mean = mean,
                          .rstd = mean + bb_align_up((size_t)s.n * op->norm.groups, BB_ALIGNMENT),
                          .scratch = bb_tape_at(t, node->work[pass])};
}

static uint16_t *y16_of(const bb_tape *t, uint32_t i)
{
    return bb_tape_at(t, t->plan.bf16[bb_op_value(t->plan.graph, i)]);
}

static void run_norm(bb_tape *t, uint32_t i, uint32_t norm)
{
    bb_norm_args a = norm_args(t, i, norm, 0);
    a.y = bb_tape_y(t, i);
    a.y16 = y16_of(t, i);
    t->opt.ops->norm_forward(&a);
}

static void run_norm_backward(bb_tape *t, uint32_t i, uint32_t norm)
{
    bb_norm_args a = norm_args(t, i, norm, 1);
    a.dy = bb_tape_dy(t, i);
    a.dx = bb_tape_dx(t, i, 0);
    a.begin = t->plan.nodes[i].target[0] == BB_TARGET_BEGIN;
    a.dscale = weight_grad(t, norm, 0, t->plan.nodes[i].trains[0]);
    a.dshift = weight_grad(t, norm, 1, t->plan.nodes[i].trains[1]);
    t->opt.ops->norm_backward(&a);
}

static void norm_forward(bb_tape *t, uint32_t i) { run_norm(t, i, i); }
static void norm_backward(bb_tape *t, uint32_t i) { run_norm_backward(t, i, i); }

static void act_forward(bb_tape *t, uint32_t i)
{
    uint32_t norm = t->plan.nodes[i].norm, act = act_of(t->plan.graph->ops[i].kind);
    if (norm != BB_NONE) run_norm(t, i, norm);
    else t->opt.ops->act_forward(act, bb_shape_size(bb_tape_out_shape(t, i)), bb_tape_x(t, i, 0), bb_tape_y(t, i),
                                 y16_of(t, i));
}

static void act_backward(bb_tape *t, uint32_t i)
{
    uint32_t norm = t->plan.nodes[i].norm, act = act_of(t->plan.graph->ops[i].kind);
    if (norm != BB_NONE) run_norm_backward(t, i, norm);
    else t->opt.ops->act_backward(act, bb_shape_size(bb_tape_out_shape(t, i)), bb_tape_x(t, i, 0), bb_tape_dy(t, i),
                                  bb_tape_dx_sum(t, i, 0));
}

/* ---- sums, parts ---- */

static void add_forward(bb_tape *t, uint32_t i)
{
    bb_shape s = bb_tape_out_shape(t, i);
    const float *a = bb_tape_x(t, i, 0), *b = bb_tape_x(t, i, 1);
    float *y = bb_tape_y(t, i);
    bool spread = bb_tape_spreads(&t->plan, i);
    t->opt.ops->add_forward(s.n, s.h * s.w, s.c, spread, y == b ? b : a, y == b ? a : b, y);
}

static void add_backward(bb_tape *t, uint32_t i)
{
    bb_shape s = bb_tape_out_shape(t, i);
    const float *dy = bb_tape_dy(t, i);
    for (uint32_t k = 0; k < 2; k++) {
        uint32_t target = t->plan.nodes[i].target[k];
        if (target == BB_TARGET_NONE || target == BB_TARGET_SAME) continue;
        if (k && bb_tape_spreads(&t->plan, i))
            t->opt.ops->add_backward(s.n, s.h * s.w, s.c, true, dy, NULL, bb_tape_dx_sum(t, i, k));
        else if (target == BB_TARGET_BEGIN) memcpy(bb_tape_dx(t, i, k), dy, bb_shape_size(s) * sizeof *dy);
        else t->opt.ops->axpy(bb_shape_size(s), 1, dy, bb_tape_dx(t, i, k));
    }
}

static void concat_forward(bb_tape *t, uint32_t i)
{
    bb_shape s = bb_tape_out_shape(t, i);
    for (uint32_t k = 0, first = 0; k < bb_tape_inputs(&t->plan.graph->ops[i]); k++) {
        uint32_t count = bb_tape_in_shape(t, i, k).c;
        t->opt.ops->put_channels(rows_of(s), s.c, first, count, bb_tape_x(t, i, k), bb_tape_y(t, i), false);
        first += count;
    }
}

static void concat_backward(bb_tape *t, uint32_t i)
{
    bb_shape s = bb_tape_out_shape(t, i);
    for (uint32_t k = 0, first = 0; k < bb_tape_inputs(&t->plan.graph->ops[i]); k++) {
        uint32_t count = bb_tape_in_shape(t, i, k).c;
        float *dx = bb_tape_dx(t, i, k);
        bool adds = t->plan.nodes[i].target[k] == BB_TARGET_ADD;
        float *part = adds ? bb_tape_at(t, t->plan.nodes[i].dx) : dx;
        if (dx) t->opt.ops->copy_channels(rows_of(s), s.c, first, count, bb_tape_dy(t, i), part);
        if (adds) t->opt.ops->axpy(rows_of(s) * count, 1, part, dx);
        first += count;
    }
}

static void slice_forward(bb_tape *t, uint32_t i)
{
    const bb_op *op = &t->plan.graph->ops[i];
    bb_shape x = bb_tape_in_shape(t, i, 0);
    t->opt.ops->copy_channels(rows_of(x), x.c, op->slice.first, op->slice.count, bb_tape_x(t, i, 0), bb_tape_y(t, i));
}

static void slice_backward(bb_tape *t, uint32_t i)
{
    const bb_op *op = &t->plan.graph->ops[i];
    bb_shape x = bb_tape_in_shape(t, i, 0);
    float *dx = bb_tape_dx_sum(t, i, 0);
    if (dx)
        t->opt.ops->put_channels(rows_of(x), x.c, op->slice.first, op->slice.count, bb_tape_dy(t, i), dx, true);
}

/* ---- sizes ---- */

static void upsample_forward(bb_tape *t, uint32_t i)
{
    bb_shape x = bb_tape_in_shape(t, i, 0), y = bb_tape_out_shape(t, i);
    t->opt.ops->upsample_forward(x.n, x, y, bb_tape_x(t, i, 0), bb_tape_y(t, i));
}

static void upsample_backward(bb_tape *t, uint32_t i)
{
    bb_shape x = bb_tape_in_shape(t, i, 0), y = bb_tape_out_shape(t, i);
    t->opt.ops->upsample_backward(x.n, x, y, bb_tape_dy(t, i), bb_tape_dx_sum(t, i, 0));
}

static void pool_forward(bb_tape *t, uint32_t i)
{
    uint32_t factor = t->plan.graph->ops[i].pool.factor;
    t->opt.ops->pool_forward(bb_tape_in_shape(t, i, 0), factor, bb_tape_x(t, i, 0), bb_tape_y(t, i));
}

static void pool_backward(bb_tape *t, uint32_t i)
{
    uint32_t factor = t->plan.graph->ops[i].pool.factor;
    t->opt.ops->pool_backward(bb_tape_in_shape(t, i, 0), factor, bb_tape_dy(t, i), bb_tape_dx_sum(t, i, 0));
}

/* ---- scaling ---- */

static void modulate_forward(bb_tape *t, uint32_t i)
{
    bb_shape s = bb_tape_out_shape(t, i);
    t->opt.ops->modulate_forward(s.n, s.h * s.w, s.c, bb_tape_x(t, i, 0), bb_tape_x(t, i, 1), bb_tape_x(t, i, 2),
                                 bb_tape_y(t, i));
}

static void modulate_backward(bb_tape *t, uint32_t i)
{
    bb_shape s = bb_tape_out_shape(t, i);
    float *dx = bb_tape_dx_sum(t, i, 0), *dscale = bb_tape_dx_sum(t, i, 1), *dshift = bb_tape_dx_sum(t, i, 2);
    t->opt.ops->modulate_backward(s.n, s.h * s.w, s.c, bb_tape_x(t, i, 0), bb_tape_x(t, i, 1), bb_tape_dy(t, i), dx,
                                  dscale, dshift);
}

static void affine_forward(bb_tape *t, uint32_t i)
{
    const bb_op *op = &t->plan.graph->ops[i];
    t->opt.ops->affine_forward(bb_shape_size(bb_tape_out_shape(t, i)), op->affine.mul, op->affine.add,
                               bb_tape_x(t, i, 0), bb_tape_y(t, i));
}

static void affine_backward(bb_tape *t, uint32_t i)
{
    t->opt.ops->affine_backward(bb_shape_size(bb_tape_out_shape(t, i)), t->plan.graph->ops[i].affine.mul,
                                bb_tape_dy(t, i), bb_tape_dx_sum(t, i, 0));
}

/* ---- embeddings: no gradient for timesteps and row numbers ---- */

static void timestep_forward(bb_tape *t, uint32_t i)
{
    const bb_op *op = &t->plan.graph->ops[i];
    bb_shape y = bb_tape_out_shape(t, i);
    t->opt.ops->timestep_forward(y.n, y.c / 2, op->timestep.cos_first, bb_tape_x(t, i, 0), weight(t, i, 0),
                                 bb_tape_y(t, i));
}

static void embedding_forward(bb_tape *t, uint32_t i)
{
    bb_shape y = bb_tape_out_shape(t, i);
    t->opt.ops->embedding_forward(y.n, y.c, bb_tape_x(t, i, 0), weight(t, i, 0), bb_tape_y(t, i));
}

static void embedding_backward(bb_tape *t, uint32_t i)
{
    bb_shape y = bb_tape_out_shape(t, i);
    float *dtable = weight_grad(t, i, 0, t->plan.nodes[i].trains[0]);
    if (dtable) t->opt.ops->embedding_backward(y.n, y.c, bb_tape_x(t, i, 0), bb_tape_dy(t, i), dtable);
}

const bb_tape_pair bb_tape_pairs[BB_TAPE_KINDS] = {
    [BB_OP_CONV2D] = {conv_forward, conv_backward},
    [BB_OP_LINEAR] = {conv_forward, conv_backward},
    [BB_OP_GROUP_NORM] = {norm_forward, norm_backward},
    [BB_OP_SILU] = {act_forward, act_backward},
    [BB_OP_GELU] = {act_forward, act_backward},
    [BB_OP_MISH] = {act_forward, act_backward},
    [BB_OP_ADD] = {add_forward, add_backward},
    [BB_OP_CONCAT] = {concat_forward, concat_backward},
    [BB_OP_SLICE] = {slice_forward, slice_backward},
    [BB_OP_UPSAMPLE_NEAREST] = {upsample_forward, upsample_backward},
    [BB_OP_AVG_POOL2D] = {pool_forward, pool_backward},
    [BB_OP_ATTENTION] = {bb_tape_attention_forward, bb_tape_attention_backward},
    [BB_OP_MODULATE] = {modulate_forward, modulate_backward},
    [BB_OP_AFFINE] = {affine_forward, affine_backward},
    [BB_OP_TIMESTEP_EMBEDDING] = {timestep_forward, NULL},
    [BB_OP_EMBEDDING] = {embedding_forward, embedding_backward},
};
