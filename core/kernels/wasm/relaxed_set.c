/* Relaxed SIMD in one module with the simd128 set, as tests and benchmarks have it: all ops are those of simd128, and so
 * is the way for which there is no better one. */
#define BB_ISA wasm_simd128
#include "kernels/set.h"
#include "kernels/wasm/relaxed.h"

extern const bb_dot bb_dot_wasm_simd128;
extern const bb_kernels bb_kernels_wasm_relaxed;

const bb_kernels bb_kernels_wasm_relaxed = {
    .isa = "wasm_relaxed", .needs = BB_CPU_WASM_RELAXED,
    .dots = {BB_RELAXED_WAYS, &bb_dot_wasm_simd128}, BB_ALL_OPS};
