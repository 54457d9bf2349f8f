/* The dot way of AVX-512 VNNI. vpdpbusd adds four products of a u8 code and an s8 weight to an int32 with nothing cut
 * off on the way, so one way serves all codes and weights. */
#include <immintrin.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_x86_avx512_vnni;

enum { BLOCK = 16, VECTORS = 4 }; /* channels of one output in a 128-bit lane; vectors for all outputs */

/* Panel: int8 [taps][channels/16][4][4][16]: lane l of vector r has 16 channels of output 4r + l, so a pixel's codes
 * are loaded once, the same 16 to all lanes, for four vectors. Rows of 8 channels more end in half a block. */
static size_t panel_bytes(const bb_dot_shape *s) { return s->taps * bb_align_up(s->channels, BLOCK) * BB_TILE; }
static bool fits(const bb_dot_shape *s) { return true; }

/* Byte i of lane l = the low byte of x[4r + l]. Weights modulo 256 are enough, as they fit int8. */
BB_INLINE __m512i by_lane(const int16_t *x, size_t r)
{
    const __m128i bytes = _mm256_cvtepi16_epi8(_mm256_loadu_si256((const __m256i *)x));
    const __m512i lane = _mm512_set_epi64(0x0303030303030303, 0x0303030303030303, 0x0202020202020202, 0x0202020202020202,
                                          0x0101010101010101, 0x0101010101010101, 0, 0);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), _mm512_add_epi8(lane, _mm512_set1_epi8((char)(4 * r))));
}

/* Entry i of lane l: what output 4r + l gets from four planes, whose bits are i. */
static __m512i weights_of(const bb_panel_args *a, size_t first, size_t r)
{
    static const uint64_t has_bit[4] = {0xaaaaaaaaaaaaaaaa, 0xcccccccccccccccc, 0xf0f0f0f0f0f0f0f0, 0xff00ff00ff00ff00};
    __m512i w = first ? _mm512_setzero_si512() : by_lane(a->offset, r);
    for (size_t p = first; p < a->shape->planes && p < first + 4; p++)
        w = _mm512_mask_add_epi8(w, has_bit[p - first], w, by_lane(a->multiplier + p * BB_TILE, r));
    return w;
}

/* Swaps bits `mask` with those `shift` above them. */
BB_INLINE __m512i swap_bits(__m512i x, int shift, int64_t mask)
{
    const __m512i t = _mm512_and_si512(_mm512_xor_si512(x, _mm512_srli_epi64(x, (unsigned)shift)),
                                       _mm512_set1_epi64(mask));
    return _mm512_xor_si512(_mm512_xor_si512(x, t), _mm512_slli_epi64(t, (unsigned)shift));
}

/* Up to four planes of two blocks of eight channels, of which the second is `next` bytes on, or 0 if next is 0: a
 * nibble for each weight, the four bits that planes have. Output j is quadword j; the first block is the low nibble of
 * its bytes, the second the high one. */
BB_INLINE void gather_bits(__m512i bits[2], const uint8_t *at, size_t planes, size_t next)
{
    const __m256i order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0); /* doublewords of both blocks to quadwords */
    __m256i v[4] = {{0}}, q[4];
    _Pragma("GCC unroll 4") for (size_t p = 0; p < 4; p++, at += BB_TILE) {
        if (p >= planes) break;
        v[p] = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at));
        if (next) v[p] = _mm256_inserti128_si256(v[p], _mm_loadu_si128((const __m128i *)(at + next)), 1);
        else v[p] = _mm256_zextsi128_si256(_mm256_castsi256_si128(v[p]));
    }
    const __m256i low01 = _mm256_unpacklo_epi8(v[0], v[1]), high01 = _mm256_unpackhi_epi8(v[0], v[1]);
    const __m256i low23 = _mm256_unpacklo_epi8(v[2], v[3]), high23 = _mm256_unpackhi_epi8(v[2], v[3]);
    q[0] = _mm256_permutevar8x32_epi32(_mm256_unpacklo_epi16(low01, low23), order);
    q[1] = _mm256_permutevar8x32_epi32(_mm256_unpackhi_epi16(low01, low23), order);
    q[2] = _mm256_permutevar8x32_epi32(_mm256_unpacklo_epi16(high01, high23), order);
    q[3] = _mm256_permutevar8x32_epi32(_mm256_unpackhi_epi16(high01, high23), order);
    _Pragma("GCC unroll 2") for (size_t i = 0; i < 2; i++) { /* 8 × 8 bits transposed in each quadword */
        __m512i x = _mm512_inserti64x4(_mm512_castsi256_si512(q[2 * i]), q[2 * i + 1], 1);
        x = swap_bits(x, 7, 0x00aa00aa00aa00aa);
        x = swap_bits(x, 14, 0x0000cccc0000cccc);
        bits[i] = swap_bits(x, 28, 0x00000000f0f0f0f0);
    }
}

/* Lane l: the nibbles of output 4r + l, 16 channels in order. */
BB_INLINE __m512i nibbles(const __m512i bits[2], size_t r)
{
    const __m512i lower = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0), upper = _mm512_set_epi64(7, 7, 6, 6, 5, 5, 4, 4);
    const __m512i twice = _mm512_permutexvar_epi64(r % 2 ? upper : lower, bits[r / 2]);
    const __m512i shifted = _mm512_srlv_epi64(twice, _mm512_set_epi64(4, 0, 4, 0, 4, 0, 4, 0));
    return _mm512_and_si512(shifted, _mm512_set1_epi8(15));
}

/* The part of planes first..first+3, added to what those before them made. */
static void pack_planes(const bb_panel_args *a, size_t first)
{
    const bb_dot_shape *s = a->shape;
    const size_t block = s->planes * BB_TILE, planes = s->planes - first;
    __m512i table[VECTORS], *w = a->panel;
    for (size_t r = 0; r < VECTORS; r++) table[r] = weights_of(a, first, r);
    for (size_t tap = 0; tap < s->taps; tap++) {
        const uint8_t *at = a->planes + tap * a->tap_stride + first * BB_TILE;
        for (size_t c = 0; c < s->channels; c += BLOCK, at += 2 * block) {
            __m512i bits[2];
            gather_bits(bits, at, planes, c + 8 < s->channels ? block : 0);
            _Pragma("GCC unroll 4") for (size_t r = 0; r < VECTORS; r++, w++) {
                const __m512i part = _mm512_shuffle_epi8(table[r], nibbles(bits, r));
                *w = first ? _mm512_add_epi8(*w, part) : part;
            }
        }
    }
}

static void pack(const bb_panel_args *a)
{
    pack_planes(a, 0);
    if (a->shape->planes > 4) pack_planes(a, 4);
}

/* Doubleword 4r + l = the sum of lane l of sum[r]. */
BB_INLINE __m512i add_across(const __m512i sum[VECTORS])
{
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[0], sum[1]), _mm512_unpackhi_epi32(sum[0], sum[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[2], sum[3]), _mm512_unpackhi_epi32(sum[2], sum[3]));
    const __m512i lanes = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)); /* 4l + r */
    return _mm512_permutexvar_epi32(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), lanes);
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
