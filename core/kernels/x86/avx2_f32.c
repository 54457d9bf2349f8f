/* The f32 kernels in 256-bit vectors, and the AVX2 set. */
#define BB_ISA x86_avx2
#define BB_LANES 8
#define BB_PIXEL_BLOCK 4 /* 8 sums, 2 weights: of 16 registers */
#include "kernels/vec.h"

BB_SET(BB_CPU_AVX2);
