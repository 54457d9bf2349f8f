/* A training run on disk, from which the same command goes on: OUT/train/state.safetensors holds weights, their average
 * and both moments, each tensor under its checkpoint name behind "weights.", "average.", "moment1." and "moment2."
 * (our files' order, flat), and two texts: "run", lines of name=value, and "log", the CSV. */
#ifndef BB_TRAIN_TEACH_STATE_H
#define BB_TRAIN_TEACH_STATE_H

#include "train/teach/log.h"
#include "train/teach/teach.h"

/* An option that the result depends on, as text. A state of an older version that does not have it was made with
 * if_missing. */
typedef struct bb_course_option { const char *name; char text[72]; const char *if_missing; } bb_course_option;

typedef struct bb_course {
    const bb_course_option *options; uint32_t n_options;
    bb_log log;
    double seconds; /* of work, over all interruptions */
} bb_course;

bb_status bb_state_save(const char *path, const bb_teach *t, const bb_course *run, bb_error *err);
/* Sets weights, average, moments, count and total of updates (t->opt.updates), and the run's log and seconds. Other
 * options than the run's are refused by name. After a failure t is good for closing only. */
bb_status bb_state_load(const char *path, bb_teach *t, bb_course *run, bb_error *err);

#endif
