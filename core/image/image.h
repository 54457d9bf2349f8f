/* From model space to pixels. */
#ifndef BB_IMAGE_IMAGE_H
#define BB_IMAGE_IMAGE_H

#include "base/status.h"

/* x [h][w][channels] in [−1, 1] (clamped; NaN → black) to RGBA, round half even of 127.5·x + 127.5.
 * channels 1 (grey) or ≥ 3 (first three are RGB). alpha 255. */
void bb_rgba(const float *x, uint32_t channels, bb_image *out);

#endif
