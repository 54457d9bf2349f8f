/* What fitting the outputs of one layer (fit_rows.c) and choosing among the fits (fit.c) share. */
#ifndef BB_MAKE_FIT_H
#define BB_MAKE_FIT_H

#include "make/make.h"

enum { FEWER, ASKED, MORE, WIDTHS }; /* planes − wbits + 1 */
enum { UNIFORM, LADDER, FORMS };

typedef struct bb_width_fit { double weight, output; } bb_width_fit; /* squared errors */

typedef struct bb_fit {
    bb_make *m;
    const bb_job *job;
    const bb_weight *weight;
    const bb_quantizer_rec *q;
    const float *inv_s;      /* [channels] or NULL */
    uint32_t wbits, samples;
    float *quantized;        /* [k][samples] inputs as the layer sees them, in the smoothed scale */
    float *power;            /* [k] their sums of squares */
    uint8_t *scratch; size_t scratch_bytes; /* per thread */
    bool wants[FORMS][WIDTHS];
    bb_width_fit *errors;       /* [outputs][FORMS][WIDTHS] */
    bb_row_grid *grids;      /* the same */
    uint8_t *codes;          /* [outputs][wanted ones of FORMS × WIDTHS][k], to be stored once the choice is made */
    uint32_t n_wanted, number[FORMS][WIDTHS];
    double *weight_power, *output_power, *kurtosis; /* [outputs] */
    bb_status status;
    /* storing */
    const bb_fitted *choice;
    uint8_t *width;          /* [outputs] */
    uint32_t *place;         /* [outputs] packed row */
    uint8_t *planes;
} bb_fit;

/* Bytes of scratch that a thread needs. */
size_t bb_fit_scratch_bytes(const bb_fit *f);
/* Fits every output in all wanted forms and widths: errors, grids, codes, powers and kurtosis. BB_ERR_ARGUMENT if a
 * weight is not finite. */
bb_status bb_fit_rows(bb_fit *f);

#endif
