/* The codes of a quantized layer's input, in the forms that its dot ways read. Private to core/run. */
#ifndef BB_RUN_CODES_H
#define BB_RUN_CODES_H

#include "run/conv.h"

/* Byte offsets inside an item's part of the codes scratch. A row is one pixel: bb_row_bytes(form, padded) bytes with
 * the segments one after the other, then int32 Σ of the codes of each segment. */
typedef struct bb_codes {
    uint32_t forms;             /* bits 1 << bb_rows; codes always */
    size_t m;                   /* scales [channels] f32 */
    size_t pad[BB_ROWS_FORMS];  /* the row of a pixel outside the picture: code z, a real zero */
    size_t rows[BB_ROWS_FORMS], stride[BB_ROWS_FORMS]; /* stride: multiple of 16 */
    size_t item;                /* bytes of an item */
} bb_codes;

bb_codes bb_codes_layout(const bb_quantizer *q, size_t pixels, uint32_t forms);

/* Fills the scratch from conv->x, unless it holds these codes in these forms already (q, k and v share an input). */
void bb_codes_make(const bb_conv *conv, const bb_layer *layer, const bb_codes *at);

/* The step table's row for an item: each may be at another timestep. */
uint32_t bb_codes_step(const bb_run *run, const bb_quantizer *q, uint32_t item);

/* Σ of a row's codes in segment g. */
BB_INLINE int32_t bb_codes_sum(const uint8_t *row, size_t row_bytes, uint32_t g)
{
    return ((const int32_t *)(const void *)(row + row_bytes))[g];
}

#endif
