/* oneDNN, which dnn*.c and dnn_api.h alone know: convolutions and matrix products, forward and backward, in f32 or with
 * bf16 operands and f32 sums. bf16 is used where the CPU multiplies it (AVX512_BF16, AMX); elsewhere bb_dnn_bf16 is
 * false and the callers stay in f32.
 *
 * Primitives are made once for a shape and kept. Weights lie in the layout of our files, conv [kh][kw][in][out], linear
 * [in][out]; values are NHWC. A convolution keeps its own repacked copy of the weights: bb_conv_weights renews it. The
 * same shape and thread count give the same bits in every run. All pointers are aligned to 64 bytes.
 *
 * One thread at a time uses a bb_dnn and what was made from it, since all share scratch and divide the work themselves;
 * only bb_conv_weights may run for several convolutions at once, in an OpenMP loop. */
#ifndef BB_TRAIN_ENGINE_DNN_H
#define BB_TRAIN_ENGINE_DNN_H

#include "base/status.h"
#include "graph/graph.h"

typedef struct bb_dnn bb_dnn;

/* cpu: 0 all that the CPU has, 1 no vectors beyond the baseline, 2 AVX2, 3 AVX-512 (the choice number of --cpu). Must
 * come before any other use of oneDNN in the process. bf16 is had with cpu 0 and 3 only. */
bb_status bb_dnn_open(bb_dnn **out, uint32_t threads, uint32_t cpu, bb_error *err);
void bb_dnn_close(bb_dnn *d);
bool bb_dnn_bf16(const bb_dnn *d);
const char *bb_dnn_name(const bb_dnn *d); /* "oneDNN 2.6.3, avx512_core_bf16" */

enum { BB_DNN_FORWARD = 1, BB_DNN_DATA = 2, BB_DNN_WEIGHTS = 4 }; /* which directions will be asked for */

/* A linear layer is a convolution with kh = kw = h = 1 and w = rows. */
typedef struct bb_conv_shape {
    uint32_t n, h, w, c;              /* input, NHWC */
    uint32_t out, kh, kw, stride, top, left, bottom, right;
} bb_conv_shape;

typedef struct bb_conv bb_conv; /* primitives, repacked weights and scratch of one layer */
/* bf16: x and dy are uint16_t bf16; else f32. y, dx, dw are always f32. */
bb_status bb_conv_new(bb_conv **out, bb_dnn *d, const bb_conv_shape *shape, bool bf16, uint32_t directions,
                      bb_error *err);
void bb_conv_free(bb_conv *c);
size_t bb_conv_bytes(const bb_conv *c); /* memory that it holds */
void bb_conv_weights(bb_conv *c, const float *w); /* [kh][kw][in][out] f32, rounded to bf16 if so */
void bb_conv_forward(bb_conv *c, const void *x, const float *bias /* [out] or NULL */, float *y);
void bb_conv_data(bb_conv *c, const void *dy, float *dx);           /* dx is overwritten */
/* dw [kh][kw][in][out] is overwritten, or added to. */
void bb_conv_grad(bb_conv *c, const void *x, const void *dy, float *dw, bool add);
/* Both at once, which is faster; dx or dw may be NULL. */
void bb_conv_backward(bb_conv *c, const void *x, const void *dy, float *dx, float *dw, bool add);

/* C = alpha · A · B (+ C if add) for outer × batch triples, such as items × heads. Element (i, j) of a matrix is
 * at [o·outer + b·batch + i·row + j·column]; row or column is 1. A is m × k, B k × n, C m × n. C is f32, A and B are f32 or both bf16. */
typedef struct bb_matrix { size_t outer, batch, row, column; } bb_matrix; /* strides, elements */
typedef struct bb_matmul_shape {
    uint32_t outer, batch, m, n, k;
    bb_matrix a, b, c;
    float alpha;
    bool add, bf16;
} bb_matmul_shape;
typedef struct bb_matmul bb_matmul;
bb_status bb_matmul_new(bb_matmul **out, bb_dnn *d, const bb_matmul_shape *shape, bb_error *err);
void bb_matmul_free(bb_matmul *m);
void bb_matmul_run(bb_matmul *m, const void *a, const void *b, float *c);

#endif
