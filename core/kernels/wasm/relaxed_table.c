/* Dot ways by lookup, for 4-bit codes: four bits of a plane's weights are an index into the table of those four
 * channels, and one i8x16.relaxed_swizzle looks 16 of them up. Engines agree on it while indices are below 16.
 *   table2  uniform weights of two planes. Lanes 2j and 2j + 1 are the planes of output j; after four tables the dot
 *           with (1, 2) merges them and widens to 16 bits:  acc = Σ (E0 + 2·E1) + 90·groups + offset·Σ a
 *   table   planes with free multipliers m, one by one. Lanes are outputs; each two are one number modulo 2^16, whose
 *           high half is also summed apart:                 acc = Σ_p m·Σ T_p + offset·Σ a
 * E = T − 30 are the entries of BB_ROWS_CENTRED, T those of BB_ROWS_TABLES; groups of four channels. */
#include "kernels/wasm/relaxed.h"

extern const bb_dot bb_dot_wasm_relaxed_table2, bb_dot_wasm_relaxed_table;

/* Then come the indices, a byte each: per plane, or per half of the outputs, [taps][channels/8][2][16]. In the file
 * two share a byte, but to part them in the loop costs more than to read them. */
typedef struct panel_head {
    relaxed_start start;
    int8_t merge[BB_TILE]; /* 1 2 1 2 …: as a constant, engines would make it anew in each turn */
    int32_t multiplier[BB_PLANES * BB_TILE];
} panel_head;

#define STEPS2 91u /* of four tables, whose sums fit 16 bits: 91·(4·30·3) ≤ 32,767 */
#define STEPS 273u /* 273·(4·60) ≤ 65,535 */

static bool fits2(const bb_dot_shape *s) { return s->levels < 16 && s->planes == 2 && s->uniform; }
static bool fits(const bb_dot_shape *s) { return s->levels < 16; }
static size_t plane_bytes(const bb_dot_shape *s) { return s->taps * s->channels / 4 * BB_TILE; }
static size_t panel_bytes(const bb_dot_shape *s) { return sizeof(panel_head) + s->planes * plane_bytes(s); }

BB_INLINE void store_indices(uint8_t *w, v128_t bytes)
{
    wasm_v128_store(w, wasm_v128_and(bytes, wasm_i8x16_const_splat(15)));
    wasm_v128_store(w + BB_TILE, wasm_u8x16_shr(bytes, 4));
}

static void pack_as(const bb_panel_args *a, const bool merged)
{
    panel_head *head = a->panel;
    const size_t planes = a->shape->planes, bytes = plane_bytes(a->shape);
    uint8_t *w = (uint8_t *)(head + 1);
    for (size_t j = 0; j < BB_TILE; j++) {
        head->start.base[j] = merged ? (int32_t)(90 * a->shape->taps * a->shape->channels / 4) : 0;
        head->start.times[j] = a->offset[j];
        head->merge[j] = j % 2 + 1;
    }
    for (size_t i = 0; i < planes * BB_TILE; i++) head->multiplier[i] = a->multiplier[i];
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        const uint8_t *from = a->planes + tap * a->tap_stride;
        for (size_t block = 0; block < a->shape->channels / BB_K_BLOCK; block++, w += 2 * BB_TILE) {
            if (merged) {
                const v128_t p0 = wasm_v128_load(from), p1 = wasm_v128_load(from + BB_TILE);
                store_indices(w, wasm_i8x16_shuffle(p0, p1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
                store_indices(w + bytes, wasm_i8x16_shuffle(p0, p1, 8, 24, 9, 25, 10, 26, 11, 27,
                                                            12, 28, 13, 29, 14, 30, 15, 31));
                from += 2 * BB_TILE;
            } else {
                for (size_t p = 0; p < planes; p++, from += BB_TILE)
                    store_indices(w + p * bytes, wasm_v128_load(from));
            }
        }
    }
}

static void pack2(const bb_panel_args *a) { pack_as(a, true); }
static void pack(const bb_panel_args *a) { pack_as(a, false); }

BB_INLINE v128_t look_up(const uint8_t *table, v128_t index)
{
    return wasm_i8x16_relaxed_swizzle(wasm_v128_load(table), index);
}

/* acc[0..7] += eight 16-bit sums, with m unsigned ones times m. */
BB_INLINE void flush(int32_t *acc, v128_t sum, const int32_t *m)
{
    v128_t low = m ? wasm_u32x4_extend_low_u16x8(sum) : wasm_i32x4_extend_low_i16x8(sum);
    v128_t high = m ? wasm_u32x4_extend_high_u16x8(sum) : wasm_i32x4_extend_high_i16x8(sum);
    if (m) {
        low = wasm_i32x4_mul(low, wasm_v128_load(m));
        high = wasm_i32x4_mul(high, wasm_v128_load(m + 4));
    }
    add_to(acc, low);
    add_to(acc + 4, high);
}

/* The same for a lane of bytes in each output: sum modulo 2^16 of two, and of the odd ones alone. */
BB_INLINE void flush_two(int32_t *acc, v128_t sum, v128_t odd, const int32_t *m)
{
    const v128_t even = wasm_i16x8_sub(sum, wasm_i16x8_shl(odd, 8));
    flush(acc, wasm_i16x8_shuffle(even, odd, 0, 8, 1, 9, 2, 10, 3, 11), m);
    flush(acc + 8, wasm_i16x8_shuffle(even, odd, 4, 12, 5, 13, 6, 14, 7, 15), m + 8);
}

/* Adds to acc, of the n pixels from number `first` on, what one plane gives (times m), or, merged, both planes for half
 * of the outputs. n is a constant at every call: 8 sums, 4 indices and the merge fill x86's registers. */
BB_INLINE void add_plane(const bb_dot_args *a, int32_t *acc, size_t first, const uint8_t *w, const int32_t *m,
                         const size_t n, const bool merged)
{
    const size_t most = merged ? STEPS2 : STEPS, tap_steps = a->shape->channels / 16;
    const v128_t merge = wasm_v128_load(((const panel_head *)a->panel)->merge);
    const uint8_t *t[BB_TILE_PIXELS];
    v128_t sum[BB_TILE_PIXELS], odd[BB_TILE_PIXELS], out[BB_TILE_PIXELS][2];
    for (size_t done = 0, steps; done < tap_steps; done += steps) { /* once, but for thousands of channels */
        steps = tap_steps - done < most ? tap_steps - done : most;
        const size_t from = a->first + 64 * done, skip = a->shape->channels * 4 - 64 * steps;
        const uint8_t *const *rows = a->rows + first, *const *end_rows = rows + a->shape->taps * BB_TILE_PIXELS;
        const uint8_t *at = w + 64 * done;
        while (rows != end_rows) {
            const size_t taps = most / steps, left = (size_t)(end_rows - rows) / BB_TILE_PIXELS;
            const uint8_t *const *stop = taps < left ? rows + taps * BB_TILE_PIXELS : end_rows;
            _Pragma("GCC unroll 8") for (size_t p = 0; p < n; p++) sum[p] = odd[p] = wasm_i16x8_const_splat(0);
            for (; rows != stop; rows += BB_TILE_PIXELS, at += skip) {
                _Pragma("GCC unroll 8") for (size_t p = 0; p < n; p++) t[p] = rows[p] + from;
                for (const uint8_t *end = at + steps * 64; at != end; at += 64) {
                    const v128_t i0 = wasm_v128_load(at), i1 = wasm_v128_load(at + 16);
                    const v128_t i2 = wasm_v128_load(at + 32), i3 = wasm_v128_load(at + 48);
                    _Pragma("GCC unroll 8") for (size_t p = 0; p < n; p++) {
                        v128_t s = wasm_i8x16_add(look_up(t[p], i0), look_up(t[p] + 16, i1));
                        s = wasm_i8x16_add(wasm_i8x16_add(s, look_up(t[p] + 32, i2)), look_up(t[p] + 48, i3));
                        sum[p] = wasm_i16x8_add(sum[p], merged ? wasm_i16x8_relaxed_dot_i8x16_i7x16(s, merge) : s);
                        if (!merged) odd[p] = wasm_i16x8_add(odd[p], wasm_u16x8_shr(s, 8));
                        t[p] += 64;
                    }
                }
            }
            /* through memory: a loop over pixels is smaller */
            _Pragma("GCC unroll 8") for (size_t p = 0; p < n; p++) {
                out[p][0] = sum[p];
                if (!merged) out[p][1] = odd[p];
            }
            _Pragma("clang loop unroll(disable)") for (size_t p = 0; p < n; p++) {
                if (merged) flush(acc + p * BB_TILE, out[p][0], NULL);
                else flush_two(acc + p * BB_TILE, out[p][0], out[p][1], m);
            }
        }
    }
}

/* The last 8 channels of each tap where they are no multiple of 16. */
static __attribute__((noinline)) void add_last(const bb_dot_args *a, int32_t *acc, size_t first, const uint8_t *w,
                                               const int32_t *m, size_t n)
{
    const size_t tap_bytes = a->shape->channels * 4, last = a->shape->channels * 4 - 32;
    const v128_t merge = wasm_v128_load(((const panel_head *)a->panel)->merge);
    for (size_t tap = 0; tap < a->shape->taps; tap++, w += tap_bytes) {
        const v128_t i0 = wasm_v128_load(w + last), i1 = wasm_v128_load(w + last + 16);
        for (size_t p = 0; p < n; p++) {
            const uint8_t *t = a->rows[tap * BB_TILE_PIXELS + first + p] + a->first + last;
            const v128_t s = wasm_i8x16_add(look_up(t, i0), look_up(t + 16, i1));
            if (m) flush_two(acc + p * BB_TILE, s, wasm_u16x8_shr(s, 8), m);
            else flush(acc + p * BB_TILE, wasm_i16x8_relaxed_dot_i8x16_i7x16(s, merge), NULL);
        }
    }
}

BB_INLINE void run_as(const bb_dot_args *a, const bool merged)
{
    const size_t n = merged ? BB_TILE_PIXELS : 4, bytes = plane_bytes(a->shape);
    const panel_head *head = a->panel;
    bb_relaxed_start(a);
    for (size_t first = 0; first < a->pixels; first += n) {
        const uint8_t *w = (const uint8_t *)(head + 1);
        for (size_t i = 0; i < a->shape->planes; i++, w += bytes) {
            int32_t *acc = a->acc + first * BB_TILE + (merged ? 8 * i : 0);
            const int32_t *m = merged ? NULL : head->multiplier + i * BB_TILE;
            if (a->shape->channels >= 16) add_plane(a, acc, first, w, m, n, merged);
            if (a->shape->channels % 16) add_last(a, acc, first, w, m, n);
        }
    }
}

static void run2(const bb_dot_args *a) { run_as(a, true); }
static void run(const bb_dot_args *a) { run_as(a, false); }

const bb_dot bb_dot_wasm_relaxed_table2 = {.name = "wasm_relaxed_table2", .rows = BB_ROWS_CENTRED, .sums = true,
                                           .cost = 0.34f, .fits = fits2, .panel_bytes = panel_bytes, .pack = pack2,
                                           .run = run2};
const bb_dot bb_dot_wasm_relaxed_table = {.name = "wasm_relaxed_table", .rows = BB_ROWS_TABLES, .sums = true,
                                          .per_plane = true, .cost = 0.2f, .fits = fits, .panel_bytes = panel_bytes,
                                          .pack = pack, .run = run};
