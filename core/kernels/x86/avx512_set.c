/* What AVX-512 adds to the AVX2 set. Ops that it leaves out are those of AVX2. */
#define BB_ISA x86_avx512
#include "kernels/set.h"

extern const bb_dot bb_dot_x86_avx512_table2, bb_dot_x86_avx512_table, bb_dot_x86_avx512_vnni;

const bb_kernels bb_kernels_x86_avx512 = {
    .isa = BB_SET_TEXT(BB_ISA), .needs = BB_CPU_AVX512, BB_VEC_OPS, .tables = BB_FN(tables),
    .dots = {&bb_dot_x86_avx512_table2, &bb_dot_x86_avx512_table, &bb_dot_x86_avx512_vnni}};
