/* Quantized layers in AVX2: what is around their sums. */
#include <immintrin.h>

#define BB_ISA x86_avx2
#include "kernels/set.h"

typedef long long unaligned_i64 __attribute__((aligned(1), may_alias));

/* Sums modulo 256 are enough, as the results fit int8. A vector holds an even k in its low half, the next above. */
void BB_FN(expand_tile)(const bb_expand_args *a)
{
    const __m256i low_byte = _mm256_set1_epi16(0xff);
    const __m256i offset16 = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)a->offset), low_byte);
    const __m256i offset = _mm256_permute4x64_epi64(_mm256_packus_epi16(offset16, offset16), 0x88);
    __m256i bit[4], multiplier[BB_PLANES];
    BB_ASSERT(a->n_planes <= BB_PLANES);
    for (int t = 0; t < 4; t++)
        bit[t] = _mm256_set_m128i(_mm_set1_epi8((char)(2 << 2 * t)), _mm_set1_epi8((char)(1 << 2 * t)));
    for (size_t p = 0; p < a->n_planes; p++) {
        const __m256i *m = (const __m256i *)(a->multiplier + p * BB_TILE);
        const __m256i m16 = _mm256_and_si256(_mm256_loadu_si256(m), low_byte);
        multiplier[p] = _mm256_permute4x64_epi64(_mm256_packus_epi16(m16, m16), 0x88);
    }
    const uint8_t *planes = a->planes;
    __m128i *out = (__m128i *)a->w;
    for (size_t block = 0; block < a->k_blocks; block++, out += 8) {
        __m256i w[4] = {offset, offset, offset, offset};
        for (size_t p = 0; p < a->n_planes; p++, planes += BB_TILE) {
            const __m256i plane = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)planes));
            _Pragma("GCC unroll 4") for (int t = 0; t < 4; t++) {
                const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(plane, bit[t]), bit[t]);
                w[t] = _mm256_add_epi8(w[t], _mm256_and_si256(set, multiplier[p]));
            }
        }
        _Pragma("GCC unroll 4") for (int t = 0; t < 4; t++) {
            const __m128i even = _mm256_castsi256_si128(w[t]), odd = _mm256_extracti128_si256(w[t], 1);
            _mm_storeu_si128(out + 2 * t, _mm_unpacklo_epi8(even, odd));
            _mm_storeu_si128(out + 2 * t + 1, _mm_unpackhi_epi8(even, odd));
        }
    }
}

/* Entry i of a table has code b if bit b of i is set: four shuffles that are zero elsewhere, of two tables. */
void BB_FN(tables)(const bb_tables_args *a)
{
    const __m256i bias = _mm256_set1_epi8(a->bias);
    __m256i pick[4];
    for (size_t b = 0; b < 4; b++) {
        uint8_t index[32];
        for (size_t i = 0; i < 32; i++) index[i] = i >> b & 1 ? (uint8_t)(i / 16 * 4 + b) : 0x80;
        pick[b] = _mm256_loadu_si256((const __m256i *)index);
    }
    for (size_t p = 0; p < a->pixels; p++) {
        const uint8_t *code = a->a + p * a->a_stride;
        uint8_t *t = a->t + p * a->t_stride;
        for (size_t c = 0; c < a->channels; c += 8, t += 32) {
            const __m256i x = _mm256_set1_epi64x(*(const unaligned_i64 *)(code + c));
            __m256i sum = bias;
            _Pragma("GCC unroll 4") for (size_t b = 0; b < 4; b++)
                sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(x, pick[b]));
            _mm256_storeu_si256((__m256i *)t, sum);
        }
    }
}
