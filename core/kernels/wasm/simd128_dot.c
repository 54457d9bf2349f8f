/* Dot ways by i32x4.dot_i16x8_s on operands of 16 bits, where every w in −128..127 and a in 0..255 is exact.
 *   plain   one output a lane
 *   pair    two outputs a lane, u and v of few bits: P = u + 2^s·v, Σ P·a = Σ u·a + 2^s·Σ v·a. While Σ u·a < 2^s the
 *           low s bits are the first sum and the rest is the second. With b bits of spread
 *               s = 16 − b,  u = w − low ≥ 0,  v = w − low − 2^(b−1),
 *           so that P fits int16. The low bits are taken out before they overflow, after at most
 *           (2^s − 1)/(levels·spread) channels; what is above them, |2^s·Σ v·a| ≤ 2^15·levels·channels < 2^31, after
 *           at most 65535/levels. */
#include <wasm_simd128.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_wasm_simd128, bb_dot_wasm_simd128_pair, bb_dot_wasm_simd128_pair_short;

/* Adds `blocks` times eight channels of four pixels against two vectors of weights. Engines on x86 have 16 registers: 8
 * sums, 2 weights, codes and a product just fit, if each pair of channels is a loop of its own: where more are in
 * sight, V8 loads all first. */
BB_INLINE const int16_t *accumulate(v128_t sum[4][2], const uint8_t *x[4], const int16_t *w, size_t blocks)
{
    for (const int16_t *end = w + blocks * 64; w != end; w += 16) {
        const v128_t w0 = wasm_v128_load(w), w1 = wasm_v128_load(w + 8);
        _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) {
            const v128_t pair = wasm_v128_load32_splat(x[i]);
            x[i] += 4;
            sum[i][0] = wasm_i32x4_add(sum[i][0], wasm_i32x4_dot_i16x8(pair, w0));
            sum[i][1] = wasm_i32x4_add(sum[i][1], wasm_i32x4_dot_i16x8(pair, w1));
        }
    }
    return w;
}

BB_INLINE void add_to(int32_t *acc, v128_t sum) { wasm_v128_store(acc, wasm_i32x4_add(wasm_v128_load(acc), sum)); }

/* Panel: int16 [2][taps][channels/2][8][2]. */
static size_t plain_bytes(const bb_dot_shape *s) { return 2 * bb_expanded_bytes(s); }

/* The bytes come where the second half will be: of 32, one half's are widened to its place, the other's in theirs. */
static void plain_pack(const bb_panel_args *a)
{
    const size_t n = bb_expanded_bytes(a->shape);
    int8_t *first = a->panel, *second = first + n;
    bb_panel_args bytes = *a;
    bytes.panel = second;
    bb_expand_panel(&bytes);
    for (; second != (int8_t *)a->panel + 2 * n; first += 32, second += 32) {
        const v128_t w0 = wasm_v128_load(second), w1 = wasm_v128_load(second + 16);
        wasm_v128_store(first, wasm_i16x8_extend_low_i8x16(w0));
        wasm_v128_store(first + 16, wasm_i16x8_extend_high_i8x16(w0));
        wasm_v128_store(second, wasm_i16x8_extend_low_i8x16(w1));
        wasm_v128_store(second + 16, wasm_i16x8_extend_high_i8x16(w1));
    }
}

static void plain_run(const bb_dot_args *a)
{
    for (size_t p = 0; p < a->pixels; p += 4)
        for (size_t out = 0; out < BB_TILE; out += 8) {
            const int16_t *w = (const int16_t *)a->panel + out / 8 * bb_expanded_bytes(a->shape) / 2;
            const size_t from = a->first, blocks = a->shape->channels / 8;
            const uint8_t *const *rows = a->rows + p, *const *const end = rows + a->shape->taps * BB_TILE_PIXELS;
            v128_t sum[4][2] = {{{0}}};
            for (; rows != end; rows += BB_TILE_PIXELS) {
                const uint8_t *x[4];
                _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) x[i] = rows[i] + from;
                w = accumulate(sum, x, w, blocks);
            }
            int32_t *acc = a->acc + p * BB_TILE + out;
            _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) {
                wasm_v128_store(acc + i * BB_TILE, sum[i][0]);
                wasm_v128_store(acc + i * BB_TILE + 4, sum[i][1]);
            }
        }
}

static bool plain_fits(const bb_dot_shape *s) { return true; }

const bb_dot bb_dot_wasm_simd128 = {.name = "wasm_simd128", .rows = BB_ROWS_WIDE, .cost = 1, .fits = plain_fits,
                                    .panel_bytes = plain_bytes, .pack = plain_pack, .run = plain_run};

/* Panel: what is to be added Σ a times, then int16 [taps][channels/2][2][4 lanes][2 channels]: vector v has outputs
 * 8v .. 8v + 3 in the low bits and 8v + 4 .. 8v + 7 above. */
typedef struct pair_head {
    int32_t base[BB_TILE];
    uint32_t shift;        /* s */
    uint32_t blocks, taps; /* blocks of eight channels until the low bits are taken, taps until the rest is */
    uint32_t unused[13];
} pair_head;

static uint32_t spread_bits(const bb_dot_shape *s) { return s->spread < 2 ? 1 : 32 - (uint32_t)__builtin_clz(s->spread); }

static uint32_t pair_blocks(const bb_dot_shape *s)
{
    const uint32_t product = s->levels * (s->spread ? s->spread : 1);
    if (s->levels * s->channels > 65535) return 0;
    return ((1u << (16 - spread_bits(s))) - 1) / product / 8;
}

static bool pair_fits(const bb_dot_shape *s) { return pair_blocks(s) >= 8; }
static bool pair_short_fits(const bb_dot_shape *s) { return pair_blocks(s) >= 1 && !pair_fits(s); }
static size_t pair_bytes(const bb_dot_shape *s) { return sizeof(pair_head) + bb_expanded_bytes(s); }

static void pair_pack(const bb_panel_args *a)
{
    pair_head *head = a->panel;
    const uint32_t bits = spread_bits(a->shape), shift = 16 - bits;
    int8_t *w = (int8_t *)(head + 1);
    int16_t less[2 * BB_TILE];
    bb_panel_args bytes = *a;
    bytes.panel = w;
    bb_expand_panel(&bytes);
    for (size_t j = 0; j < BB_TILE; j++) {
        head->base[j] = a->low[j] + (j & 4 ? 1 << (bits - 1) : 0);
        less[2 * j] = less[2 * j + 1] = (int16_t)head->base[j];
    }
    head->shift = shift;
    head->blocks = pair_blocks(a->shape);
    head->taps = 65535 / (a->shape->levels * (uint32_t)a->shape->channels);
    for (size_t i = 0; i < bb_expanded_bytes(a->shape); i += BB_TILE, w += BB_TILE) {
        const int16_t *base = less + i % (2 * BB_TILE);
        const v128_t low = wasm_i16x8_sub(wasm_i16x8_load8x8(w), wasm_v128_load(base));
        const v128_t high = wasm_i16x8_sub(wasm_i16x8_load8x8(w + 8), wasm_v128_load(base + 8));
        wasm_v128_store(w, wasm_i16x8_add(low, wasm_i16x8_shl(high, shift)));
    }
}

/* Pixels first..first+3, all 16 outputs. */
static void pair_pixels(const bb_dot_args *a, size_t first)
{
    const pair_head *head = a->panel;
    const int16_t *w = (const int16_t *)(head + 1);
    const v128_t mask = wasm_i32x4_splat((1 << head->shift) - 1);
    int32_t *acc = a->acc + first * BB_TILE;
    v128_t sum[4][2] = {{{0}}};
    const size_t from = a->first, channel_blocks = a->shape->channels / 8;
    const uint8_t *const *rows = a->rows + first, *const *const end = rows + a->shape->taps * BB_TILE_PIXELS;
    size_t blocks = head->blocks, taps = head->taps;
    for (size_t i = 0; i < 4 * BB_TILE; i += 4)
        wasm_v128_store(acc + i, wasm_i32x4_mul(wasm_v128_load(head->base + i % BB_TILE),
                                                wasm_i32x4_splat(a->sums[first + i / BB_TILE])));
    while (rows != end) {
        const uint8_t *x[4];
        _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) x[i] = rows[i] + from;
        rows += BB_TILE_PIXELS;
        for (size_t left = channel_blocks; left;) {
            const size_t run = left < blocks ? left : blocks;
            w = accumulate(sum, x, w, run);
            left -= run;
            blocks -= run;
            if (blocks) continue;
            blocks = head->blocks;
            _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)
                _Pragma("GCC unroll 2") for (size_t v = 0; v < 2; v++) {
                    const v128_t low = wasm_v128_and(sum[i][v], mask);
                    add_to(acc + i * BB_TILE + 8 * v, low);
                    sum[i][v] = wasm_v128_xor(sum[i][v], low);
                }
        }
        if (--taps && rows != end) continue;
        taps = head->taps;
        _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)
            _Pragma("GCC unroll 2") for (size_t v = 0; v < 2; v++) {
                add_to(acc + i * BB_TILE + 8 * v + 4, wasm_i32x4_shr(sum[i][v], head->shift));
                sum[i][v] = wasm_v128_and(sum[i][v], mask);
            }
    }
    _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)
        _Pragma("GCC unroll 2") for (size_t v = 0; v < 2; v++) add_to(acc + i * BB_TILE + 8 * v, sum[i][v]);
}

static void pair_run(const bb_dot_args *a)
{
    for (size_t p = 0; p < a->pixels; p += 4) pair_pixels(a, p);
}

const bb_dot bb_dot_wasm_simd128_pair = {.name = "wasm_simd128_pair", .rows = BB_ROWS_WIDE, .sums = true,
                                         .cost = 0.54f, .fits = pair_fits, .panel_bytes = pair_bytes,
                                         .pack = pair_pack, .run = pair_run};
const bb_dot bb_dot_wasm_simd128_pair_short = {.name = "wasm_simd128_pair_short", .rows = BB_ROWS_WIDE, .sums = true,
                                               .cost = 0.68f, .fits = pair_short_fits, .panel_bytes = pair_bytes,
                                               .pack = pair_pack, .run = pair_run};
