/* Dot ways: interchangeable methods to compute a tile's integer sums. Each has its own form of the activations (rows)
 * and of the weights (a panel, made from the file's bit planes); what comes out is the same int32 from all of them, so
 * the walker takes the fastest that fits (bb_dot_choose), by costs that a host may measure (bb_dot_trial).
 *
 * A tile is BB_TILE outputs by BB_TILE_PIXELS pixels. A way always computes whole tiles: rows beyond the last pixel
 * point to some readable row, and what comes of them is not used. */
#ifndef BB_KERNELS_DOTS_H
#define BB_KERNELS_DOTS_H

#include "base/compiler.h"

struct bb_kernels;

#define BB_TILE 16       /* outputs */
#define BB_TILE_PIXELS 8
#define BB_K_BLOCK 8     /* input channels per bit-plane block */
#define BB_PLANES 8      /* at most, per output channel */
#define BB_DOTS 16       /* ways in a kernel table, at most */

/* What a row holds for each segment, channels padded to a multiple of 8 with code 0. */
typedef enum bb_rows {
    BB_ROWS_CODES,   /* u8 a per channel */
    BB_ROWS_TABLES,  /* 4-bit codes only. For every 4 channels 16 bytes: entry i = Σ of the codes whose bit is set in i,
                        bit b for channel 4g + b; u8, 0..60 */
    BB_ROWS_CENTRED, /* the same minus 30, i8: −30..30 */
    BB_ROWS_WIDE,    /* u16 a per channel */
    BB_ROWS_SIGNED,  /* i8 a − 128 per channel: bb_signed_codes */
    BB_ROWS_FORMS
} bb_rows;
BB_INLINE size_t bb_row_bytes(bb_rows form, size_t channels)
{
    static const uint8_t bytes[] = {1, 4, 4, 2, 1};
    return bytes[form] * channels;
}
BB_INLINE bool bb_rows_are_tables(bb_rows form) { return form == BB_ROWS_TABLES || form == BB_ROWS_CENTRED; }

/* n codes, a multiple of 8, to BB_ROWS_SIGNED. */
BB_INLINE void bb_signed_codes(uint8_t *y, const uint8_t *a, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t eight;
        memcpy(&eight, a + i, 8);
        eight ^= 0x8080808080808080u;
        memcpy(y + i, &eight, 8);
    }
}

/* What a way needs to know of one tile's segment before any data. */
typedef struct bb_dot_shape {
    size_t taps, channels; /* channels of the segment, multiple of 8 */
    uint32_t levels;       /* codes are at most this: 2^A − 1 */
    uint32_t planes;       /* 1..8 */
    uint32_t spread;       /* max w − min w of any output; below 128 unless there are 8 planes */
    bool uniform;          /* multipliers are 1, 2, 4, … in all outputs */
} bb_dot_shape;

typedef struct bb_panel_args {
    void *panel;               /* panel_bytes(shape), aligned to 64; written whole */
    const bb_dot_shape *shape;
    const uint8_t *planes;     /* per tap [channels/8][shape.planes][BB_TILE] bytes, as bb_expand_args */
    size_t tap_stride;         /* bytes between the taps of planes */
    const int16_t *multiplier; /* [planes][BB_TILE], 2^p in uniform tiles, too */
    const int16_t *offset;     /* [BB_TILE]; w = offset + Σ_p multiplier·bit */
    const int8_t *low;         /* [BB_TILE]: output j has w in low[j] .. low[j] + spread, padding positions too */
    const struct bb_kernels *kernels; /* for ops like expand_tile */
} bb_panel_args;

typedef struct bb_dot_args {
    int32_t *acc;               /* [BB_TILE_PIXELS][BB_TILE], overwritten; aligned to 64 */
    const uint8_t *const *rows; /* [taps][BB_TILE_PIXELS] in the way's form: the pixel under that tap */
    size_t first;               /* bytes from a row's start to the segment */
    const int32_t *sums;        /* [BB_TILE_PIXELS] Σ_tap Σ_c a; only given to ways with `sums` */
    const void *panel;
    size_t pixels;              /* 1..BB_TILE_PIXELS that matter; a way may leave the other rows of acc alone */
    const bb_dot_shape *shape;  /* the panel's */
} bb_dot_args;

/* acc[p][j] = Σ_tap Σ_c w·a, exact in int32 (the reader bounds K); what a bit of a padding channel is never matters, as
 * its code is 0. */
typedef struct bb_dot {
    const char *name;   /* set and method, such as "wasm_relaxed_table" */
    bb_rows rows;
    bool sums;          /* reads bb_dot_args.sums */
    bool per_plane;     /* time grows with the planes */
    float cost;         /* usual time of a multiply-add (one plane's if per_plane); wasm and native each have a unit */
    bool (*fits)(const bb_dot_shape *shape);
    size_t (*panel_bytes)(const bb_dot_shape *shape);
    void (*pack)(const bb_panel_args *a);
    void (*run)(const bb_dot_args *a);
} bb_dot;

/* The plain panel, for ways without one of their own: int8 [taps][channels/2][BB_TILE][2] by expand_tile. */
size_t bb_expanded_bytes(const bb_dot_shape *shape);
void bb_expand_panel(const bb_panel_args *a);

/* Making another form of one channel of one pixel costs as much as this many multiply-adds of cost 1; so a layer with
 * few outputs takes a way that reads codes. Measured, not exact: it decides only speed. */
#define BB_DOT_TABLE_COST 8.0f
#define BB_DOT_WIDE_COST 1.5f

/* Index into kernels->dots of the way that fits with the least time for a tile whose channels each serve `reuse`
 * multiply-adds per pixel of the input: outputs · taps / stride². */
uint32_t bb_dot_choose(const struct bb_kernels *kernels, const bb_dot_shape *shape, float reuse);

/* One run of way `dot` on a fixed tile and panel inside scratch (BB_DOT_TRIAL_BYTES, aligned to 64), `rounds` times;
 * returns the multiply-adds done (of one plane). The caller owns the clock: time per multiply-add, in any unit that is
 * the same for all ways, is what bb_kernels.cost takes. 0 if there is no such way. */
#define BB_DOT_TRIAL_BYTES ((size_t)65536)
double bb_dot_trial(const struct bb_kernels *kernels, uint32_t dot, uint32_t rounds, void *scratch);

#endif
