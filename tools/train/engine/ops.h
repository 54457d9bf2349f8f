/* Everything between the convolutions: a forward/backward pair per op, plain functions of arrays, vectorized and
 * threaded (OpenMP, static schedules: same thread count, same bits). Each instruction set compiles the same files
 * (the folder ops) into a table of its own; bb_ops_select takes the best that --cpu and the CPU allow.
 *
 * Values are f32 NHWC with `items` = n, `pixels` = h·w. Where an `out16` is given the result is also, or only (the f32
 * pointer NULL), written as bf16 (nearest even) for a following convolution. Backward functions ADD to the gradients of
 * their inputs unless they say that they write; gradients of parameters are always added to. NULL gradients are passed
 * over. Formulas: PyTorch's, which tests/train_norm.c and train_ops.c check by differences in double. */
#ifndef BB_TRAIN_ENGINE_OPS_H
#define BB_TRAIN_ENGINE_OPS_H

#include "base/compiler.h"
#include "graph/graph.h"

enum { BB_ACT_NONE, BB_ACT_SILU, BB_ACT_GELU, BB_ACT_MISH };

typedef struct bb_norm_args {
    uint32_t items, pixels, channels, groups;
    float eps;
    uint32_t act;                 /* done on the result in the same pass */
    const float *x, *scale, *shift; /* [items][pixels][channels], [channels] */
    float *mean, *rstd;           /* [items][groups]: written forward, read backward */
    float *y; uint16_t *y16;      /* either may be NULL */
    const float *dy;              /* backward from here on */
    float *dx, *dscale, *dshift;
    bool begin;                   /* dx is written, not added to: half the work */
    float *scratch;               /* bb_norm_scratch floats */
} bb_norm_args;

typedef struct bb_ops {
    const char *name; /* "avx512" */
    void (*norm_forward)(const bb_norm_args *a);   /* group norm, then act */
    void (*norm_backward)(const bb_norm_args *a);
    void (*act_forward)(uint32_t act, size_t n, const float *x, float *y, uint16_t *y16);
    void (*act_backward)(uint32_t act, size_t n, const float *x, const float *dy, float *dx);
    /* y = a + b; b has h = w = 1 and is spread over the pixels if spread. In place (y = a) is fine. */
    void (*add_forward)(uint32_t items, uint32_t pixels, uint32_t channels, bool spread, const float *a, const float *b,
                        float *y);
    void (*add_backward)(uint32_t items, uint32_t pixels, uint32_t channels, bool spread, const float *dy, float *da,
                         float *db);
    /* Channels first..first+count of a value with `channels`, from or into a dense one with `count`: concat, slice. */
    void (*copy_channels)(size_t rows, uint32_t channels, uint32_t first, uint32_t count, const float *x, float *y);
    void (*put_channels)(size_t rows, uint32_t channels, uint32_t first, uint32_t count, const float *x, float *y,
                         bool add);
    void (*upsample_forward)(uint32_t items, bb_shape in, bb_shape out, const float *x, float *y); /* nearest */
    void (*upsample_backward)(uint32_t items, bb_shape in, bb_shape out, const float *dy, float *dx);
    void (*pool_forward)(bb_shape in, uint32_t factor, const float *x, float *y);
    void (*pool_backward)(bb_shape in, uint32_t factor, const float *dy, float *dx);
    void (*softmax_forward)(size_t rows, uint32_t n, float *x);                       /* in place */
    void (*softmax_backward)(size_t rows, uint32_t n, const float *y, float *dy);     /* dy becomes dx */
    /* With probabilities in bf16. x is used up; dy, too, and dx is bf16. */
    void (*softmax_to_bf16)(size_t rows, uint32_t n, float *x, uint16_t *y16);
    void (*softmax_backward_bf16)(size_t rows, uint32_t n, const uint16_t *y16, float *dy, uint16_t *dx16);
    /* Of logits: Σ over rows of KL(softmax(teacher) ‖ softmax(student)), in nats. student becomes its gradient,
     * weight · (softmax(student) − softmax(teacher)); teacher what was of use on the way. */
    double (*softmax_kl)(size_t rows, uint32_t n, float *teacher, float *student, float weight);
    /* NULL: by products and softmax, as the tape does it. f32 only. */
    void (*attention_forward)(const bb_op *op, bb_shape query, bb_shape key, const float *q, const float *k,
                              const float *v, float *y);
    void (*modulate_forward)(uint32_t items, uint32_t pixels, uint32_t channels, const float *x, const float *scale,
                             const float *shift, float *y);
    void (*modulate_backward)(uint32_t items, uint32_t pixels, uint32_t channels, const float *x, const float *scale,
                              const float *dy, float *dx, float *dscale, float *dshift);
    void (*affine_forward)(size_t n, float mul, float add, const float *x, float *y);
    void (*affine_backward)(size_t n, float mul, const float *dy, float *dx);
    void (*timestep_forward)(uint32_t items, uint32_t half, bool cos_first, const float *t, const float *freq,
                             float *y);
    void (*embedding_forward)(uint32_t items, uint32_t columns, const float *row, const float *table, float *y);
    void (*embedding_backward)(uint32_t items, uint32_t columns, const float *row, const float *dy, float *dtable);
    void (*column_sums)(size_t rows, uint32_t n, const float *dy, float *db); /* bias gradient: db[j] += Σ_i dy[i][j] */
    /* The same and to_bf16 in one pass; db may be NULL. */
    void (*column_sums_to_bf16)(size_t rows, uint32_t n, const float *dy, float *db, uint16_t *dy16);
    void (*to_bf16)(size_t n, const float *x, uint16_t *y);
    void (*from_bf16)(size_t n, const uint16_t *x, float *y);
    void (*axpy)(size_t n, float a, const float *x, float *y);                        /* y += a·x */
    double (*dot)(size_t n, const float *a, const float *b);                          /* in f64 */
    /* AdamW: see optim.h. */
    void (*adamw)(size_t n, float *w, const float *g, float *m, float *v, float lr, float beta1, float beta2, float eps,
                  float decay, float correct1, float correct2, float clip);
    void (*ema)(size_t n, float decay, const float *w, float *ema);                   /* ema += (1 − decay)(w − ema) */
} bb_ops;

size_t bb_norm_scratch(const bb_norm_args *a);
/* cpu as for bb_dnn_open. threads: of all loops; sets OpenMP's. There is one table: a later call changes it. */
const bb_ops *bb_ops_select(uint32_t cpu, uint32_t threads);

#endif
