/* What relaxed SIMD adds to the simd128 set: dot ways. All ops are those of simd128, and so is the way for which there is
 * no better one; the other ways do not come along, as modules are to be small. */
#define BB_ISA wasm_simd128
#include "kernels/set.h"

extern const bb_dot bb_dot_wasm_relaxed_table2, bb_dot_wasm_relaxed_table, bb_dot_wasm_relaxed_dot;
extern const bb_dot bb_dot_wasm_relaxed_wide, bb_dot_wasm_relaxed_dot32, bb_dot_wasm_relaxed_wide32;
extern const bb_dot bb_dot_wasm_relaxed_split32, bb_dot_wasm_simd128;
extern const bb_kernels bb_kernels_wasm_relaxed;

const bb_kernels bb_kernels_wasm_relaxed = {
    .isa = "wasm_relaxed", .needs = BB_CPU_WASM_RELAXED,
    .dots = {&bb_dot_wasm_relaxed_table2, &bb_dot_wasm_relaxed_table, &bb_dot_wasm_relaxed_dot,
             &bb_dot_wasm_relaxed_wide, &bb_dot_wasm_relaxed_dot32, &bb_dot_wasm_relaxed_wide32,
             &bb_dot_wasm_relaxed_split32, &bb_dot_wasm_simd128},
    BB_ALL_OPS};
