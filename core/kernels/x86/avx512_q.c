/* Quantized layers in AVX-512: the epilogue. */
#include <immintrin.h>

#define BB_ISA x86_avx512
#include "kernels/set.h"

void BB_FN(dequantize_tile)(const bb_dequantize_args *a)
{
    const __m512 bias = _mm512_loadu_ps(a->bias);
    for (size_t p = 0; p < a->pixels; p++) {
        __m512 sum = _mm512_setzero_ps();
        for (size_t g = 0; g < a->segments; g++) {
            const __m512i acc = _mm512_loadu_si512(a->acc + (g * BB_TILE_PIXELS + p) * BB_TILE);
            const __m512i n = _mm512_sub_epi32(acc, _mm512_loadu_si512(a->zsum + g * BB_TILE));
            const __m512 e = _mm512_loadu_ps(a->e + g * BB_TILE);
            sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_cvtepi32_ps(n), e));
        }
        sum = _mm512_add_ps(sum, bias);
        if (a->add) sum = _mm512_add_ps(sum, _mm512_loadu_ps(a->add + p * a->add_stride));
        _mm512_storeu_ps(a->y + p * a->y_stride, sum);
    }
}
