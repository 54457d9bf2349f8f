/* Gradients of values: who begins them, who adds to them, and where no copy is needed.
 *
 * The gradient of a sum is that of each addend, too. It is handed on in place to an addend without other gradients so
 * far; to both, if the memory is not changed for the one (by another reader's contribution) while the other has not
 * been consumed. That spares nearly all copies of a residual network. */
#include "train/engine/tape_plan.h"

/* Moment at which an earlier op than i adds to the gradient of v for the first time after i; UINT32_MAX: never. */
static uint32_t next_change(const bb_tape_plan *p, uint32_t i, uint32_t v)
{
    for (uint32_t j = i; j-- > 0;) {
        if (!p->nodes[j].backward) continue;
        for (uint32_t k = 0; k < 4; k++)
            if (bb_tape_differentiable(&p->graph->ops[j], k) && bb_tape_in(p, j, k) == v)
                return bb_tape_moment_back(p, j);
    }
    return UINT32_MAX;
}

static void begin(bb_tape_plan *p, uint32_t v, uint32_t moment)
{
    p->grad[v] = bb_tape_buffer_new(p, bb_shape_size(p->shapes[v]) * sizeof(float), moment, bb_tape_consumed(p, v));
}

/* v shares the gradient of y. */
static void hand_on(bb_tape_plan *p, uint32_t i, uint32_t k, uint32_t y)
{
    uint32_t v = p->graph->ops[i].in[k], until = bb_tape_consumed(p, v);
    p->grad[v] = p->grad[y];
    p->nodes[i].target[k] = BB_TARGET_SAME;
    if (p->buffers[p->grad[y]].to < until) p->buffers[p->grad[y]].to = until;
}

/* Same-sized addends that take the sum's gradient in place. */
static void plan_sum(bb_tape_plan *p, uint32_t i)
{
    uint32_t y = bb_op_value(p->graph, i), now = bb_tape_moment_back(p, i), n = bb_tape_spreads(p, i) ? 1 : 2;
    const uint32_t *in = p->graph->ops[i].in;
    bool open[2] = {false, false};
    if (p->guard[y] > now) return;
    for (uint32_t k = 0; k < n; k++) open[k] = p->wants[in[k]] && p->grad[in[k]] == BB_NONE;
    if (open[0] && open[1]) {
        uint32_t change[2], consumed[2];
        for (uint32_t k = 0; k < 2; k++) {
            change[k] = next_change(p, i, in[k]);
            consumed[k] = bb_tape_consumed(p, in[k]);
        }
        if (in[0] != in[1] && change[0] > consumed[1] && change[1] > consumed[0]) {
            for (uint32_t k = 0; k < 2; k++) p->guard[in[k]] = consumed[1 - k];
        } else {
            open[1] = false;
        }
    }
    for (uint32_t k = 0; k < n; k++)
        if (open[k]) hand_on(p, i, k, y);
}

static void plan_targets(bb_tape_plan *p, uint32_t i)
{
    const bb_op *op = &p->graph->ops[i];
    bb_tape_node *node = &p->nodes[i];
    uint32_t now = bb_tape_moment_back(p, i);
    bool copies = op->kind == BB_OP_CONCAT || ((op->kind == BB_OP_CONV2D || op->kind == BB_OP_LINEAR) && !node->layer);
    size_t largest = 0;
    for (uint32_t k = 0; k < 4; k++) {
        if (!bb_tape_differentiable(op, k) || node->target[k] == BB_TARGET_SAME) continue;
        uint32_t v = bb_tape_in(p, i, k);
        if (!p->wants[v]) continue;
        node->target[k] = p->grad[v] == BB_NONE ? BB_TARGET_BEGIN : BB_TARGET_ADD;
        if (node->target[k] == BB_TARGET_BEGIN) begin(p, v, now);
        else if (copies && bb_shape_size(p->shapes[v]) > largest) largest = bb_shape_size(p->shapes[v]);
    }
    if (largest) node->dx = bb_tape_buffer_new(p, largest * sizeof(float), now, now);
}

void bb_tape_plan_gradients(bb_tape_plan *p)
{
    const bb_graph *g = p->graph;
    for (uint32_t v = g->n_inputs; v < g->n_values; v++)
        if (p->pinned[v] && p->wants[v]) begin(p, v, g->n_ops);
    for (uint32_t i = g->n_ops; i-- > 0;) {
        if (!p->nodes[i].backward) continue;
        if (g->ops[i].kind == BB_OP_ADD) plan_sum(p, i);
        plan_targets(p, i);
    }
}
