#include "bench/ops.h"

#include "base/rng.h"

#include <stdlib.h>

/* 28×28 pixels of 128 channels: 400 KB, so the simple ops run from the second cache, as they do in a model. */
enum { SIDE = 28, PIXELS = SIDE * SIDE, CHANNELS = 128, VALUES = PIXELS * CHANNELS, TAPS = 9, K = TAPS * CHANNELS,
       GROUPS = 32, KEYS = 196, HEAD = 32, FACTOR = 2 };

struct bb_bench_data {
    const bb_kernels *k;
    const float *rows[TAPS * BB_TILE_PIXELS];
    int16_t multiplier[BB_PLANES * BB_TILE], offset[BB_TILE];
    int32_t acc[2 * BB_TILE_PIXELS * BB_TILE];
    uint8_t codes[VALUES], tables[4 * VALUES];
    float x[VALUES], y[VALUES], w[K * BB_TILE], scratch[BB_ATTENTION_SCRATCH(HEAD)];
};

static bb_quantize_args quantize_args(bb_bench_data *d)
{
    return (bb_quantize_args){.a = (uint8_t *)d->y, .x = d->x, .m = d->w, .pixels = PIXELS, .channels = CHANNELS,
                              .a_stride = CHANNELS, .x_stride = CHANNELS, .zero = 100, .levels = 255};
}

static void run_quantize(bb_bench_data *d)
{
    const bb_quantize_args a = quantize_args(d);
    d->k->quantize(&a);
}

static void run_norm_silu_quantize(bb_bench_data *d)
{
    bb_quantize_args a = quantize_args(d);
    a.mean = d->w;
    a.rstd = d->w + CHANNELS;
    a.scale = d->w + 2 * CHANNELS;
    a.shift = d->w + 3 * CHANNELS;
    a.silu = true;
    d->k->quantize(&a);
}

static void run_tables(bb_bench_data *d)
{
    d->k->tables(&(bb_tables_args){.t = d->tables, .a = d->codes, .pixels = PIXELS,
                                   .channels = CHANNELS, .a_stride = CHANNELS, .t_stride = 4 * CHANNELS});
}

static void run_widen(bb_bench_data *d) { d->k->widen((uint16_t *)(void *)d->tables, d->codes, VALUES); }

static void run_expand_tile(bb_bench_data *d)
{
    d->k->expand_tile(&(bb_expand_args){.w = (int8_t *)d->y, .planes = d->codes, .multiplier = d->multiplier,
                                        .offset = d->offset, .k_blocks = K / BB_K_BLOCK, .n_planes = 4});
}

static void run_dequantize_tile(bb_bench_data *d)
{
    d->k->dequantize_tile(&(bb_dequantize_args){.y = d->y, .acc = d->acc, .zsum = d->acc, .e = d->w, .bias = d->x,
                                                .pixels = BB_TILE_PIXELS, .segments = 1, .y_stride = CHANNELS});
}

static void run_conv_tile_f32(bb_bench_data *d)
{
    d->k->conv_tile_f32(&(bb_conv_f32_args){.y = d->y, .rows = d->rows, .w = d->w, .bias = d->x,
                                            .pixels = BB_TILE_PIXELS, .taps = TAPS, .channels = CHANNELS,
                                            .w_stride = BB_TILE, .outputs = BB_TILE});
}

static void run_f16_to_f32(bb_bench_data *d)
{
    d->k->f16_to_f32(d->y, (const uint16_t *)(const void *)d->codes, VALUES / 2);
}

static void run_norm_stats(bb_bench_data *d)
{
    d->k->norm_stats(&(bb_norm_stats_args){.mean = d->y, .rstd = d->y + CHANNELS, .x = d->x, .pixels = PIXELS,
                                           .c = CHANNELS, .groups = GROUPS, .eps = 1e-5f});
}

static void run_group_norm(bb_bench_data *d)
{
    d->k->group_norm(&(bb_group_norm_args){.y = d->y, .x = d->x, .scale = d->w, .shift = d->w + CHANNELS,
                                           .scratch = d->scratch, .pixels = PIXELS, .c = CHANNELS,
                                           .groups = GROUPS, .eps = 1e-5f});
}

static void run_attention(bb_bench_data *d)
{
    for (size_t first = 0; first < KEYS; first += BB_ATTENTION_QUERIES)
        d->k->attention(&(bb_attention_args){
            .o = d->y, .q = d->x, .k = d->x, .v = d->x, .scratch = d->scratch,
            .first_query = first, .queries = KEYS - first < BB_ATTENTION_QUERIES ? KEYS - first : BB_ATTENTION_QUERIES,
            .keys = KEYS, .d = HEAD, .o_stride = CHANNELS, .q_stride = CHANNELS, .kv_stride = CHANNELS, .scale = 0.2f});
}

static void run_avg_pool2d(bb_bench_data *d)
{
    for (size_t row = 0; row < SIDE / FACTOR; row++)
        d->k->avg_pool2d(&(bb_avg_pool_args){
            .y = d->y + row * SIDE / FACTOR * CHANNELS, .x = d->x + row * FACTOR * SIDE * CHANNELS,
            .pixels = SIDE / FACTOR, .c = CHANNELS, .factor = FACTOR, .row_stride = SIDE * CHANNELS});
}

static void run_silu(bb_bench_data *d) { d->k->silu(d->y, d->x, VALUES); }
static void run_gelu(bb_bench_data *d) { d->k->gelu(d->y, d->x, VALUES); }
static void run_mish(bb_bench_data *d) { d->k->mish(d->y, d->x, VALUES); }
static void run_add(bb_bench_data *d) { d->k->add(d->y, d->x, d->x, VALUES); }
static void run_add_channels(bb_bench_data *d) { d->k->add_channels(d->y, d->x, d->w, PIXELS, CHANNELS); }
static void run_modulate(bb_bench_data *d) { d->k->modulate(d->y, d->x, d->w, d->w + CHANNELS, PIXELS, CHANNELS); }
static void run_affine(bb_bench_data *d) { d->k->affine(d->y, d->x, 0.7f, 0.05f, VALUES); }

/* Of one time: multiply-adds or values. */
enum {
    WORK_quantize = VALUES, WORK_tables = VALUES, WORK_widen = VALUES, WORK_expand_tile = K * BB_TILE,
    WORK_dequantize_tile = BB_TILE_PIXELS * BB_TILE, WORK_conv_tile_f32 = BB_TILE_PIXELS * BB_TILE * K,
    WORK_f16_to_f32 = VALUES / 2, WORK_norm_stats = VALUES, WORK_group_norm = VALUES,
    WORK_attention = 2 * KEYS * KEYS * HEAD, WORK_avg_pool2d = VALUES, WORK_silu = VALUES, WORK_gelu = VALUES,
    WORK_mish = VALUES, WORK_add = VALUES, WORK_add_channels = VALUES, WORK_modulate = VALUES, WORK_affine = VALUES
};

#define BB_OP(name, args) {#name, WORK_##name, run_##name},
const bb_bench_op bb_bench_ops[] = {
#include "kernels/ops.inc"
    {"quantize_after_norm_silu", VALUES, run_norm_silu_quantize},
};
#undef BB_OP
const size_t bb_bench_n_ops = BB_COUNT(bb_bench_ops);

const char *bb_bench_op_unit(const bb_bench_op *op)
{
    return op->run == run_conv_tile_f32 || op->run == run_attention ? "GMAC/s" : "G values/s";
}

void bb_bench_op_times(void *ctx, uint32_t times)
{
    const bb_bench_op_run *r = ctx;
    for (uint32_t i = 0; i < times; i++) r->op->run(r->data);
}

bb_status bb_bench_data_make(bb_bench_data **out, const bb_kernels *kernels, bb_error *err)
{
    bb_bench_data *d = aligned_alloc(BB_ALIGNMENT, bb_align_up(sizeof *d, BB_ALIGNMENT));
    if (!d) return bb_fail(err, BB_ERR_SPACE, "out of memory for the ops");
    memset(d, 0, sizeof *d);
    d->k = kernels;
    bb_normals(d->x, VALUES, 1, BB_STREAM_TOOLS, 0);
    bb_normals(d->w, K * BB_TILE, 1, BB_STREAM_TOOLS + 1, 0);
    for (size_t i = 0; i < VALUES; i++) d->codes[i] = (uint8_t)(i * 7 % 16);
    for (size_t i = 0; i < BB_COUNT(d->multiplier); i++) d->multiplier[i] = (int16_t)(1 << i / BB_TILE);
    for (size_t i = 0; i < BB_COUNT(d->rows); i++) {
        const size_t tap = i / BB_TILE_PIXELS, p = i % BB_TILE_PIXELS;
        d->rows[i] = d->x + (tap / 3 * SIDE + tap % 3 + p) * CHANNELS;
    }
    *out = d;
    return BB_OK;
}
