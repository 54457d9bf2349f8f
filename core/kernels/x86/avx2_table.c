/* The dot way of AVX2 by lookup tables of 4-bit codes, plane by plane: a vpshufb looks up eight channels' worth of one
 * bit plane for 16 outputs, a table in each lane. */
#include <immintrin.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_x86_avx2_table;

/* Panel: head, then [planes][taps][channels/8][32]: byte j of lane g has the bits of channels 4g..4g+3 of output j. */
typedef struct panel_head { int32_t multiplier[BB_PLANES][BB_TILE], offset[BB_TILE]; } panel_head;

/* 32 channels' sums fit bytes: four lookups of at most 60. So many chunks of them fit 16 bits. */
enum { N = 4, CHUNK = 32, MOST = 65535 / 240 };

static bool fits(const bb_dot_shape *s) { return s->levels < 16 && s->channels <= MOST * CHUNK; }
static size_t panel_bytes(const bb_dot_shape *s)
{
    return sizeof(panel_head) + s->planes * s->taps * (s->channels / 8) * 32;
}

static void pack(const bb_panel_args *a)
{
    const bb_dot_shape *s = a->shape;
    panel_head *head = a->panel;
    __m256i *w = (__m256i *)(head + 1);
    for (size_t j = 0; j < BB_TILE; j++) head->offset[j] = a->offset[j];
    for (size_t p = 0; p < s->planes; p++) {
        for (size_t j = 0; j < BB_TILE; j++) head->multiplier[p][j] = a->multiplier[p * BB_TILE + j];
        for (size_t tap = 0; tap < s->taps; tap++) {
            const uint8_t *plane = a->planes + tap * a->tap_stride + p * BB_TILE;
            for (size_t c = 0; c < s->channels; c += 8, plane += s->planes * BB_TILE) {
                const __m128i x = _mm_loadu_si128((const __m128i *)plane);
                *w++ = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 4), x), _mm256_set1_epi8(15));
            }
        }
    }
}

BB_INLINE __m256i look(const uint8_t *row, __m256i index)
{
    return _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)row), index);
}

/* Sums of lookups hold 16 outputs in bytes. In 16 bits, all = Σ (256·odd + even) and odd = Σ odd, modulo 2^16. */
#define WIDEN(i, s)                                                       \
    do {                                                                  \
        all[i] = _mm256_add_epi16(all[i], s);                             \
        odd[i] = _mm256_add_epi16(odd[i], _mm256_srli_epi16(s, 8));       \
    } while (0)

BB_INLINE __m256i load_int(const int32_t *x) { return _mm256_loadu_si256((const __m256i *)x); }

/* Eight outputs from the 16-bit sums of both lanes: acc, or at the start offset·Σ a, += multiplier·sum. */
BB_INLINE void add_outputs(const bb_dot_args *a, size_t pixel, size_t out, size_t plane, bool fresh, __m256i sums)
{
    const panel_head *head = a->panel;
    int32_t *acc = a->acc + pixel * BB_TILE + out;
    const __m256i sum = _mm256_add_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(sums)),
                                         _mm256_cvtepu16_epi32(_mm256_extracti128_si256(sums, 1)));
    const __m256i product = _mm256_mullo_epi32(sum, load_int(head->multiplier[plane] + out));
    __m256i start;
    if (fresh) start = _mm256_mullo_epi32(load_int(head->offset + out), _mm256_set1_epi32(a->sums[pixel]));
    else start = load_int(acc);
    _mm256_storeu_si256((__m256i *)acc, _mm256_add_epi32(start, product));
}

/* One plane of pixels first..first+3 over taps tap..end−1. */
static void add_plane(const bb_dot_args *a, size_t first, size_t plane, size_t tap, size_t end)
{
    const bool fresh = plane == 0 && tap == 0;
    const panel_head *head = a->panel;
    const size_t channels = a->shape->channels, whole = channels / CHUNK * CHUNK;
    const __m256i *w = (const __m256i *)(head + 1) + (plane * a->shape->taps + tap) * (channels / 8);
    __m256i all[N] = {{0}}, odd[N] = {{0}};
    for (; tap < end; tap++) {
        const uint8_t *rows[N];
        _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++)
            rows[i] = a->rows[tap * BB_TILE_PIXELS + first + i] + a->first;
        size_t c = 0;
        for (; c < whole; c += CHUNK, w += 4) {
            const __m256i n0 = w[0], n1 = w[1], n2 = w[2], n3 = w[3];
            _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) {
                const uint8_t *t = rows[i] + 4 * c;
                const __m256i low = _mm256_add_epi8(look(t, n0), look(t + 32, n1));
                const __m256i s = _mm256_add_epi8(low, _mm256_add_epi8(look(t + 64, n2), look(t + 96, n3)));
                WIDEN(i, s);
            }
        }
        for (; c < channels; c += 8, w++) {
            const __m256i index = *w;
            _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) {
                const __m256i s = look(rows[i] + 4 * c, index);
                WIDEN(i, s);
            }
        }
    }
    _Pragma("GCC unroll 4") for (size_t i = 0; i < N; i++) {
        const __m256i even = _mm256_sub_epi16(all[i], _mm256_slli_epi16(odd[i], 8));
        add_outputs(a, first + i, 0, plane, fresh, _mm256_unpacklo_epi16(even, odd[i]));
        add_outputs(a, first + i, 8, plane, fresh, _mm256_unpackhi_epi16(even, odd[i]));
    }
}

static void run(const bb_dot_args *a)
{
    const size_t taps = a->shape->taps, most = MOST / ((a->shape->channels + CHUNK - 1) / CHUNK);
    for (size_t first = 0; first < a->pixels; first += N)
        for (size_t p = 0; p < a->shape->planes; p++)
            for (size_t tap = 0; tap < taps; tap += most)
                add_plane(a, first, p, tap, taps - tap < most ? taps : tap + most);
}

const bb_dot bb_dot_x86_avx2_table = {.name = "x86_avx2_table", .rows = BB_ROWS_TABLES, .sums = true,
                                      .per_plane = true, .cost = 0.19f, .fits = fits, .panel_bytes = panel_bytes,
                                      .pack = pack, .run = run};
