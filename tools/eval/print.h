/* What an evaluation found, as text, Markdown, JSON and a contact sheet. */
#ifndef BB_TOOLS_EVAL_PRINT_H
#define BB_TOOLS_EVAL_PRINT_H

#include "eval/evaluation.h"

#include <stdio.h>

/* Another evaluation's file (-o), whose draws belong to the same resamples. */
typedef struct bb_versus {
    const char *path;
    char model[256];
    bb_interval of[BB_FIGURES]; /* this model's figure minus the other's */
} bb_versus;
/* Errors name the file and what differs: pictures, seed, steps, guidance, resamples, classifier. */
bb_status bb_versus_read(bb_versus *v, const char *path, const bb_evaluation *e, bb_error *err);
/* Whether more of the figure is better. */
bool bb_figure_grows(bb_figure figure);

/* v: NULL or read. */
void bb_print_text(const bb_evaluation *e, const bb_versus *v);
void bb_print_markdown(const bb_evaluation *e, const bb_versus *v);
/* draws: all resamples' figures with it, for bb_versus_read. */
void bb_print_json(FILE *f, const bb_evaluation *e, const bb_versus *v, bool draws);
bb_status bb_write_json(const bb_evaluation *e, const bb_versus *v, bb_error *err);

/* Up to 30 pictures: rows of ten of the float model's above the packed one's, each with its class. */
bb_status bb_write_sheet(const bb_evaluation *e, const char *path, bb_error *err);

#endif
