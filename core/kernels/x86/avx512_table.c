/* Lookup tables of 4-bit codes in AVX-512: a vpshufb looks up four channels' worth of one bit plane in each of 64
 * bytes. A lane has one table, and the four lanes the tables of 16 channels; they are added at the end. */
#include <immintrin.h>

#define BB_ISA x86_avx512
#include "kernels/set.h"

extern const bb_dot bb_dot_x86_avx512_table, bb_dot_x86_avx512_table2;

/* Entry i of a table has code b if bit b of i is set: four shuffles that are zero elsewhere. */
void BB_FN(tables)(const bb_tables_args *a)
{
    __m512i pick[4];
    for (size_t b = 0; b < 4; b++) {
        uint8_t index[16];
        for (size_t i = 0; i < 16; i++) index[i] = i >> b & 1 ? (uint8_t)b : 0x80;
        pick[b] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)index));
    }
    const __m512i bias = _mm512_set1_epi8(a->bias);
    const __m512i four = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0); /* channels to a lane */
    for (size_t p = 0; p < a->pixels; p++) {
        const uint8_t *code = a->a + p * a->a_stride;
        uint8_t *t = a->t + p * a->t_stride;
        for (size_t c = 0; c < a->channels; c += 16) {
            const bool half = c + 16 > a->channels;
            const __m128i *at = (const __m128i *)(code + c);
            const __m128i codes = half ? _mm_loadl_epi64(at) : _mm_loadu_si128(at);
            const __m512i x = _mm512_permutexvar_epi32(four, _mm512_castsi128_si512(codes));
            const __m512i low = _mm512_add_epi8(_mm512_shuffle_epi8(x, pick[0]), _mm512_shuffle_epi8(x, pick[1]));
            const __m512i high = _mm512_add_epi8(_mm512_shuffle_epi8(x, pick[2]), _mm512_shuffle_epi8(x, pick[3]));
            const __m512i sum = _mm512_add_epi8(_mm512_add_epi8(low, high), bias);
            if (half) _mm256_storeu_si256((__m256i *)(t + 4 * c), _mm512_castsi512_si256(sum));
            else _mm512_storeu_si512(t + 4 * c, sum);
        }
    }
}

/* Panel: head, then the bits of channels 4g..4g+3 in lane g of 64-byte vectors, a byte for each output and plane:
 *   table   [planes][taps][channels/16]     byte j: output j
 *   table2  [taps][channels/16][2]          byte 2j + p of vector h: output 8h + j, plane p */
typedef struct panel_head {
    int32_t multiplier[BB_PLANES][BB_TILE], offset[BB_TILE];
    uint32_t unused[7 * BB_TILE];
} panel_head;

/* 64 channels' sums fit bytes: four lookups of at most 60. So many chunks of them fit 16 bits after two lanes are
 * added, plane by plane or with plane 1 counted twice. */
enum { CHUNK = 64, MOST = 65535 / (2 * 240), MOST2 = 65535 / (2 * 240 * 3) };

static size_t vectors(const bb_dot_shape *s) { return s->taps * ((s->channels + 15) / 16) * s->planes; }
static size_t panel_bytes(const bb_dot_shape *s) { return sizeof(panel_head) + vectors(s) * 64; }
static bool fits(const bb_dot_shape *s) { return s->levels < 16 && s->channels <= MOST * CHUNK; }
static bool fits2(const bb_dot_shape *s)
{
    return s->levels < 16 && s->planes == 2 && s->uniform && s->channels <= MOST2 * CHUNK;
}

/* Four nibbles of one plane's bytes, a lane each. The second eight channels are `next` bytes on, if there are any. */
BB_INLINE __m512i nibbles(const uint8_t *plane, size_t next)
{
    const __m128i x = _mm_loadu_si128((const __m128i *)plane);
    const __m128i y = next ? _mm_loadu_si128((const __m128i *)(plane + next)) : _mm_setzero_si128();
    const __m256i first = _mm256_set_m128i(_mm_srli_epi16(x, 4), x), second = _mm256_set_m128i(_mm_srli_epi16(y, 4), y);
    return _mm512_and_si512(_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1), _mm512_set1_epi8(15));
}

static void pack_constants(const bb_panel_args *a)
{
    panel_head *head = a->panel;
    for (size_t p = 0; p < a->shape->planes; p++)
        for (size_t j = 0; j < BB_TILE; j++) head->multiplier[p][j] = a->multiplier[p * BB_TILE + j];
    for (size_t j = 0; j < BB_TILE; j++) head->offset[j] = a->offset[j];
}

static void pack(const bb_panel_args *a)
{
    const bb_dot_shape *s = a->shape;
    const size_t block = s->planes * BB_TILE;
    __m512i *w = (__m512i *)((panel_head *)a->panel + 1);
    pack_constants(a);
    for (size_t p = 0; p < s->planes; p++)
        for (size_t tap = 0; tap < s->taps; tap++) {
            const uint8_t *plane = a->planes + tap * a->tap_stride + p * BB_TILE;
            for (size_t c = 0; c < s->channels; c += 16, plane += 2 * block)
                _mm512_storeu_si512(w++, nibbles(plane, c + 8 < s->channels ? block : 0));
        }
}

static void pack2(const bb_panel_args *a)
{
    const bb_dot_shape *s = a->shape;
    const size_t block = 2 * BB_TILE;
    __m512i *w = (__m512i *)((panel_head *)a->panel + 1);
    pack_constants(a);
    for (size_t tap = 0; tap < s->taps; tap++) {
        const uint8_t *plane = a->planes + tap * a->tap_stride;
        for (size_t c = 0; c < s->channels; c += 16, plane += 2 * block, w += 2) {
            const size_t next = c + 8 < s->channels ? block : 0;
            const __m512i low = nibbles(plane, next), high = nibbles(plane + BB_TILE, next);
            _mm512_storeu_si512(w, _mm512_unpacklo_epi8(low, high));
            _mm512_storeu_si512(w + 1, _mm512_unpackhi_epi8(low, high));
        }
    }
}

enum { N = BB_TILE_PIXELS };
#define EACH_PIXEL _Pragma("GCC unroll 8") for (size_t i = 0; i < N; i++)

/* The rows of all pixels under a tap. */
#define ROWS_OF(tap)        \
    const uint8_t *rows[N]; \
    EACH_PIXEL rows[i] = a->rows[(tap) * N + i] + a->first

BB_INLINE __m512i look(const uint8_t *row, __m512i index)
{
    return _mm512_shuffle_epi8(_mm512_loadu_si512(row), index);
}

/* The 64 channels at `row`. */
BB_INLINE __m512i look4(const uint8_t *row, const __m512i *index, const size_t step)
{
    const __m512i low = _mm512_add_epi8(look(row, index[0]), look(row + 64, index[step]));
    return _mm512_add_epi8(low, _mm512_add_epi8(look(row + 128, index[2 * step]), look(row + 192, index[3 * step])));
}

/* What remains, 16 or 8 channels at a time. */
BB_INLINE __m512i load_rest(const uint8_t *row, size_t c, size_t channels)
{
    return _mm512_maskz_loadu_epi64(c + 8 < channels ? 0xff : 0x0f, row + 4 * c);
}

/* Outputs 0–7 and 8–15 in four lanes of 16-bit sums each: the sums over the lanes. */
BB_INLINE __m256i add_halves(__m512i x)
{
    return _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
}
BB_INLINE __m512i add_lanes(__m256i low, __m256i high)
{
    return _mm512_add_epi32(_mm512_cvtepu16_epi32(_mm256_permute2x128_si256(low, high, 0x20)),
                            _mm512_cvtepu16_epi32(_mm256_permute2x128_si256(low, high, 0x31)));
}

/* offset·Σ a where sums begin, else what is there. */
BB_INLINE __m512i begin(const bb_dot_args *a, size_t pixel, bool fresh)
{
    const panel_head *head = a->panel;
    if (!fresh) return _mm512_loadu_si512(a->acc + pixel * BB_TILE);
    return _mm512_mullo_epi32(_mm512_loadu_si512(head->offset), _mm512_set1_epi32(a->sums[pixel]));
}

/* Sums of lookups hold 16 outputs in bytes. In 16 bits, all = Σ (256·odd + even) and odd = Σ odd, modulo 2^16. */
#define WIDEN(i, s)                                                       \
    do {                                                                  \
        all[i] = _mm512_add_epi16(all[i], s);                             \
        odd[i] = _mm512_add_epi16(odd[i], _mm512_srli_epi16(s, 8));       \
    } while (0)

/* One plane over taps first..end−1. */
static void add_plane(const bb_dot_args *a, size_t plane, size_t first, size_t end)
{
    const panel_head *head = a->panel;
    const size_t channels = a->shape->channels, whole = channels / CHUNK * CHUNK, step = (channels + 15) / 16;
    const __m512i *w = (const __m512i *)(head + 1) + (plane * a->shape->taps + first) * step;
    __m512i all[N], odd[N];
    EACH_PIXEL all[i] = odd[i] = _mm512_setzero_si512();
    for (size_t tap = first; tap < end; tap++) {
        ROWS_OF(tap);
        size_t c = 0;
        for (; c < whole; c += CHUNK, w += 4) {
            const __m512i index[4] = {w[0], w[1], w[2], w[3]};
            EACH_PIXEL {
                const __m512i s = look4(rows[i] + 4 * c, index, 1);
                WIDEN(i, s);
            }
        }
        if (channels - c >= 32) {
            const __m512i index[2] = {w[0], w[1]};
            EACH_PIXEL {
                const uint8_t *row = rows[i] + 4 * c;
                const __m512i s = _mm512_add_epi8(look(row, index[0]), look(row + 64, index[1]));
                WIDEN(i, s);
            }
            c += 32;
            w += 2;
        }
        for (; c < channels; c += 16, w++) {
            const __m512i index = *w;
            EACH_PIXEL {
                const __m512i s = _mm512_shuffle_epi8(load_rest(rows[i], c, channels), index);
                WIDEN(i, s);
            }
        }
    }
    const __m512i m = _mm512_loadu_si512(head->multiplier[plane]);
    EACH_PIXEL {
        const __m256i o = add_halves(odd[i]), e = _mm256_sub_epi16(add_halves(all[i]), _mm256_slli_epi16(o, 8));
        const __m512i sum = add_lanes(_mm256_unpacklo_epi16(e, o), _mm256_unpackhi_epi16(e, o));
        const __m512i acc = begin(a, i, plane == 0 && first == 0);
        _mm512_storeu_si512(a->acc + i * BB_TILE, _mm512_add_epi32(acc, _mm512_mullo_epi32(m, sum)));
    }
}

/* Both planes: pairs of bytes are weighted 1 and 2 as they are widened. */
static void add_planes2(const bb_dot_args *a, size_t first, size_t end)
{
    const size_t channels = a->shape->channels, whole = channels / CHUNK * CHUNK, step = (channels + 15) / 16 * 2;
    const __m512i *w = (const __m512i *)((const panel_head *)a->panel + 1) + first * step;
    const __m512i weights = _mm512_set1_epi16(0x0201);
    __m512i low[N], high[N];
    EACH_PIXEL low[i] = high[i] = _mm512_setzero_si512();
    for (size_t tap = first; tap < end; tap++) {
        ROWS_OF(tap);
        size_t c = 0;
        for (; c < whole; c += CHUNK, w += 8) {
            const __m512i index[8] = {w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]};
            EACH_PIXEL {
                const uint8_t *row = rows[i] + 4 * c;
                low[i] = _mm512_add_epi16(low[i], _mm512_maddubs_epi16(look4(row, index, 2), weights));
                high[i] = _mm512_add_epi16(high[i], _mm512_maddubs_epi16(look4(row, index + 1, 2), weights));
            }
        }
        for (; c < channels; c += 16, w += 2) {
            const __m512i index0 = w[0], index1 = w[1];
            EACH_PIXEL {
                const __m512i t = load_rest(rows[i], c, channels);
                low[i] = _mm512_add_epi16(low[i], _mm512_maddubs_epi16(_mm512_shuffle_epi8(t, index0), weights));
                high[i] = _mm512_add_epi16(high[i], _mm512_maddubs_epi16(_mm512_shuffle_epi8(t, index1), weights));
            }
        }
    }
    EACH_PIXEL {
        const __m512i sum = add_lanes(add_halves(low[i]), add_halves(high[i]));
        _mm512_storeu_si512(a->acc + i * BB_TILE, _mm512_add_epi32(begin(a, i, first == 0), sum));
    }
}

/* How many taps fit 16-bit sums. */
BB_INLINE size_t stretch(const bb_dot_shape *s, size_t most) { return most / ((s->channels + CHUNK - 1) / CHUNK); }
BB_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

static void run(const bb_dot_args *a)
{
    const size_t taps = a->shape->taps, n = stretch(a->shape, MOST);
    for (size_t p = 0; p < a->shape->planes; p++)
        for (size_t tap = 0; tap < taps; tap += n) add_plane(a, p, tap, least(tap + n, taps));
}

static void run2(const bb_dot_args *a)
{
    const size_t taps = a->shape->taps, n = stretch(a->shape, MOST2);
    for (size_t tap = 0; tap < taps; tap += n) add_planes2(a, tap, least(tap + n, taps));
}

const bb_dot bb_dot_x86_avx512_table = {.name = "x86_avx512_table", .rows = BB_ROWS_TABLES, .sums = true,
                                        .per_plane = true, .cost = 0.15f, .fits = fits, .panel_bytes = panel_bytes,
                                        .pack = pack, .run = run};
const bb_dot bb_dot_x86_avx512_table2 = {.name = "x86_avx512_table2", .rows = BB_ROWS_TABLES, .sums = true,
                                         .cost = 0.27f, .fits = fits2, .panel_bytes = panel_bytes, .pack = pack2,
                                         .run = run2};
