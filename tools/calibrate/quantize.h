/* An unquantized model and its calibration → a packed low-bit model. */
#ifndef BB_TOOLS_CALIBRATE_QUANTIZE_H
#define BB_TOOLS_CALIBRATE_QUANTIZE_H

#include "calibrate/calibrate.h"
#include "quant/quant.h"

/* Which layers get the asked bits. All others are 8/8. */
typedef enum bb_layer_choice {
    BB_LAYERS_DEFAULT, /* 8/8: first and last convolution, time embedding, 1×1 shortcuts */
    BB_LAYERS_ALL_LOW, /* 8/8: first and last convolution, time embedding */
} bb_layer_choice;

typedef struct bb_quantize_options {
    uint32_t wbits, abits;  /* weights 1..8, activations 4..8 */
    bb_layer_choice layers;
    bb_range range;         /* of weights and activations */
    const char *command;    /* stored in the metadata */
    uint64_t seed;
    bb_par *par;
    bool quiet;
} bb_quantize_options;

/* out: malloc'd file bytes. */
bb_status bb_quantize(const bb_model *m, const bb_calibration *cal, const bb_quantize_options *opt, uint8_t **out,
                      size_t *out_size, bb_error *err);

#endif
