/* Lookup tables of 4-bit codes, and the dot way by them, one bit plane at a time: any multipliers. One instruction looks up
 * the sums of four channels for 16 outputs; four of at most 60 fit a byte, RUN of them 16 bits. */
#include <arm_neon.h>

#define BB_ISA arm_neon
#include "kernels/set.h"

extern const bb_dot bb_dot_arm_neon_table;

/* Panel: offsets, multipliers int32 [1 + planes][BB_TILE], then [planes][taps][channels/4][BB_TILE] bytes: the index,
 * which is the four bits of the plane. */
enum { PIXELS = 4, RUN = 65535 / 60 / 4 * 4 }; /* in groups of four channels */

#define NO 255 /* a lookup gives 0 there */

/* First the four sums of each pair of channels, then those of two pairs. */
void BB_FN(tables)(const bb_tables_args *a)
{
    static const uint8_t at[4][16] = {{NO, 0, NO, 0, NO, 2, NO, 2, NO, 4, NO, 4, NO, 6, NO, 6},
                                      {NO, NO, 1, 1, NO, NO, 3, 3, NO, NO, 5, 5, NO, NO, 7, 7},
                                      {4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7},
                                      {12, 12, 12, 12, 13, 13, 13, 13, 14, 14, 14, 14, 15, 15, 15, 15}};
    const uint8x16_t first = vld1q_u8(at[0]), second = vld1q_u8(at[1]), pair1 = vld1q_u8(at[2]);
    const uint8x16_t pair3 = vld1q_u8(at[3]), bias = vdupq_n_u8((uint8_t)(a->bias / 2));
    BB_ASSERT(a->bias % 2 == 0);
    for (size_t p = 0; p < a->pixels; p++) {
        const uint8_t *code = a->a + p * a->a_stride, *end = code + a->channels;
        for (uint8_t *t = a->t + p * a->t_stride; code != end; code += 8, t += 32) {
            const uint8x16_t x = vcombine_u8(vld1_u8(code), vdup_n_u8(0));
            const uint8x16_t pairs = vaddq_u8(vaddq_u8(vqtbl1q_u8(x, first), vqtbl1q_u8(x, second)), bias);
            const uint32x4_t quads = vreinterpretq_u32_u8(pairs);
            vst1q_u8(t, vaddq_u8(vreinterpretq_u8_u32(vdupq_laneq_u32(quads, 0)), vqtbl1q_u8(pairs, pair1)));
            vst1q_u8(t + 16, vaddq_u8(vreinterpretq_u8_u32(vdupq_laneq_u32(quads, 2)), vqtbl1q_u8(pairs, pair3)));
        }
    }
}

static bool fits(const bb_dot_shape *s) { return s->levels < 16; }
static size_t constants(const bb_dot_shape *s) { return (1 + s->planes) * BB_TILE; }

static size_t panel_bytes(const bb_dot_shape *s)
{
    return constants(s) * sizeof(int32_t) + s->planes * s->taps * s->channels / 4 * BB_TILE;
}

static void pack(const bb_panel_args *a)
{
    const bb_dot_shape *s = a->shape;
    int32_t *offset = a->panel;
    uint8_t *index = (uint8_t *)(offset + constants(s));
    for (size_t j = 0; j < BB_TILE; j++) offset[j] = a->offset[j];
    for (size_t i = 0; i < s->planes * BB_TILE; i++) offset[BB_TILE + i] = a->multiplier[i];
    for (size_t p = 0; p < s->planes; p++)
        for (size_t tap = 0; tap < s->taps; tap++) {
            const uint8_t *plane = a->planes + tap * a->tap_stride + p * BB_TILE;
            for (size_t c = 0; c < s->channels; c += 8, plane += s->planes * BB_TILE, index += 2 * BB_TILE) {
                const uint8x16_t bits = vld1q_u8(plane);
                vst1q_u8(index, vandq_u8(bits, vdupq_n_u8(15)));
                vst1q_u8(index + BB_TILE, vshrq_n_u8(bits, 4));
            }
        }
}

/* `groups` (at most four) groups of four channels of each pixel. */
BB_INLINE void look_up(uint16x8_t sum[PIXELS][2], const uint8_t *table[PIXELS], const uint8_t *index, size_t groups)
{
    uint8x16_t i[4];
    _Pragma("GCC unroll 4") for (size_t g = 0; g < groups; g++) i[g] = vld1q_u8(index + g * BB_TILE);
    _Pragma("GCC unroll 4") for (size_t p = 0; p < PIXELS; p++) {
        uint8x16_t bytes = vqtbl1q_u8(vld1q_u8(table[p]), i[0]);
        _Pragma("GCC unroll 4") for (size_t g = 1; g < groups; g++)
            bytes = vaddq_u8(bytes, vqtbl1q_u8(vld1q_u8(table[p] + g * 16), i[g]));
        table[p] += groups * 16;
        sum[p][0] = vaddw_u8(sum[p][0], vget_low_u8(bytes));
        sum[p][1] = vaddw_high_u8(sum[p][1], bytes);
    }
}

/* acc += multiplier · sum, and zeros into the sum. */
BB_INLINE void add_plane(int32_t *acc, uint16x8_t sum[2], const int32_t *multiplier)
{
    const uint32x4_t wide[4] = {vmovl_u16(vget_low_u16(sum[0])), vmovl_high_u16(sum[0]),
                                vmovl_u16(vget_low_u16(sum[1])), vmovl_high_u16(sum[1])};
    for (size_t v = 0; v < 4; v++)
        vst1q_s32(acc + 4 * v, vmlaq_s32(vld1q_s32(acc + 4 * v), vreinterpretq_s32_u32(wide[v]),
                                         vld1q_s32(multiplier + 4 * v)));
    sum[0] = sum[1] = vdupq_n_u16(0);
}

/* One plane of pixels first..first+3; returns the next plane's indices. */
static const uint8_t *run_plane(const bb_dot_args *a, size_t first, const int32_t *multiplier, const uint8_t *index)
{
    uint16x8_t sum[PIXELS][2];
    size_t free = RUN;
    for (size_t p = 0; p < PIXELS; p++) sum[p][0] = sum[p][1] = vdupq_n_u16(0);
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        const uint8_t *table[PIXELS];
        for (size_t p = 0; p < PIXELS; p++) table[p] = a->rows[tap * BB_TILE_PIXELS + first + p] + a->first;
        for (size_t left = a->shape->channels / 4; left;) {
            const size_t run = left < free ? left : free;
            left -= run;
            free -= run;
            for (const uint8_t *end = index + run / 4 * 4 * BB_TILE; index != end; index += 4 * BB_TILE)
                look_up(sum, table, index, 4);
            if (run & 2) {
                look_up(sum, table, index, 2);
                index += 2 * BB_TILE;
            }
            if (free && (left || tap + 1 < a->shape->taps)) continue;
            for (size_t p = 0; p < PIXELS; p++) add_plane(a->acc + (first + p) * BB_TILE, sum[p], multiplier);
            free = RUN;
        }
    }
    return index;
}

static void run(const bb_dot_args *a)
{
    const int32_t *offset = a->panel;
    for (size_t first = 0; first < a->pixels; first += PIXELS) {
        const uint8_t *index = (const uint8_t *)(offset + constants(a->shape));
        for (size_t p = first; p < first + PIXELS; p++)
            for (size_t j = 0; j < BB_TILE; j += 4)
                vst1q_s32(a->acc + p * BB_TILE + j, vmulq_n_s32(vld1q_s32(offset + j), a->sums[p]));
        for (size_t p = 0; p < a->shape->planes; p++) index = run_plane(a, first, offset + (1 + p) * BB_TILE, index);
    }
}

/* Costs are counted instructions, no ARM machine was there: 9 for 256 multiply-adds of a plane, against one for 4. */
const bb_dot bb_dot_arm_neon_table = {.name = "arm_neon_table", .rows = BB_ROWS_TABLES, .sums = true,
                                      .per_plane = true, .cost = 0.16f, .fits = fits, .panel_bytes = panel_bytes,
                                      .pack = pack, .run = run};
