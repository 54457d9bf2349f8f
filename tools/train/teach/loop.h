/* A whole run of training: planning its length, updates, log, checkpoints, ending on Ctrl-C. Part of the command line,
 * not of bb_train: it draws samples and knows signals. */
#ifndef BB_TRAIN_TEACH_LOOP_H
#define BB_TRAIN_TEACH_LOOP_H

#include "progress.h"
#include "train/teach/checkpoint.h"

typedef struct bb_loop {
    bb_teach *teach;
    bb_course run;
    const char *folder;
    uint32_t dtype;         /* of the folder's weights */
    double every_seconds;   /* between checkpoints; or 0 and */
    uint64_t every_images;
    double budget;          /* seconds for all; 0: teach->opt.updates is the length */
    bool resumed, quiet;
    bb_log_row last;        /* the newest row */
    double sum;             /* of losses since then */
    uint64_t summed;        /* updates since then */
    double begun, row_at, checkpoint_at; /* of this process, bb_now */
    uint64_t checkpoint_images;
} bb_loop;

/* Signals are held; the caller releases them. True in *stopped: by one of them, at a checkpoint. */
bb_status bb_loop_run(bb_loop *l, bool *stopped, bb_error *err);

#endif
