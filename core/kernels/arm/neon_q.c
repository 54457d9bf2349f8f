/* Quantized layers in NEON, all but the lookups: the products are of 16 bits, so every w in −128..127 and a in 0..255
 * is exact. */
#include <arm_neon.h>

#define BB_ISA arm_neon
#include "kernels/set.h"

extern const bb_dot bb_dot_arm_neon;

/* 16 × i16 to their low bytes. */
BB_INLINE int8x16_t low_bytes(const int16_t *x)
{
    return vcombine_s8(vmovn_s16(vld1q_s16(x)), vmovn_s16(vld1q_s16(x + 8)));
}

/* Sums modulo 256 are enough, as the results fit int8. */
void BB_FN(expand_tile)(const bb_expand_args *a)
{
    const int8x16_t offset = low_bytes(a->offset);
    int8x16_t multiplier[BB_PLANES];
    BB_ASSERT(a->n_planes <= BB_PLANES);
    for (size_t p = 0; p < a->n_planes; p++) multiplier[p] = low_bytes(a->multiplier + p * BB_TILE);
    const uint8_t *planes = a->planes;
    int8_t *out = a->w;
    for (size_t block = 0; block < a->k_blocks; block++, out += 8 * BB_TILE) {
        int8x16_t w[8];
        _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++) w[i] = offset;
        for (size_t p = 0; p < a->n_planes; p++, planes += BB_TILE) {
            const uint8x16_t plane = vld1q_u8(planes);
            _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++) {
                const int8x16_t set = vreinterpretq_s8_u8(vtstq_u8(plane, vdupq_n_u8((uint8_t)(1 << i))));
                w[i] = vaddq_s8(w[i], vandq_s8(set, multiplier[p]));
            }
        }
        _Pragma("GCC unroll 4") for (int t = 0; t < 4; t++)
            vst2q_s8(out + 32 * t, ((int8x16x2_t){{w[2 * t], w[2 * t + 1]}}));
    }
}

/* One channel, lane LANE of the codes, of four pixels against 16 outputs. */
#define DOT_CHANNEL(W, LANE)                                                                      \
    do {                                                                                          \
        const int16x8_t w0 = vmovl_s8(vget_low_s8(W)), w1 = vmovl_high_s8(W);                     \
        _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) {                                  \
            sum[i][0] = vmlal_laneq_s16(sum[i][0], vget_low_s16(w0), x[i], LANE);                 \
            sum[i][1] = vmlal_high_laneq_s16(sum[i][1], w0, x[i], LANE);                          \
            sum[i][2] = vmlal_laneq_s16(sum[i][2], vget_low_s16(w1), x[i], LANE);                 \
            sum[i][3] = vmlal_high_laneq_s16(sum[i][3], w1, x[i], LANE);                          \
        }                                                                                         \
    } while (0)
#define DOT_PAIR(PAIR)                                            \
    do {                                                          \
        const int8x16x2_t pair = vld2q_s8(w + (PAIR) * 32);       \
        DOT_CHANNEL(pair.val[0], 2 * (PAIR));                     \
        DOT_CHANNEL(pair.val[1], 2 * (PAIR) + 1);                 \
    } while (0)

/* Pixels first..first+3: 16 of the 32 registers hold sums. */
static void dot_pixels(const bb_dot_args *a, size_t first)
{
    int32x4_t sum[4][4];
    int16x8_t x[4];
    const int8_t *w = a->panel;
    for (size_t i = 0; i < 16; i++) sum[i / 4][i % 4] = vdupq_n_s32(0);
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        const uint8_t *const *rows = a->rows + tap * BB_TILE_PIXELS + first;
        for (size_t c = 0; c < a->shape->channels; c += 8, w += 8 * BB_TILE) {
            _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)
                x[i] = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(rows[i] + a->first + c)));
            DOT_PAIR(0);
            DOT_PAIR(1);
            DOT_PAIR(2);
            DOT_PAIR(3);
        }
    }
    for (size_t i = 0; i < 16; i++) vst1q_s32(a->acc + first * BB_TILE + 4 * i, sum[i / 4][i % 4]);
}

static void run(const bb_dot_args *a)
{
    for (size_t p = 0; p < a->pixels; p += 4) dot_pixels(a, p);
}

static bool fits(const bb_dot_shape *s) { return true; }

const bb_dot bb_dot_arm_neon = {.name = "arm_neon", .rows = BB_ROWS_CODES, .cost = 1, .fits = fits,
                                .panel_bytes = bb_expanded_bytes, .pack = bb_expand_panel, .run = run};
