/* The f32 kernels in 256-bit vectors, and the AVX2 set. */
#include <immintrin.h>

#define BB_ISA x86_avx2
#define BB_LANES 8
#include "kernels/vec_types.h"

BB_INLINE vf lesser(vf a, vf b) { return _mm256_min_ps(a, b); }
BB_INLINE vf greater(vf a, vf b) { return _mm256_max_ps(a, b); }

BB_INLINE void store_codes(uint8_t *code, const vi n[VECTORS])
{
    const __m256i h = _mm256_packus_epi32((__m256i)n[0], (__m256i)n[1]); /* 0–3, 8–11 and 4–7, 12–15 */
    const __m256i in_order = _mm256_permute4x64_epi64(h, 0xd8);
    _mm_storeu_si128((__m128i *)code,
                     _mm_packus_epi16(_mm256_castsi256_si128(in_order), _mm256_extracti128_si256(in_order, 1)));
}

#include "kernels/vec.h"

extern const bb_dot bb_dot_x86_avx2_table, bb_dot_x86_avx2_dot, bb_dot_x86_avx2_short, bb_dot_x86_avx2;
BB_SET(BB_CPU_AVX2, &bb_dot_x86_avx2_table, &bb_dot_x86_avx2_dot, &bb_dot_x86_avx2_short, &bb_dot_x86_avx2);
