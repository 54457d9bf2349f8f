/* A student at the sizes of a tape: convolutions, who shares codes with whom, scratch. */
#include "train/student/layer.h"

static void free_convs(bb_student_op *o)
{
    for (uint32_t g = 0; g < BB_MAX_SEGMENTS; g++) {
        if (o->forward[g] == o->backward) o->backward = NULL;
        if (o->forward[g]) bb_conv_free(o->forward[g]);
    }
    if (o->backward) bb_conv_free(o->backward);
}

void bb_student_unbind(bb_student *s)
{
    for (uint32_t i = 0; s->at_op && i < s->pack->graph.n_ops; i++)
        if (s->at_op[i].s) free_convs(&s->at_op[i]);
    s->at_op = NULL;
    bb_blocks_give(&s->bound, NULL);
}

static const bb_student_loops *choose_loops(const char *ops)
{
#ifdef BB_STUDENT_X86
    if (memcmp(ops, "avx512", sizeof "avx512") == 0) return &bb_student_loops_avx512;
    if (memcmp(ops, "avx2", sizeof "avx2") == 0) return &bb_student_loops_avx2;
#endif
    (void)ops;
    return &bb_student_loops_base;
}

static bb_conv_shape shape_of(const bb_op *op, bb_shape x, uint32_t out, uint32_t channels)
{
    if (op->kind == BB_OP_LINEAR)
        return (bb_conv_shape){.n = 1, .h = 1, .w = x.n * x.h * x.w, .c = channels, .out = out, .kh = 1, .kw = 1,
                               .stride = 1};
    return (bb_conv_shape){.n = x.n, .h = x.h, .w = x.w, .c = channels, .out = out, .kh = op->conv.kh,
                           .kw = op->conv.kw, .stride = op->conv.stride, .top = op->conv.top, .left = op->conv.left,
                           .bottom = op->conv.bottom, .right = op->conv.right};
}

/* The first op that reads the same value by the same quantizer. */
static uint32_t leader_of(const bb_student *s, uint32_t op)
{
    const bb_op *ops = s->pack->graph.ops;
    const bb_layer *layer = s->pack->weights[ops[op].weight[0]].layer;
    for (uint32_t i = 0; i < op; i++)
        if (s->at_op[i].s && s->at_op[i].matrix != BB_NONE && ops[i].in[0] == ops[op].in[0] &&
            s->pack->weights[ops[i].weight[0]].layer->quantizer == layer->quantizer)
            return i;
    return op;
}

static bb_status bind_op(bb_student *s, uint32_t i, const bb_shape *shapes, bb_error *err)
{
    const bb_graph *g = &s->pack->graph;
    const bb_op *op = &g->ops[i];
    const bb_layer *layer = s->pack->weights[op->weight[0]].layer;
    const bb_quantizer_rec *q = layer->quantizer->rec;
    const bb_shape x = shapes[op->in[0]], y = shapes[bb_op_value(g, i)];
    bb_student_op *o = &s->at_op[i];
    *o = (bb_student_op){.s = s, .op = i, .matrix = (uint32_t)(layer - s->pack->layers), .leader = leader_of(s, i),
                         .items = x.n, .pixels = x.h * x.w, .out_pixels = y.h * y.w};
    const uint32_t both = BB_DNN_DATA | BB_DNN_WEIGHTS, all = BB_DNN_FORWARD | both;
    for (uint32_t k = 0; k < q->segments; k++) {
        const bb_conv_shape shape = shape_of(op, x, layer->rec->outputs, q->seg_channels[k]);
        BB_TRY(bb_conv_new(&o->forward[k], s->dnn, &shape, s->bf16, q->segments == 1 ? all : BB_DNN_FORWARD, err));
    }
    const bb_conv_shape shape = shape_of(op, x, layer->rec->outputs, layer->rec->channels);
    o->backward = o->forward[0];
    if (q->segments > 1) {
        o->backward = NULL;
        BB_TRY(bb_conv_new(&o->backward, s->dnn, &shape, s->bf16, both, err));
    }
    const size_t inputs = (size_t)o->items * o->pixels * layer->rec->channels;
    s->layers[i] = (bb_tape_layer){.self = o, .kept_bytes = o->leader == i ? 2 * inputs : 0,
                                   .forward = bb_student_op_forward, .backward = bb_student_op_backward};
    return BB_OK;
}

/* The convolution that reads the graph's input, if it is one of floats: so that the first codes are core's. */
static bb_status bind_first(bb_student *s, uint32_t i, const bb_shape *shapes, bb_error *err)
{
    const bb_graph *g = &s->pack->graph;
    const bb_op *op = &g->ops[i];
    const bb_shape x = shapes[op->in[0]], y = shapes[bb_op_value(g, i)];
    bb_student_op *o = &s->at_op[i];
    *o = (bb_student_op){.s = s, .op = i, .matrix = BB_NONE, .leader = BB_NONE, .items = x.n, .pixels = x.h * x.w,
                         .out_pixels = y.h * y.w};
    const bb_conv_shape shape = shape_of(op, x, y.c, x.c);
    BB_TRY(bb_conv_new(&o->backward, s->dnn, &shape, false, BB_DNN_WEIGHTS, err));
    s->layers[i] = (bb_tape_layer){.self = o, .forward = bb_student_float_forward,
                                   .backward = bb_student_float_backward};
    return BB_OK;
}

typedef struct sizes { size_t operand, dy, sums, dx, dw, turned, block_sums; } sizes;

static void raise(size_t *most, size_t to)
{
    if (to > *most) *most = to;
}

/* What the largest layer needs, each. */
static sizes measure(const bb_student *s)
{
    sizes z = {0};
    for (uint32_t i = 0; i < s->pack->graph.n_ops; i++) {
        const bb_student_op *o = &s->at_op[i];
        if (!o->s || o->matrix == BB_NONE) continue;
        const bb_student_matrix *m = &s->matrices[o->matrix];
        const bb_quantizer *q = m->from->quantizer;
        const size_t in = (size_t)o->items * o->pixels, out = (size_t)o->items * o->out_pixels;
        const size_t blocks = o->items * ((o->pixels + BB_STUDENT_BLOCK - 1) / (size_t)BB_STUDENT_BLOCK);
        raise(&z.operand, in * q->channels + BB_MAX_SEGMENTS * BB_ALIGNMENT);
        raise(&z.dy, out * m->n);
        if (q->rec->segments > 1) raise(&z.sums, out * m->n);
        raise(&z.dx, in * q->channels);
        raise(&z.dw, (size_t)m->k * m->n);
        raise(&z.turned, (size_t)m->rank * m->n);
        raise(&z.block_sums, blocks * 2 * q->channels);
        raise(&z.block_sums, (m->k + BB_STUDENT_BLOCK - 1) / BB_STUDENT_BLOCK * (size_t)m->n);
    }
    return z;
}

static bb_status take_scratch(bb_student *s, bb_error *err)
{
    const sizes z = measure(s);
    const size_t each = s->bf16 ? sizeof(uint16_t) : sizeof(float);
    s->operand = bb_blocks_take(&s->bound, z.operand, each);
    s->dy = bb_blocks_take(&s->bound, z.dy, each);
    s->sums = bb_blocks_take(&s->bound, z.sums, sizeof *s->sums);
    s->dx = bb_blocks_take(&s->bound, z.dx, sizeof *s->dx);
    s->dw = bb_blocks_take(&s->bound, z.dw, sizeof *s->dw);
    s->turned = bb_blocks_take(&s->bound, z.turned, sizeof *s->turned);
    s->block_sums = bb_blocks_take(&s->bound, z.block_sums, sizeof *s->block_sums);
    if (!s->operand || !s->dy || !s->sums || !s->dx || !s->dw || !s->turned || !s->block_sums)
        return bb_fail(err, BB_ERR_SPACE, "out of memory for the quantized layers: take a smaller batch");
    return BB_OK;
}

static bb_status bind_ops(bb_student *s, const bb_bindings *bind, bb_error *err)
{
    const bb_graph *g = &s->pack->graph;
    bb_shape *shapes = bb_blocks_take(&s->bound, g->n_values, sizeof *shapes);
    s->at_op = bb_blocks_take(&s->bound, g->n_ops, sizeof *s->at_op);
    s->layers = bb_blocks_take(&s->bound, g->n_ops, sizeof *s->layers);
    if (!shapes || !s->at_op || !s->layers) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    BB_TRY(bb_graph_shapes(g, bind, shapes, err));
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const bb_op *op = &g->ops[i];
        if ((op->kind == BB_OP_CONV2D || op->kind == BB_OP_LINEAR) && s->pack->weights[op->weight[0]].layer)
            BB_TRY(bind_op(s, i, shapes, err));
        else if (op->kind == BB_OP_CONV2D && op->in[0] < g->n_inputs) BB_TRY(bind_first(s, i, shapes, err));
    }
    bb_student_exact(&s->exact, s->ops, s->loops, g, shapes);
    return take_scratch(s, err);
}

bb_status bb_student_bind(bb_student *s, const bb_bindings *bind, bb_dnn *dnn, const bb_ops *ops, bb_params **params,
                          const bb_tape_layer **layers, bb_error *err)
{
    bb_student_unbind(s);
    s->dnn = dnn;
    s->ops = ops;
    s->loops = choose_loops(ops->name);
    s->bf16 = bb_dnn_bf16(dnn) && !s->opt.f32;
    s->filled = BB_NONE;
    const bb_status status = bind_ops(s, bind, err);
    if (status < 0) {
        bb_student_unbind(s);
        return status;
    }
    *params = &s->params;
    *layers = s->layers;
    bb_student_changed(s);
    return BB_OK;
}

const bb_ops *bb_student_ops(const bb_student *s) { return &s->exact; }

/* A segment's channels of all levels, into the scratch of the gradients. */
static const float *slice(const bb_student *s, const bb_student_matrix *m, uint32_t first, uint32_t channels)
{
    const uint32_t all = m->from->rec->channels;
    for (uint32_t tap = 0; tap < m->from->rec->taps; tap++)
        memcpy(s->dw + (size_t)tap * channels * m->n, s->level + ((size_t)tap * all + first) * m->n,
               (size_t)channels * m->n * sizeof *s->dw);
    return s->dw;
}

void bb_student_pack(bb_student *s, uint32_t matrix)
{
    const bb_student_matrix *m = &s->matrices[matrix];
    const bb_quantizer_rec *q = m->from->quantizer->rec;
    for (uint32_t i = 0; s->at_op && i < s->pack->graph.n_ops; i++) {
        const bb_student_op *o = &s->at_op[i];
        if (!o->s || o->matrix != matrix) continue;
        bb_conv_weights(o->backward, s->level);
        for (uint32_t g = 0, first = 0; q->segments > 1 && g < q->segments; first += q->seg_channels[g++])
            bb_conv_weights(o->forward[g], slice(s, m, first, q->seg_channels[g]));
    }
}
