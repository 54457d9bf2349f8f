/* The dot ways of relaxed SIMD, and what they share. */
#ifndef BB_KERNELS_WASM_RELAXED_H
#define BB_KERNELS_WASM_RELAXED_H

#include <wasm_simd128.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_wasm_relaxed_table2, bb_dot_wasm_relaxed_table, bb_dot_wasm_relaxed_dot;
extern const bb_dot bb_dot_wasm_relaxed_wide, bb_dot_wasm_relaxed_dot32, bb_dot_wasm_relaxed_wide32;
extern const bb_dot bb_dot_wasm_relaxed_split32;
#define BB_RELAXED_WAYS                                                                          \
    &bb_dot_wasm_relaxed_table2, &bb_dot_wasm_relaxed_table, &bb_dot_wasm_relaxed_dot,           \
    &bb_dot_wasm_relaxed_wide, &bb_dot_wasm_relaxed_dot32, &bb_dot_wasm_relaxed_wide32,          \
    &bb_dot_wasm_relaxed_split32

/* A panel begins with it: acc starts at base + times·Σ a. */
typedef struct relaxed_start { int32_t base[BB_TILE], times[BB_TILE]; } relaxed_start;
void bb_relaxed_start(const bb_dot_args *a);

BB_INLINE void add_to(int32_t *acc, v128_t sum) { wasm_v128_store(acc, wasm_i32x4_add(wasm_v128_load(acc), sum)); }

#endif
