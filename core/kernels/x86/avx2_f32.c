/* The f32 kernels in 256-bit vectors, and the AVX2 set. */
#define BB_ISA x86_avx2
#define BB_LANES 8
#include "kernels/vec.h"

BB_SET(BB_CPU_AVX2);
