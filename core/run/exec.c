/* One function per graph op; convolutions and linears are in conv.c and quantized.c. */
#include "run/conv.h"

#include "base/mathf.h"

#define CHUNK 16384u /* elements per work item of an elementwise op */

typedef struct elementwise {
    bb_run *run;
    const bb_op *op;
    float *y;
    size_t pixels, c, per_item; /* pixels and work items of one batch item */
    bool spread;                /* ADD: input 1 is one vector per item */
} elementwise;

static const float *input(const bb_run *run, const bb_op *op, uint32_t k)
{
    return op->in[k] == BB_NONE ? NULL : run->at[op->in[k]];
}

/* Input k of a batch item. Values of a slower rate may have fewer items, which are taken in turn. */
static const float *pixels_of(const elementwise *e, uint32_t k, size_t item)
{
    bb_shape s = e->run->shapes[e->op->in[k]];
    return e->run->at[e->op->in[k]] + item % s.n * s.h * s.w * s.c;
}

/* A work item is a run of whole pixels of one batch item, so that per-item vectors stay simple. */
static void elementwise_item(void *ctx, size_t work, size_t thread)
{
    const elementwise *e = ctx;
    const bb_kernels *k = e->run->kernels;
    size_t item = work / e->per_item, step = (e->pixels + e->per_item - 1) / e->per_item;
    size_t first = work % e->per_item * step, end = first + step < e->pixels ? first + step : e->pixels;
    if (first >= end) return;
    size_t n = (end - first) * e->c;
    float *y = e->y + (item * e->pixels + first) * e->c;
    const float *x = pixels_of(e, 0, item) + first * e->c;
    (void)thread;
    switch (e->op->kind) {
    case BB_OP_SILU: k->silu(y, x, n); break;
    case BB_OP_GELU: k->gelu(y, x, n); break;
    case BB_OP_MISH: k->mish(y, x, n); break;
    case BB_OP_AFFINE: k->affine(y, x, e->op->affine.mul, e->op->affine.add, n); break;
    case BB_OP_MODULATE: k->modulate(y, x, pixels_of(e, 1, item), pixels_of(e, 2, item), end - first, e->c); break;
    case BB_OP_ADD:
        if (e->spread) k->add_channels(y, x, pixels_of(e, 1, item), end - first, e->c);
        else k->add(y, x, pixels_of(e, 1, item) + first * e->c, n);
        break;
    }
}

static void run_elementwise(bb_run *run, const bb_op *op, float *y, bb_shape s)
{
    elementwise e = {.run = run, .op = op, .y = y, .pixels = (size_t)s.h * s.w, .c = s.c};
    e.per_item = (e.pixels * e.c + CHUNK - 1) / CHUNK;
    if (op->kind == BB_OP_ADD) {
        bb_shape b = run->shapes[op->in[1]];
        e.spread = b.h != s.h || b.w != s.w;
    }
    bb_par_for(run->par, s.n * e.per_item, elementwise_item, &e);
}

typedef struct walk { bb_run *run; const bb_op *op; float *y; bb_shape x, shape; } walk;

static void group_norm_item(void *ctx, size_t item, size_t thread)
{
    const walk *w = ctx;
    const bb_weight *weights = w->run->pack->weights;
    size_t at = item * w->x.h * w->x.w * w->x.c;
    w->run->kernels->group_norm(&(bb_group_norm_args){
        .y = w->y + at, .x = input(w->run, w->op, 0) + at, .scale = weights[w->op->weight[0]].f32,
        .shift = weights[w->op->weight[1]].f32,
        .scratch = (float *)(void *)(w->run->thread + thread * w->run->thread_bytes),
        .pixels = (size_t)w->x.h * w->x.w, .c = w->x.c, .groups = w->op->norm.groups, .eps = w->op->norm.eps});
}

/* Work items: rows of the result. */
static void avg_pool_row(void *ctx, size_t work, size_t thread)
{
    const walk *w = ctx;
    size_t factor = w->op->pool.factor, item = work / w->shape.h, row = work % w->shape.h * factor;
    (void)thread;
    w->run->kernels->avg_pool2d(&(bb_avg_pool_args){
        .y = w->y + work * w->shape.w * w->shape.c,
        .x = input(w->run, w->op, 0) + (item * w->x.h + row) * w->x.w * w->x.c,
        .pixels = w->shape.w, .c = w->shape.c, .factor = factor, .row_stride = (size_t)w->x.w * w->x.c});
}

/* Work items: batch items × heads × runs of queries. */
static void attention_item(void *ctx, size_t work, size_t thread)
{
    const walk *w = ctx;
    bb_shape kv = w->run->shapes[w->op->in[1]];
    size_t queries = (size_t)w->x.h * w->x.w, keys = (size_t)kv.h * kv.w, heads = w->op->attention.heads;
    size_t per_head = (queries + BB_ATTENTION_QUERIES - 1) / BB_ATTENTION_QUERIES;
    size_t item = work / per_head / heads, d = w->x.c / heads, head = work / per_head % heads * d;
    size_t first = work % per_head * BB_ATTENTION_QUERIES;
    w->run->kernels->attention(&(bb_attention_args){
        .o = w->y + item * queries * w->x.c + head, .q = input(w->run, w->op, 0) + item * queries * w->x.c + head,
        .k = input(w->run, w->op, 1) + item * keys * w->x.c + head,
        .v = input(w->run, w->op, 2) + item * keys * w->x.c + head,
        .scratch = (float *)(void *)(w->run->thread + thread * w->run->thread_bytes),
        .first_query = first,
        .queries = queries - first < BB_ATTENTION_QUERIES ? queries - first : BB_ATTENTION_QUERIES,
        .keys = keys, .d = d, .o_stride = w->x.c, .q_stride = w->x.c, .kv_stride = w->x.c,
        .scale = w->op->attention.scale});
}

static void run_attention(walk *w)
{
    size_t queries = (size_t)w->x.h * w->x.w;
    size_t runs = (queries + BB_ATTENTION_QUERIES - 1) / BB_ATTENTION_QUERIES;
    bb_par_for(w->run->par, w->x.n * w->op->attention.heads * runs, attention_item, w);
}

/* The product is rounded to f32 as in the references; sin and cos are f64, rounded once. */
static void timestep_embedding(const walk *w)
{
    const float *f = w->run->pack->weights[w->op->weight[0]].f32, *t = input(w->run, w->op, 0);
    size_t half = w->shape.c / 2, sin_at = w->op->timestep.cos_first ? half : 0, cos_at = half - sin_at;
    for (size_t item = 0; item < w->shape.n; item++) {
        float *y = w->y + item * w->shape.c;
        for (size_t k = 0; k < half; k++) {
            float angle = t[item] * f[k];
            /* Untrusted inputs may be huge or NaN: outside the accurate range the angle counts as 0. */
            if (!(angle > -1e6f && angle < 1e6f)) angle = 0;
            y[sin_at + k] = (float)bb_sin(angle);
            y[cos_at + k] = (float)bb_cos(angle);
        }
    }
}

static void embedding(const walk *w)
{
    const bb_weight *table = &w->run->pack->weights[w->op->weight[0]];
    const float *rows = input(w->run, w->op, 0);
    uint32_t last = w->run->pack->graph.weights[w->op->weight[0]].dim[0] - 1;
    for (size_t item = 0; item < w->shape.n; item++) {
        float r = rows[item] > 0 ? rows[item] : 0; /* NaN and negatives → row 0; the API refuses them earlier */
        uint32_t row = r < (float)last ? (uint32_t)r : last;
        float *y = w->y + item * w->shape.c;
        if (table->f32) memcpy(y, table->f32 + (size_t)row * table->stride, w->shape.c * sizeof *y);
        else w->run->kernels->f16_to_f32(y, table->f16 + (size_t)row * table->stride, w->shape.c);
    }
}

static void copy_channels(float *y, size_t y_stride, const float *x, size_t x_stride, size_t c, size_t pixels)
{
    for (size_t p = 0; p < pixels; p++) memcpy(y + p * y_stride, x + p * x_stride, c * sizeof *y);
}

static void concat(const walk *w)
{
    size_t first = 0, pixels = (size_t)w->shape.n * w->shape.h * w->shape.w;
    for (uint32_t k = 0; k < 4 && w->op->in[k] != BB_NONE; k++) {
        size_t c = w->run->shapes[w->op->in[k]].c;
        copy_channels(w->y + first, w->shape.c, input(w->run, w->op, k), c, c, pixels);
        first += c;
    }
}

static void upsample(const walk *w)
{
    const float *x = input(w->run, w->op, 0);
    size_t c = w->shape.c;
    for (size_t item = 0; item < w->shape.n; item++)
        for (size_t oy = 0; oy < w->shape.h; oy++) {
            size_t iy = oy * w->x.h / w->shape.h;
            for (size_t ox = 0; ox < w->shape.w; ox++) {
                size_t ix = ox * w->x.w / w->shape.w;
                memcpy(w->y + ((item * w->shape.h + oy) * w->shape.w + ox) * c,
                       x + ((item * w->x.h + iy) * w->x.w + ix) * c, c * sizeof *x);
            }
        }
}

void bb_run_op(bb_run *run, uint32_t number)
{
    const bb_graph *g = &run->pack->graph;
    const bb_op *op = &g->ops[number];
    uint32_t value = bb_op_value(g, number);
    walk w = {run, op, run->at[value], run->shapes[op->in[0]], run->shapes[value]};
    switch (op->kind) {
    case BB_OP_CONV2D: case BB_OP_LINEAR: {
        const bb_layer *layer = run->pack->weights[op->weight[0]].layer;
        if (layer) bb_conv_quantized(run, number, layer);
        else bb_conv_f32(run, number);
        break;
    }
    case BB_OP_GROUP_NORM: bb_par_for(run->par, w.x.n, group_norm_item, &w); break;
    case BB_OP_SILU: case BB_OP_GELU: case BB_OP_MISH: case BB_OP_AFFINE: case BB_OP_MODULATE: case BB_OP_ADD:
        run_elementwise(run, op, w.y, w.shape);
        break;
    case BB_OP_AVG_POOL2D: bb_par_for(run->par, (size_t)w.shape.n * w.shape.h, avg_pool_row, &w); break;
    case BB_OP_ATTENTION: run_attention(&w); break;
    case BB_OP_TIMESTEP_EMBEDDING: timestep_embedding(&w); break;
    case BB_OP_EMBEDDING: embedding(&w); break;
    case BB_OP_CONCAT: concat(&w); break;
    case BB_OP_UPSAMPLE_NEAREST: upsample(&w); break;
    case BB_OP_SLICE:
        copy_channels(w.y, w.shape.c, input(run, op, 0) + op->slice.first, w.x.c, w.shape.c,
                      (size_t)w.x.n * w.x.h * w.x.w);
        break;
    }
    if (run->observe && run->layout == BB_PLAIN) run->observe(run->user, run, value);
}

void bb_run_inputs_changed(bb_run *run) { run->codes_value = BB_NONE; }

void bb_run_window(bb_run *run, uint32_t first, uint32_t count)
{
    const bb_graph *g = &run->pack->graph;
    BB_ASSERT(count && first + count <= run->windows);
    for (uint32_t v = 0; v < g->n_values; v++) {
        if (g->values[v].rate != BB_RATE_STEP) continue;
        bb_shape *shape = &run->shapes[v];
        shape->n /= run->count;
        run->at[v] += ((ptrdiff_t)first - (ptrdiff_t)run->first) * (ptrdiff_t)bb_shape_size(*shape);
        shape->n *= count;
    }
    run->first = first;
    run->count = count;
    bb_run_inputs_changed(run);
}

void bb_run_layout(bb_run *run, uint32_t layout)
{
    const bb_graph *g = &run->pack->graph;
    if (run->layout == layout) return;
    for (uint32_t v = g->n_inputs; v < g->n_values; v++)
        if (g->values[v].rate == BB_RATE_SAMPLE) run->at[v] = (float *)(void *)(run->values + run->offset[layout][v]);
    run->layout = layout;
    bb_run_inputs_changed(run);
}

bool bb_run_skips(const bb_run *run, uint32_t op) { return run->layout == BB_FUSED && run->fusion[op].skipped; }

bb_rate bb_run_rate(const bb_run *run, uint32_t op)
{
    return (bb_rate)run->pack->graph.values[bb_op_value(&run->pack->graph, op)].rate;
}
