/* A packed model against its float one and against real pictures: what `bitbrush eval` draws, keeps and measures. */
#ifndef BB_TOOLS_EVAL_EVALUATION_H
#define BB_TOOLS_EVAL_EVALUATION_H

#include "eval/classifier.h"
#include "eval/figures.h"
#include "eval/painter.h"
#include "eval/records.h"
#include "sample/sampler.h"

typedef struct bb_evaluation {
    /* Asked for. Strings may be NULL where the option is not given. */
    const char *model, *against; /* packed, float */
    const char *out;             /* JSON file */
    const char *keep;            /* folder of drawn pictures; else out + ".drawn", which goes when all is done */
    const char *real, *classifier;
    uint32_t images, traced, steps, sampler, resamples;
    float guidance;
    uint64_t seed;
    bool guidance_given, floor, quiet;
    bb_host_options host_options;
    bb_ranks ranks;

    /* Made. */
    bb_host reference, packed;
    bb_painter paint_reference, paint_packed, paint_floor;
    bb_records teacher, pictures, other, traces; /* of the float model, the packed one, other seeds; epsilon errors */
    char folder[4096];           /* "": nothing is kept */
    bb_classifier network;
    uint32_t real_n;
    float *real_features;
    bb_figures figures;
    bb_column column[3]; uint32_t columns; /* BB_COLUMN_… */
    double step_error[BB_MAX_EVALUATIONS]; /* relative error of the guided epsilon, over all traced pictures */
    double seconds;              /* of drawing what was not there yet */
} bb_evaluation;
enum { BB_COLUMN_MODEL, BB_COLUMN_FLOAT, BB_COLUMN_FLOOR };
extern const char *const bb_column_key[3], *const bb_column_text[3]; /* "model"; "packed model" */

/* Seeds of the pictures that float is compared with itself by: seed + this and up. */
#define BB_FLOOR_SEEDS 500000u

/* Draws and measures; all ranks call it, rank 0 has the figures afterwards. Ctrl-C ends it with BB_ERR_CANCELLED if
 * finished pictures are kept. bb_evaluation_close works after failures, too; done: what was only kept for going on is
 * removed. */
bb_status bb_evaluation_run(bb_evaluation *e, bb_error *err);
void bb_evaluation_close(bb_evaluation *e, bool done);

#endif
