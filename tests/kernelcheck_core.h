/* The comparison of one kernel set with another, op by op and bit by bit, without libc: kernelcheck.c links it
 * natively, kernelcheck_wasm.c into a module. Data is meant to break: extreme codes and weights, odd tails, special
 * floats, unaligned buffers that end where the host's guard begins. */
#ifndef BB_TESTS_KERNELCHECK_CORE_H
#define BB_TESTS_KERNELCHECK_CORE_H

#include "kernels/kernels.h"

#define KC_SLOTS 10
#define KC_SLOT_BYTES ((size_t)3 << 20)
#define KC_MARGIN 64 /* bytes before each output, and `tail` bytes after it, that must keep their poison */

typedef struct kc {
    const bb_kernels *ref, *set;
    uint8_t *slot_end[KC_SLOTS]; /* first byte after each slot; reading or writing it traps where the host can */
    size_t tail;                 /* bytes after slot_end that hold poison and may be compared; 0 with guard pages */
    uint64_t seed;               /* of the running case */
    uint64_t random;             /* generator state */
    uint32_t passed, failed;
    void (*report)(const char *op, uint64_t seed, size_t at); /* called for each failure; may be NULL */
} kc;

enum { KC_REF, KC_NEW, KC_A, KC_B, KC_C, KC_D, KC_E, KC_SCRATCH, KC_ROWS };

/* splitmix64 */
static inline uint64_t kc_next(kc *k)
{
    uint64_t z = k->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline size_t kc_below(kc *k, size_t n) { return (size_t)((kc_next(k) >> 33) % n); }
static inline size_t kc_range(kc *k, size_t low, size_t high) { return low + kc_below(k, high - low + 1); }
static inline bool kc_coin(kc *k) { return kc_next(k) >> 63; }

/* n bytes that end flush at the slot's guard. */
static inline void *kc_place(kc *k, int slot, size_t n)
{
    BB_ASSERT(n + KC_MARGIN <= KC_SLOT_BYTES);
    return k->slot_end[slot] - n;
}

/* The two outputs, poisoned, margins too. */
static inline void kc_poison(kc *k, size_t n)
{
    for (int slot = KC_REF; slot <= KC_NEW; slot++)
        memset(k->slot_end[slot] - n - KC_MARGIN, 0xa5, n + KC_MARGIN + k->tail);
}

static inline bool kc_same_float(uint32_t a, uint32_t b)
{
    const bool a_nan = (a & 0x7fffffffu) > 0x7f800000u, b_nan = (b & 0x7fffffffu) > 0x7f800000u;
    return a == b || (a_nan && b_nan);
}

/* Both outputs of n bytes (whole words if floats: NaN equals NaN) with their margins. */
static inline void kc_compare(kc *k, const char *op, size_t n, bool floats)
{
    const uint8_t *a = k->slot_end[KC_REF] - n, *b = k->slot_end[KC_NEW] - n;
    size_t at = 0;
    bool same = memcmp(a - KC_MARGIN, b - KC_MARGIN, KC_MARGIN) == 0 && memcmp(a + n, b + n, k->tail) == 0;
    for (; same && at < n; at += floats ? 4 : 1) {
        uint32_t u = a[at], v = b[at];
        if (floats) {
            memcpy(&u, a + at, 4);
            memcpy(&v, b + at, 4);
        }
        same = floats ? kc_same_float(u, v) : u == v;
        if (!same) break;
    }
    if (same) {
        k->passed++;
        return;
    }
    k->failed++;
    if (k->report) k->report(op, k->seed, floats ? at / 4 : at);
}

/* Floats by temper: 0 ordinary, 1 wide range, 2 with special values among ordinary ones. */
static inline float kc_float(kc *k, int temper)
{
    static const uint32_t special[] = {
        0x00000000u, 0x80000000u, 0x00000001u, 0x80000001u, 0x007fffffu, 0x00800000u, 0x7f7fffffu, 0xff7fffffu,
        0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc00001u, 0x3f000000u, 0x3fc00000u, 0xc0200000u, 0x42b00000u,
        0xc2b00000u, 0x42aeac50u, 0xc2aeac50u, 0x3f800001u,
    };
    const uint64_t r = kc_next(k);
    if (temper == 2 && r % 5 == 0) return bb_f32_from_bits(special[(r >> 8) % BB_COUNT(special)]);
    const float unit = (float)((int32_t)(r >> 40) - (1 << 23)) * 0x1p-23f; /* −1 .. 1 */
    if (temper == 1) return unit * bb_f32_from_bits((uint32_t)(60 + (r >> 8) % 130) << 23);
    return unit * 4.0f;
}

static inline float *kc_floats(kc *k, int slot, size_t n, int temper)
{
    float *x = kc_place(k, slot, n * 4);
    for (size_t i = 0; i < n; i++) x[i] = kc_float(k, temper);
    return x;
}

/* Bytes: random, or all of one extreme value. */
static inline uint8_t *kc_bytes(kc *k, int slot, size_t n, uint8_t low, uint8_t high)
{
    uint8_t *x = kc_place(k, slot, n);
    const size_t kind = kc_below(k, 4);
    for (size_t i = 0; i < n; i++) x[i] = kind == 0 ? low : kind == 1 ? high : (uint8_t)kc_next(k);
    return x;
}

/* The ops below run on copies of args whose output lies in each slot in turn. */
#define KC_BOTH(op, args, out, type, n)                \
    do {                                               \
        (args).out = (type *)kc_place(k, KC_REF, (n)); \
        k->ref->op(&(args));                           \
        (args).out = (type *)kc_place(k, KC_NEW, (n)); \
        k->set->op(&(args));                           \
    } while (0)

static inline void kc_quantize(kc *k, int temper)
{
    const size_t pixels = kc_range(k, 1, 9), channels = kc_range(k, 1, 70);
    bb_quantize_args a = {.pixels = pixels, .channels = channels, .x_stride = channels + kc_below(k, 5),
                          .a_stride = bb_align_up(channels, 8) + kc_below(k, 9)};
    a.levels = (16u << kc_below(k, 5)) - 1;
    a.zero = (uint32_t)kc_range(k, 0, a.levels);
    if (kc_coin(k)) a.zero = kc_coin(k) ? 0 : a.levels;
    float *x = kc_floats(k, KC_A, (pixels - 1) * a.x_stride + channels, temper);
    float *m = kc_floats(k, KC_B, channels, kc_coin(k) ? 0 : temper);
    if (kc_coin(k)) { /* ties */
        for (size_t i = 0; i < (pixels - 1) * a.x_stride + channels; i++)
            x[i] = (float)(int32_t)kc_below(k, 1200) * 0.5f - 300;
        for (size_t i = 0; i < channels; i++) m[i] = 1;
    }
    a.x = x;
    a.m = m;
    const float *norm = kc_floats(k, KC_C, 4 * channels, kc_coin(k) ? 0 : temper);
    if (kc_coin(k)) {
        a.mean = norm;
        a.rstd = norm + channels;
        a.scale = norm + 2 * channels;
        a.shift = norm + 3 * channels;
    }
    a.silu = kc_coin(k);
    const size_t n = (pixels - 1) * a.a_stride + bb_align_up(channels, 8);
    kc_poison(k, n);
    KC_BOTH(quantize, a, a, uint8_t, n);
    kc_compare(k, "quantize", n, false);
    a.a = kc_place(k, KC_D, n);
    kc_poison(k, pixels * sizeof *a.sum);
    KC_BOTH(quantize, a, sum, int32_t, pixels * sizeof *a.sum);
    kc_compare(k, "quantize sum", pixels * sizeof *a.sum, false);
}

static inline void kc_expand(kc *k, int temper)
{
    bb_expand_args a = {.k_blocks = kc_range(k, 1, 9), .n_planes = kc_range(k, 1, 8)};
    int16_t *multiplier = kc_place(k, KC_A, a.n_planes * BB_TILE * 2), *offset = kc_place(k, KC_B, BB_TILE * 2);
    for (size_t j = 0; j < BB_TILE; j++) {
        int32_t budget = 255, below = 0;
        for (size_t p = 0; p < a.n_planes; p++) {
            int32_t m = temper == 0 ? 1 << p : (int32_t)kc_below(k, (size_t)budget + 1);
            if (temper == 1 && p == 0) m = budget;
            budget -= m;
            if (temper && kc_coin(k)) below += m, m = -m;
            multiplier[p * BB_TILE + j] = (int16_t)m;
        }
        /* w spans offset − below .. offset − below + 255 − budget: anywhere inside −128..127 */
        offset[j] = (int16_t)(-128 + below + (int32_t)kc_below(k, (size_t)budget + 1));
    }
    a.multiplier = multiplier;
    a.offset = offset;
    a.planes = kc_bytes(k, KC_C, a.k_blocks * a.n_planes * BB_TILE, 0, 255);
    const size_t n = a.k_blocks * BB_K_BLOCK * BB_TILE;
    kc_poison(k, n);
    KC_BOTH(expand_tile, a, w, int8_t, n);
    kc_compare(k, "expand_tile", n, false);
}

/* Pointers to rows of `bytes` inside slot (count rows back to back, the last one flush). */
static inline void *kc_rows(kc *k, size_t pointers, const uint8_t *base, size_t count, size_t bytes)
{
    const uint8_t **rows = kc_place(k, KC_ROWS, pointers * sizeof *rows);
    for (size_t i = 0; i < pointers; i++) rows[i] = base + kc_below(k, count) * bytes;
    rows[kc_below(k, pointers)] = base + (count - 1) * bytes;
    return rows;
}

static inline void kc_dequantize(kc *k, int temper)
{
    bb_dequantize_args a = {.pixels = kc_range(k, 1, BB_TILE_PIXELS), .segments = kc_range(k, 1, 4),
                            .y_stride = BB_TILE + kc_below(k, 20), .add_stride = kc_coin(k) ? 0 : BB_TILE + 3};
    int32_t *acc = kc_place(k, KC_A, a.segments * BB_TILE_PIXELS * BB_TILE * 4);
    int32_t *zsum = kc_place(k, KC_B, a.segments * BB_TILE * 4);
    const uint32_t shift = (uint32_t)kc_range(k, 34, 62);
    const size_t sums = a.segments * BB_TILE_PIXELS * BB_TILE;
    for (size_t i = 0; i < sums; i++) acc[i] = (int32_t)((int64_t)kc_next(k) >> shift);
    for (size_t i = 0; i < a.segments * BB_TILE; i++) zsum[i] = (int32_t)((int64_t)kc_next(k) >> shift);
    a.acc = acc;
    a.zsum = zsum;
    a.e = kc_floats(k, KC_C, a.segments * BB_TILE, temper);
    a.bias = kc_floats(k, KC_D, BB_TILE, temper);
    if (kc_coin(k)) a.add = kc_floats(k, KC_E, (a.pixels - 1) * a.add_stride + BB_TILE, temper);
    const size_t n = ((a.pixels - 1) * a.y_stride + BB_TILE) * 4;
    kc_poison(k, n);
    KC_BOTH(dequantize_tile, a, y, float, n);
    kc_compare(k, "dequantize_tile", n, true);
}

static inline void kc_conv(kc *k, int temper)
{
    static const size_t taps[] = {1, 1, 4, 9, 9};
    bb_conv_f32_args a = {.pixels = kc_range(k, 1, BB_TILE_PIXELS), .taps = taps[kc_below(k, BB_COUNT(taps))],
                          .channels = kc_range(k, 1, 33), .w_stride = BB_TILE * kc_range(k, 1, 3) + kc_below(k, 2)};
    const size_t count = 9, n = a.pixels * BB_TILE * 4;
    a.outputs = kc_coin(k) ? BB_TILE : kc_range(k, 1, BB_TILE);
    const float *x = kc_floats(k, KC_A, count * a.channels, temper);
    a.rows = kc_rows(k, BB_TILE_PIXELS * a.taps, (const uint8_t *)x, count, a.channels * 4);
    a.w = kc_floats(k, KC_B, (a.taps * a.channels - 1) * a.w_stride + BB_TILE, temper);
    a.bias = kc_floats(k, KC_C, BB_TILE, temper);
    kc_poison(k, n);
    KC_BOTH(conv_tile_f32, a, y, float, n);
    for (int slot = KC_REF; slot <= KC_NEW; slot++) {
        float *y = kc_place(k, slot, n);
        for (size_t i = 0; i < n / 4; i++)
            if (i % BB_TILE >= a.outputs) y[i] = 0;
    }
    kc_compare(k, "conv_tile_f32", n, true);
}

static inline void kc_f16(kc *k, size_t n)
{
    uint16_t *x = kc_place(k, KC_A, n * 2);
    for (size_t i = 0; i < n; i++) x[i] = (uint16_t)(n == 65536 ? i : kc_next(k));
    kc_poison(k, n * 4);
    k->ref->f16_to_f32(kc_place(k, KC_REF, n * 4), x, n);
    k->set->f16_to_f32(kc_place(k, KC_NEW, n * 4), x, n);
    kc_compare(k, "f16_to_f32", n * 4, true);
}

static inline void kc_group_norm(kc *k, int temper)
{
    bb_group_norm_args a = {.pixels = kc_range(k, 1, 200), .groups = kc_range(k, 1, 9), .eps = 1e-5f};
    a.c = a.groups * kc_range(k, 1, 9);
    const size_t n = a.pixels * a.c * 4;
    const bool in_place = kc_coin(k);
    const float *x = kc_floats(k, KC_A, a.pixels * a.c, temper);
    a.scale = kc_floats(k, KC_B, a.c, temper);
    a.shift = kc_floats(k, KC_C, a.c, temper);
    a.scratch = kc_floats(k, KC_SCRATCH, 2 * a.c, 2);
    kc_poison(k, n);
    for (int slot = KC_REF; slot <= KC_NEW; slot++) {
        a.y = kc_place(k, slot, n);
        if (in_place) memcpy(a.y, x, n);
        a.x = in_place ? a.y : x;
        (slot == KC_REF ? k->ref : k->set)->group_norm(&a);
    }
    kc_compare(k, "group_norm", n, true);
    bb_norm_stats_args stats = {.x = x, .pixels = a.pixels, .c = a.c, .groups = a.groups, .eps = a.eps};
    for (int which = 0; which < 2; which++) {
        const size_t bytes = a.c * 4;
        kc_poison(k, bytes);
        for (int slot = KC_REF; slot <= KC_NEW; slot++) {
            stats.mean = kc_place(k, which ? KC_SCRATCH : slot, bytes);
            stats.rstd = kc_place(k, which ? slot : KC_SCRATCH, bytes);
            (slot == KC_REF ? k->ref : k->set)->norm_stats(&stats);
        }
        kc_compare(k, "norm_stats", bytes, true);
    }
}

static inline void kc_attention(kc *k, int temper)
{
    static const size_t dims[] = {1, 3, 8, 12, 32, 40, 64, 72, 97};
    bb_attention_args a = {.first_query = kc_below(k, 4), .queries = kc_range(k, 1, 20), .keys = kc_range(k, 1, 150),
                           .d = dims[kc_below(k, BB_COUNT(dims))], .scale = kc_coin(k) ? 0.125f : 3.0f};
    a.q_stride = a.d + kc_below(k, 9);
    a.kv_stride = a.d + kc_below(k, 9);
    a.o_stride = a.d + kc_below(k, 9);
    const size_t queries = a.first_query + a.queries, n = ((queries - 1) * a.o_stride + a.d) * 4;
    a.q = kc_floats(k, KC_A, (queries - 1) * a.q_stride + a.d, temper);
    a.k = kc_floats(k, KC_B, (a.keys - 1) * a.kv_stride + a.d, temper);
    a.v = kc_floats(k, KC_C, (a.keys - 1) * a.kv_stride + a.d, kc_coin(k) ? 0 : temper);
    a.scratch = kc_floats(k, KC_SCRATCH, BB_ATTENTION_SCRATCH(a.d), 2);
    kc_poison(k, n);
    KC_BOTH(attention, a, o, float, n);
    kc_compare(k, "attention", n, true);
}

/* The elementwise ops over pixels × c, in place or not. */
static inline void kc_elementwise(kc *k, int temper)
{
    const size_t pixels = kc_range(k, 1, 5), c = kc_range(k, 1, 70), n = pixels * c;
    const float *x = kc_floats(k, KC_A, n, temper), *b = kc_floats(k, KC_B, n, temper);
    const float *scale = kc_floats(k, KC_C, c, temper), *shift = kc_floats(k, KC_D, c, temper);
    const float mul = kc_float(k, temper), add = kc_float(k, temper);
    static const char *const names[] = {"silu", "add", "add_channels", "modulate", "affine", "gelu", "mish"};
    for (size_t op = 0; op < BB_COUNT(names); op++) {
        const bool in_place = kc_coin(k);
        kc_poison(k, n * 4);
        for (int slot = KC_REF; slot <= KC_NEW; slot++) {
            const bb_kernels *set = slot == KC_REF ? k->ref : k->set;
            float *y = kc_place(k, slot, n * 4);
            if (in_place) memcpy(y, x, n * 4);
            const float *in = in_place ? y : x;
            if (op == 0) set->silu(y, in, n);
            if (op == 1) set->add(y, in, b, n);
            if (op == 2) set->add_channels(y, in, scale, pixels, c);
            if (op == 3) set->modulate(y, in, scale, shift, pixels, c);
            if (op == 4) set->affine(y, in, mul, add, n);
            if (op == 5) set->gelu(y, in, n);
            if (op == 6) set->mish(y, in, n);
        }
        kc_compare(k, names[op], n * 4, true);
    }
}

static inline void kc_avg_pool(kc *k, int temper)
{
    bb_avg_pool_args a = {.pixels = kc_range(k, 1, 9), .c = kc_range(k, 1, 40), .factor = kc_range(k, 1, 4)};
    const size_t row = a.pixels * a.factor * a.c, n = a.pixels * a.c * 4;
    a.row_stride = row + kc_below(k, 5);
    a.x = kc_floats(k, KC_A, (a.factor - 1) * a.row_stride + row, temper);
    kc_poison(k, n);
    KC_BOTH(avg_pool2d, a, y, float, n);
    kc_compare(k, "avg_pool2d", n, true);
}

/* Every 65,537th bit pattern through silu, gelu and mish, so exp is compared over all of its range, and the 129 floats
 * around each (n + ½)·ln 2, where its range reduction changes sides. */
static inline void kc_activation_sweep(kc *k)
{
    const size_t wide = 65535, around = 129, halves = 250, n = wide + around * halves;
    float *x = kc_place(k, KC_A, n * 4);
    for (size_t i = 0; i < wide; i++) x[i] = bb_f32_from_bits((uint32_t)i * 65537u);
    for (size_t i = 0; i < around * halves; i++) {
        const float centre = ((float)(i / around) - 124.5f) * 0.69314718f;
        x[wide + i] = bb_f32_from_bits(bb_f32_bits(centre) - 64 + (uint32_t)(i % around));
    }
    for (int op = 0; op < 3; op++) {
        kc_poison(k, n * 4);
        for (int slot = KC_REF; slot <= KC_NEW; slot++) {
            const bb_kernels *set = slot == KC_REF ? k->ref : k->set;
            (op == 0 ? set->silu : op == 1 ? set->gelu : set->mish)(kc_place(k, slot, n * 4), x, n);
        }
        kc_compare(k, op == 0 ? "silu" : op == 1 ? "gelu" : "mish", n * 4, true);
    }
}

#endif
