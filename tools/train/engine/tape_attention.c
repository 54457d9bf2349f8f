/* Attention by products over items and heads: P = softmax(scale·Q·Kᵀ), Y = P·V. The probabilities are kept for the way
 * back:
 *     dP = dY·Vᵀ    dS = softmax'(P, dP)    dQ = scale·dS·K    dK = scale·dSᵀ·Q    dV = Pᵀ·dY
 * With operands in bf16 these are Q, K, V, P, dY and dS. */
#include "train/engine/tape_ops.h"

static bb_matrix turned(bb_matrix m)
{
    return (bb_matrix){.outer = m.outer, .batch = m.batch, .row = m.column, .column = m.row};
}

bb_status bb_tape_attention_new(bb_tape_products *products, const bb_tape_options *opt, const bb_tape_plan *p,
                                uint32_t i, bb_error *err)
{
    const bb_op *op = &p->graph->ops[i];
    const uint32_t *target = p->nodes[i].target;
    bb_shape query = p->shapes[op->in[0]], key = p->shapes[op->in[1]];
    uint32_t n = query.n, heads = op->attention.heads, d = query.c / heads;
    uint32_t lq = query.h * query.w, lk = key.h * key.w;
    size_t c = query.c, scores = (size_t)lq * lk;
    const float scale = op->attention.scale;
    const bool bf16 = p->nodes[i].bf16;
    bb_matrix q = {lq * c, d, c, 1}, k = {lk * c, d, c, 1}, p_of = {heads * scores, scores, lk, 1};
    const bb_matmul_shape shape[BB_PRODUCTS] = {
        [BB_PRODUCT_SCORES] = {n, heads, lq, lk, d, q, turned(k), p_of, scale, false, bf16},
        [BB_PRODUCT_RESULT] = {n, heads, lq, d, lk, p_of, k, q, 1, false, bf16},
        [BB_PRODUCT_DP] = {n, heads, lq, lk, d, q, turned(k), p_of, 1, false, bf16},
        [BB_PRODUCT_DQ] = {n, heads, lq, d, lk, p_of, k, q, scale, target[0] == BB_TARGET_ADD, bf16},
        [BB_PRODUCT_DK] = {n, heads, lk, d, lq, turned(p_of), q, k, scale, target[1] == BB_TARGET_ADD, bf16},
        [BB_PRODUCT_DV] = {n, heads, lk, d, lq, turned(p_of), q, k, 1, target[2] == BB_TARGET_ADD, bf16},
    };
    const bool wanted[BB_PRODUCTS] = {
        [BB_PRODUCT_SCORES] = true, [BB_PRODUCT_RESULT] = true, [BB_PRODUCT_DP] = target[0] || target[1],
        [BB_PRODUCT_DQ] = target[0], [BB_PRODUCT_DK] = target[1], [BB_PRODUCT_DV] = target[2],
    };
    for (uint32_t m = 0; m < BB_PRODUCTS; m++)
        if (wanted[m]) BB_TRY(bb_matmul_new(&products->matmul[m], opt->dnn, &shape[m], err));
    return BB_OK;
}

/* Rows of the score matrices of all items and heads. */
static size_t score_rows(const bb_tape *t, uint32_t i)
{
    bb_shape q = bb_tape_in_shape(t, i, 0);
    return (size_t)q.n * q.h * q.w * t->plan.graph->ops[i].attention.heads;
}

static uint32_t keys_of(const bb_tape *t, uint32_t i)
{
    bb_shape k = bb_tape_in_shape(t, i, 1);
    return k.h * k.w;
}

void bb_tape_attention_forward(bb_tape *t, uint32_t i)
{
    const bb_tape_node *node = &t->plan.nodes[i];
    bb_matmul *const *m = t->products[i].matmul;
    void *p = bb_tape_at(t, node->kept);
    float *scores = node->bf16 ? bb_tape_at(t, node->work[0]) : p;
    bb_matmul_run(m[BB_PRODUCT_SCORES], bb_tape_operand(t, i, 0), bb_tape_operand(t, i, 1), scores);
    if (node->bf16) t->opt.ops->softmax_to_bf16(score_rows(t, i), keys_of(t, i), scores, p);
    else t->opt.ops->softmax_forward(score_rows(t, i), keys_of(t, i), p);
    if (!node->bf16 && t->opt.ops->attention_forward) {
        t->opt.ops->attention_forward(&t->plan.graph->ops[i], bb_tape_in_shape(t, i, 0), bb_tape_in_shape(t, i, 1),
                                      bb_tape_operand(t, i, 0), bb_tape_operand(t, i, 1), bb_tape_operand(t, i, 2),
                                      bb_tape_y(t, i));
        return;
    }
    bb_matmul_run(m[BB_PRODUCT_RESULT], p, bb_tape_operand(t, i, 2), bb_tape_y(t, i));
}

/* dS, as an operand. */
static const void *score_gradient(bb_tape *t, uint32_t i, const void *dy)
{
    const bb_tape_node *node = &t->plan.nodes[i];
    const void *p = bb_tape_at(t, node->kept);
    float *dp = bb_tape_at(t, node->work[1]);
    uint16_t *ds16 = bb_tape_at(t, node->ds16);
    bb_matmul_run(t->products[i].matmul[BB_PRODUCT_DP], dy, bb_tape_operand(t, i, 2), dp);
    if (node->bf16) t->opt.ops->softmax_backward_bf16(score_rows(t, i), keys_of(t, i), p, dp, ds16);
    else t->opt.ops->softmax_backward(score_rows(t, i), keys_of(t, i), p, dp);
    return node->bf16 ? (const void *)ds16 : dp;
}

void bb_tape_attention_backward(bb_tape *t, uint32_t i)
{
    const bb_tape_node *node = &t->plan.nodes[i];
    bb_matmul *const *m = t->products[i].matmul;
    float *dq = bb_tape_dx(t, i, 0), *dk = bb_tape_dx(t, i, 1), *dv = bb_tape_dx(t, i, 2);
    const void *dy = bb_tape_dy(t, i);
    if (node->bf16) {
        uint16_t *dy16 = bb_tape_at(t, node->dy16);
        t->opt.ops->to_bf16(bb_shape_size(bb_tape_out_shape(t, i)), dy, dy16);
        dy = dy16;
    }
    const void *ds = dq || dk ? score_gradient(t, i, dy) : NULL;
    /* In the order of the inputs: where they are the same value, the first begins its gradient. */
    if (dq) bb_matmul_run(m[BB_PRODUCT_DQ], ds, bb_tape_operand(t, i, 1), dq);
    if (dk) bb_matmul_run(m[BB_PRODUCT_DK], ds, bb_tape_operand(t, i, 0), dk);
    if (dv) bb_matmul_run(m[BB_PRODUCT_DV], bb_tape_at(t, node->kept), dy, dv);
}
