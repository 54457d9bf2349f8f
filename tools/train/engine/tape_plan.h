/* What a tape decides before it takes memory: which ops are done together, in which form values are stored, how long
 * each array lives, and where it lies. Private to tape*.c.
 *
 * Time: op i runs forwards at moment i and backwards at 2·n_ops − i; at moment n_ops, between the two, gradients of
 * outputs and kept values are filled in. An array occupies its memory from its first moment to its last; arrays that
 * never live together share it. */
#ifndef BB_TRAIN_ENGINE_TAPE_PLAN_H
#define BB_TRAIN_ENGINE_TAPE_PLAN_H

#include "train/engine/tape.h"

typedef struct bb_tape_buffer { size_t bytes, offset; uint32_t from, to; } bb_tape_buffer;

/* What an op's backward pass does with the gradient of an input. */
typedef enum bb_tape_target {
    BB_TARGET_NONE,  /* nobody needs it */
    BB_TARGET_BEGIN, /* it is begun here: nothing there yet */
    BB_TARGET_ADD,   /* something is there */
    BB_TARGET_SAME,  /* ADD only: it is the gradient of the sum, in the same memory: nothing to do */
} bb_tape_target;

/* An op. Arrays are numbers of buffers, or BB_NONE. */
typedef struct bb_tape_node {
    uint32_t x;          /* input 0; of an activation that is done with the norm before it, the norm's input */
    uint32_t norm;       /* of an activation: op of the norm that is done with it, or BB_NONE */
    bool skipped;        /* a norm that is done with its activation */
    bool layer;          /* replaced by opt->layers */
    bool bf16;           /* conv, linear, attention: operands are bf16 */
    bool backward;       /* runs backwards */
    bool trains[2];      /* weight k takes a gradient here */
    uint32_t target[4];  /* bb_tape_target of each input */
    uint32_t kept;       /* from forward to backward: norm's mean and rstd, attention's probabilities, a layer's own */
    uint32_t work[2];    /* scratch, forward and backward */
    uint32_t dy16, ds16; /* dy, and an attention's gradient of scores, as bf16 */
    uint32_t dx;         /* a gradient before it is added to what is there */
} bb_tape_node;

typedef struct bb_tape_plan {
    const bb_graph *graph;
    bb_shape *shapes;      /* [n_values] */
    bb_tape_node *nodes;   /* [n_ops] */
    bool *pinned;          /* [n_values]: outputs and opt->keep */
    bool *wants;           /* [n_values]: has a gradient */
    uint32_t *f32, *bf16, *grad; /* [n_values]: buffers of a value's two forms and of its gradient */
    uint32_t *guard;       /* [n_values]: until when the memory of its gradient must stay as it is for another value */
    bb_tape_buffer *buffers;
    uint32_t n_buffers;
    size_t bytes;          /* all buffers together */
} bb_tape_plan;

/* opt is read, not kept. bb_tape_plan_free works after failures, too. */
bb_status bb_tape_plan_make(bb_tape_plan *p, const bb_tape_options *opt, bb_error *err);
void bb_tape_plan_free(bb_tape_plan *p);

/* ---- the steps of bb_tape_plan_make ---- */
void bb_tape_plan_gradients(bb_tape_plan *p);              /* tape_gradients.c */
void bb_tape_plan_place(bb_tape_plan *p, uint32_t *order); /* tape_memory.c; order: [n_buffers] scratch */
uint32_t bb_tape_buffer_new(bb_tape_plan *p, size_t bytes, uint32_t from, uint32_t to);

/* Inputs that carry numbers into the result, and those that pass a gradient on. (Timesteps and row numbers do not;
 * input 1 of an upsampling only says how large.) */
uint32_t bb_tape_inputs(const bb_op *op);
bool bb_tape_differentiable(const bb_op *op, uint32_t k);
/* Ops that write their result as bf16 themselves, so that its f32 need not exist. */
bool bb_tape_writes_bf16(uint32_t kind);
/* ADD: input 1 is spread over the pixels. */
bool bb_tape_spreads(const bb_tape_plan *p, uint32_t op);

BB_INLINE uint32_t bb_tape_moment_back(const bb_tape_plan *p, uint32_t op) { return 2 * p->graph->n_ops - op; }
BB_INLINE uint32_t bb_tape_moment_end(const bb_tape_plan *p) { return 2 * p->graph->n_ops + 1; }
BB_INLINE uint32_t bb_tape_in(const bb_tape_plan *p, uint32_t op, uint32_t k)
{
    return k ? p->graph->ops[op].in[k] : p->nodes[op].x;
}
/* Moment at which the gradient of v is read for the last time. v is made by an op. */
BB_INLINE uint32_t bb_tape_consumed(const bb_tape_plan *p, uint32_t v)
{
    return bb_tape_moment_back(p, v - p->graph->n_inputs);
}

#endif
