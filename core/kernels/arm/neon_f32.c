/* The f32 kernels in 128-bit vectors, and the NEON set. */
#include <arm_neon.h>

#define BB_ISA arm_neon
#define BB_LANES 4
#include "kernels/vec_types.h"

/* fmin and fmax would give NaN where one of them is. */
BB_INLINE vf lesser(vf a, vf b) { return choose((vi)(a < b), a, b); }
BB_INLINE vf greater(vf a, vf b) { return choose((vi)(a > b), a, b); }

BB_INLINE void store_codes(uint8_t *code, const vi n[VECTORS])
{
    const int16x8_t low = vcombine_s16(vmovn_s32((int32x4_t)n[0]), vmovn_s32((int32x4_t)n[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32((int32x4_t)n[2]), vmovn_s32((int32x4_t)n[3]));
    vst1q_u8(code, vcombine_u8(vqmovun_s16(low), vqmovun_s16(high)));
}

#include "kernels/vec.h"

extern const bb_dot bb_dot_arm_neon_table, bb_dot_arm_neon;
BB_SET(BB_CPU_NEON, &bb_dot_arm_neon_table, &bb_dot_arm_neon);
