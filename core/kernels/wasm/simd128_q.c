/* Quantized layers in WebAssembly SIMD, all but the products. */
#include <wasm_simd128.h>

#define BB_ISA wasm_simd128
#include "kernels/set.h"

/* 16 × i16 to their low bytes. */
BB_INLINE v128_t low_bytes(const int16_t *x)
{
    const v128_t mask = wasm_i16x8_const_splat(0xff);
    return wasm_u8x16_narrow_i16x8(wasm_v128_and(wasm_v128_load(x), mask),
                                   wasm_v128_and(wasm_v128_load(x + 8), mask));
}

/* Sums modulo 256 are enough, as the results fit int8. */
void BB_FN(expand_tile)(const bb_expand_args *a)
{
    const v128_t offset = low_bytes(a->offset);
    v128_t multiplier[BB_PLANES];
    BB_ASSERT(a->n_planes <= BB_PLANES);
    for (size_t p = 0; p < a->n_planes; p++) multiplier[p] = low_bytes(a->multiplier + p * BB_TILE);
    const uint8_t *planes = a->planes;
    int8_t *out = a->w;
    for (size_t block = 0; block < a->k_blocks; block++, out += 8 * BB_TILE) {
        v128_t w[8] = {offset, offset, offset, offset, offset, offset, offset, offset};
        for (size_t p = 0; p < a->n_planes; p++, planes += BB_TILE) {
            const v128_t plane = wasm_v128_load(planes);
            _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++) {
                const v128_t bit = wasm_i8x16_splat((int8_t)(1 << i));
                const v128_t set = wasm_i8x16_eq(wasm_v128_and(plane, bit), bit);
                w[i] = wasm_i8x16_add(w[i], wasm_v128_and(set, multiplier[p]));
            }
        }
        _Pragma("GCC unroll 4") for (int t = 0; t < 4; t++) {
            const v128_t even = w[2 * t], odd = w[2 * t + 1];
            wasm_v128_store(out + 32 * t, wasm_i8x16_shuffle(even, odd, 0, 16, 1, 17, 2, 18, 3, 19,
                                                             4, 20, 5, 21, 6, 22, 7, 23));
            wasm_v128_store(out + 32 * t + 16, wasm_i8x16_shuffle(even, odd, 8, 24, 9, 25, 10, 26, 11, 27,
                                                                  12, 28, 13, 29, 14, 30, 15, 31));
        }
    }
}

/* Four outputs of all pixels; one: there is one segment, whose constants then stay in registers. */
BB_INLINE void dequantize_outputs(const bb_dequantize_args *a, size_t j, const bool one)
{
    const v128_t zsum = wasm_v128_load(a->zsum + j), e = wasm_v128_load(a->e + j), bias = wasm_v128_load(a->bias + j);
    const float *add = a->add ? a->add + j : NULL;
    float *y = a->y + j;
    for (size_t p = 0; p < a->pixels; p++, y += a->y_stride) {
        const int32_t *acc = a->acc + p * BB_TILE + j;
        v128_t sum = wasm_f32x4_const_splat(0);
        for (size_t g = 0; g < (one ? 1 : a->segments); g++, acc += BB_TILE_PIXELS * BB_TILE) {
            const v128_t z = one ? zsum : wasm_v128_load(a->zsum + g * BB_TILE + j);
            const v128_t n = wasm_f32x4_convert_i32x4(wasm_i32x4_sub(wasm_v128_load(acc), z));
            sum = wasm_f32x4_add(sum, wasm_f32x4_mul(n, one ? e : wasm_v128_load(a->e + g * BB_TILE + j)));
        }
        sum = wasm_f32x4_add(sum, bias);
        if (add) {
            sum = wasm_f32x4_add(sum, wasm_v128_load(add));
            add += a->add_stride;
        }
        wasm_v128_store(y, sum);
    }
}

void BB_FN(dequantize_tile)(const bb_dequantize_args *a)
{
    for (size_t j = 0; j < BB_TILE; j += 4)
        if (a->segments == 1) dequantize_outputs(a, j, true);
        else dequantize_outputs(a, j, false);
}
