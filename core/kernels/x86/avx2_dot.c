/* Dot ways of AVX2.
 *   plain   vpmaddwd on both operands widened to 16 bits: every w in −128..127 and a in 0..255 is exact, as a pair sum
 *           is at most 2·128·255
 *   dot     vpmaddubsw, twice as many products an instruction, of codes and weights about the middle of their range:
 *               Σ w·a = Σ (w − c)·a + c·Σ a,   c = low + h,   |w − c| ≤ h = ⌈spread / 2⌉
 *           A pair sum, at most 2·h·levels, must fit 16 bits, and so many of them are added there as fit
 *   short   the same where few of them fit: vpmaddwd by 1 widens each */
#include <immintrin.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_x86_avx2, bb_dot_x86_avx2_dot, bb_dot_x86_avx2_short;

typedef int unaligned_i32 __attribute__((aligned(1), may_alias));

#define ROWS_OF(tap)                                                     \
    const uint8_t *x[4];                                                 \
    _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)               \
        x[i] = a->rows[(tap) * BB_TILE_PIXELS + first + i] + a->first

BB_INLINE __m256i load_four(const uint8_t *x) { return _mm256_set1_epi32(*(const unaligned_i32 *)x); }

/* Panel: int16 [taps][channels/2][BB_TILE][2]. */
static bool plain_fits(const bb_dot_shape *s) { return true; }
static size_t plain_bytes(const bb_dot_shape *s) { return 2 * bb_expanded_bytes(s); }

/* Bytes are made in the second half and widened from the first on, so none is overwritten before it is read. */
static void plain_pack(const bb_panel_args *a)
{
    __m256i *w = a->panel;
    const __m128i *bytes = (const __m128i *)((uint8_t *)a->panel + bb_expanded_bytes(a->shape));
    bb_panel_args second = *a;
    second.panel = (void *)bytes;
    bb_expand_panel(&second);
    for (size_t n = bb_expanded_bytes(a->shape) / 16; n; n--) *w++ = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes++));
}

static void plain_pixels(const bb_dot_args *a, size_t first)
{
    const __m256i *w = a->panel;
    __m256i sum[4][2] = {{{0}}};
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        ROWS_OF(tap);
        for (const __m256i *end = w + a->shape->channels; w != end; w += 2) {
            const __m256i w0 = w[0], w1 = w[1];
            _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) {
                const __m256i pair = load_four(x[i]);
                x[i] += 4;
                sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(pair, w0));
                sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(pair, w1));
            }
        }
    }
    _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) {
        _mm256_storeu_si256((__m256i *)(a->acc + (first + i) * BB_TILE), sum[i][0]);
        _mm256_storeu_si256((__m256i *)(a->acc + (first + i) * BB_TILE) + 1, sum[i][1]);
    }
}

static void plain_run(const bb_dot_args *a)
{
    for (size_t p = 0; p < a->pixels; p += 4) plain_pixels(a, p);
}

const bb_dot bb_dot_x86_avx2 = {.name = "x86_avx2", .rows = BB_ROWS_WIDE, .cost = 1, .fits = plain_fits,
                                .panel_bytes = plain_bytes, .pack = plain_pack, .run = plain_run};

/* Panel: head, then int8 [taps][channels/4][2][32], w − c: vector v has four channels of outputs 4v..4v+3 in its low
 * lane and 8 more in its high one. */
typedef struct panel_head { int32_t centre[BB_TILE]; } panel_head;

/* Groups of four channels whose pair sums fit 16 bits. */
BB_INLINE uint32_t groups_that_fit(const bb_dot_shape *s)
{
    return 32767 / (2 * s->levels * ((s->spread + 1) / 2) + !s->spread);
}

enum { MANY = 8 };
static bool dot_fits(const bb_dot_shape *s) { return groups_that_fit(s) >= MANY; }
static bool short_fits(const bb_dot_shape *s) { return groups_that_fit(s) > 0; }
static size_t dot_bytes(const bb_dot_shape *s) { return sizeof(panel_head) + bb_expanded_bytes(s); }

/* Pairs to fours, in place. */
static void dot_pack(const bb_panel_args *a)
{
    panel_head *head = a->panel;
    int8_t centre[2 * BB_TILE];
    __m256i *w = (__m256i *)(head + 1), *end = w + bb_expanded_bytes(a->shape) / 32;
    for (size_t j = 0; j < BB_TILE; j++) {
        head->centre[j] = a->low[j] + (int32_t)(a->shape->spread + 1) / 2;
        centre[2 * j] = centre[2 * j + 1] = (int8_t)head->centre[j];
    }
    const __m256i c = _mm256_loadu_si256((const __m256i *)centre);
    bb_panel_args pairs = *a;
    pairs.panel = w;
    bb_expand_panel(&pairs);
    for (; w != end; w += 2) {
        const __m256i even = _mm256_sub_epi8(w[0], c), odd = _mm256_sub_epi8(w[1], c);
        w[0] = _mm256_unpacklo_epi16(even, odd);
        w[1] = _mm256_unpackhi_epi16(even, odd);
    }
}

/* Adds c·Σ a, and puts the outputs in order. */
BB_INLINE void store_sums(const bb_dot_args *a, size_t pixel, __m256i v0, __m256i v1)
{
    const __m256i *centre = (const __m256i *)((const panel_head *)a->panel)->centre;
    const __m256i s = _mm256_set1_epi32(a->sums[pixel]);
    __m256i *acc = (__m256i *)(a->acc + pixel * BB_TILE);
    acc[0] = _mm256_add_epi32(_mm256_permute2x128_si256(v0, v1, 0x20), _mm256_mullo_epi32(s, centre[0]));
    acc[1] = _mm256_add_epi32(_mm256_permute2x128_si256(v0, v1, 0x31), _mm256_mullo_epi32(s, centre[1]));
}

/* The two 16-bit sums of an output, added to its 32 bits. */
BB_INLINE __m256i add_wide(__m256i sum, __m256i pairs)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* Adds `groups` times four channels of four pixels to their sums: of 16 bits, or of 32 if the constant `widen` is
 * true. */
BB_INLINE const __m256i *add_groups(__m256i sum[4][2], const uint8_t *x[4], const __m256i *w, size_t groups,
                                    const bool widen)
{
    for (const __m256i *end = w + 2 * groups; w != end; w += 2) {
        const __m256i w0 = w[0], w1 = w[1];
        _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) {
            const __m256i code = load_four(x[i]);
            const __m256i p0 = _mm256_maddubs_epi16(code, w0), p1 = _mm256_maddubs_epi16(code, w1);
            x[i] += 4;
            sum[i][0] = widen ? add_wide(sum[i][0], p0) : _mm256_add_epi16(sum[i][0], p0);
            sum[i][1] = widen ? add_wide(sum[i][1], p1) : _mm256_add_epi16(sum[i][1], p1);
        }
    }
    return w;
}

static void dot_pixels(const bb_dot_args *a, size_t first)
{
    const __m256i *w = (const __m256i *)((const panel_head *)a->panel + 1);
    const size_t most = groups_that_fit(a->shape);
    __m256i sum[4][2] = {{{0}}}, total[4][2] = {{{0}}};
    size_t free = most;
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        ROWS_OF(tap);
        for (size_t left = a->shape->channels / 4; left;) {
            const size_t n = left < free ? left : free;
            w = add_groups(sum, x, w, n, false);
            left -= n;
            free -= n;
            if (free) continue;
            _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)
                for (size_t v = 0; v < 2; v++) {
                    total[i][v] = add_wide(total[i][v], sum[i][v]);
                    sum[i][v] = _mm256_setzero_si256();
                }
            free = most;
        }
    }
    _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)
        store_sums(a, first + i, add_wide(total[i][0], sum[i][0]), add_wide(total[i][1], sum[i][1]));
}

static void short_pixels(const bb_dot_args *a, size_t first)
{
    const __m256i *w = (const __m256i *)((const panel_head *)a->panel + 1);
    __m256i sum[4][2] = {{{0}}};
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        ROWS_OF(tap);
        w = add_groups(sum, x, w, a->shape->channels / 4, true);
    }
    _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) store_sums(a, first + i, sum[i][0], sum[i][1]);
}

static void dot_run(const bb_dot_args *a)
{
    for (size_t p = 0; p < a->pixels; p += 4) dot_pixels(a, p);
}

static void short_run(const bb_dot_args *a)
{
    for (size_t p = 0; p < a->pixels; p += 4) short_pixels(a, p);
}

const bb_dot bb_dot_x86_avx2_dot = {.name = "x86_avx2_dot", .rows = BB_ROWS_CODES, .sums = true, .cost = 0.5f,
                                    .fits = dot_fits, .panel_bytes = dot_bytes, .pack = dot_pack, .run = dot_run};
const bb_dot bb_dot_x86_avx2_short = {.name = "x86_avx2_short", .rows = BB_ROWS_CODES, .sums = true, .cost = 0.8f,
                                      .fits = short_fits, .panel_bytes = dot_bytes, .pack = dot_pack,
                                      .run = short_run};
