/* What kernelcheck --bench measures, without libc: prepared calls of the hot ops, repeated `times` times. Returns the
 * work of one call: multiply-adds for the first BENCH_MACS of them, else values. */
#ifndef BB_TESTS_KERNELCHECK_BENCH_H
#define BB_TESTS_KERNELCHECK_BENCH_H

#include "kernelcheck_dot.h"

static const char *const kc_bench_names[] = {"conv_tile_f32", "attention", "tables", "expand_tile", "quantize",
                                             "dequantize_tile", "group_norm", "silu", "add", "f16_to_f32",
                                             "norm_stats", "norm silu quant"};
enum { KC_BENCH_MACS = 2 };

static inline double kc_bench(kc *k, const bb_kernels *s, size_t op, size_t times)
{
    enum { TAPS = 9, CHANNELS = 128, K = TAPS * CHANNELS, PIXELS = 784, KEYS = 196, D = 32 };
    k->random = 1;
    const float *x = kc_floats(k, KC_A, PIXELS * CHANNELS, 0), *w = kc_floats(k, KC_B, K * BB_TILE, 0);
    float *y = kc_place(k, KC_NEW, PIXELS * CHANNELS * 4), *scratch = kc_place(k, KC_SCRATCH, 65536);
    const uint8_t *codes = (const uint8_t *)x;
    static const int16_t multiplier[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2,
                                         2, 2, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
                                         8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8};
    const bb_quantize_args quantize = {.a = (uint8_t *)y, .x = x, .m = w, .pixels = PIXELS, .channels = CHANNELS,
                                       .a_stride = CHANNELS, .x_stride = CHANNELS, .zero = 100, .levels = 255};
    bb_quantize_args after = quantize;
    after.mean = w;
    after.rstd = w + CHANNELS;
    after.scale = w + 2 * CHANNELS;
    after.shift = w + 3 * CHANNELS;
    after.silu = true;
    const bb_expand_args expand = {.w = (int8_t *)y, .planes = codes, .multiplier = multiplier,
                                   .offset = multiplier, .k_blocks = K / 8, .n_planes = 4};
    const bb_tables_args tables = {.t = (uint8_t *)y, .a = codes, .pixels = PIXELS, .channels = CHANNELS,
                                   .a_stride = CHANNELS, .t_stride = 4 * CHANNELS};
    bb_conv_f32_args conv = {.y = y, .w = w, .bias = x, .pixels = BB_TILE_PIXELS, .taps = TAPS,
                             .channels = CHANNELS, .w_stride = BB_TILE, .outputs = BB_TILE};
    if (op == 0) conv.rows = kc_rows(k, BB_TILE_PIXELS * TAPS, codes, 24, CHANNELS * 4);
    const bb_dequantize_args dequantize = {.y = y, .acc = (const int32_t *)x, .zsum = (const int32_t *)w, .e = w,
                                           .bias = x, .pixels = BB_TILE_PIXELS, .segments = 2, .y_stride = BB_TILE};
    const bb_group_norm_args norm = {.y = y, .x = x, .scale = w, .shift = w + CHANNELS, .scratch = scratch,
                                     .pixels = PIXELS, .c = CHANNELS, .groups = 32, .eps = 1e-5f};
    const bb_norm_stats_args stats = {.mean = scratch, .rstd = scratch + CHANNELS, .x = x, .pixels = PIXELS,
                                      .c = CHANNELS, .groups = 32, .eps = 1e-5f};
    const bb_attention_args attention = {.o = y, .q = x, .k = x, .v = x, .scratch = scratch, .queries = KEYS,
                                         .keys = KEYS, .d = D, .o_stride = CHANNELS, .q_stride = CHANNELS,
                                         .kv_stride = CHANNELS, .scale = 0.2f};
    const size_t n = PIXELS * CHANNELS;
    for (size_t i = 0; i < times; i++) {
        if (op == 0) s->conv_tile_f32(&conv);
        if (op == 1) s->attention(&attention);
        if (op == 2) s->tables(&tables);
        if (op == 3) s->expand_tile(&expand);
        if (op == 4) s->quantize(&quantize);
        if (op == 5) s->dequantize_tile(&dequantize);
        if (op == 6) s->group_norm(&norm);
        if (op == 7) s->silu(y, x, n);
        if (op == 8) s->add(y, x, x, n);
        if (op == 9) s->f16_to_f32(y, (const uint16_t *)x, n);
        if (op == 10) s->norm_stats(&stats);
        if (op == 11) s->quantize(&after);
    }
    const double tile = (double)BB_TILE_PIXELS * BB_TILE * K;
    const double work[] = {tile, 2.0 * KEYS * KEYS * D, n, (double)BB_TILE * K, n,
                           BB_TILE_PIXELS * BB_TILE, n, n, n, n, n, n};
    return work[op];
}

#endif
