/* The kernel table: plain function pointers on plain arrays, no graph, no files. Sets are listed best first by the
 * build (kernel_sets.inc); select.c fills a table from the sets this CPU can run, op by op, scalar last.
 *
 * Exactness (all sets equal scalar bit for bit): integer sums may be taken in any order; float reductions are never
 * vectorized: lanes run over outputs, channels, keys' scores or pixels, k ascends, multiply then add, no FMA.
 *
 * Tiles: 16 outputs (BB_TILE) by up to 8 pixels (BB_TILE_PIXELS). A pixel's input is given by one pointer per kernel
 * tap, so no im2col copy exists; taps that fall outside the picture point to a padding row. dots.h has the integer
 * products. */
#ifndef BB_KERNELS_KERNELS_H
#define BB_KERNELS_KERNELS_H

#include "kernels/dots.h"

/* Activation codes of one segment: for every pixel and channel
 *   x = ((x − mean[c])·rstd[c])·scale[c] + shift[c]   if mean is given: the group norm in front,
 *   x = x / (1 + exp(−x))                             if silu: the SiLU in front,
 *   v = x·m[c];  v = v > −z ? v : −z;  v = v < levels−z ? v : levels−z;  a = round_half_even(v) + z
 * and zeros in a's channels `channels` .. round_up(channels, 8)−1. */
typedef struct bb_quantize_args {
    uint8_t *a;       /* [pixels] rows a_stride bytes apart, round_up(channels, 8) writable */
    int32_t *sum;     /* [pixels]: Σ of each pixel's codes; NULL: not wanted */
    const float *x;   /* [pixels] rows x_stride floats apart */
    const float *m;   /* [channels] = inv_s / δ */
    const float *mean, *rstd, *scale, *shift; /* [channels] each: norm_stats and a group norm's weights; or mean NULL */
    size_t pixels, channels, a_stride, x_stride;
    uint32_t zero, levels; /* z; 2^A − 1 */
    bool silu;
} bb_quantize_args;

/* Bit planes of a tile to integer weights w = offset + Σ_p multiplier[p]·bit_p (fits int8 by the file's checks). */
typedef struct bb_expand_args {
    int8_t *w;               /* [k_blocks·4][BB_TILE][2]: pairs of successive k, so one i16 pair dot takes two */
    const uint8_t *planes;   /* [k_blocks][n_planes][BB_TILE] bytes: bit i of byte j is k = 8·block + i of output j */
    const int16_t *multiplier; /* [n_planes][BB_TILE] */
    const int16_t *offset;     /* [BB_TILE] */
    size_t k_blocks, n_planes;
} bb_expand_args;

/* Lookup tables of 4-bit codes, BB_ROWS_TABLES (bias 0) or BB_ROWS_CENTRED (bias −30). */
typedef struct bb_tables_args {
    uint8_t *t;        /* [pixels] rows t_stride bytes apart, 4·channels bytes each */
    const uint8_t *a;  /* [pixels] rows a_stride bytes apart; codes 0..15 */
    size_t pixels, channels, a_stride, t_stride; /* channels: multiple of 8 */
    int8_t bias;       /* added to every entry */
} bb_tables_args;

/* y[p][j] = ((Σ_g f32(acc[g][p][j] − zsum[g][j])·e[g][j], from 0, g ascending) + bias[j]) + add[p][j] */
typedef struct bb_dequantize_args {
    float *y;               /* [pixels] rows of BB_TILE, y_stride floats apart */
    const int32_t *acc;     /* [segments][BB_TILE_PIXELS][BB_TILE] */
    const int32_t *zsum;    /* [segments][BB_TILE] = z_g · Σ_k w */
    const float *e;         /* [segments][BB_TILE] = f32(δ_g · Δ) */
    const float *bias;      /* [BB_TILE] */
    const float *add;       /* [pixels] rows add_stride floats apart (0: one for all), may be y; NULL: none */
    size_t pixels, segments, y_stride, add_stride;
} bb_dequantize_args;

/* y[p][j] = bias[j] + Σ_tap Σ_c x·w: starts at 0, products added in (tap, c) order, bias added last. Only the first
 * `outputs` of a pixel's y are defined: a tile with one or three outputs need not cost as much as a full one. */
typedef struct bb_conv_f32_args {
    float *y;                  /* [pixels][BB_TILE], all writable */
    const float *const *rows;  /* [taps][BB_TILE_PIXELS] */
    const float *w;            /* [taps·channels] rows of BB_TILE floats, w_stride floats apart */
    const float *bias;         /* [BB_TILE] */
    size_t pixels, taps, channels, w_stride, outputs;
} bb_conv_f32_args;

/* One item. Per channel: sums (from 0) over runs of 64 pixels, run sums added in order; then the group's channels in
 * order; mean = sum / f32(count); the same again for (x−mean)²; rstd = 1/√(var + eps). */
#define BB_NORM_RUN 64
typedef struct bb_norm_stats_args {
    float *mean, *rstd;   /* [c] each: a group's channels have the same */
    const float *x;       /* [pixels][c] */
    size_t pixels, c, groups;
    float eps;
} bb_norm_stats_args;

/* One item: y = ((x − mean)·rstd)·scale + shift with the mean and rstd of norm_stats. */
typedef struct bb_group_norm_args {
    float *y;             /* [pixels][c], may be x */
    const float *x;       /* [pixels][c] */
    const float *scale, *shift; /* [c] */
    float *scratch;       /* [2·c] */
    size_t pixels, c, groups;
    float eps;
} bb_group_norm_args;

/* One item and head, queries first_query .. first_query+queries−1. For key tiles of 64 in order: scores
 * s = (Σ_d q·k, d ascending)·scale; m' = max(m, s in key order); r = exp(m − m'); l = l·r, o = o·r; then in key
 * order p = exp(s − m'), l += p, o += p·v. At the end o / l. m starts at the lowest finite float and l, o at 0, so
 * the first tile's r scales zeros and no (−inf) − (−inf) can arise; a NaN score never becomes m'. Sums start at 0;
 * `v > m ? v : m` is the max. */
typedef struct bb_attention_args {
    float *o;                /* [queries total] rows o_stride floats apart */
    const float *q, *k, *v;  /* rows q_stride / kv_stride floats apart; already offset to the head */
    float *scratch;          /* BB_ATTENTION_SCRATCH(d) floats */
    size_t first_query, queries, keys, d;
    size_t o_stride, q_stride, kv_stride;
    float scale;
} bb_attention_args;
#define BB_ATTENTION_KEYS 64
#define BB_ATTENTION_LOWEST (-3.402823466e+38f)
#define BB_ATTENTION_QUERIES 16 /* work item of the walker */
#define BB_ATTENTION_SCRATCH(d) ((size_t)BB_TILE * (2 * (d) + 15 + 2 * BB_ATTENTION_KEYS))

/* One row of the result: y[p][c] = (Σ x over factor × factor pixels, from 0, rows then columns) / f32(factor²). */
typedef struct bb_avg_pool_args {
    float *y;       /* [pixels][c] */
    const float *x; /* [factor] rows of at least pixels·factor pixels, row_stride floats apart */
    size_t pixels, c, factor, row_stride;
} bb_avg_pool_args;

/* The remaining ops, y may be x (or a, or b):
 *   silu          y = x / (1 + exp(−x))
 *   gelu, mish    bb_geluf, bb_mishf of base/mathf.h
 *   add           y = a + b
 *   add_channels  y[p][c] = a[p][c] + b[c]
 *   modulate      y[p][c] = x[p][c]·(1 + scale[c]) + shift[c]
 *   affine        y = x·mul + add
 *   f16_to_f32    exact
 *   widen         y = x, codes to BB_ROWS_WIDE
 * All floats and int32 arrays are aligned to 4 bytes only; nothing outside the stated sizes is read or written. A
 * NaN result is a NaN in every set, but its sign and payload bits may differ. */
#define BB_OP(name, args) typedef void bb_##name##_fn args;
#include "kernels/ops.inc"
#undef BB_OP

typedef struct bb_kernels {
    const char *isa; /* of the best set in the table: "scalar", "x86_avx2", "x86_avx512", "wasm_simd128",
                        "wasm_relaxed", "arm_neon", "arm_dotprod" */
    uint32_t needs;  /* BB_CPU_* bits */
    const bb_dot *dots[BB_DOTS]; /* ways, all that can run here; NULL after the last */
    float cost[BB_DOTS];         /* of each; 0 in a set's own table */
#define BB_OP(name, args) bb_##name##_fn *name;
#include "kernels/ops.inc"
#undef BB_OP
} bb_kernels;

/* What a CPU can do. The wasm ones are properties of the module. */
enum {
    BB_CPU_AVX2 = 1, BB_CPU_AVX512 = 2, BB_CPU_WASM_SIMD128 = 4, BB_CPU_WASM_RELAXED = 8, BB_CPU_NEON = 16,
    BB_CPU_DOTPROD = 32, BB_CPU_ALL = -1
};
uint32_t bb_cpu_features(void); /* cpu_*.c, chosen by the build */

/* Dot ways of a module on top of this one (wasm/relaxed_ways.c), in a table without ops; borrowed for good. They are
 * taken in front of the sets' own, of which only the last ones remain, which fit everything: trials are to be short. */
void bb_kernels_add(const bb_kernels *ways);

/* Fills out from the sets whose needs are all in cpu (a mask, for tests and --cpu). Dot ways of all these sets are
 * taken, the scalar ones last. */
void bb_kernels_select(bb_kernels *out, uint32_t cpu);

#endif
