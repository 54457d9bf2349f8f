/* Dot way by sdot, 16 products of int8 an instruction, and its set. Codes above 127 are taken as a − 128, which fits
 * int8, and Σ w·a = Σ w·(a − 128) + 128·Σ w. */
#include <arm_neon.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_arm_dotprod;
extern const bb_kernels bb_kernels_arm_dotprod;

/* Panel: 128·Σ w or zeros, int32 [BB_TILE]; then int8 [taps][channels/4][BB_TILE][4]. */
static bool fits(const bb_dot_shape *s) { return true; }
static size_t panel_bytes(const bb_dot_shape *s) { return BB_TILE * sizeof(int32_t) + bb_expanded_bytes(s); }

static void pack(const bb_panel_args *a)
{
    int32_t *base = a->panel;
    int8_t *w = (int8_t *)(base + BB_TILE), *end = w + bb_expanded_bytes(a->shape);
    int32x4_t sum[4];
    bb_panel_args bytes = *a;
    bytes.panel = w;
    bb_expand_panel(&bytes);
    for (size_t v = 0; v < 4; v++) sum[v] = vdupq_n_s32(0);
    for (; w != end; w += 4 * BB_TILE) { /* pairs of two channels to quads of four */
        const int16x8x2_t even = {{vreinterpretq_s16_s8(vld1q_s8(w)), vreinterpretq_s16_s8(vld1q_s8(w + 16))}};
        const int16x8x2_t odd = {{vreinterpretq_s16_s8(vld1q_s8(w + 32)), vreinterpretq_s16_s8(vld1q_s8(w + 48))}};
        for (size_t v = 0; v < 4; v++) {
            const int16x8_t e = even.val[v / 2], o = odd.val[v / 2];
            const int8x16_t quad = vreinterpretq_s8_s16(v % 2 ? vzip2q_s16(e, o) : vzip1q_s16(e, o));
            vst1q_s8(w + 16 * v, quad);
            sum[v] = vpadalq_s16(sum[v], vpaddlq_s8(quad));
        }
    }
    for (size_t v = 0; v < 4; v++)
        vst1q_s32(base + 4 * v, a->shape->levels > 127 ? vshlq_n_s32(sum[v], 7) : vdupq_n_s32(0));
}

/* Pixels first..first+3: 16 of the 32 registers hold sums. */
static void dot_pixels(const bb_dot_args *a, size_t first)
{
    const int32_t *base = a->panel;
    const int8_t *w = (const int8_t *)(base + BB_TILE);
    const uint8x8_t flip = vdup_n_u8(a->shape->levels > 127 ? 128 : 0);
    int32x4_t sum[4][4];
    for (size_t i = 0; i < 16; i++) sum[i / 4][i % 4] = vld1q_s32(base + 4 * (i % 4));
    for (size_t tap = 0; tap < a->shape->taps; tap++) {
        const uint8_t *const *rows = a->rows + tap * BB_TILE_PIXELS + first;
        for (size_t c = 0; c < a->shape->channels; c += 8, w += 8 * BB_TILE) {
            int8x8_t x[4];
            _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)
                x[i] = vreinterpret_s8_u8(veor_u8(vld1_u8(rows[i] + a->first + c), flip));
            _Pragma("GCC unroll 4") for (size_t v = 0; v < 4; v++) {
                const int8x16_t w0 = vld1q_s8(w + 16 * v), w1 = vld1q_s8(w + 64 + 16 * v);
                _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)
                    sum[i][v] = vdotq_lane_s32(vdotq_lane_s32(sum[i][v], w0, x[i], 0), w1, x[i], 1);
            }
        }
    }
    for (size_t i = 0; i < 16; i++) vst1q_s32(a->acc + first * BB_TILE + 4 * i, sum[i / 4][i % 4]);
}

static void run(const bb_dot_args *a)
{
    for (size_t p = 0; p < a->pixels; p += 4) dot_pixels(a, p);
}

const bb_dot bb_dot_arm_dotprod = {.name = "arm_dotprod", .rows = BB_ROWS_CODES, .cost = 0.25f, .fits = fits,
                                   .panel_bytes = panel_bytes, .pack = pack, .run = run};
const bb_kernels bb_kernels_arm_dotprod = {.isa = "arm_dotprod", .needs = BB_CPU_DOTPROD,
                                           .dots = {&bb_dot_arm_dotprod}}; /* ops are those of NEON */
