/* The dot way of AVX-512 VNNI. vpdpbusd adds four products of a u8 code and an s8 weight to an int32 with nothing cut
 * off on the way, so one way serves all codes and weights. */
#include <immintrin.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_x86_avx512_vnni;

enum { BLOCK = 16, VECTORS = 4 }; /* channels of one output in a 128-bit lane; vectors for all outputs */

/* Panel: int8 [taps][channels/16][4][4][16]: lane l of vector r has 16 channels of output 4l + r, so a pixel's codes
 * are loaded once, the same 16 to all lanes, for four vectors. Rows of 8 channels more end in half a block. */
static size_t panel_bytes(const bb_dot_shape *s) { return s->taps * bb_align_up(s->channels, BLOCK) * BB_TILE; }
static bool fits(const bb_dot_shape *s) { return true; }

/* Byte i of lane l is x[4l + r]: a constant of each output, in the order of vector r. */
BB_INLINE __m512i by_output(const int16_t *x, int r)
{
    const __m512i lanes = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)); /* dword r of lane l */
    return _mm512_shuffle_epi8(lanes, _mm512_set1_epi8((char)(4 * r)));
}

/* Sums modulo 256 are enough, as the results fit int8. */
static void pack(const bb_panel_args *a)
{
    const bb_dot_shape *s = a->shape;
    const size_t block_bytes = s->planes * BB_TILE;
    /* words of 16 channels in output order to [r][l], so that 64 bits are the mask of a vector */
    const __m256i order = _mm256_set_epi16(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i offset[VECTORS], multiplier[BB_PLANES][VECTORS], *w = a->panel;
    BB_ASSERT(s->planes <= BB_PLANES);
    for (int r = 0; r < VECTORS; r++) {
        offset[r] = by_output(a->offset, r);
        for (size_t p = 0; p < s->planes; p++) multiplier[p][r] = by_output(a->multiplier + p * BB_TILE, r);
    }
    for (size_t tap = 0; tap < s->taps; tap++) {
        const uint8_t *planes = a->planes + tap * a->tap_stride, *end = planes + s->channels / 8 * block_bytes;
        for (; planes < end; planes += 2 * block_bytes, w += VECTORS) {
            __m512i sum[VECTORS] = {offset[0], offset[1], offset[2], offset[3]};
            for (size_t p = 0; p < s->planes; p++) {
                const uint8_t *at = planes + p * BB_TILE;
                const __m128i low = _mm_loadu_si128((const __m128i *)at);
                const __m128i high = planes + block_bytes < end ? _mm_loadu_si128((const __m128i *)(at + block_bytes))
                                                                : _mm_setzero_si128();
                const __m256i words = _mm256_or_si256(_mm256_cvtepu8_epi16(low),
                                                      _mm256_slli_epi16(_mm256_cvtepu8_epi16(high), 8));
                _Alignas(32) uint64_t mask[VECTORS];
                _mm256_store_si256((__m256i *)mask, _mm256_permutexvar_epi16(order, words));
                for (int r = 0; r < VECTORS; r++)
                    sum[r] = _mm512_mask_add_epi8(sum[r], mask[r], sum[r], multiplier[p][r]);
            }
            for (int r = 0; r < VECTORS; r++) _mm512_storeu_si512(w + r, sum[r]);
        }
    }
}

/* dword r of lane l = the sum of the four dwords in lane l of sum[r]. */
BB_INLINE __m512i add_across(const __m512i sum[VECTORS])
{
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[0], sum[1]), _mm512_unpackhi_epi32(sum[0], sum[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[2], sum[3]), _mm512_unpackhi_epi32(sum[2], sum[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* One block of n pixels against 16 outputs. */
#define DOT_BLOCK(codes_of)                                                             \
    do {                                                                                \
        __m512i v[VECTORS];                                                             \
        _Pragma("GCC unroll 4") for (int r = 0; r < VECTORS; r++) v[r] = _mm512_loadu_si512(w + r); \
        _Pragma("GCC unroll 4") for (size_t i = 0; i < n; i++) {                        \
            const __m512i x = _mm512_broadcast_i32x4(codes_of((const __m128i *)(rows[i] + c))); \
            _Pragma("GCC unroll 4") for (int r = 0; r < VECTORS; r++)                   \
                sum[i][r] = _mm512_dpbusd_epi32(sum[i][r], x, v[r]);                    \
        }                                                                               \
        w += VECTORS;                                                                   \
    } while (0)

/* Pixels first..first+n−1 over all taps. n is a constant at every call: 4n sums stay in registers. */
BB_INLINE void dot_pixels(const bb_dot_args *a, size_t first, const size_t n)
{
    __m512i sum[4][VECTORS];
    _Pragma("GCC unroll 4") for (size_t i = 0; i < n; i++)
        _Pragma("GCC unroll 4") for (int r = 0; r < VECTORS; r++) sum[i][r] = _mm512_setzero_si512();
    const __m512i *w = a->panel;
    const size_t whole = a->shape->channels / BLOCK * BLOCK;
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        const uint8_t *rows[4];
        for (size_t i = 0; i < n; i++) rows[i] = a->rows[tap * BB_TILE_PIXELS + first + i] + a->first;
        size_t c = 0;
        for (; c < whole; c += BLOCK) DOT_BLOCK(_mm_loadu_si128);
        if (c < a->shape->channels) DOT_BLOCK(_mm_loadl_epi64);
    }
    _Pragma("GCC unroll 4") for (size_t i = 0; i < n; i++)
        _mm512_storeu_si512(a->acc + (first + i) * BB_TILE, add_across(sum[i]));
}

static void run(const bb_dot_args *a)
{
    if (a->pixels == 1) dot_pixels(a, 0, 1);
    else if (a->pixels == 2) dot_pixels(a, 0, 2);
    else dot_pixels(a, 0, 4);
    if (a->pixels > 4) dot_pixels(a, 4, 4);
}

const bb_dot bb_dot_x86_avx512_vnni = {.name = "x86_avx512_vnni", .rows = BB_ROWS_CODES, .cost = 0.42f, .fits = fits,
                                .panel_bytes = panel_bytes, .pack = pack, .run = run};
