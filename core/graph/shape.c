/* Shape inference: symbols bound to numbers, then one rule per op. */
#include "graph/graph.h"

#define MAX_DIM 65536u
#define MAX_ELEMENTS ((uint64_t)1 << 28)

static bool dim_value(const bb_dim *d, const bb_bindings *bind, uint32_t *out)
{
    uint64_t base = d->symbol == BB_DIM_ONE ? 1 : bind->of[d->symbol];
    uint64_t v = base * d->mul / d->div + d->add;
    *out = (uint32_t)v;
    return v >= 1 && v <= MAX_DIM;
}

static bool small_enough(bb_shape s)
{
    if (!s.n || !s.h || !s.w || !s.c || s.n > MAX_DIM || s.h > MAX_DIM || s.w > MAX_DIM || s.c > MAX_DIM) return false;
    uint64_t pixels = (uint64_t)s.n * s.h;
    return pixels <= MAX_ELEMENTS && pixels * s.w <= MAX_ELEMENTS && pixels * s.w * s.c <= MAX_ELEMENTS;
}

static bool conv_extent(uint32_t in, uint32_t k, uint32_t before, uint32_t after, uint32_t stride, uint32_t *out)
{
    uint32_t padded = in + before + after;
    if (padded < k) return false;
    *out = (padded - k) / stride + 1;
    return true;
}

static bool same_grid(bb_shape a, bb_shape b) { return a.n == b.n && a.h == b.h && a.w == b.w; }
static bool per_item(bb_shape s, bb_shape x) { return s.n == x.n && s.h == 1 && s.w == 1 && s.c == x.c; }

static bool infer_concat(const bb_op *op, const bb_shape *shapes, bb_shape *y)
{
    for (uint32_t k = 1; k < 4 && op->in[k] != BB_NONE; k++) {
        bb_shape s = shapes[op->in[k]];
        if (!same_grid(*y, s)) return false;
        y->c += s.c;
    }
    return true;
}

static bool infer_conv(const bb_graph *g, const bb_op *op, bb_shape *y)
{
    const uint32_t *d = g->weights[op->weight[0]].dim;
    if (y->c != d[1]) return false;
    y->c = d[0];
    return conv_extent(y->h, op->conv.kh, op->conv.top, op->conv.bottom, op->conv.stride, &y->h) &&
           conv_extent(y->w, op->conv.kw, op->conv.left, op->conv.right, op->conv.stride, &y->w);
}

static bool infer_upsample(const bb_op *op, const bb_shape *shapes, bb_shape *y)
{
    if (op->in[1] != BB_NONE) {
        bb_shape like = shapes[op->in[1]];
        y->h = like.h;
        y->w = like.w;
        return y->n == like.n;
    }
    y->h *= op->upsample.factor;
    y->w *= op->upsample.factor;
    return true;
}

static bool infer_attention(const bb_op *op, const bb_shape *shapes, bb_shape *y)
{
    bb_shape k = shapes[op->in[1]], v = shapes[op->in[2]];
    return k.n == y->n && same_grid(k, v) && k.c == y->c && v.c == y->c && y->c % op->attention.heads == 0;
}

/* y holds the shape of input 0 on entry. */
static bool infer(const bb_graph *g, const bb_op *op, const bb_shape *shapes, bb_shape *y)
{
    bb_shape x = *y;
    const uint32_t *w = op->weight[0] == BB_NONE ? NULL : g->weights[op->weight[0]].dim;
    switch (op->kind) {
    case BB_OP_CONV2D: return infer_conv(g, op, y);
    case BB_OP_LINEAR: y->c = w[0]; return x.c == w[1];
    case BB_OP_GROUP_NORM: return x.c == w[0];
    case BB_OP_SILU: case BB_OP_GELU: case BB_OP_MISH: case BB_OP_AFFINE: return true;
    case BB_OP_ADD: {
        bb_shape b = shapes[op->in[1]];
        return (same_grid(x, b) && x.c == b.c) || per_item(b, x);
    }
    case BB_OP_CONCAT: return infer_concat(op, shapes, y);
    case BB_OP_UPSAMPLE_NEAREST: return infer_upsample(op, shapes, y);
    case BB_OP_AVG_POOL2D:
        y->h = x.h / op->pool.factor;
        y->w = x.w / op->pool.factor;
        return y->h && y->w;
    case BB_OP_ATTENTION: return infer_attention(op, shapes, y);
    case BB_OP_TIMESTEP_EMBEDDING: y->c = 2 * w[0]; return x.h == 1 && x.w == 1 && x.c == 1;
    case BB_OP_EMBEDDING: y->c = w[1]; return x.h == 1 && x.w == 1 && x.c == 1;
    case BB_OP_MODULATE: return per_item(shapes[op->in[1]], x) && per_item(shapes[op->in[2]], x);
    case BB_OP_SLICE:
        y->c = op->slice.count;
        return op->slice.first < x.c && op->slice.count <= x.c - op->slice.first;
    }
    return false;
}

bb_status bb_graph_shapes(const bb_graph *g, const bb_bindings *bind, bb_shape *shapes, bb_error *err)
{
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const bb_dim *d = g->inputs[i].shape;
        bb_shape *s = &shapes[i];
        if (!dim_value(&d[0], bind, &s->n) || !dim_value(&d[1], bind, &s->h) || !dim_value(&d[2], bind, &s->w) ||
            !dim_value(&d[3], bind, &s->c) || !small_enough(*s))
            return bb_fail(err, BB_ERR_SIZE, "input %s: a size is zero or too large",
                           bb_graph_string(g, g->inputs[i].name));
    }
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const bb_op *op = &g->ops[i];
        bb_shape y = shapes[op->in[0]];
        if (!infer(g, op, shapes, &y) || !small_enough(y))
            return bb_fail(err, BB_ERR_SIZE, "op %u (%s): its input sizes do not fit together", i, bb_op_label(g, op));
        shapes[bb_op_value(g, i)] = y;
    }
    return BB_OK;
}
