/* What the float and the quantized convolution share: geometry, work items, and one pointer per output pixel and
 * kernel tap instead of an im2col copy. A linear layer is a 1×1 convolution; a 1×1 convolution without stride sees
 * an item as one long row. Private to core/run. */
#ifndef BB_RUN_CONV_H
#define BB_RUN_CONV_H

#include "run/fuse.h"

typedef struct bb_conv {
    bb_run *run;
    const bb_op *op;
    bb_fusion fusion;
    const float *x, *bias;   /* bias [n] or NULL */
    const float *add;        /* the fused sum's addend, or NULL: */
    size_t add_item, add_pixel; /* floats between its items and pixels; a pixel's are 0 where one serves them all */
    float *y;
    uint32_t items, ih, iw, oh, ow; /* after flattening */
    uint32_t c, n;           /* input channels, outputs */
    uint32_t taps, kw, stride, top, left;
    uint32_t runs;           /* of BB_TILE_PIXELS output pixels, in row order, in one item; the last may be short */
} bb_conv;

void bb_conv_setup(bb_conv *conv, bb_run *run, uint32_t op);

/* Into how many parts to cut the items·runs runs when `columns` other work items multiply them: enough that threads
 * finish together, and no more, as panels are made once a part. */
uint32_t bb_conv_parts(const bb_conv *conv, uint32_t columns);

/* The runs first..end−1, counted over all items, of part number `part`. */
void bb_conv_part(const bb_conv *conv, uint32_t part, uint32_t parts, uint32_t *first, uint32_t *end);

/* rows[tap][BB_TILE_PIXELS] for a run number within an item: pixel_bytes apart in the item at `base`; `pad` where the
 * tap falls outside the picture or the run is short. Returns the run's pixels. */
uint32_t bb_conv_gather(const bb_conv *conv, const void **rows, const uint8_t *base, size_t pixel_bytes,
                        const void *pad, uint32_t run);

/* Bytes of that pointer array. */
BB_INLINE size_t bb_conv_row_bytes(uint32_t taps)
{
    return bb_align_up((size_t)taps * BB_TILE_PIXELS * sizeof(void *), BB_ALIGNMENT);
}

void bb_conv_f32(bb_run *run, uint32_t op);
void bb_conv_quantized(bb_run *run, uint32_t op, const bb_layer *layer);

/* The dot way of a layer's width class number `which`, and the shape (of its first segment) that it was chosen for. */
const bb_dot *bb_conv_quantized_way(const bb_kernels *kernels, const bb_op *op, const bb_layer *layer, uint32_t which,
                                    bb_dot_shape *shape);

/* Scratch that the two need, for the plan. */
size_t bb_conv_f32_thread_bytes(const bb_weight *w, uint32_t taps, uint32_t c);
size_t bb_conv_quantized_thread_bytes(const bb_kernels *kernels, const bb_op *op, const bb_layer *layer);
size_t bb_conv_quantized_codes_bytes(const bb_kernels *kernels, const bb_op *op, const bb_layer *layer, bb_shape x);

#endif
