/* The tape in memory and the forward/backward pairs of its ops. Private to tape*.c. */
#ifndef BB_TRAIN_ENGINE_TAPE_OPS_H
#define BB_TRAIN_ENGINE_TAPE_OPS_H

#include "train/engine/tape_plan.h"

/* Products of an attention: scores, result; gradients of probabilities, query, key, value. */
enum { BB_PRODUCT_SCORES, BB_PRODUCT_RESULT, BB_PRODUCT_DP, BB_PRODUCT_DQ, BB_PRODUCT_DK, BB_PRODUCT_DV, BB_PRODUCTS };

typedef struct bb_tape_products {
    bb_conv *conv;                     /* CONV2D, LINEAR that are not replaced */
    bb_matmul *matmul[BB_PRODUCTS];    /* ATTENTION */
} bb_tape_products;

struct bb_tape {
    bb_tape_options opt;
    bb_tape_plan plan;
    bb_tape_products *products;        /* [n_ops] */
    uint8_t *memory;                   /* [plan.bytes] */
    const float *timestep;             /* [items] or NULL */
    double seconds[2][BB_TAPE_KINDS];  /* forward, backward */
};

typedef void (*bb_tape_fn)(bb_tape *t, uint32_t op);
typedef struct bb_tape_pair { bb_tape_fn forward, backward; } bb_tape_pair; /* backward NULL: passes nothing on */
extern const bb_tape_pair bb_tape_pairs[BB_TAPE_KINDS];                     /* by bb_op_kind */
void bb_tape_attention_forward(bb_tape *t, uint32_t op);                     /* tape_attention.c */
void bb_tape_attention_backward(bb_tape *t, uint32_t op);

/* Makes the primitives of op i; what was made before a failure is freed with the rest. */
bb_status bb_tape_products_new(bb_tape_products *products, const bb_tape_options *opt, const bb_tape_plan *p,
                               uint32_t i, bb_error *err);
bb_status bb_tape_attention_new(bb_tape_products *products, const bb_tape_options *opt, const bb_tape_plan *p,
                                uint32_t i, bb_error *err);
size_t bb_tape_products_bytes(const bb_tape_products *products, const bb_tape_node *node);
void bb_tape_products_free(bb_tape_products *products);

/* ---- what all ops use ---- */

BB_INLINE void *bb_tape_at(const bb_tape *t, uint32_t buffer)
{
    return buffer == BB_NONE ? NULL : t->memory + t->plan.buffers[buffer].offset;
}
BB_INLINE const float *bb_tape_x(const bb_tape *t, uint32_t op, uint32_t k)
{
    return bb_tape_at(t, t->plan.f32[bb_tape_in(&t->plan, op, k)]);
}
/* Input k as an operand of products: bf16 where the op takes that. */
BB_INLINE const void *bb_tape_operand(const bb_tape *t, uint32_t op, uint32_t k)
{
    const uint32_t *buffers = t->plan.nodes[op].bf16 ? t->plan.bf16 : t->plan.f32;
    return bb_tape_at(t, buffers[bb_tape_in(&t->plan, op, k)]);
}
BB_INLINE float *bb_tape_y(const bb_tape *t, uint32_t op)
{
    return bb_tape_at(t, t->plan.f32[bb_op_value(t->plan.graph, op)]);
}
BB_INLINE const float *bb_tape_dy(const bb_tape *t, uint32_t op)
{
    return bb_tape_at(t, t->plan.grad[bb_op_value(t->plan.graph, op)]);
}
BB_INLINE bb_shape bb_tape_in_shape(const bb_tape *t, uint32_t op, uint32_t k)
{
    return t->plan.shapes[bb_tape_in(&t->plan, op, k)];
}
BB_INLINE bb_shape bb_tape_out_shape(const bb_tape *t, uint32_t op)
{
    return t->plan.shapes[bb_op_value(t->plan.graph, op)];
}
/* Gradient of input k, as it is; NULL if nobody needs it. */
BB_INLINE float *bb_tape_dx(const bb_tape *t, uint32_t op, uint32_t k)
{
    uint32_t target = t->plan.nodes[op].target[k];
    return target == BB_TARGET_NONE ? NULL : bb_tape_at(t, t->plan.grad[bb_tape_in(&t->plan, op, k)]);
}
void bb_tape_clear(float *x, size_t n);
/* The same, set to 0 where it is begun: to be added to. */
float *bb_tape_dx_sum(const bb_tape *t, uint32_t op, uint32_t k);

#endif
