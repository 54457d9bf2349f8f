/* The quantizer: ranges, codes and bit planes. Freestanding, so the same code runs in the native tool and in a page;
 * the trainer's fake quantization calls it too: there is one definition of every rounding.
 *
 * Weights (uniform affine, per output channel): w ≈ Δ·(o + code), code in [0, 2^bits − 1], o an integer such
 * that all o + code fit int8. Activations (per segment and step): x ≈ δ·(code − z), z in [0, 2^bits − 1]. */
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

/* One layer from an unquantized weight, single width class, natural output order. */
typedef struct bb_quantize_layer_args {
    const bb_weight *weight;     /* f32 or f16, [taps·channels][stride] */
    uint32_t outputs, taps, channels;
    uint32_t segments, seg_channels[BB_MAX_SEGMENTS];
    uint32_t bits;               /* 1..8 */
    bb_range range;
    float *row;                  /* scratch [taps·channels] */
    /* out: */
    uint8_t *planes;             /* bb_plane_bytes */
    float *delta;                /* [round_up(outputs, 16)], 0 in padding */
    int16_t *offset;             /* same */
} bb_quantize_layer_args;

/* 8-channel blocks of a layer's K: taps · Σ_g ceil(seg_channels[g] / 8). */
uint32_t bb_k_blocks(uint32_t taps, uint32_t segments, const uint32_t *seg_channels);
/* Bytes of the planes of `rows` packed rows (a multiple of 16). */
size_t bb_plane_bytes(uint32_t rows, uint32_t k_blocks, uint32_t planes);

/* Quantizes tile number `tile` (outputs 16·tile …): independent of the others, so tiles may run in parallel with a
 * row scratch each. BB_ERR_ARGUMENT if a weight is not finite. */
bb_status bb_quantize_tile(const bb_quantize_layer_args *a, uint32_t tile);

/* Sets code `code` of packed row `row` at input position (tap, channel): the one place that knows the bit order. */
void bb_plane_set(uint8_t *planes, uint32_t n_planes, uint32_t k_blocks, uint32_t row, uint32_t k_block, uint32_t bit,
                  uint8_t code);

BB_INLINE uint8_t bb_weight_code(float w, bb_weight_grid g, uint32_t bits)
{
    float top = (float)((1u << bits) - 1), v = w / g.delta - (float)g.offset;
    v = v > 0 ? v : 0;
    v = v < top ? v : top;
    return (uint8_t)bb_round_even(v);
}

#endif
