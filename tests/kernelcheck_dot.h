/* A random tile for dot ways, and every way of a set on it against the scalar one. */
#ifndef BB_TESTS_KERNELCHECK_DOT_H
#define BB_TESTS_KERNELCHECK_DOT_H

#include "kernelcheck_core.h"

typedef struct kc_tile {
    bb_dot_shape shape;
    size_t first, pixels, count; /* channels before the segment; pixels that matter; different rows */
    uint8_t *codes, *planes;     /* [count][first + channels], [taps·channels/8][planes][BB_TILE] */
    int16_t multiplier[BB_PLANES * BB_TILE], offset[BB_TILE];
    int8_t low[BB_TILE];
    size_t row_of[16 * BB_TILE_PIXELS]; /* [taps][BB_TILE_PIXELS] */
    int32_t sums[BB_TILE_PIXELS];
} kc_tile;

/* Levels of an output: planes multipliers whose magnitudes sum to at most `spread`, somewhere in −128..127. */
static inline void kc_levels(kc *k, kc_tile *t)
{
    const size_t kind = kc_below(k, 3), most = t->shape.planes == BB_PLANES ? 255 : 127;
    const bool wide = kc_coin(k);
    t->shape.uniform = kind == 0;
    t->shape.spread = 0;
    for (size_t j = 0; j < BB_TILE; j++) {
        size_t budget = wide ? most : most / 8 + 1, used = 0;
        int32_t below = 0;
        for (size_t p = 0; p < t->shape.planes; p++) {
            int32_t m = t->shape.uniform ? 1 << p : (int32_t)kc_below(k, budget + 1);
            if (!t->shape.uniform && kind == 2 && p == 0) m = (int32_t)budget;
            if (!t->shape.uniform) budget -= (size_t)m;
            used += (size_t)m;
            if (!t->shape.uniform && kc_coin(k)) below += m, m = -m;
            t->multiplier[p * BB_TILE + j] = (int16_t)m;
        }
        const size_t room = 255 - used, at = kc_coin(k) ? kc_below(k, room + 1) : kc_coin(k) ? room : 0;
        t->low[j] = (int8_t)((int)at - 128);
        t->offset[j] = (int16_t)(t->low[j] + below);
        if (used > t->shape.spread) t->shape.spread = (uint32_t)used;
    }
}

static inline void kc_make_tile(kc *k, kc_tile *t, size_t taps, size_t channels)
{
    t->shape = (bb_dot_shape){.taps = taps, .channels = channels, .planes = (uint32_t)kc_range(k, 1, 8)};
    if (kc_coin(k)) t->shape.planes = (uint32_t)kc_range(k, 1, 2); /* the table ways' own */
    t->shape.levels = (1u << (kc_coin(k) ? 4 : kc_range(k, 4, 8))) - 1;
    t->first = 8 * kc_below(k, 4);
    t->pixels = kc_range(k, 1, BB_TILE_PIXELS);
    t->count = 7;
    kc_levels(k, t);
    const size_t row = t->first + channels, blocks = taps * channels / 8;
    t->codes = kc_bytes(k, KC_A, t->count * row, 0, 255);
    for (size_t i = 0; i < t->count * row; i++) t->codes[i] &= t->shape.levels;
    t->planes = kc_bytes(k, KC_B, blocks * t->shape.planes * BB_TILE, 0, 255);
    memset(t->sums, 0, sizeof t->sums);
    for (size_t i = 0; i < taps * BB_TILE_PIXELS; i++) {
        t->row_of[i] = i == 0 ? t->count - 1 : kc_below(k, t->count); /* the last one ends at the guard */
        const uint8_t *code = t->codes + t->row_of[i] * row + t->first;
        for (size_t c = 0; c < channels; c++) t->sums[i % BB_TILE_PIXELS] += code[c];
    }
}

/* acc of the tile by a way of `set`, in a slot. */
static inline void kc_run_way(kc *k, const kc_tile *t, const bb_kernels *set, const bb_dot *way, int slot)
{
    static const int8_t bias[BB_ROWS_FORMS] = {[BB_ROWS_CENTRED] = -30};
    const size_t codes_row = t->first + t->shape.channels, row = bb_row_bytes(way->rows, codes_row);
    const uint8_t *base = t->codes;
    if (way->rows != BB_ROWS_CODES) {
        uint8_t *made = kc_place(k, KC_C, t->count * row);
        if (way->rows == BB_ROWS_SIGNED) bb_signed_codes(made, t->codes, t->count * codes_row);
        else if (way->rows == BB_ROWS_WIDE) set->widen((uint16_t *)(void *)made, t->codes, t->count * codes_row);
        else
            set->tables(&(bb_tables_args){.t = made, .a = t->codes, .pixels = t->count, .channels = codes_row,
                                          .a_stride = codes_row, .t_stride = row, .bias = bias[way->rows]});
        base = made;
    }
    const uint8_t **rows = kc_place(k, KC_ROWS, t->shape.taps * BB_TILE_PIXELS * sizeof *rows);
    for (size_t i = 0; i < t->shape.taps * BB_TILE_PIXELS; i++) rows[i] = base + t->row_of[i] * row;
    void *panel = kc_place(k, KC_D, bb_align_up(way->panel_bytes(&t->shape), BB_ALIGNMENT));
    memset(panel, 0x5a, way->panel_bytes(&t->shape));
    way->pack(&(bb_panel_args){.panel = panel, .shape = &t->shape, .planes = t->planes,
                               .tap_stride = t->shape.channels / 8 * t->shape.planes * BB_TILE,
                               .multiplier = t->multiplier, .offset = t->offset, .low = t->low, .kernels = set});
    way->run(&(bb_dot_args){.acc = kc_place(k, slot, BB_TILE_PIXELS * BB_TILE * 4), .rows = rows,
                            .first = bb_row_bytes(way->rows, t->first), .sums = way->sums ? t->sums : NULL,
                            .panel = panel, .pixels = t->pixels, .shape = &t->shape});
}

static inline const bb_dot *kc_scalar_way(const bb_kernels *ref)
{
    size_t last = 0;
    while (last + 1 < BB_DOTS && ref->dots[last + 1]) last++;
    return ref->dots[last];
}

/* One comparison for each way that fits. */
static inline void kc_dot(kc *k, size_t taps, size_t channels)
{
    const size_t n = BB_TILE_PIXELS * BB_TILE * 4;
    kc_tile t;
    kc_make_tile(k, &t, taps, channels);
    for (size_t i = 0; i < BB_DOTS && k->set->dots[i]; i++) {
        const bb_dot *way = k->set->dots[i];
        if (!way->fits(&t.shape)) continue;
        kc_poison(k, n);
        kc_run_way(k, &t, k->ref, kc_scalar_way(k->ref), KC_REF);
        kc_run_way(k, &t, k->set, way, KC_NEW);
        /* rows that do not matter may hold anything */
        for (size_t p = t.pixels; p < BB_TILE_PIXELS; p++)
            memcpy((int32_t *)kc_place(k, KC_NEW, n) + p * BB_TILE, (int32_t *)kc_place(k, KC_REF, n) + p * BB_TILE,
                   BB_TILE * 4);
        kc_compare(k, way->name, n, false);
    }
}

static inline void kc_tables(kc *k)
{
    bb_tables_args a = {.pixels = kc_range(k, 1, 5), .channels = 8 * kc_range(k, 1, 9), .bias = kc_coin(k) ? 0 : -30};
    a.a_stride = a.channels + kc_below(k, 9);
    a.t_stride = 4 * a.channels + kc_below(k, 9);
    const size_t codes = (a.pixels - 1) * a.a_stride + a.channels, n = (a.pixels - 1) * a.t_stride + 4 * a.channels;
    uint8_t *x = kc_bytes(k, KC_A, codes, 0, 15);
    for (size_t i = 0; i < codes; i++) x[i] &= 15;
    a.a = x;
    kc_poison(k, n);
    KC_BOTH(tables, a, t, uint8_t, n);
    kc_compare(k, "tables", n, false);
}

/* All ops of k->set against k->ref, `rounds` random cases each. A case's seed says which data it had. */
static inline void kc_run(kc *k, uint64_t seed, uint32_t rounds)
{
    static const size_t channels[] = {8, 16, 24, 40, 64};
    k->random = k->seed = seed;
    kc_f16(k, 65536);
    kc_activation_sweep(k);
    for (int i = 0; i < 8; i++) kc_dot(k, 9, 7280); /* K = 65,520: sums next to ±2^31 */
    for (int i = 0; i < 8; i++) kc_dot(k, 9, 4368); /* one tap of 4-bit codes sums to 65,520 */
    for (uint32_t round = 0; round < rounds; round++) {
        const int temper = (int)(round % 3);
        k->random = k->seed = seed + round;
        kc_quantize(k, temper);
        kc_expand(k, temper);
        kc_dot(k, kc_coin(k) ? 9 : kc_range(k, 1, 4), channels[kc_below(k, BB_COUNT(channels))]);
        kc_tables(k);
        kc_dequantize(k, temper);
        kc_conv(k, temper);
        kc_f16(k, kc_range(k, 1, 40));
        kc_group_norm(k, temper);
        kc_attention(k, temper);
        kc_avg_pool(k, temper);
        kc_elementwise(k, temper);
    }
}

#endif
