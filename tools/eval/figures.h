/* The figures of a set of pictures, each with a 95 % interval. A column stands for one set: the packed model's, the
 * float model's own, and the float model's with other seeds, which is what no difference between models falls below. */
#ifndef BB_TOOLS_EVAL_FIGURES_H
#define BB_TOOLS_EVAL_FIGURES_H

#include "base/par.h"
#include "eval/bootstrap.h"

typedef enum bb_figure {
    BB_FIGURE_PSNR,             /* dB, from the mean squared error over all pictures; infinite for the same pictures */
    BB_FIGURE_SSIM,
    BB_FIGURE_EPS,              /* relative error of the guided epsilon: mean over all steps but the last */
    BB_FIGURE_FIRST5,           /* the same over the first 5 */
    BB_FIGURE_DISTANCE_TEACHER, /* Fréchet, to the float model's pictures from the same seeds */
    BB_FIGURE_DISTANCE, BB_FIGURE_KID, BB_FIGURE_PRECISION, BB_FIGURE_RECALL, /* to real pictures */
    BB_FIGURE_ACCURACY,         /* share that the classifier takes for the class asked for */
    BB_FIGURES
} bb_figure;
extern const char *const bb_figure_key[BB_FIGURES];  /* "distance_teacher" */
extern const char *const bb_figure_text[BB_FIGURES]; /* "distance to the float model's pictures" */

enum { BB_NEIGHBOURS = 3, BB_KID_MOST = 2500 }; /* k of precision and recall; pictures of each kind in KID, the first */

/* Pictures as the figures see them. Arrays that were not made are NULL; figures that need them are not measured. */
typedef struct bb_shown {
    const uint8_t *pictures;  /* [n][bytes] */
    float *features;          /* [n][BB_CLASSIFIER_FEATURES] */
    uint8_t *right;           /* [n]: taken for the class asked for */
    const double *traces;     /* [traced][2·evaluations]: squared errors, then squares */
    double *squares, *ssim;   /* [n], to the teacher's picture; made by bb_figures_prepare, like the rest: */
    uint8_t *inside, *covers; /* [n] inside the manifold of the real; real ones inside that of these */
    float *kernel, *kernel_real;
} bb_shown;

typedef struct bb_figures {
    uint32_t n, traced, evaluations, real_n, resamples;
    uint32_t height, width, channels; /* of a picture; its bytes are the product */
    bb_par *par;
    const uint8_t *teacher;   /* [n][bytes] its pictures */
    const float *teacher_features; /* of these, or NULL */
    const float *real;        /* [real_n] features; NULL: none */
    float *real_radius2, *real_kernel; /* made by bb_figures_prepare */
} bb_figures;

typedef struct bb_column {
    bb_shown shown;
    bb_interval of[BB_FIGURES]; /* NaN where not measured */
    double *draws;              /* [resamples][BB_FIGURES] */
} bb_column;

/* Fills all columns. What is measured against the teacher's pictures is left out in the column whose shown has these as
 * its own. n ≥ 1; resamples 0: no intervals. bb_column_free is for the caller, after failures, too. */
bb_status bb_figures_measure(bb_figures *f, bb_column *columns, uint32_t n_columns, bb_error *err);
void bb_column_free(bb_column *c);

#endif
