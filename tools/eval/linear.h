/* Moments of feature vectors, and eigenvalues of symmetric matrices: what a Fréchet distance needs. All in double. */
#ifndef BB_TOOLS_EVAL_LINEAR_H
#define BB_TOOLS_EVAL_LINEAR_H

#include "base/compiler.h"

/* Mean [d] and covariance [d][d] (divided by Σ weight − 1) of x [n][d]. weight [n]: how often each row counts; NULL:
 * once. At least two must count. */
void bb_moments(const float *x, const uint32_t *weight, size_t n, uint32_t d, double *mean, double *cov);

/* Eigenvalues [n], in no order, of the symmetric a [n][n], which is destroyed: cyclic Jacobi rotations (Golub & Van
 * Loan, Matrix Computations, §8.5) until the off-diagonal part is below 1e-15 of the whole. vectors [n][n] or NULL: row
 * k is the unit vector of value k. */
void bb_eigen(double *a, uint32_t n, double *values, double *vectors);

/* The symmetric square root [n][n] of a positive semi-definite a [n][n], which is destroyed; eigenvalues below 0, which
 * rounding leaves, count as 0. scratch: n·n + n doubles. */
void bb_root(double *a, uint32_t n, double *root, double *scratch);

#endif
