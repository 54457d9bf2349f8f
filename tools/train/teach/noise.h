/* Batches of diffusion training: pictures in a new order each epoch, noised to timesteps that are spread evenly over
 * the whole batch, and what the network should answer. Everything is a function of the seed and the item's number
 * (streams.h). */
#ifndef BB_TRAIN_TEACH_NOISE_H
#define BB_TRAIN_TEACH_NOISE_H

#include "train/teach/pipeline.h"

typedef enum bb_weighting { BB_WEIGHTING_NONE, BB_WEIGHTING_MIN_SNR } bb_weighting;

typedef struct bb_noise_options {
    uint64_t seed;
    uint32_t weighting;   /* bb_weighting */
    float gamma;          /* of min-SNR (T. Hang et al. 2023): min(SNR, γ)/SNR for ε, /(SNR + 1) for v, /1 for x0 */
    float dropout;        /* share of items whose class becomes the null class, if there is one */
    bool mirror;          /* exchange left and right in every second item */
    float pad;            /* around pictures smaller than the network's */
} bb_noise_options;

typedef struct bb_noise {
    bb_noise_options opt;
    const bb_pipeline *pipe;
    const bb_data *data;
    uint32_t width, height, channels;
    uint32_t *order;      /* [data->count] of the epoch */
    uint64_t epoch;
} bb_noise;

/* A part of the whole batch of an update. Pointers: [n][height][width][channels] or [n]; label may be NULL. */
typedef struct bb_noised {
    uint32_t n;
    float *sample, *timestep, *label; /* the network's inputs */
    float *target, *weight;           /* what it should answer, and how much that counts */
} bb_noised;

bb_status bb_noise_open(bb_noise *z, const bb_noise_options *opt, const bb_pipeline *pipe, const bb_data *data,
                        bb_error *err);
void bb_noise_close(bb_noise *z);
size_t bb_noise_values(const bb_noise *z); /* of an item */

/* Items first … first + n − 1 of the `whole` batch of update number `update`. */
void bb_noise_fill(bb_noise *z, uint64_t update, uint32_t whole, uint32_t first, const bb_noised *out);
/* The same for measuring: items first … of `whole` fixed ones out of the held-out data, classes all told. */
void bb_noise_fill_held_out(const bb_noise *z, const bb_data *held_out, uint32_t whole, uint32_t first,
                            const bb_noised *out);

/* Σ over n items of weight · mean square of (answer − target), times scale; gradient (may be NULL) is written. losses:
 * work space [n]. */
double bb_noise_loss(const bb_noise *z, const bb_noised *b, const float *answer, double scale, double *losses,
                     float *gradient);

#endif
