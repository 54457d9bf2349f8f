/* Lookup tables of 4-bit codes: first the four sums of each pair of channels, then those of two pairs. */
#include <wasm_simd128.h>

#define BB_ISA wasm_simd128
#include "kernels/set.h"

#define NO 0x80 /* a swizzle gives 0 there */

void BB_FN(tables)(const bb_tables_args *a)
{
    const v128_t first = wasm_u8x16_const(NO, 0, NO, 0, NO, 2, NO, 2, NO, 4, NO, 4, NO, 6, NO, 6);
    const v128_t second = wasm_u8x16_const(NO, NO, 1, 1, NO, NO, 3, 3, NO, NO, 5, 5, NO, NO, 7, 7);
    const v128_t pair1 = wasm_u8x16_const(4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);
    const v128_t pair3 = wasm_u8x16_const(12, 12, 12, 12, 13, 13, 13, 13, 14, 14, 14, 14, 15, 15, 15, 15);
    const v128_t bias = wasm_i8x16_splat((int8_t)(a->bias / 2));
    BB_ASSERT(a->bias % 2 == 0);
    for (size_t p = 0; p < a->pixels; p++) {
        const uint8_t *code = a->a + p * a->a_stride, *end = code + a->channels;
        for (uint8_t *t = a->t + p * a->t_stride; code != end; code += 8, t += 32) {
            const v128_t x = wasm_v128_load64_zero(code);
            const v128_t sums = wasm_i8x16_add(wasm_i8x16_swizzle(x, first), wasm_i8x16_swizzle(x, second));
            const v128_t pairs = wasm_i8x16_add(sums, bias);
            wasm_v128_store(t, wasm_i8x16_add(wasm_i32x4_shuffle(pairs, pairs, 0, 0, 0, 0),
                                              wasm_i8x16_swizzle(pairs, pair1)));
            wasm_v128_store(t + 16, wasm_i8x16_add(wasm_i32x4_shuffle(pairs, pairs, 2, 2, 2, 2),
                                                   wasm_i8x16_swizzle(pairs, pair3)));
        }
    }
}
