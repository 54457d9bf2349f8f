/* The f32 kernels in 128-bit vectors, and the simd128 set. */
#define BB_ISA wasm_simd128
#define BB_LANES 4
#include "kernels/vec.h"

BB_SET(BB_CPU_WASM_SIMD128);
