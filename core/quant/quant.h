/* The quantizer: ranges, codes and bit planes. Freestanding, so the same code runs in the native tool and in a page;
 * the trainer's fake quantization calls it too: there is one definition of every rounding.
 *
 * Weights (per output channel), uniform: w ≈ Δ·(o + code), code in [0, 2^bits − 1], o an integer such that all o + code
 * fit int8; or with free multipliers: w ≈ Δ·(o + Σ m·bit). Activations (per segment and step): x ≈ δ·(code − z),
 * z in [0, 2^bits − 1]. */
#ifndef BB_QUANT_QUANT_H
#define BB_QUANT_QUANT_H

#include "base/mathf.h"
#include "bitbrush_make.h"
#include "pack/pack.h"

typedef bb_make_range bb_range; /* MSE shrinks the min-max range in 80 steps of 1 %, and keeps the least error */

typedef struct bb_weight_grid { float delta; int16_t offset; } bb_weight_grid;
typedef struct bb_activation_grid { float delta; uint8_t zero; } bb_activation_grid;

/* w[n] → grid; bits 1..8. All-zero or constant-zero rows give delta 1 (never 0), offset 0. Non-finite weights are the
 * caller's to refuse. At 8 bits the offset is −128, the only one whose 256 levels fit int8. */
bb_weight_grid bb_weight_grid_fit(const float *w, size_t n, uint32_t bits, bb_range range);

/* Nearest code, ties to even. */
BB_INLINE uint8_t bb_weight_code(float w, bb_weight_grid g, uint32_t bits);

/* What is known of an activation: its extremes, the most extreme values themselves, and a random sample of all. A
 * sample alone misses the rare large values, and a range fitted to it cuts them off: isolated wrong pixels. */
typedef struct bb_activation_stats {
    float low, high;
    const float *tail;   size_t n_tail;   /* the lowest and the highest values, each counted once */
    const float *sample; size_t n_sample; /* stands for `count` values; those among the tail are passed over */
    float tail_low, tail_high;            /* a value ≤ tail_low or ≥ tail_high belongs to the tail */
    double count;                         /* values seen */
} bb_activation_stats;

/* The range always contains 0, which is exactly code z. MINMAX uses low and high only. */
bb_activation_grid bb_activation_grid_fit(const bb_activation_stats *stats, uint32_t bits, bb_range range);

/* An output's levels: Δ·(offset + Σ_p multiplier[p]·bit_p), all integers inside the format's bounds. */
typedef struct bb_row_grid {
    float delta;
    int16_t offset, multiplier[BB_PLANES];
    uint32_t planes;
    bool plain; /* multipliers 1, 2, 4, … */
} bb_row_grid;

typedef struct bb_row_args {
    const float *w; size_t n;    /* finite */
    uint32_t planes;             /* 1..8 */
    bb_range range;
    uint32_t refit;              /* rounds of (nearest level, least squares) at most */
    bool ladder;                 /* free multipliers; at 8 planes there are none */
    uint32_t residuals;          /* of the ladder's planes, 0..2 are binary residuals, the others its uniform base */
    uint8_t *codes;              /* out: [n]; bit p belongs to plane p */
} bb_row_args;

/* Levels and codes. The plain grid first; each further means is kept only if its squared error is smaller. */
bb_row_grid bb_row_fit(const bb_row_args *a);
bb_row_grid bb_row_plain(bb_weight_grid grid, uint32_t bits);

/* All levels in ascending order, and the code of each. */
typedef struct bb_row_levels { uint32_t n; int16_t level[256]; uint8_t code[256]; } bb_row_levels;
void bb_row_levels_of(const bb_row_grid *g, bb_row_levels *out);
/* Code of the nearest level, ties to the lower one. */
uint8_t bb_row_code(const bb_row_levels *levels, float w, float delta);
int32_t bb_row_level(const bb_row_grid *g, uint8_t code); /* offset + Σ multiplier·bit */
/* Nearest codes (of plain grids by bb_weight_code), and the squared error of given ones. */
void bb_row_codes(const bb_row_grid *g, const float *w, size_t n, uint8_t *codes);
double bb_row_error(const bb_row_grid *g, const float *w, size_t n, const uint8_t *codes);

/* 8-channel blocks of a layer's K: taps · Σ_g ceil(seg_channels[g] / 8). */
uint32_t bb_k_blocks(uint32_t taps, uint32_t segments, const uint32_t *seg_channels);
/* Bytes of the planes of `rows` packed rows (a multiple of 16). */
size_t bb_plane_bytes(uint32_t rows, uint32_t k_blocks, uint32_t planes);

/* Puts one packed row's codes, in natural order (taps, then channels), into the zeroed planes of its width class. */
void bb_planes_put(uint8_t *planes, uint32_t n_planes, uint32_t row, uint32_t taps, uint32_t segments,
                   const uint32_t *seg_channels, const uint8_t *codes);

BB_INLINE uint8_t bb_weight_code(float w, bb_weight_grid g, uint32_t bits)
{
    float top = (float)((1u << bits) - 1), v = w / g.delta - (float)g.offset;
    v = v > 0 ? v : 0;
    v = v < top ? v : top;
    return (uint8_t)bb_round_even(v);
}

#endif
