/* What AVX-512 adds to the AVX2 set. Ops that it leaves out are those of AVX2. */
#include "kernels/kernels.h"

extern const bb_dot bb_dot_x86_vnni;
extern const bb_kernels bb_kernels_x86_avx512;

const bb_kernels bb_kernels_x86_avx512 = {.isa = "x86_avx512", .needs = BB_CPU_AVX512, .dots = {&bb_dot_x86_vnni}};
