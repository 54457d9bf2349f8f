/* The f32 kernels in 128-bit vectors, and the simd128 set. */
#include <wasm_simd128.h>

#define BB_ISA wasm_simd128
#define BB_LANES 4
#include "kernels/vec_types.h"

/* pmin(b, a) is a < b ? a : b, pmax(b, a) is b < a ? a : b. */
BB_INLINE vf lesser(vf a, vf b) { return (vf)wasm_f32x4_pmin((v128_t)b, (v128_t)a); }
BB_INLINE vf greater(vf a, vf b) { return (vf)wasm_f32x4_pmax((v128_t)b, (v128_t)a); }

BB_INLINE void store_codes(uint8_t *code, const vi n[VECTORS])
{
    const v128_t low = wasm_i16x8_narrow_i32x4((v128_t)n[0], (v128_t)n[1]);
    wasm_v128_store(code, wasm_u8x16_narrow_i16x8(low, wasm_i16x8_narrow_i32x4((v128_t)n[2], (v128_t)n[3])));
}

#include "kernels/vec.h"

extern const bb_dot bb_dot_wasm_simd128_table, bb_dot_wasm_simd128_pair, bb_dot_wasm_simd128_pair_short;
extern const bb_dot bb_dot_wasm_simd128;
BB_SET(BB_CPU_WASM_SIMD128, &bb_dot_wasm_simd128_table, &bb_dot_wasm_simd128_pair, &bb_dot_wasm_simd128_pair_short,
       &bb_dot_wasm_simd128);
