/* Distillation of a teacher into a student at few bits (mpq-dm §1.6, §4.5): draw trajectories, then update after update
 * pull the student's guided prediction to the teacher's. Work is cut into slices like core/make's, so that a command
 * can show progress, write the state and stop between them:
 *
 *     bb_distill_open → bb_distill_draw until BB_DONE → bb_distill_begin → bb_distill_update until BB_DONE → _result
 *
 * or, instead of _draw and _begin, _load of what _save has written. Then all goes on bit-equal for the same number of
 * threads. Over several processes every function is called by all of them together; their results are the same. */
#ifndef BB_TRAIN_DISTILL_DISTILL_H
#define BB_TRAIN_DISTILL_DISTILL_H

#include "train/distill/presets.h"
#include "train/distill/relation.h"
#include "train/distill/trajectories.h"
#include "import/safetensors.h"
#include "train/engine/ranks.h"

typedef struct bb_distill_setup {
    const bb_distill_options *opt;      /* complete; copied */
    const bb_model *teacher;            /* float */
    const bb_model *start;              /* quantized from it */
    const uint8_t *blob; size_t blob_bytes; /* of start */
    const bb_ranks *ranks;
    bb_par *par;                        /* of core's sessions */
    uint32_t threads, cpu;              /* of the training; as for bb_dnn_open */
    const char *digest;                 /* 64 digits: names all that the run depends on */
} bb_distill_setup;                     /* all borrowed */

enum { BB_DISTILL_MOST_CHECKS = 64 };

/* Held-out error at some update: means over the steps of squared error/power of the guided ε. */
typedef struct bb_distill_check {
    uint64_t update;
    double error; /* all steps but the last, whose error is large and has no weight in the picture */
    double first; /* the first five: they decide what the picture shows */
    double score; /* mean over the same steps as `error` of error/start's error: what is made small */
} bb_distill_check;

/* How fast updates are, before their number is known. */
typedef struct bb_distill_trial {
    double seconds, check; /* to fill; of a check */
    double begun;          /* after the first ones */
    uint32_t done;
} bb_distill_trial;

typedef struct bb_distill {
    bb_distill_options opt;
    bb_distill_setup in;
    bb_trajectories teacher;
    bb_dnn *dnn;
    const bb_ops *ops;
    bb_student *student;
    bb_params *params;
    bb_tape *tape;
    bb_optim optim;
    size_t n;                    /* floats of the student */
    uint32_t items, sample, out; /* of the tape: items; value ids */
    size_t network_bytes, student_bytes, teacher_bytes; /* memory */
    /* What a state keeps, beside w, moments and trajectories. */
    uint64_t update, updates;    /* done; in all, 0 while not known */
    uint32_t skipped;            /* updates in a row whose gradient was not finite */
    uint32_t drawn;              /* trajectories */
    double task_mean[64], relation_mean[64]; /* running mean of each step's losses, 0: none yet */
    double start[64];            /* error/power of each step at update 0 */
    double loss;                 /* running mean of what is made small, for progress lines */
    float *best, *ema;           /* [n]; ema NULL without */
    bb_distill_check checks[BB_DISTILL_MOST_CHECKS]; uint32_t n_checks, best_check;
    bb_pixel_memory memory;      /* MTRD */
    bb_distill_trial trial;
    /* Scratch. */
    float *guided;               /* [batch][out] */
    float *f, *f_before, *q_before; /* [items][feature], with a relation */
    double *losses;              /* [pictures of all processes][2] */
} bb_distill;

/* Memory is taken, nothing computed. On failure nothing needs closing. */
bb_status bb_distill_open(bb_distill *d, const bb_distill_setup *setup, bb_error *err);
void bb_distill_close(bb_distill *d);

/* The teacher draws some more pictures, d->drawn of d->teacher.total are there. BB_AGAIN, BB_DONE. */
bb_status bb_distill_draw(bb_distill *d, bb_error *err);
/* The first check. seconds: from here to the result, to be filled with updates; no matter with opt.updates. */
bb_status bb_distill_begin(bb_distill *d, double seconds, bb_error *err);
/* After _begin: an update that only measures speed. BB_AGAIN; BB_DONE once d->updates is known. */
bb_status bb_distill_try(bb_distill *d, bb_error *err);
/* One update, and a check where one is due (then *checked). BB_AGAIN; BB_DONE after the last one, or when checks have
 * stalled. */
bb_status bb_distill_update(bb_distill *d, bool *checked, bb_error *err);
/* The packed file with the best weights; *out from aligned_alloc(64), the caller frees. */
bb_status bb_distill_result(bb_distill *d, const char *command, uint8_t **out, size_t *n, bb_error *err);

/* The state as a safetensors file in memory, malloc'd. */
bb_status bb_distill_save(const bb_distill *d, uint8_t **out, size_t *n, bb_error *err);
/* name: of the file, for messages. BB_ERR_CORRUPT: of another run, or damaged; nothing has changed. */
bb_status bb_distill_load(bb_distill *d, const char *name, const uint8_t *data, size_t n, bb_error *err);
/* Bytes of the start's packed file inside such a state, so that nothing is quantized again; NULL if it has none or its
 * digest is another. f stays the caller's to close. */
const uint8_t *bb_distill_state_start(const bb_st_file *f, const char *digest, size_t *n);

/* ---- parts (update.c, check.c) ---- */

/* The student's numbers are others now. */
void bb_distill_changed(bb_distill *d);
typedef struct bb_pick { uint32_t picture, step; } bb_pick;
/* The tape's inputs for `batch` picks, its forward pass, and d->guided. */
void bb_distill_forward(bb_distill *d, const bb_pick *picks);
/* One update at this rate. trial: for timing, changes nothing that lasts but the optimizer's moments. */
bb_status bb_distill_step(bb_distill *d, float rate, bool trial, bb_error *err);
bb_status bb_distill_warm_up(bb_distill *d, bb_error *err); /* fills MTRD's memory */
/* error and first, and score where start is given, from sums of each step. */
bb_distill_check bb_distill_summary(const bb_eps_error *errors, const double *start, uint32_t steps);
/* Appends to d->checks and keeps the weights if they are the best so far. */
bb_status bb_distill_check_now(bb_distill *d, bb_error *err);

#endif
