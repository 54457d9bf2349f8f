/* Dot ways by the relaxed byte dots, whose lanes are sums of products x·w of bytes. Engines agree on them while the
 * second operand is 0..127, so that is w − low:
 *   dot, dot32      codes of 7 bits or fewer, x = a            acc = Σ x·(w − low) + low·Σ a
 *   wide, wide32    eight bits, BB_ROWS_SIGNED x = a − 128     acc = Σ x·(w − low) + low·Σ a + 128·Σ (w − low)
 *   split32         and weights of eight bits                  w − low = 2·u + v, u and v apart
 * i16x8.relaxed_dot adds two products to a lane of 16 bits, which is widened now and then; i32x4.relaxed_dot_add four
 * to a lane of 32, in one instruction on CPUs that have it and else in three, so that only a trial can tell which is
 * faster. */
#include "kernels/wasm/relaxed.h"

extern const bb_dot bb_dot_wasm_relaxed_dot, bb_dot_wasm_relaxed_wide;
extern const bb_dot bb_dot_wasm_relaxed_dot32, bb_dot_wasm_relaxed_wide32, bb_dot_wasm_relaxed_split32;

/* Panel: the start, with `times` low; then bytes [taps][channels/4][BB_TILE][4]: a vector has four channels of four
 * outputs. If the weights have eight bits, these are u, and v follows. */
BB_INLINE bool split(const bb_dot_shape *s) { return s->spread >= 128; }
static size_t panel_bytes(const bb_dot_shape *s)
{
    return sizeof(relaxed_start) + (split(s) ? 2 : 1) * bb_expanded_bytes(s);
}

/* Blocks of eight channels, two groups of two products, whose sums fit 16 bits. */
static uint32_t blocks_that_fit(const bb_dot_shape *s)
{
    const uint32_t most = 4 * s->spread * (s->levels < 128 ? s->levels : 128);
    return most ? 32767 / most : 32767;
}

static bool fits32(const bb_dot_shape *s) { return s->levels < 128 && !split(s); }
static bool fits_wide32(const bb_dot_shape *s) { return s->levels >= 128 && !split(s); }
static bool fits_split32(const bb_dot_shape *s) { return s->levels >= 128 && split(s); }
static bool fits(const bb_dot_shape *s) { return fits32(s) && blocks_that_fit(s); }
static bool fits_wide(const bb_dot_shape *s) { return fits_wide32(s) && blocks_that_fit(s); }

BB_INLINE v128_t add_pairs(v128_t x, v128_t y)
{
    return wasm_i16x8_add(wasm_u16x8_extadd_pairwise_u8x16(x), wasm_u16x8_extadd_pairwise_u8x16(y));
}

BB_INLINE void store_weights(int8_t *w, size_t second, v128_t bytes)
{
    if (second) {
        wasm_v128_store(w + second, wasm_v128_and(bytes, wasm_i8x16_const_splat(1)));
        bytes = wasm_u8x16_shr(bytes, 1);
    }
    wasm_v128_store(w, bytes);
}

static void pack(const bb_panel_args *a)
{
    relaxed_start *head = a->panel;
    const size_t bytes = bb_expanded_bytes(a->shape), second = split(a->shape) ? bytes : 0;
    int8_t *w = (int8_t *)(head + 1);
    const v128_t low = wasm_v128_load(a->low), zero = wasm_i32x4_const_splat(0);
    const v128_t low0 = wasm_i8x16_shuffle(low, low, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const v128_t low1 = wasm_i8x16_shuffle(low, low, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
    v128_t sum[4] = {zero, zero, zero, zero};
    bb_panel_args plain = *a;
    plain.panel = w;
    bb_expand_panel(&plain);
    for (int8_t *end = w + bytes; w != end; w += 4 * BB_TILE) { /* pairs of channels to quads */
        const v128_t e0 = wasm_i8x16_sub(wasm_v128_load(w), low0), o0 = wasm_i8x16_sub(wasm_v128_load(w + 32), low0);
        const v128_t e1 = wasm_i8x16_sub(wasm_v128_load(w + 16), low1);
        const v128_t o1 = wasm_i8x16_sub(wasm_v128_load(w + 48), low1);
        const v128_t p0 = add_pairs(e0, o0), p1 = add_pairs(e1, o1);
        sum[0] = wasm_i32x4_add(sum[0], wasm_u32x4_extend_low_u16x8(p0));
        sum[1] = wasm_i32x4_add(sum[1], wasm_u32x4_extend_high_u16x8(p0));
        sum[2] = wasm_i32x4_add(sum[2], wasm_u32x4_extend_low_u16x8(p1));
        sum[3] = wasm_i32x4_add(sum[3], wasm_u32x4_extend_high_u16x8(p1));
        store_weights(w, second, wasm_i16x8_shuffle(e0, o0, 0, 8, 1, 9, 2, 10, 3, 11));
        store_weights(w + 16, second, wasm_i16x8_shuffle(e0, o0, 4, 12, 5, 13, 6, 14, 7, 15));
        store_weights(w + 32, second, wasm_i16x8_shuffle(e1, o1, 0, 8, 1, 9, 2, 10, 3, 11));
        store_weights(w + 48, second, wasm_i16x8_shuffle(e1, o1, 4, 12, 5, 13, 6, 14, 7, 15));
    }
    for (size_t v = 0; v < 4; v++)
        wasm_v128_store(head->base + 4 * v, a->shape->levels < 128 ? zero : wasm_i32x4_shl(sum[v], 7));
    for (size_t j = 0; j < BB_TILE; j++) head->times[j] = a->low[j];
}

void bb_relaxed_start(const bb_dot_args *a)
{
    const relaxed_start *head = a->panel;
    for (size_t p = 0; p < a->pixels; p++)
        for (size_t j = 0; j < BB_TILE; j += 4) {
            const v128_t scaled = wasm_i32x4_mul(wasm_v128_load(head->times + j), wasm_i32x4_splat(a->sums[p]));
            wasm_v128_store(a->acc + p * BB_TILE + j, wasm_i32x4_add(scaled, wasm_v128_load(head->base + j)));
        }
}

/* Pixels first..first+3, outputs out..out+7: 8 sums stay in registers, lanes 2j and 2j + 1 of one belong to output
 * j. */
static void run_pixels(const bb_dot_args *a, size_t first, size_t out)
{
    enum { N = 4 };
    const size_t most = blocks_that_fit(a->shape), tap_blocks = a->shape->channels / 8;
    const int8_t *panel = (const int8_t *)((const relaxed_start *)a->panel + 1) + out * 4;
    int32_t *acc = a->acc + first * BB_TILE + out;
    v128_t sum[N][2], all[N][2];
    for (size_t done = 0, blocks; done < tap_blocks; done += blocks) {
        blocks = tap_blocks - done < most ? tap_blocks - done : most;
        const size_t from = a->first + 8 * done, skip = (tap_blocks - blocks) * 8 * BB_TILE;
        const uint8_t *const *rows = a->rows + first, *const *end_rows = rows + a->shape->taps * BB_TILE_PIXELS;
        const int8_t *w = panel + done * 8 * BB_TILE;
        while (rows != end_rows) {
            const size_t taps = most / blocks, left = (size_t)(end_rows - rows) / BB_TILE_PIXELS;
            const uint8_t *const *stop = taps < left ? rows + taps * BB_TILE_PIXELS : end_rows;
            _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) sum[i][0] = sum[i][1] = wasm_i16x8_const_splat(0);
            for (; rows != stop; rows += BB_TILE_PIXELS, w += skip) {
                const uint8_t *x[N];
                _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) x[i] = rows[i] + from;
                for (const int8_t *end = w + blocks * 8 * BB_TILE; w != end; w += 8 * BB_TILE) {
                    _Pragma("GCC unroll 2") for (size_t g = 0; g < 2; g++) {
                        const v128_t w0 = wasm_v128_load(w + g * 64), w1 = wasm_v128_load(w + g * 64 + 16);
                        _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) {
                            const v128_t quad = wasm_v128_load32_splat(x[i] + 4 * g);
                            sum[i][0] = wasm_i16x8_add(sum[i][0], wasm_i16x8_relaxed_dot_i8x16_i7x16(quad, w0));
                            sum[i][1] = wasm_i16x8_add(sum[i][1], wasm_i16x8_relaxed_dot_i8x16_i7x16(quad, w1));
                        }
                    }
                    _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) x[i] += 8;
                }
            }
            /* through memory: a loop over pixels is smaller */
            _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) {
                all[i][0] = sum[i][0];
                all[i][1] = sum[i][1];
            }
            _Pragma("clang loop unroll(disable)") for (size_t i = 0; i < N; i++) {
                add_to(acc + i * BB_TILE, wasm_i32x4_extadd_pairwise_i16x8(all[i][0]));
                add_to(acc + i * BB_TILE + 4, wasm_i32x4_extadd_pairwise_i16x8(all[i][1]));
            }
        }
    }
}

static void run(const bb_dot_args *a)
{
    bb_relaxed_start(a);
    for (size_t p = 0; p < a->pixels; p += 4)
        for (size_t out = 0; out < BB_TILE; out += 8) run_pixels(a, p, out);
}

/* n pixels from `first` on by m vectors of four outputs, constants at every call. The dot takes 5 cycles and CPUs start
 * two in each, so there should be ten sums or more. */
BB_INLINE void run32_pixels(const bb_dot_args *a, size_t first, size_t out, const size_t n, const size_t m)
{
    const int8_t *panel = (const int8_t *)((const relaxed_start *)a->panel + 1) + out * 4;
    const size_t bytes = bb_expanded_bytes(a->shape);
    v128_t sum[6][4];
    _Pragma("GCC unroll 6") for (size_t i = 0; i < n; i++)
        _Pragma("GCC unroll 4") for (size_t v = 0; v < m; v++) sum[i][v] = wasm_i32x4_const_splat(0);
    for (const int8_t *w = panel;;) {
        for (size_t tap = 0; tap < a->shape->taps; tap++) {
            const uint8_t *x[6];
            _Pragma("GCC unroll 6") for (size_t i = 0; i < n; i++)
                x[i] = a->rows[tap * BB_TILE_PIXELS + first + i] + a->first;
            for (const int8_t *end = w + a->shape->channels * BB_TILE; w != end; w += 4 * BB_TILE) {
                v128_t weights[4];
                _Pragma("GCC unroll 4") for (size_t v = 0; v < m; v++) weights[v] = wasm_v128_load(w + 16 * v);
                _Pragma("GCC unroll 6") for (size_t i = 0; i < n; i++) {
                    const v128_t quad = wasm_v128_load32_splat(x[i]);
                    x[i] += 4;
                    _Pragma("GCC unroll 4") for (size_t v = 0; v < m; v++)
                        sum[i][v] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(quad, weights[v], sum[i][v]);
                }
            }
        }
        if (!split(a->shape) || w != panel + bytes) break;
        _Pragma("GCC unroll 6") for (size_t i = 0; i < n; i++)
            _Pragma("GCC unroll 4") for (size_t v = 0; v < m; v++) sum[i][v] = wasm_i32x4_shl(sum[i][v], 1);
    }
    v128_t all[6][4];
    _Pragma("GCC unroll 6") for (size_t i = 0; i < n; i++)
        _Pragma("GCC unroll 4") for (size_t v = 0; v < m; v++) all[i][v] = sum[i][v];
    _Pragma("clang loop unroll(disable)") for (size_t i = 0; i < n; i++)
        _Pragma("clang loop unroll(disable)") for (size_t v = 0; v < m; v++)
            add_to(a->acc + (first + i) * BB_TILE + out + 4 * v, all[i][v]);
}

static void run32(const bb_dot_args *a)
{
    bb_relaxed_start(a);
    run32_pixels(a, 0, 0, 2, 4);
    for (size_t out = 0; a->pixels > 2 && out < BB_TILE; out += 8) run32_pixels(a, 2, out, 6, 2);
}

#define WAY(ending, form, time, shapes, function)                                                               \
    const bb_dot bb_dot_wasm_relaxed_##ending = {.name = "wasm_relaxed_" #ending, .rows = (form), .sums = true, \
                                                 .cost = (time), .fits = (shapes), .panel_bytes = panel_bytes,  \
                                                 .pack = pack, .run = (function)}
/* Without a trial the i32 dots are not taken: most CPUs lack the instruction. */
WAY(dot, BB_ROWS_CODES, 0.55f, fits, run);
WAY(wide, BB_ROWS_SIGNED, 0.8f, fits_wide, run);
WAY(dot32, BB_ROWS_CODES, 2, fits32, run32);
WAY(wide32, BB_ROWS_SIGNED, 2, fits_wide32, run32);
WAY(split32, BB_ROWS_SIGNED, 4, fits_split32, run32);
