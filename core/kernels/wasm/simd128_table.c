/* Dot way by lookup tables of four 4-bit codes, one bit plane at a time: any multipliers.
 *
 * i8x16.swizzle looks up the sums of four channels for 16 outputs. Four lookups of at most 60 fit a byte; then bytes
 * 2i and 2i + 1 of their sum are added as one 16-bit number, even + 256·odd, and the odd ones again by themselves: in
 * the end, modulo 2^16, even = all − 256·odd. That holds while odd stays below 2^16. */
#include <wasm_simd128.h>

#include "kernels/kernels.h"

extern const bb_dot bb_dot_wasm_simd128_table;

/* Panel: head, multipliers int32 [planes][BB_TILE], then [planes][taps][channels/4][BB_TILE] bytes: the index, which is
 * the four bits of the plane. */
typedef struct panel_head {
    int32_t offset[BB_TILE];
} panel_head;

enum { PIXELS = 4, RUN = 65535 / 60 / 4 * 4 }; /* groups of four channels whose sums fit 16 bits */

static bool fits(const bb_dot_shape *s) { return s->levels < 16; }

static size_t panel_bytes(const bb_dot_shape *s)
{
    return sizeof(panel_head) + s->planes * BB_TILE * (sizeof(int32_t) + s->taps * s->channels / 4);
}

static void pack(const bb_panel_args *a)
{
    const bb_dot_shape *s = a->shape;
    panel_head *head = a->panel;
    int32_t *multiplier = (int32_t *)(head + 1);
    uint8_t *index = (uint8_t *)(multiplier + s->planes * BB_TILE);
    const v128_t nibble = wasm_i8x16_const_splat(15);
    for (size_t j = 0; j < BB_TILE; j++) head->offset[j] = a->offset[j];
    for (size_t i = 0; i < s->planes * BB_TILE; i++) multiplier[i] = a->multiplier[i];
    for (size_t p = 0; p < s->planes; p++)
        for (size_t tap = 0; tap < s->taps; tap++) {
            const uint8_t *plane = a->planes + tap * a->tap_stride + p * BB_TILE;
            for (size_t c = 0; c < s->channels; c += 8, plane += s->planes * BB_TILE, index += 2 * BB_TILE) {
                const v128_t bits = wasm_v128_load(plane);
                wasm_v128_store(index, wasm_v128_and(bits, nibble));
                wasm_v128_store(index + BB_TILE, wasm_u8x16_shr(bits, 4));
            }
        }
}

/* Sums of `groups` (at most four) groups of four channels of each pixel, added to even and odd. */
BB_INLINE void look_up(v128_t all[PIXELS], v128_t odd[PIXELS], const uint8_t *table[PIXELS], const uint8_t *index,
                       const size_t groups)
{
    v128_t i[4];
    _Pragma("GCC unroll 4") for (size_t g = 0; g < groups; g++) i[g] = wasm_v128_load(index + g * BB_TILE);
    _Pragma("GCC unroll 4") for (size_t p = 0; p < PIXELS; p++) {
        v128_t sum = wasm_i8x16_swizzle(wasm_v128_load(table[p]), i[0]);
        _Pragma("GCC unroll 4") for (size_t g = 1; g < groups; g++)
            sum = wasm_i8x16_add(sum, wasm_i8x16_swizzle(wasm_v128_load(table[p] + g * 16), i[g]));
        table[p] += groups * 16;
        all[p] = wasm_i16x8_add(all[p], sum);
        odd[p] = wasm_i16x8_add(odd[p], wasm_u16x8_shr(sum, 8));
    }
}

/* acc += multiplier · (the sums of a plane), and zeros into the 16-bit sums. */
BB_INLINE void add_plane(int32_t *acc, v128_t *all, v128_t *odd, const int32_t *multiplier)
{
    const v128_t even = wasm_i16x8_sub(*all, wasm_i16x8_shl(*odd, 8));
    const v128_t low = wasm_i16x8_shuffle(even, *odd, 0, 8, 1, 9, 2, 10, 3, 11);
    const v128_t high = wasm_i16x8_shuffle(even, *odd, 4, 12, 5, 13, 6, 14, 7, 15);
    const v128_t sum[4] = {wasm_u32x4_extend_low_u16x8(low), wasm_u32x4_extend_high_u16x8(low),
                           wasm_u32x4_extend_low_u16x8(high), wasm_u32x4_extend_high_u16x8(high)};
    for (size_t v = 0; v < 4; v++)
        wasm_v128_store(acc + 4 * v, wasm_i32x4_add(wasm_v128_load(acc + 4 * v),
                                                    wasm_i32x4_mul(sum[v], wasm_v128_load(multiplier + 4 * v))));
    *all = *odd = wasm_i16x8_const_splat(0);
}

/* One plane of pixels first..first+3; returns the next plane's indices. */
static const uint8_t *run_plane(const bb_dot_args *a, size_t first, const int32_t *multiplier, const uint8_t *index)
{
    v128_t all[PIXELS] = {{0}}, odd[PIXELS] = {{0}};
    size_t free = RUN;
    int32_t *acc = a->acc + first * BB_TILE;
    const size_t from = a->first, groups = a->shape->channels / 4;
    const uint8_t *const *rows = a->rows + first, *const *const end_rows = rows + a->shape->taps * BB_TILE_PIXELS;
    while (rows != end_rows) {
        const uint8_t *table[PIXELS];
        _Pragma("GCC unroll 4") for (size_t p = 0; p < PIXELS; p++) table[p] = rows[p] + from;
        rows += BB_TILE_PIXELS;
        for (size_t left = groups; left;) {
            const size_t run = left < free ? left : free;
            left -= run;
            free -= run;
            for (const uint8_t *end = index + run / 4 * 4 * BB_TILE; index != end; index += 4 * BB_TILE)
                look_up(all, odd, table, index, 4);
            if (run & 2) {
                look_up(all, odd, table, index, 2);
                index += 2 * BB_TILE;
            }
            if (free && (left || rows != end_rows)) continue;
            _Pragma("GCC unroll 4") for (size_t p = 0; p < PIXELS; p++)
                add_plane(acc + p * BB_TILE, &all[p], &odd[p], multiplier);
            free = RUN;
        }
    }
    return index;
}

static void run(const bb_dot_args *a)
{
    const panel_head *head = a->panel;
    const int32_t *multiplier = (const int32_t *)(head + 1);
    for (size_t first = 0; first < a->pixels; first += PIXELS) {
        const uint8_t *index = (const uint8_t *)(multiplier + a->shape->planes * BB_TILE);
        for (size_t p = first; p < first + PIXELS; p++)
            for (size_t j = 0; j < BB_TILE; j += 4)
                wasm_v128_store(a->acc + p * BB_TILE + j,
                                wasm_i32x4_mul(wasm_v128_load(head->offset + j), wasm_i32x4_splat(a->sums[p])));
        for (size_t p = 0; p < a->shape->planes; p++) index = run_plane(a, first, multiplier + p * BB_TILE, index);
    }
}

const bb_dot bb_dot_wasm_simd128_table = {.name = "wasm_simd128_table", .rows = BB_ROWS_TABLES, .sums = true,
                                          .per_plane = true, .cost = 0.33f, .fits = fits, .panel_bytes = panel_bytes,
                                          .pack = pack, .run = run};
