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
