/* A module that loaded can run every instruction in it; whether it gives the right results, its loader has found
 * out (js/features.js). */
#include "kernels/kernels.h"

uint32_t bb_cpu_features(void) { return BB_CPU_WASM_SIMD128 | BB_CPU_WASM_RELAXED; }
