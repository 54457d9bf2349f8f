/* What the relaxed dot ways share. */
#ifndef BB_KERNELS_WASM_RELAXED_H
#define BB_KERNELS_WASM_RELAXED_H

#include <wasm_simd128.h>

#include "kernels/kernels.h"

/* A panel begins with it: acc starts at base + times·Σ a. */
typedef struct relaxed_start { int32_t base[BB_TILE], times[BB_TILE]; } relaxed_start;
void bb_relaxed_start(const bb_dot_args *a);

BB_INLINE void add_to(int32_t *acc, v128_t sum) { wasm_v128_store(acc, wasm_i32x4_add(wasm_v128_load(acc), sum)); }

#endif
