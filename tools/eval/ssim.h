/* Structural similarity (Wang, Bovik, Sheikh & Simoncelli 2004) of 8-bit pictures. */
#ifndef BB_TOOLS_EVAL_SSIM_H
#define BB_TOOLS_EVAL_SSIM_H

#include "base/compiler.h"

/* Mean over all places where an 11 × 11 Gaussian window (σ 1.5, sum 1) lies inside the picture, and over channels;
 * K₁ .01, K₂ .03, L 255, variances divided by N as there. a, b: [height][width][channels]. In pictures smaller than
 * that the window is cut to an odd size that fits. */
double bb_ssim(const uint8_t *a, const uint8_t *b, uint32_t height, uint32_t width, uint32_t channels);

#endif
