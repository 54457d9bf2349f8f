/* The f32 kernels in 512-bit vectors. */
#include <immintrin.h>

#define BB_ISA x86_avx512
#define BB_LANES 16
#include "kernels/vec_types.h"

BB_INLINE vf lesser(vf a, vf b) { return _mm512_min_ps(a, b); }
BB_INLINE vf greater(vf a, vf b) { return _mm512_max_ps(a, b); }

BB_INLINE void store_codes(uint8_t *code, const vi n[VECTORS])
{
    _mm_storeu_si128((__m128i *)code, _mm512_cvtepi32_epi8((__m512i)n[0]));
}

#include "kernels/vec.h"
