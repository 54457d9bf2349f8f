/* Private to core/make: the state of a bb_make and the parts that its phases share. */
#ifndef BB_MAKE_MAKE_H
#define BB_MAKE_MAKE_H

#include "api/model.h"
#include "make/blocks.h"
#include "make/lora.h"
#include "quant/quant.h"

#define BB_CALIBRATION_SAMPLES 4096u /* values kept per site, step and segment, for the range search */
#define BB_CALIBRATION_TAIL 64u      /* lowest and highest values kept, each */
#define BB_INPUT_SAMPLES 256u        /* inputs kept of every layer, for its output error */
#define BB_INPUT_BYTES (64u << 20)   /* of all of them together; large models get fewer samples */

typedef struct bb_range_stats {
    float low, high;
    float *samples;     /* [BB_CALIBRATION_SAMPLES]; then the tails: [TAIL] lowest, [TAIL] highest */
    uint32_t n, n_low, n_high;
    float bound_low, bound_high; /* largest of the lowest, smallest of the highest, once those are full */
    double count;
} bb_range_stats;

/* A value that quantized layers read. */
typedef struct bb_site {
    uint32_t value, first_op;   /* the first conv or linear that reads it */
    uint32_t segments, seg_channels[BB_MAX_SEGMENTS];
    uint32_t rows;              /* steps, or 1 where the value does not change between steps */
    bb_range_stats *stats;      /* [rows][segments] */
    float *largest;             /* [channels] |x| in the first pass; NULL: not smoothed */
    float *inv_s;               /* [channels] from then on, or NULL: all 1 */
    uint32_t inv_s_at;          /* in pool.inv_s, BB_NONE before it is there */
} bb_site;

/* A conv or linear layer, by its weight slot. */
typedef struct bb_job {
    uint32_t op;                /* BB_NONE: the slot is no matrix */
    uint32_t site, taps, channels, outputs, k; /* k = taps·channels */
    bool low, kept_float;       /* gets the asked bits; stays as it is */
    uint32_t wbits, abits;
    float *x;                   /* [k][samples] real inputs of the layer, one output position each */
    uint8_t *row;               /* [samples] step row each comes from */
} bb_job;

typedef struct bb_calibration {
    bb_site *sites; uint32_t n_sites;
    float timesteps[BB_MAX_STEP_ROWS]; /* noisiest first */
    bb_session *session;
    bb_block *before;     /* what lies below the session's workspace */
    uint32_t *site_of_op; /* [n_ops] site number, BB_NONE */
    uint32_t pass, image, step; /* the next to be drawn; pass 0 finds the smoothing factors */
    uint64_t drawn, picked; /* random numbers used so far: for ranges, for inputs of layers */
    uint32_t samples;     /* inputs kept of every layer, a multiple of 16 */
    uint32_t broken;      /* op whose input was infinite or NaN; BB_NONE */
} bb_calibration;

#define BB_BUDGET_LOWEST 2u  /* bits that a budget chooses from */
#define BB_BUDGET_HIGHEST 8u
#define BB_MAKE_META 16

struct bb_make {
    bb_blocks blocks;
    bb_make_options opt;     /* with the defaults that depend on the model */
    bb_model model;          /* a copy: its weights may be replaced before the first step */
    bb_weight *weights;      /* what model.pack.weights points to */
    const bb_weight *given;  /* the caller's weights */
    const char *lora;        /* metadata: what has been folded in; NULL */
    uint32_t phase;          /* bb_make_phase of the next slice; BB_MAKE_PHASES when done */
    bool started;
    bb_status failed;        /* what bb_make_step answers once it has failed */
    bb_calibration cal;
    bb_job *jobs;            /* [weight slots] */
    uint32_t looked, slot;   /* the next weight slot to be looked at for the budget, and to be quantized */
    struct bb_choices *choices; /* [weight slots] with a budget (budget.c) */
    /* What the file is made of. */
    bb_weight_ref *refs;
    bb_tensor_out *tensors; uint32_t n_tensors;
    float *f32; uint32_t n_f32;
    bb_layer_rec *layers; uint32_t n_layers;
    bb_quantizer_rec *quantizers; uint32_t *quantizer_value; uint32_t n_quantizers;
    float *delta; int16_t *offset; uint32_t n_rows;
    int16_t *multiplier; uint32_t n_multiplier;
    uint16_t *perm; uint32_t n_perm;
    float *inv_s; uint32_t n_inv_s;
    float *step_key, *step_delta; uint8_t *step_zero; uint32_t n_key, n_step;
    uint64_t weights_in_all, weight_bits; /* for the mean */
    bb_meta_out meta[BB_MAKE_META]; uint32_t n_meta;
    bb_make_layer *reports; uint32_t n_reports;
    uint8_t *file; size_t file_bytes;
};

/* The most packed rows a layer can have: three width classes, each padded to whole tiles. */
BB_INLINE size_t bb_most_rows(uint32_t outputs) { return bb_align_up(outputs, BB_TILE) + 2 * BB_TILE; }

BB_INLINE bool bb_is_matrix_op(const bb_op *op) { return op->kind == BB_OP_CONV2D || op->kind == BB_OP_LINEAR; }

/* Which layers there are and which get the asked bits. */
bb_status bb_jobs_begin(bb_make *m, bb_error *err);

/* Finds the sites and starts the drawing session; a slice is one denoising step, BB_DONE after the last. */
bb_status bb_calibration_begin(bb_make *m, bb_error *err);
bb_status bb_calibration_step(bb_make *m, bb_error *err);
/* What follows from the largest |x| of the first pass, for all sites. */
void bb_calibration_smooth(bb_make *m);
/* Gives the drawing session back: all pictures are drawn. */
void bb_calibration_finish(bb_make *m);
/* What a value must be below (sign 1) or above (−1) to belong into a tail of n values. */
float bb_calibration_bound(const float *tail, uint32_t n, float sign);
/* One site's statistics at a step row, for the range search; tail: room for 2·BB_CALIBRATION_TAIL values. */
bb_activation_stats bb_calibration_stats(const bb_range_stats *s, float *tail);
/* The site of a value; NULL if no conv or linear reads it. */
bb_site *bb_calibration_site(bb_calibration *c, uint32_t value);

/* Pictures of pass 0. */
uint32_t bb_smoothing_images(const bb_make *m);
/* Element i = tap·channels + c of an output's weights. */
BB_INLINE float bb_weight_at(const bb_weight *w, uint32_t output, size_t i)
{
    size_t at = i * w->stride + output;
    return w->f32 ? w->f32[at] : bb_f16_to_f32(w->f16[at]);
}

/* One layer's codes: everything that the file needs of it (fit.c). */
typedef struct bb_fitted {
    uint32_t wbits, ladder, share; /* share: outputs with one plane more, and as many with one less */
    uint32_t rows, n_classes, class_planes[3], class_rows[3];
    size_t plane_bytes;
    double weight_error, output_error; /* relative */
} bb_fitted;
/* Bytes of the file: planes, Δ and offsets, multipliers, permutation. */
BB_INLINE uint64_t bb_fitted_bytes(const bb_fitted *f)
{
    uint64_t bytes = f->plane_bytes + (uint64_t)f->rows * 6 + (f->n_classes > 1 ? (uint64_t)f->rows * 2 : 0);
    for (uint32_t i = 0; f->ladder && i < f->n_classes; i++)
        bytes += (uint64_t)bb_align_up(f->class_rows[i], BB_TILE) * f->class_planes[i] * 2;
    return bytes;
}
/* Chooses ladder and share for wbits; q: the layer's input quantizer. planes: NULL to see the choice only; else they
 * become a block of the maker's, and Δ, offsets, multipliers and permutation are added to its pools. */
bb_status bb_fit_layer(bb_make *m, const bb_job *job, const bb_quantizer_rec *q, uint32_t wbits, bb_fitted *out,
                       uint8_t **planes, bb_error *err);

/* Takes the memory for what the file is made of; then one weight slot after the other, BB_DONE after the last. */
bb_status bb_layers_begin(bb_make *m, bb_error *err);
bb_status bb_layers_step(bb_make *m, bb_error *err);

/* One table per (value, bits). */
uint32_t bb_quantizer_for(bb_make *m, bb_site *site, uint32_t bits);
/* The tensor of a weight that is no vector and stays as it is. */
bb_tensor_out bb_kept_tensor(const bb_make *m, uint32_t slot);

/* With a budget: looks at one slot after the other; after the last one the jobs have their bits. */
bb_status bb_budget_begin(bb_make *m, bb_error *err);
bb_status bb_budget_step(bb_make *m, bb_error *err);

bb_status bb_file_metadata(bb_make *m, bb_error *err);
BB_INLINE uint32_t bb_bits_milli(uint64_t weights, uint64_t bits)
{
    return weights ? (uint32_t)((bits * 1000 + weights / 2) / weights) : 0;
}
/* All that the file consists of so far. */
bb_pack_out bb_file_out(const bb_make *m);
/* The file's bytes, read back with all of the reader's checks. */
bb_status bb_file_make(bb_make *m, bb_error *err);
/* The reader's checks on a file just made: no file leaves the tools that they would not open. */
bb_status bb_file_prove(const uint8_t *bytes, size_t n, const bb_make_memory *memory, bb_error *err);

BB_INLINE bb_status bb_out_of_memory(bb_error *err, const char *when)
{
    return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", when);
}

#endif
