/* The student's parts. Private to this folder, and to the tests that look inside. */
#ifndef BB_TRAIN_STUDENT_LAYER_H
#define BB_TRAIN_STUDENT_LAYER_H

#include "kernels/kernels.h"
#include "make/blocks.h"
#include "quant/quant.h"
#include "train/student/loops.h"
#include "train/student/student.h"

/* An activation quantizer while it is trained. δ lies in w as a factor of what it was at the start, so that the same
 * rate suits all of them; z as a float. */
typedef struct bb_student_steps {
    const bb_quantizer *from;
    uint32_t entries;        /* rows·segments of its table */
    size_t step_at, zero_at; /* in w: [entries] each */
    float *delta;            /* [entries] δ now */
    uint8_t *zero;           /* [entries] z now */
    float *m;                /* [rows][channels] f32(inv_s/δ) */
} bb_student_steps;

/* A quantized conv or linear weight while it is trained, in the order of our files: position k = (ky, kx, in) by output
 * n. Weights are in the smoothed scale: W·s, s of the input channel. */
typedef struct bb_student_matrix {
    const bb_layer *from;
    uint32_t slot, n, k, rank;
    size_t at, b_at;         /* in w: latent weights [k][n]; or A [k][rank], and B [rank][n] */
    size_t scale_at;         /* in w: [n] Δ as a factor of the start's */
    uint32_t *row;           /* [n] packed row of each output */
    bb_row_grid *grid;       /* [n] of the start */
    float *delta;            /* [n] Δ now */
    float *low, *high;       /* [n] lowest and highest level */
    uint32_t bounds;         /* as in bb_levels_args */
    float *bound, *gap;
    float *base;             /* [k][n] what A·B is added to, or all that there is of weights that are not trained */
    float *latent;           /* [k][n] what becomes levels: base + A·B, base, or NULL: in w */
    int8_t *code, *start;    /* [k][n] levels now, and in the packed model */
    float mean_gap;          /* between levels, times Δ at the start */
    float pace;              /* of the rates of A and B, so that A·B moves as fast from every start; else 1 */
} bb_student_matrix;

/* An op of the graph with a quantized weight, at a tape's sizes. */
typedef struct bb_student_op {
    bb_student *s;
    uint32_t op, matrix;     /* matrix: BB_NONE: the graph's first convolution, of floats */
    uint32_t leader;         /* the first op that reads this value by this quantizer: it makes and keeps the codes */
    uint32_t items, pixels, out_pixels; /* pixels: of an item */
    bb_conv *forward[BB_MAX_SEGMENTS];  /* one a segment */
    bb_conv *backward;       /* of all channels; forward[0] if there is one segment */
    uint8_t *code; int8_t *residual;    /* [items][pixels][channels], of the last forward of the leader */
} bb_student_op;

struct bb_student {
    bb_blocks blocks, bound; /* for life; since bb_student_bind */
    bb_student_options opt;
    const bb_pack *pack;
    bb_student_steps *steps;     /* [pack->n_quantizers] */
    bb_student_matrix *matrices; /* [pack->n_layers] */
    bb_params params;        /* of what is not quantized: its w and g are the beginning of these */
    size_t n;
    float *w, *g;
    /* since bb_student_bind */
    bb_dnn *dnn;
    const bb_ops *ops;
    bb_ops exact;            /* the same with core's forward passes */
    const bb_student_loops *loops;
    bool bf16;
    bb_student_op *at_op;    /* [n_ops]; s NULL: not quantized */
    bb_tape_layer *layers;   /* [n_ops] */
    uint32_t filled;         /* the leading op whose codes `operand` holds; BB_NONE */
    void *operand, *dy;      /* operands: an input by segments, an output's gradient */
    float *sums, *dx;        /* sums of a further segment; ∂L/∂x̂ */
    float *level, *dw;       /* [k][n] levels as floats, ∂L/∂ŵ */
    float *block_sums;       /* of blocks: for Δ, or for δ and z */
    float *turned;           /* Bᵀ of the largest matrix */
};

#define BB_STUDENT_BLOCK 64u /* pixels, or rows of weights, of a work item: never depends on the threads */

/* Where a packed row's bits begin (core/FORMAT.md §7): bytes of all earlier classes, its number within its class, and
 * where its first multiplier is; that of the next plane is BB_TILE further. */
typedef struct bb_student_place { uint32_t planes, row; size_t plane_at, multiplier_at; } bb_student_place;
bb_student_place bb_student_place_of(const bb_layer *l, uint32_t row);

/* matrix.c: everything about weights. */
bb_status bb_student_matrix_new(bb_student *s, bb_student_matrix *m, const bb_layer *layer, bb_error *err);
bb_status bb_student_matrix_start(bb_student *s, bb_student_matrix *m, bb_error *err); /* once w is there */
void bb_student_matrix_changed(bb_student *s, bb_student_matrix *m); /* w → Δ, levels; level: also as floats */
const float *bb_student_latent(const bb_student *s, const bb_student_matrix *m);
/* Levels of the output n with its present Δ. */
bb_row_grid bb_student_grid(const bb_student_matrix *m, uint32_t n);

/* factors.c: low rank. */
/* smoothed: [k][n] the teacher's weights; becomes scratch. */
bb_status bb_student_factors_start(bb_student *s, bb_student_matrix *m, float *smoothed, bb_error *err);
void bb_student_factors_add(const bb_student *s, bb_student_matrix *m);  /* latent = base + A·B */
void bb_student_factors_grad(bb_student *s, bb_student_matrix *m, const float *dw);

/* student.c */
size_t bb_student_float_row(const bb_student *s, uint32_t slot); /* floats of a row that is not quantized: what the
                                                                    file pads */
double bb_student_mean_square(const float *x, size_t n);

/* bind.c */
void bb_student_unbind(bb_student *s);
void bb_student_pack(bb_student *s, uint32_t matrix); /* s->level into the convolutions of a matrix, if bound */

/* exact.c: ops whose forward passes are core's kernels; and the convolution of the graph's input likewise. */
#define BB_STUDENT_HEAD 256u /* channels of an attention head at most; else the trainer's own attention */
void bb_student_exact(bb_ops *out, const bb_ops *ops, const bb_student_loops *loops, const bb_graph *g,
                      const bb_shape *shapes);
void bb_student_float_forward(void *self, const bb_layer_pass *pass);
void bb_student_float_backward(void *self, const bb_layer_pass *pass);

/* op.c: forward and backward of a layer. */
void bb_student_op_forward(void *self, const bb_layer_pass *pass);
void bb_student_op_backward(void *self, const bb_layer_pass *pass);

#endif
