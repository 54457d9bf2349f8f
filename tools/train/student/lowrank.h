/* The best approximation of a matrix by one of low rank: singular value decomposition, cut off (Eckart and Young 1936),
 * for starting low-rank factors from a quantization error (mpq-dm §4.2). */
#ifndef BB_TRAIN_STUDENT_LOWRANK_H
#define BB_TRAIN_STUDENT_LOWRANK_H

#include "base/status.h"

/* e[k][n] ≈ a[k][r]·b[r][n] with the r largest singular values σ; r ≤ k, n. The factors are balanced: aᵀ·a = b·bᵀ =
 * diag(σ_1 … σ_r). sigma: [min(k, n)], all σ in falling order; or NULL. BB_ERR_SPACE. */
bb_status bb_low_rank(const float *e, uint32_t k, uint32_t n, uint32_t r, float *a, float *b, double *sigma,
                      bb_error *err);

#endif
