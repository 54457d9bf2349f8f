/* Pictures with classes, in memory as bytes, for training and evaluation:
 *     IDX files (MNIST, Fashion-MNIST): a folder, see idx.h
 *     PNG files: a CSV file, or a folder with labels.csv, of lines "file,label"; paths are relative to the CSV file, a
 *         first line "file,label" is a heading. Labels are class numbers, or else names, numbered in ASCII order.
 * All files are untrusted: errors name file and line, and memory is bounded by what the files hold. */
#ifndef BB_TRAIN_TEACH_DATA_H
#define BB_TRAIN_TEACH_DATA_H

#include "base/status.h"

#define BB_DATA_MAX_CLASSES 4096u

typedef struct bb_data {
    uint32_t count, width, height, channels; /* channels: 1 grey, 3 RGB */
    uint32_t classes;   /* 1 + the highest class number */
    uint8_t *pixels;    /* [count][height][width][channels] */
    uint16_t *label;    /* [count] */
    char **names;       /* [classes], sorted; NULL where labels are numbers */
} bb_data;

/* test: the held-out part t10k-… of an IDX folder; a CSV file has no parts. like: sizes and channels must be as there,
 * and names have the numbers that they have there; NULL: whatever there is. On failure nothing needs freeing. */
bb_status bb_data_open(bb_data *d, const char *path, bool test, const bb_data *like, bb_error *err);
bool bb_data_has_test_part(const char *path); /* an IDX folder with t10k-… */
void bb_data_free(bb_data *d);

/* 64 hexadecimal digits: of sizes, pixels and labels. */
void bb_data_sha256(const bb_data *d, char out[65]);

/* Item i as floats in [−1, 1], in the middle of out[height][width][channels], which is at least as large as the
 * picture; around it is `pad`. mirror: left and right exchanged. */
void bb_data_item(const bb_data *d, uint32_t i, bool mirror, float pad, uint32_t height, uint32_t width, float *out);

bb_status bb_csv_open(bb_data *d, const char *path, const bb_data *like, bb_error *err); /* for bb_data_open */

#endif
