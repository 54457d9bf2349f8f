/* A module that loaded can run every instruction in it. */
#include "kernels/kernels.h"

uint32_t bb_cpu_features(void) { return BB_CPU_WASM_SIMD128; }
