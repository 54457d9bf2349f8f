/* How far two sets of pictures are apart, in the features of a classifier: rows of d floats. None of this is "FID",
 * which means the features of one particular network. Sums over pictures take multiplicities, so that a bootstrap
 * resample costs no copies. */
#ifndef BB_TOOLS_EVAL_DISTANCE_H
#define BB_TOOLS_EVAL_DISTANCE_H

#include "base/par.h"

/* Squared Fréchet distance of two Gaussians, |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) (Dowson & Landau 1982; with features
 * Heusel et al. 2017). The trace of the root is that of (Σ₁^½ Σ₂ Σ₁^½)^½, which is symmetric. means [d], covariances
 * [d][d]; scratch: bb_frechet_scratch(d) doubles. */
double bb_frechet(uint32_t d, const double *mean1, const double *cov1, const double *mean2, const double *cov2,
                  double *scratch);
BB_INLINE size_t bb_frechet_scratch(uint32_t d) { return 4 * (size_t)d * d + d; }

/* Kernel matrix [n][m] of the kernel inception distance (Bińkowski et al. 2018): (x·y/d + 1)³. */
void bb_kernel(bb_par *par, const float *x, size_t n, const float *y, size_t m, uint32_t d, float *k);
/* Unbiased squared maximum mean discrepancy from xx [n][n], yy [m][m], xy [n][m]. wx [n], wy [m]: multiplicities, NULL:
 * all 1. Pairs of a picture with itself, or with its repetition, are left out. */
double bb_mmd(const float *xx, const float *yy, const float *xy, const uint32_t *wx, size_t n, const uint32_t *wy,
              size_t m);

/* Manifold of x by nearest neighbours (Kynkäänniemi et al. 2019): radius2[i] is the squared distance of row i to its
 * k-th nearest other row. k < n, k ≤ 8. */
void bb_radii(bb_par *par, const float *x, size_t n, uint32_t d, uint32_t k, float *radius2);
/* inside[j] = 1 if y[j] lies within the radius of any row of x. Its mean is precision for generated y and real x,
 * recall the other way round. */
void bb_inside(bb_par *par, const float *x, const float *radius2, size_t n, const float *y, size_t m, uint32_t d,
               uint8_t *inside);

#endif
