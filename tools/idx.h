/* Data sets in the IDX format of MNIST (http://yann.lecun.com/exdb/mnist: magic 0, 0, type 8, dimensions; big-endian
 * sizes; bytes), packed by gzip or not: grey pictures and their labels. */
#ifndef BB_TOOLS_IDX_H
#define BB_TOOLS_IDX_H

#include "io.h"

/* One file of unsigned bytes. */
typedef struct bb_idx {
    uint32_t dims, dim[4]; /* dim[0] is the number of items; the rest 1 */
    size_t size;           /* bytes: the product */
    uint8_t *data;         /* on the heap */
} bb_idx;

/* Errors name the path; a file that is longer or shorter than its header says is refused. Nothing to free then. */
bb_status bb_idx_read(bb_idx *x, const char *path, bb_error *err);
void bb_idx_free(bb_idx *x);

/* One part of a data set: as many pictures [n][height][width] as labels [n]. */
typedef struct bb_idx_set {
    bb_idx pictures, labels;
    uint32_t n, height, width, classes; /* classes: largest label + 1 */
} bb_idx_set;

/* From a folder: train-images-idx3-ubyte and train-labels-idx1-ubyte, or t10k-… for the test part, each with .gz behind
 * or not. */
bb_status bb_idx_open(bb_idx_set *s, const char *folder, bool test, bb_error *err);
void bb_idx_close(bb_idx_set *s);
BB_INLINE uint32_t bb_idx_label(const bb_idx_set *s, uint32_t i) { return s->labels.data[i]; }
/* Picture i in the middle of height × width bytes, 0 around it (28 × 28 in 32 × 32: two pixels on each side). False: it
 * is larger than that. */
bool bb_idx_picture(const bb_idx_set *s, uint32_t i, uint32_t height, uint32_t width, uint8_t *out);

#endif
