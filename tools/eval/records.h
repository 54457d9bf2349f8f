/* Numbered records of one size that are made one by one, in parallel, on all ranks, and kept in a file, so that what a
 * break or a kill leaves is gone on with: drawn pictures, error figures. */
#ifndef BB_TOOLS_EVAL_RECORDS_H
#define BB_TOOLS_EVAL_RECORDS_H

#include "base/par.h"
#include "train/engine/ranks.h"

typedef struct bb_records {
    char path[4096]; /* "": in memory only */
    char key[65];    /* of all that the records depend on, their number not included */
    uint32_t count, size; /* records, at least those asked for; bytes of each */
    uint8_t *done;   /* [count] */
    uint8_t *data;   /* [count][size] */
    bool newer;      /* than the file */
    double written;
} bb_records;

/* key: SHA-256 as text. Goes on from the file if there is one with this key and size; what is wrong with a file is said
 * on stderr and is no error. path NULL: in memory only. bb_records_close works after failures, too. */
bb_status bb_records_open(bb_records *r, const char *path, const char *key, uint32_t count, uint32_t size,
                          bb_error *err);
void bb_records_close(bb_records *r);
/* The first n records are there. */
bool bb_records_whole(const bb_records *r, uint32_t n);

/* Makes one record; thread: a number below the pool's threads. */
typedef bb_status bb_record_fn(void *user, uint32_t i, uint32_t thread, uint8_t *record, bb_error *err);
/* Makes those of the first n that are missing, shared out over ranks and threads; all ranks call it. Rank 0 has all of
 * them afterwards and writes the file every 20 seconds and at the end. BB_ERR_CANCELLED when a signal came while
 * signals were held: what was finished is kept. */
bb_status bb_records_fill(bb_records *r, uint32_t n, bb_par *par, const bb_ranks *ranks, const char *what, bool quiet,
                          bb_record_fn *fn, void *user, bb_error *err);

#endif
