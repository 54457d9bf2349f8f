/* The loops of the student over weights and activations, compiled once for each instruction set. Nothing here sums over
 * a vector's lanes and nothing is contracted, so all sets give the same bits. A work item is a block of pixels or of
 * weight rows; the callers share blocks out among threads. Private to this folder. */
#ifndef BB_TRAIN_STUDENT_LOOPS_H
#define BB_TRAIN_STUDENT_LOOPS_H

#include "base/compiler.h"

/* Weights of `rows` positions k by n outputs → their nearest levels. Ties go to the lower level, as in bb_row_code. */
typedef struct bb_levels_args {
    const float *w;           /* [rows][n] */
    size_t rows, n;
    const float *delta;       /* [n] */
    const float *low, *high;  /* [n] lowest and highest level; between them every integer is one if bounds is 0 */
    size_t bounds;            /* else steps between levels: */
    const float *bound, *gap; /* [bounds][n] half-way points in ascending order (+inf: no more), what lies across */
    float *level; int8_t *code; /* [rows][n] both */
} bb_levels_args;

#define BB_OUTSIDE (-128)     /* residual of an input that was clamped */
#define BB_RESIDUAL 254.0f    /* residuals are kept in steps of 1/254: a − z − x/δ is −½ … ½ */

/* One segment of a block of pixels: a = clamp(round(x·m)) + z as core/FORMAT.md §6 has it. */
typedef struct bb_codes_args {
    const float *x; size_t x_stride; /* [pixels] rows of `channels` */
    size_t pixels, channels;
    const float *m;                  /* [channels] f32(inv_s/δ) */
    uint32_t zero, levels;           /* z; 2^A − 1 */
    uint8_t *code; int8_t *residual; size_t stride; /* rows of what is kept; code NULL: only the operand is wanted */
    void *operand; size_t operand_stride; bool bf16; /* a − z, f32 or bf16 */
} bb_codes_args;

/* Kept codes → (a − z)·scale: the operand of the weight gradient, or with scale 1 the forward one. */
typedef struct bb_operand_args {
    const uint8_t *code; size_t stride;
    size_t pixels, channels;
    uint32_t zero;
    float scale;
    void *operand; size_t operand_stride; bool bf16;
} bb_operand_args;

/* y = y·(δ·Δ), or y + more·(δ·Δ); then + bias. */
typedef struct bb_scale_args {
    float *y; const float *more;     /* [pixels][n]; more NULL: y are the sums */
    size_t pixels, n;
    float step;                      /* δ */
    const float *delta, *bias;       /* [n]; bias NULL: not now */
} bb_scale_args;

/* dy·Δ as the operand of both gradients. */
typedef struct bb_output_grad_args {
    const float *dy, *delta;         /* [pixels][n], [n] */
    size_t pixels, n;
    void *operand; bool bf16;
} bb_output_grad_args;

/* One segment of a block of pixels: what the gradient of the dequantized input says to x, δ and z. */
typedef struct bb_input_grad_args {
    const float *g;                  /* rows of ∂L/∂x̂ */
    const uint8_t *code; const int8_t *residual;
    size_t stride;                   /* of g, code, residual and dx: the layer's channels */
    size_t pixels, channels;
    uint32_t zero;
    const float *inv_s;              /* [channels], or NULL: 1 */
    float *dx;                       /* added to; may be NULL */
    float *step, *outside;           /* [channels], written: Σ g·∂x̂/∂δ, Σ g outside the range */
} bb_input_grad_args;

/* Rows of weights: masked by the range of levels, and the sums for Δ. */
typedef struct bb_weight_grad_args {
    const float *g, *w;              /* [rows][n]: Δ·∂L/∂ŵ, latent weights */
    const int8_t *code;              /* levels */
    size_t rows, n;
    const float *delta, *low, *high; /* [n] */
    float *dw; bool add;             /* [rows][n]; NULL: weights are not trained */
    float *scale;                    /* [n], written: Σ g·level = Δ·∂L/∂Δ */
} bb_weight_grad_args;

typedef struct bb_student_loops {
    void (*levels)(const bb_levels_args *a);
    void (*codes)(const bb_codes_args *a);
    void (*operand)(const bb_operand_args *a);
    void (*scale)(const bb_scale_args *a);
    void (*output_grad)(const bb_output_grad_args *a);
    void (*input_grad)(const bb_input_grad_args *a);
    void (*weight_grad)(const bb_weight_grad_args *a);
    /* y = ((x − mean)·rstd)·scale + shift by channels */
    void (*norm)(size_t pixels, size_t channels, const float *x, const float *mean, const float *rstd,
                 const float *scale, const float *shift, float *y);
    /* y[n] += Σ_i x[i·step]·row[i][n], i ascending */
    void (*combine)(size_t count, size_t n, const float *x, size_t step, const float *row, float *y);
} bb_student_loops;

extern const bb_student_loops bb_student_loops_base;
#if defined(__x86_64__)
extern const bb_student_loops bb_student_loops_avx2, bb_student_loops_avx512;
#define BB_STUDENT_X86 1
#endif

#endif
