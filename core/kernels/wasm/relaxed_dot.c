/* Dot ways by i16x8.relaxed_dot_i8x16_i7x16_s: 16 products an instruction where simd128 has 8. Engines agree on it only
 * while its second operand is 0..127, so:
 *   dot    codes of 7 bits or fewer          acc = Σ w·a                                             w, a
 *   wide   8 bits, weights of 7 or fewer     acc = Σ (a − 128)·(w − low) + 128·Σ w + low·Σ (a − 128)   a − 128, w − low
 * int32 sums wrap, so it is enough that the result fits. Eight bits of both are left to simd128. */
#include <wasm_simd128.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_wasm_relaxed, bb_dot_wasm_relaxed_wide;

/* Panel: base and low of each output (wide: acc starts at base + low·Σ a), then int8 [taps][channels/4][2][8][4]:
 * four channels of four outputs fill a vector. */
typedef struct panel_head {
    int32_t base[BB_TILE], low[BB_TILE];
    uint32_t groups; /* of four channels, whose sums fit 16 bits */
    uint32_t unused[15];
} panel_head;

static bool fits_narrow(const bb_dot_shape *s) { return s->levels < 128; }
static bool fits_wide(const bb_dot_shape *s) { return s->levels >= 128 && s->spread < 128; }
static size_t panel_bytes(const bb_dot_shape *s) { return sizeof(panel_head) + bb_expanded_bytes(s); }

/* One output has two 16-bit lanes, each the sum of two products a group. */
static uint32_t groups_that_fit(const bb_panel_args *a, bool wide)
{
    uint32_t w = wide ? a->shape->spread : 0;
    for (size_t j = 0; j < BB_TILE && !wide; j++) {
        const int32_t low = a->low[j], top = low + (int32_t)a->shape->spread, high = top < 127 ? top : 127;
        if (-low > (int32_t)w) w = (uint32_t)-low;
        if (high > (int32_t)w) w = (uint32_t)high;
    }
    const uint32_t most = 2 * w * (wide ? 128 : a->shape->levels);
    BB_ASSERT(most <= 32767);
    return most ? 32767 / most : 32767;
}

/* Pairs to quads, in place; wide: minus low, with Σ w of all positions into base. */
static void pack(const bb_panel_args *a, bool wide)
{
    panel_head *head = a->panel;
    int8_t *w = (int8_t *)(head + 1), *end = w + bb_expanded_bytes(a->shape);
    const v128_t low = wasm_v128_load(a->low), zero = wasm_i32x4_const_splat(0);
    const v128_t low0 = wasm_i8x16_shuffle(low, low, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const v128_t low1 = wasm_i8x16_shuffle(low, low, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
    v128_t sum[4] = {zero, zero, zero, zero};
    bb_expand_panel(&(bb_panel_args){.panel = w, .shape = a->shape, .planes = a->planes, .tap_stride = a->tap_stride,
                                     .multiplier = a->multiplier, .offset = a->offset, .kernels = a->kernels});
    for (; w != end; w += 4 * BB_TILE) {
        v128_t e0 = wasm_v128_load(w), e1 = wasm_v128_load(w + 16), o0 = wasm_v128_load(w + 32);
        v128_t o1 = wasm_v128_load(w + 48);
        if (wide) {
            const v128_t p0 = wasm_i16x8_add(wasm_i16x8_extadd_pairwise_i8x16(e0), wasm_i16x8_extadd_pairwise_i8x16(o0));
            const v128_t p1 = wasm_i16x8_add(wasm_i16x8_extadd_pairwise_i8x16(e1), wasm_i16x8_extadd_pairwise_i8x16(o1));
            sum[0] = wasm_i32x4_add(sum[0], wasm_i32x4_extend_low_i16x8(p0));
            sum[1] = wasm_i32x4_add(sum[1], wasm_i32x4_extend_high_i16x8(p0));
            sum[2] = wasm_i32x4_add(sum[2], wasm_i32x4_extend_low_i16x8(p1));
            sum[3] = wasm_i32x4_add(sum[3], wasm_i32x4_extend_high_i16x8(p1));
            e0 = wasm_i8x16_sub(e0, low0), o0 = wasm_i8x16_sub(o0, low0);
            e1 = wasm_i8x16_sub(e1, low1), o1 = wasm_i8x16_sub(o1, low1);
        }
        wasm_v128_store(w, wasm_i16x8_shuffle(e0, o0, 0, 8, 1, 9, 2, 10, 3, 11));
        wasm_v128_store(w + 16, wasm_i16x8_shuffle(e0, o0, 4, 12, 5, 13, 6, 14, 7, 15));
        wasm_v128_store(w + 32, wasm_i16x8_shuffle(e1, o1, 0, 8, 1, 9, 2, 10, 3, 11));
        wasm_v128_store(w + 48, wasm_i16x8_shuffle(e1, o1, 4, 12, 5, 13, 6, 14, 7, 15));
    }
    const int32_t count = (int32_t)(128 * a->shape->taps * a->shape->channels);
    for (size_t v = 0; v < 4; v++) wasm_v128_store(head->base + 4 * v, wasm_i32x4_shl(sum[v], 7));
    for (size_t j = 0; j < BB_TILE; j++) {
        head->low[j] = wide ? a->low[j] : 0;
        head->base[j] -= head->low[j] * count;
    }
    head->groups = groups_that_fit(a, wide);
}

static void pack_narrow(const bb_panel_args *a) { pack(a, false); }
static void pack_wide(const bb_panel_args *a) { pack(a, true); }

/* Pixels first..first+3, outputs out..out+7: 8 sums stay in registers, lanes 2j and 2j + 1 of one belong to output j. */
BB_INLINE void dot_pixels(const bb_dot_args *a, size_t first, size_t out, const bool wide)
{
    enum { N = 4 };
    const panel_head *head = a->panel;
    const v128_t flip = wasm_i8x16_const_splat(-128), zero = wasm_i16x8_const_splat(0);
    const int8_t *w = (const int8_t *)(head + 1) + out * 4;
    const uint8_t *codes[N];
    v128_t sum[N][2], total[N][2];
    size_t free = head->groups;
    _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) {
        const v128_t s = wide ? wasm_i32x4_splat(a->sums[first + i]) : zero;
        for (size_t v = 0; v < 2; v++) {
            sum[i][v] = total[i][v] = zero;
            if (wide)
                total[i][v] = wasm_i32x4_add(wasm_v128_load(head->base + out + 4 * v),
                                             wasm_i32x4_mul(wasm_v128_load(head->low + out + 4 * v), s));
        }
    }
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++)
            codes[i] = a->rows[tap * BB_TILE_PIXELS + first + i] + a->first;
        for (size_t left = a->shape->channels / 4; left;) {
            const size_t run = left < free ? left : free;
            left -= run;
            free -= run;
            for (const int8_t *end = w + run * 4 * BB_TILE; w != end; w += 4 * BB_TILE) {
                const v128_t w0 = wasm_v128_load(w), w1 = wasm_v128_load(w + 16);
                _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) {
                    v128_t x = wasm_v128_load32_splat(codes[i]);
                    if (wide) x = wasm_v128_xor(x, flip);
                    sum[i][0] = wasm_i16x8_add(sum[i][0], wide ? wasm_i16x8_relaxed_dot_i8x16_i7x16(x, w0)
                                                               : wasm_i16x8_relaxed_dot_i8x16_i7x16(w0, x));
                    sum[i][1] = wasm_i16x8_add(sum[i][1], wide ? wasm_i16x8_relaxed_dot_i8x16_i7x16(x, w1)
                                                               : wasm_i16x8_relaxed_dot_i8x16_i7x16(w1, x));
                    codes[i] += 4;
                }
            }
            if (free && (left || tap + 1 < a->shape->taps)) continue;
            _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++)
                for (size_t v = 0; v < 2; v++) {
                    total[i][v] = wasm_i32x4_add(total[i][v], wasm_i32x4_extadd_pairwise_i16x8(sum[i][v]));
                    sum[i][v] = zero;
                }
            free = head->groups;
        }
    }
    for (size_t i = 0; i < N; i++)
        for (size_t v = 0; v < 2; v++) wasm_v128_store(a->acc + (first + i) * BB_TILE + out + 4 * v, total[i][v]);
}

BB_INLINE void run(const bb_dot_args *a, const bool wide)
{
    for (size_t p = 0; p < a->pixels; p += 4)
        for (size_t out = 0; out < BB_TILE; out += 8) dot_pixels(a, p, out, wide);
}

static void run_narrow(const bb_dot_args *a) { run(a, false); }
static void run_wide(const bb_dot_args *a) { run(a, true); }

const bb_dot bb_dot_wasm_relaxed = {.name = "wasm_relaxed_dot", .rows = BB_ROWS_CODES, .cost = 0.58f,
                                    .fits = fits_narrow, .panel_bytes = panel_bytes, .pack = pack_narrow,
                                    .run = run_narrow};
const bb_dot bb_dot_wasm_relaxed_wide = {.name = "wasm_relaxed_wide", .rows = BB_ROWS_CODES, .sums = true,
                                         .cost = 0.92f, .fits = fits_wide, .panel_bytes = panel_bytes,
                                         .pack = pack_wide, .run = run_wide};
