/* What the vector sets leave to serial code: the last block of channels, when it is not full. The scalar set does not
 * use it: the reference stands on its own. */
#ifndef BB_KERNELS_TAIL_H
#define BB_KERNELS_TAIL_H

#include "base/mathf.h"
#include "kernels/kernels.h"

/* Codes of the n < 8 channels left, then zeros up to 8. low = −z, high = levels − z. */
BB_INLINE void quantize_tail(uint8_t *code, const float *x, const float *m, size_t n, int32_t zero, float low,
                             float high)
{
    for (size_t c = 0; c < BB_K_BLOCK; c++) {
        if (c >= n) {
            code[c] = 0;
            continue;
        }
        float v = x[c] * m[c];
        v = v > low ? v : low;
        v = v < high ? v : high;
        code[c] = (uint8_t)((int32_t)bb_round_even(v) + zero);
    }
}

#endif
