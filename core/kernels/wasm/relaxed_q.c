/* The dot product by i16x8.relaxed_dot_i8x16_i7x16_s: 16 products an instruction where simd128 has 8. Engines agree on
 * it only while its second operand is 0..127, so:
 *   codes of 7 bits or fewer        acc = Σ w·a                                            w, a
 *   8 bits, weights of 7 or fewer   acc = Σ (a − 128)·(w − low) + 128·Σ w + low·Σ (a − 128)   a − 128, w − low
 *   8 bits both                     the kernel of simd128
 * int32 sums wrap, so it is enough that the result fits. The 32-bit form of the instruction is not used: without
 * VNNI, V8 makes five instructions of it, and then simd128 is faster. Everything else this set leaves to simd128. */
#include <wasm_simd128.h>

#define BB_ISA wasm_relaxed
#include "kernels/set.h"

bb_dot_tile_fn bb_dot_tile__wasm_simd128;

typedef struct dot_runs {
    size_t groups;     /* of four channels, whose sums fit 16 bits */
    v128_t low[2];     /* of 8 outputs each: bytes (output, either channel of a pair) */
} dot_runs;

/* One output has two 16-bit lanes, each the sum of two products a group. */
static size_t groups_that_fit(const bb_dot_args *a, bool wide)
{
    uint32_t w = wide ? a->spread : 0;
    for (size_t j = 0; j < BB_TILE && !wide; j++) {
        const int32_t low = a->low[j], high = low + (int32_t)a->spread;
        if (-low > (int32_t)w) w = (uint32_t)-low;
        if (high > (int32_t)w) w = (uint32_t)high;
    }
    const uint32_t most = 2 * w * (wide ? 128 : a->levels);
    BB_ASSERT(most <= 32767);
    return most ? 32767 / most : 32767;
}

/* Σ w of each output over everything, padding too. */
static void sum_weights(const bb_dot_args *a, v128_t sum[4])
{
    for (size_t v = 0; v < 4; v++) sum[v] = wasm_i32x4_const_splat(0);
    for (size_t tap = 0; tap < a->taps; tap++) {
        const int8_t *w = a->w + tap * a->tap_stride;
        for (size_t left = a->channels / 2; left;) {
            const size_t run = left < 127 ? left : 127; /* pairs; 127·2·128 < 2^15 */
            v128_t low = wasm_i16x8_const_splat(0), high = low;
            for (size_t i = 0; i < run; i++, w += 2 * BB_TILE) {
                low = wasm_i16x8_add(low, wasm_i16x8_extadd_pairwise_i8x16(wasm_v128_load(w)));
                high = wasm_i16x8_add(high, wasm_i16x8_extadd_pairwise_i8x16(wasm_v128_load(w + BB_TILE)));
            }
            sum[0] = wasm_i32x4_add(sum[0], wasm_i32x4_extend_low_i16x8(low));
            sum[1] = wasm_i32x4_add(sum[1], wasm_i32x4_extend_high_i16x8(low));
            sum[2] = wasm_i32x4_add(sum[2], wasm_i32x4_extend_low_i16x8(high));
            sum[3] = wasm_i32x4_add(sum[3], wasm_i32x4_extend_high_i16x8(high));
            left -= run;
        }
    }
}

/* Σ (a − 128) of one pixel over everything, padding too. */
static int32_t sum_codes(const bb_dot_args *a, size_t pixel)
{
    v128_t sum = wasm_i32x4_const_splat(0);
    for (size_t tap = 0; tap < a->taps; tap++) {
        const uint8_t *code = a->rows[pixel * a->taps + tap] + a->a_first;
        for (size_t left = a->channels / 8; left;) {
            const size_t run = left < 128 ? left : 128; /* 128·255 < 2^15 */
            v128_t part = wasm_i16x8_const_splat(0);
            for (size_t i = 0; i < run; i++, code += 8) part = wasm_i16x8_add(part, wasm_u16x8_load8x8(code));
            sum = wasm_i32x4_add(sum, wasm_i32x4_extadd_pairwise_i16x8(part));
            left -= run;
        }
    }
    return wasm_i32x4_extract_lane(sum, 0) + wasm_i32x4_extract_lane(sum, 1) + wasm_i32x4_extract_lane(sum, 2) +
           wasm_i32x4_extract_lane(sum, 3) - (int32_t)(128 * a->taps * a->channels);
}

/* acc before the products: 0, or 128·Σ w + low·Σ (a − 128). */
static void begin_sums(const bb_dot_args *a, bool wide)
{
    v128_t start[4], low[4];
    memset(a->acc, 0, a->pixels * BB_TILE * sizeof *a->acc);
    if (!wide) return;
    sum_weights(a, start);
    for (size_t v = 0; v < 4; v++) {
        const int8_t *l = a->low + 4 * v;
        low[v] = wasm_i32x4_make(l[0], l[1], l[2], l[3]);
        start[v] = wasm_i32x4_shl(start[v], 7);
    }
    for (size_t p = 0; p < a->pixels; p++) {
        const v128_t codes = wasm_i32x4_splat(sum_codes(a, p));
        for (size_t v = 0; v < 4; v++)
            wasm_v128_store(a->acc + p * BB_TILE + 4 * v,
                            wasm_i32x4_add(start[v], wasm_i32x4_mul(low[v], codes)));
    }
}

/* Pixels first..first+n−1, outputs out..out+7. n and wide are constants at every call: 2n sums stay in registers.
 * Four channels of four outputs fill a vector, so the lanes 2j and 2j + 1 of a sum belong to output j. */
BB_INLINE void dot_pixels(const bb_dot_args *a, const dot_runs *runs, size_t first, size_t out, const size_t n,
                          const bool wide)
{
    const v128_t low = runs->low[out / 8], flip = wasm_i8x16_const_splat(-128), zero = wasm_i16x8_const_splat(0);
    int32_t *acc = a->acc + first * BB_TILE + out;
    v128_t sum[4][2];
    const uint8_t *codes[4];
    size_t free = runs->groups;
    _Pragma("GCC unroll 4") for (size_t i = 0; i < n; i++) sum[i][0] = sum[i][1] = zero;
    for (size_t tap = 0; tap < a->taps; tap++) {
        const int8_t *w = a->w + tap * a->tap_stride + out * 2;
        _Pragma("GCC unroll 4") for (size_t i = 0; i < n; i++)
            codes[i] = a->rows[(first + i) * a->taps + tap] + a->a_first;
        for (size_t left = a->channels / 4; left;) {
            const size_t run = left < free ? left : free;
            left -= run;
            free -= run;
            for (const int8_t *end = w + run * 4 * BB_TILE; w != end; w += 4 * BB_TILE) {
                v128_t even = wasm_v128_load(w), odd = wasm_v128_load(w + 2 * BB_TILE);
                if (wide) even = wasm_i8x16_sub(even, low), odd = wasm_i8x16_sub(odd, low);
                const v128_t w0 = wasm_i16x8_shuffle(even, odd, 0, 8, 1, 9, 2, 10, 3, 11);
                const v128_t w1 = wasm_i16x8_shuffle(even, odd, 4, 12, 5, 13, 6, 14, 7, 15);
                _Pragma("GCC unroll 4") for (size_t i = 0; i < n; i++) {
                    v128_t x = wasm_v128_load32_splat(codes[i]);
                    if (wide) x = wasm_v128_xor(x, flip);
                    sum[i][0] = wasm_i16x8_add(sum[i][0], wide ? wasm_i16x8_relaxed_dot_i8x16_i7x16(x, w0)
                                                               : wasm_i16x8_relaxed_dot_i8x16_i7x16(w0, x));
                    sum[i][1] = wasm_i16x8_add(sum[i][1], wide ? wasm_i16x8_relaxed_dot_i8x16_i7x16(x, w1)
                                                               : wasm_i16x8_relaxed_dot_i8x16_i7x16(w1, x));
                    codes[i] += 4;
                }
            }
            if (free && (left || tap + 1 < a->taps)) continue;
            _Pragma("GCC unroll 4") for (size_t i = 0; i < n; i++) {
                for (size_t v = 0; v < 2; v++) {
                    int32_t *to = acc + i * BB_TILE + 4 * v;
                    const v128_t more = wasm_i32x4_extadd_pairwise_i16x8(sum[i][v]);
                    wasm_v128_store(to, wasm_i32x4_add(wasm_v128_load(to), more));
                    sum[i][v] = zero;
                }
            }
            free = runs->groups;
        }
    }
}

BB_INLINE void dot_all(const bb_dot_args *a, const bool wide)
{
    dot_runs runs = {.groups = groups_that_fit(a, wide)};
    const v128_t low = wasm_v128_load(a->low);
    runs.low[0] = wasm_i8x16_shuffle(low, low, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    runs.low[1] = wasm_i8x16_shuffle(low, low, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
    begin_sums(a, wide);
    for (size_t out = 0; out < BB_TILE; out += 8) {
        size_t p = 0;
        for (; p + 4 <= a->pixels; p += 4) dot_pixels(a, &runs, p, out, 4, wide);
        for (; p < a->pixels; p++) dot_pixels(a, &runs, p, out, 1, wide);
    }
}

void BB_FN(dot_tile)(const bb_dot_args *a)
{
    if (a->levels < 128) dot_all(a, false);
    else if (a->spread < 128) dot_all(a, true);
    else bb_dot_tile__wasm_simd128(a);
}

const bb_kernels bb_kernels_wasm_relaxed = {.isa = "wasm_relaxed", .needs = BB_CPU_WASM_RELAXED,
                                            .dot_tile = BB_FN(dot_tile)};
