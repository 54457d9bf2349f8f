#include "calibrate/quantize.h"

#include "make.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_META 64

typedef struct maker {
    const bb_model *m;
    const bb_calibration *cal;
    const bb_quantize_options *opt;
    bb_error *err;
    bb_weight_ref *refs;
    bb_tensor_out *tensors; uint32_t n_tensors;
    void **owned; uint32_t n_owned; /* blocks to free: planes */
    float *f32; uint32_t n_f32;
    bb_layer_rec *layers; uint32_t n_layers;
    bb_quantizer_rec *quantizers; uint32_t *quantizer_value; uint32_t n_quantizers;
    float *delta; int16_t *offset; uint32_t n_rows;
    float *step_key, *step_delta; uint8_t *step_zero; uint32_t n_key, n_step;
    uint64_t weights, weight_bits; /* for the mean */
    bb_meta_out meta[MAX_META]; uint32_t n_meta;
    char *meta_text[MAX_META];
} maker;

static bool is_matrix_op(const bb_op *op) { return op->kind == BB_OP_CONV2D || op->kind == BB_OP_LINEAR; }

/* Which layers stay at 8 bits: by place in the graph, not by family; names only for the time embedding. */
static bool keeps_8_bits(const maker *k, const bb_op *op, uint32_t value)
{
    const bb_graph *g = &k->m->pack.graph;
    const char *name = bb_graph_string(g, g->weights[op->weight[0]].name);
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i].value == value) return true;
    if (op->in[0] < g->n_inputs || strncmp(name, "time_embedding.", 15) == 0) return true;
    bool shortcut = op->kind == BB_OP_CONV2D && op->conv.kh == 1 && op->conv.kw == 1;
    return shortcut && k->opt->layers == BB_LAYERS_DEFAULT;
}

/* The graph's own input is noise at first: other seeds go further out than the ones calibrated with, and a pixel cut
 * off there stays in the picture as a dot. So its range is the extremes seen and a tenth more. */
static void widen(bb_activation_stats *s)
{
    s->low *= 1.1f;
    s->high *= 1.1f;
}

/* One table per (value, bits): layers that read the same value share it. */
static uint32_t quantizer_for(maker *k, const bb_site *site, uint32_t bits)
{
    for (uint32_t i = 0; i < k->n_quantizers; i++)
        if (k->quantizer_value[i] == site->value && k->quantizers[i].bits == bits) return i;
    bb_quantizer_rec *q = &k->quantizers[k->n_quantizers];
    *q = (bb_quantizer_rec){.kind = BB_QUANTIZER_STATIC, .bits = bits, .segments = site->segments, .rows = site->rows,
                            .key_at = k->n_key, .step_at = k->n_step, .inv_s_at = BB_NONE};
    bool from_outside = site->value < k->m->pack.graph.n_inputs;
    memcpy(q->seg_channels, site->seg_channels, site->segments * sizeof *q->seg_channels);
    for (uint32_t r = 0; r < site->rows; r++) {
        k->step_key[k->n_key++] = k->cal->timesteps[r];
        for (uint32_t g = 0; g < site->segments; g++) {
            float tail[2 * BB_CALIBRATION_TAIL];
            bb_activation_stats stats = bb_calibration_stats(&site->stats[r * site->segments + g], tail);
            if (from_outside) widen(&stats);
            bb_activation_grid grid =
                bb_activation_grid_fit(&stats, bits, from_outside ? BB_RANGE_MINMAX : k->opt->range);
            k->step_delta[k->n_step] = grid.delta;
            k->step_zero[k->n_step++] = grid.zero;
        }
    }
    k->quantizer_value[k->n_quantizers] = site->value;
    return k->n_quantizers++;
}

typedef struct tile_work { bb_quantize_layer_args args; float *rows; size_t k; bb_status status; } tile_work;

static void tile_item(void *ctx, size_t tile, size_t thread)
{
    tile_work *w = ctx;
    bb_quantize_layer_args a = w->args;
    a.row = w->rows + thread * w->k;
    if (bb_quantize_tile(&a, (uint32_t)tile) != BB_OK) __atomic_store_n(&w->status, BB_ERR_ARGUMENT, __ATOMIC_RELAXED);
}

static bb_status add_layer(maker *k, uint32_t op_number)
{
    const bb_graph *g = &k->m->pack.graph;
    const bb_op *op = &g->ops[op_number];
    uint32_t slot = op->weight[0];
    const bb_weight_slot *s = &g->weights[slot];
    const char *name = bb_graph_string(g, s->name);
    bool special = keeps_8_bits(k, op, bb_op_value(g, op_number));
    uint32_t wbits = special ? 8 : k->opt->wbits, abits = special ? 8 : k->opt->abits;
    const bb_site *site = bb_calibration_site(k->cal, op->in[0]);
    if ((uint64_t)s->dim[1] * (s->rank == 4 ? s->dim[2] * s->dim[3] : 1) > BB_MAX_K || s->dim[0] >= BB_MAX_K)
        return bb_fail(k->err, BB_ERR_UNSUPPORTED, "layer %s: more than %u inputs or outputs do not fit the exact sums",
                       name, BB_MAX_K);
    bb_layer_rec *l = &k->layers[k->n_layers];
    *l = (bb_layer_rec){.weight = slot, .quantizer = quantizer_for(k, site, abits), .outputs = s->dim[0],
                        .taps = s->rank == 4 ? s->dim[2] * s->dim[3] : 1, .channels = s->dim[1], .row_at = k->n_rows,
                        .multiplier_at = BB_NONE, .perm_at = BB_NONE, .n_classes = 1, .class_planes = {wbits},
                        .class_rows = {s->dim[0]}};
    uint32_t rows = (uint32_t)bb_align_up(l->outputs, BB_TILE);
    uint32_t k_blocks = bb_k_blocks(l->taps, site->segments, site->seg_channels);
    size_t bytes = bb_plane_bytes(rows, k_blocks, wbits);
    tile_work w = {.k = (size_t)l->taps * l->channels, .status = BB_OK};
    uint8_t *planes = malloc(bytes);
    w.rows = malloc(w.k * bb_par_threads(k->opt->par) * sizeof *w.rows);
    if (planes) k->owned[k->n_owned++] = planes;
    if (!planes || !w.rows || bytes > UINT32_MAX) {
        free(w.rows);
        return bb_fail(k->err, BB_ERR_SPACE, "layer %s: out of memory", name);
    }
    w.args = (bb_quantize_layer_args){.weight = &k->m->pack.weights[slot], .outputs = l->outputs, .taps = l->taps,
                                      .channels = l->channels, .segments = site->segments, .bits = wbits,
                                      .range = k->opt->range, .planes = planes, .delta = k->delta + k->n_rows,
                                      .offset = k->offset + k->n_rows};
    memcpy(w.args.seg_channels, site->seg_channels, sizeof w.args.seg_channels);
    bb_par_for(k->opt->par, rows / BB_TILE, tile_item, &w);
    free(w.rows);
    if (w.status != BB_OK) return bb_fail(k->err, w.status, "layer %s: a weight is infinite or not a number", name);
    k->tensors[k->n_tensors++] = (bb_tensor_out){name, BB_U8, 1, {(uint32_t)bytes}, planes};
    k->refs[slot] = (bb_weight_ref){BB_STORE_LAYER, k->n_layers++};
    k->n_rows += rows;
    k->weights += (uint64_t)l->outputs * w.k;
    k->weight_bits += (uint64_t)l->outputs * w.k * wbits;
    return BB_OK;
}

/* What stays as it is: vectors go to the pool, tables keep their tensor. */
static void keep_weight(maker *k, uint32_t slot)
{
    const bb_weight_slot *s = &k->m->pack.graph.weights[slot];
    const bb_weight *w = &k->m->pack.weights[slot];
    if (s->rank == 1) {
        k->refs[slot] = (bb_weight_ref){BB_STORE_POOL, k->n_f32};
        memcpy(k->f32 + k->n_f32, w->f32, s->dim[0] * sizeof(float));
        k->n_f32 += s->dim[0];
        return;
    }
    k->refs[slot] = (bb_weight_ref){BB_STORE_TENSOR, 0};
    k->tensors[k->n_tensors++] = (bb_tensor_out){
        .name = bb_graph_string(&k->m->pack.graph, s->name), .dtype = w->f32 ? BB_F32 : BB_F16, .rank = 2,
        .shape = {s->dim[0], w->stride}, .data = w->f32 ? (const void *)w->f32 : w->f16};
}

/* The op that uses a slot as its matrix, or BB_NONE. */
static uint32_t matrix_op(const bb_graph *g, uint32_t slot)
{
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (is_matrix_op(&g->ops[i]) && g->ops[i].weight[0] == slot) return i;
    return BB_NONE;
}

static void add_meta(maker *k, const char *key, const char *value)
{
    char *text = value ? strdup(value) : NULL;
    if (!text || k->n_meta == MAX_META) { free(text); return; }
    k->meta_text[k->n_meta] = text;
    k->meta[k->n_meta++] = (bb_meta_out){key, text};
}

static void add_metadata(maker *k)
{
    static const char *const kept[] = {"architecture", "labels", "licence", "source", "source_sha256"};
    char summary[160];
    size_t size = k->m->pack.header.n + 1; /* no value is longer than the whole header */
    char *text = malloc(size);
    for (size_t i = 0; text && i < BB_COUNT(kept); i++)
        if (bb_pack_metadata(&k->m->pack, kept[i], text, size)) add_meta(k, kept[i], text);
    free(text);
    snprintf(summary, sizeof summary, "W%uA%u, %s ranges, 8/8: first and last convolution, time embedding%s",
             (unsigned)k->opt->wbits, (unsigned)k->opt->abits, k->opt->range == BB_RANGE_MSE ? "MSE" : "min-max",
             k->opt->layers == BB_LAYERS_DEFAULT ? ", 1x1 shortcuts" : "");
    add_meta(k, "quantization", summary);
    snprintf(summary, sizeof summary, "%u steps of DDIM", (unsigned)k->cal->steps);
    add_meta(k, "calibration", summary);
    snprintf(summary, sizeof summary, "%llu", (unsigned long long)k->opt->seed);
    add_meta(k, "seed", summary);
    add_meta(k, "command", k->opt->command);
}

static bool allocate(maker *k)
{
    const bb_graph *g = &k->m->pack.graph;
    size_t vectors = 0, rows = 0, steps = 0, keys = 0;
    for (uint32_t i = 0; i < g->n_weights; i++) {
        if (g->weights[i].rank == 1) vectors += g->weights[i].dim[0];
        else rows += bb_align_up(g->weights[i].dim[0], BB_TILE);
    }
    for (uint32_t i = 0; i < k->cal->n_sites; i++) {
        keys += 2 * (size_t)k->cal->sites[i].rows; /* at two bit widths at most */
        steps += 2 * (size_t)k->cal->sites[i].rows * k->cal->sites[i].segments;
    }
    size_t sites = 2 * (size_t)k->cal->n_sites;
    k->refs = calloc(g->n_weights, sizeof *k->refs);
    k->tensors = calloc(g->n_weights, sizeof *k->tensors);
    k->owned = calloc(g->n_weights, sizeof *k->owned);
    k->f32 = malloc(vectors * sizeof *k->f32 + 1);
    k->layers = calloc(g->n_weights, sizeof *k->layers);
    k->quantizers = calloc(sites, sizeof *k->quantizers);
    k->quantizer_value = calloc(sites, sizeof *k->quantizer_value);
    k->delta = malloc(rows * sizeof *k->delta + 1);
    k->offset = malloc(rows * sizeof *k->offset + 1);
    k->step_key = malloc(keys * sizeof *k->step_key + 1);
    k->step_delta = malloc(steps * sizeof *k->step_delta + 1);
    k->step_zero = malloc(steps + 1);
    return k->refs && k->tensors && k->owned && k->f32 && k->layers && k->quantizers && k->quantizer_value &&
           k->delta && k->offset && k->step_key && k->step_delta && k->step_zero;
}

static void release(maker *k)
{
    for (uint32_t i = 0; i < k->n_owned; i++) free(k->owned[i]);
    for (uint32_t i = 0; i < k->n_meta; i++) free(k->meta_text[i]);
    void *blocks[] = {k->refs, k->tensors, k->owned, k->f32, k->layers, k->quantizers, k->quantizer_value,
                      k->delta, k->offset, k->step_key, k->step_delta, k->step_zero};
    for (size_t i = 0; i < BB_COUNT(blocks); i++) free(blocks[i]);
}

static bb_status write_out(maker *k, uint8_t **out, size_t *out_size)
{
    bb_info info = k->m->pack.info;
    info.bits_milli = k->weights ? (uint32_t)((k->weight_bits * 1000 + k->weights / 2) / k->weights) : 0;
    const bb_pack_out pack = {
        .graph = &k->m->pack.graph, .refs = k->refs, .tensors = k->tensors, .n_tensors = k->n_tensors,
        .f32 = k->f32, .n_f32 = k->n_f32, .layers = k->layers, .n_layers = k->n_layers, .quantizers = k->quantizers,
        .n_quantizers = k->n_quantizers, .delta = k->delta, .offset = k->offset, .n_rows = k->n_rows,
        .step_key = k->step_key, .n_step_key = k->n_key, .step_delta = k->step_delta, .step_zero = k->step_zero,
        .n_step = k->n_step, .schedule = &k->m->pack.schedule, .info = info, .meta = k->meta, .n_meta = k->n_meta};
    return bb_make_file(&pack, out, out_size, k->err);
}

bb_status bb_quantize(const bb_model *m, const bb_calibration *cal, const bb_quantize_options *opt, uint8_t **out,
                      size_t *out_size, bb_error *err)
{
    const bb_graph *g = &m->pack.graph;
    maker k = {.m = m, .cal = cal, .opt = opt, .err = err};
    bb_status status = allocate(&k) ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory");
    bb_progress progress = bb_progress_start("quantizing (weights)", g->n_weights, opt->quiet);
    for (uint32_t slot = 0; status == BB_OK && slot < g->n_weights; slot++) {
        uint32_t op = matrix_op(g, slot);
        if (op == BB_NONE) keep_weight(&k, slot);
        else status = add_layer(&k, op);
        bb_progress_step(&progress, slot + 1);
    }
    if (status == BB_OK) {
        add_metadata(&k);
        status = write_out(&k, out, out_size);
    }
    release(&k);
    return status;
}
