/* What relaxed SIMD adds to the simd128 set: dot ways. All ops are those of simd128. */
#include "kernels/kernels.h"

extern const bb_dot bb_dot_wasm_relaxed, bb_dot_wasm_relaxed_wide, bb_dot_wasm_relaxed_table2, bb_dot_wasm_relaxed_table;
extern const bb_kernels bb_kernels_wasm_relaxed;

const bb_kernels bb_kernels_wasm_relaxed = {.isa = "wasm_relaxed", .needs = BB_CPU_WASM_RELAXED,
                                            .dots = {&bb_dot_wasm_relaxed_table2, &bb_dot_wasm_relaxed_table,
                                                     &bb_dot_wasm_relaxed, &bb_dot_wasm_relaxed_wide}};
