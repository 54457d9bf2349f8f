/* The tape's life and its two walks. */
#include "platform.h"
#include "train/engine/tape_ops.h"

#include <stdlib.h>
#include <time.h>

static void free_products(bb_tape_products *products, uint32_t n)
{
    for (uint32_t i = 0; products && i < n; i++) bb_tape_products_free(&products[i]);
    free(products);
}

/* ---- memory ---- */

static bb_status add_product_bytes(const bb_tape_options *opt, const bb_tape_plan *p, size_t *bytes, bb_error *err)
{
    for (uint32_t i = 0; i < opt->graph->n_ops; i++) {
        bb_tape_products products = {0};
        bb_status st = bb_tape_products_new(&products, opt, p, i, err);
        if (st >= 0) *bytes += bb_tape_products_bytes(&products, &p->nodes[i]);
        bb_tape_products_free(&products);
        BB_TRY(st);
    }
    return BB_OK;
}

bb_status bb_tape_bytes(const bb_tape_options *opt, size_t *bytes, bb_error *err)
{
    bb_tape_plan plan;
    bb_status st = bb_tape_plan_make(&plan, opt, err);
    *bytes = plan.bytes;
    if (st >= 0) st = add_product_bytes(opt, &plan, bytes, err);
    bb_tape_plan_free(&plan);
    return st;
}

/* ---- life ---- */

static bb_status tape_init(bb_tape *t, bb_error *err)
{
    const bb_graph *g = t->opt.graph;
    BB_TRY(bb_tape_plan_make(&t->plan, &t->opt, err));
    t->products = calloc(g->n_ops, sizeof *t->products);
    if (!t->products) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    for (uint32_t i = 0; i < g->n_ops; i++) BB_TRY(bb_tape_products_new(&t->products[i], &t->opt, &t->plan, i, err));
    t->memory = bb_large_memory(t->plan.bytes);
    if (!t->memory)
        return bb_fail(err, BB_ERR_SPACE, "out of memory: the values of a pass take %z MiB; take a smaller batch",
                       t->plan.bytes >> 20);
    uint32_t timestep = bb_graph_find_input(g, "timestep");
    if (timestep != BB_NONE) t->timestep = bb_tape_at(t, t->plan.f32[timestep]);
    for (uint32_t v = 0; v < g->n_inputs; v++)
        bb_tape_clear(bb_tape_at(t, t->plan.f32[v]), bb_shape_size(t->plan.shapes[v]));
    return BB_OK;
}

bb_status bb_tape_new(bb_tape **out, const bb_tape_options *opt, bb_error *err)
{
    *out = NULL;
    bb_tape *t = calloc(1, sizeof *t);
    if (!t) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    t->opt = *opt;
    bb_status st = tape_init(t, err);
    if (st < 0) bb_tape_free(t);
    else *out = t;
    return st;
}

void bb_tape_free(bb_tape *t)
{
    if (!t) return;
    free_products(t->products, t->opt.graph->n_ops);
    bb_tape_plan_free(&t->plan);
    free(t->memory);
    free(t);
}

bb_shape bb_tape_shape(const bb_tape *t, uint32_t value) { return t->plan.shapes[value]; }

float *bb_tape_input(bb_tape *t, const char *name)
{
    uint32_t v = bb_graph_find_input(t->opt.graph, name);
    return v == BB_NONE ? NULL : bb_tape_at(t, t->plan.f32[v]);
}

const float *bb_tape_value(const bb_tape *t, uint32_t value) { return bb_tape_at(t, t->plan.f32[value]); }
float *bb_tape_grad(bb_tape *t, uint32_t value) { return bb_tape_at(t, t->plan.grad[value]); }

void bb_tape_weights(bb_tape *t)
{
    const bb_params *params = t->opt.params;
#pragma omp parallel for schedule(dynamic, 1) /* who does which changes no bit */
    for (uint32_t i = 0; i < t->opt.graph->n_ops; i++)
        if (t->products[i].conv)
            bb_conv_weights(t->products[i].conv, params->w + params->at[t->opt.graph->ops[i].weight[0]]);
}

/* ---- the walks ---- */

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* bf16 for convolutions of a value whose op knows f32 only. */
static void round_value(bb_tape *t, uint32_t v)
{
    uint32_t kind = v < t->opt.graph->n_inputs ? 0 : t->opt.graph->ops[v - t->opt.graph->n_inputs].kind;
    if (t->plan.bf16[v] == BB_NONE || bb_tape_writes_bf16(kind)) return;
    t->opt.ops->to_bf16(bb_shape_size(t->plan.shapes[v]), bb_tape_at(t, t->plan.f32[v]),
                        bb_tape_at(t, t->plan.bf16[v]));
}

void bb_tape_forward(bb_tape *t)
{
    const bb_graph *g = t->opt.graph;
    double from = now();
    for (uint32_t v = 0; v < g->n_inputs; v++) round_value(t, v);
    for (uint32_t i = 0; i < g->n_ops; i++) {
        if (t->plan.nodes[i].skipped) continue;
        bb_tape_pairs[g->ops[i].kind].forward(t, i);
        round_value(t, bb_op_value(g, i));
        double to = now();
        t->seconds[0][g->ops[i].kind] += to - from;
        from = to;
    }
    for (uint32_t v = 0; v < g->n_values; v++)
        if (t->plan.pinned[v] && t->plan.grad[v] != BB_NONE)
            bb_tape_clear(bb_tape_at(t, t->plan.grad[v]), bb_shape_size(t->plan.shapes[v]));
}

void bb_tape_backward(bb_tape *t)
{
    const bb_graph *g = t->opt.graph;
    double from = now();
    for (uint32_t i = g->n_ops; i-- > 0;) {
        if (!t->plan.nodes[i].backward) continue;
        bb_tape_fn backward = bb_tape_pairs[g->ops[i].kind].backward;
        if (backward) backward(t, i);
        double to = now();
        t->seconds[1][g->ops[i].kind] += to - from;
        from = to;
    }
}

void bb_tape_times(bb_tape *t, double seconds[2][BB_TAPE_KINDS])
{
    memcpy(seconds, t->seconds, sizeof t->seconds);
    memset(t->seconds, 0, sizeof t->seconds);
}
