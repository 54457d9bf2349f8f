/* What happened in a training run, row by row: log.csv, and a plot of its losses. */
#ifndef BB_TRAIN_TEACH_LOG_H
#define BB_TRAIN_TEACH_LOG_H

#include "base/status.h"

typedef struct bb_log_row {
    uint64_t update, images;  /* done */
    double loss;              /* mean since the row before */
    double held_out;          /* NaN: not measured here */
    double rate, norm;        /* of the last update: learning rate, gradient before clipping */
    double speed, seconds;    /* images a second since the row before; of all work so far */
} bb_log_row;

typedef struct bb_log { bb_log_row *row; size_t n; } bb_log;

bb_status bb_log_add(bb_log *l, const bb_log_row *row, bb_error *err);
void bb_log_free(bb_log *l);

/* The CSV text with its heading, NUL-terminated, malloc'd; NULL: out of memory. bb_log_parse reads it back, n bytes;
 * name: what messages call it. */
char *bb_log_csv(const bb_log *l);
bb_status bb_log_parse(bb_log *l, const char *text, size_t n, const char *name, bb_error *err);

/* An SVG picture of loss and held-out loss over images, in colours for light and dark pages; malloc'd, NULL: out of
 * memory. */
char *bb_log_svg(const bb_log *l, const char *title);

#endif
