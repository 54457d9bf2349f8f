/* One weight slot after the other: what is quantized and how, its codes, and the rest as it was. */
#include "make/make.h"

static bool begins_with(const char *text, const char *start)
{
    while (*start)
        if (*text++ != *start++) return false;
    return true;
}

/* Which layers stay at 8 bits: by place in the graph, not by family; names only for the time embedding. */
static bool keeps_8_bits(const bb_make *k, const bb_op *op, uint32_t value)
{
    const bb_graph *g = &k->model.pack.graph;
    const char *name = bb_graph_string(g, g->weights[op->weight[0]].name);
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i].value == value) return true;
    if (op->in[0] < g->n_inputs || begins_with(name, "time_embedding.")) return true;
    bool shortcut = op->kind == BB_OP_CONV2D && op->conv.kh == 1 && op->conv.kw == 1;
    return shortcut && k->opt.layers == BB_LAYERS_DEFAULT;
}

/* The graph's own input is noise at first: other seeds go further out than the ones calibrated with, and a pixel cut
 * off there stays in the picture as a dot. So its range is the extremes seen and a tenth more. */
static void widen(bb_activation_stats *s)
{
    s->low *= 1.1f;
    s->high *= 1.1f;
}

/* One table per (value, bits): layers that read the same value share it. */
static uint32_t quantizer_for(bb_make *k, const bb_site *site, uint32_t bits)
{
    for (uint32_t i = 0; i < k->n_quantizers; i++)
        if (k->quantizer_value[i] == site->value && k->quantizers[i].bits == bits) return i;
    bb_quantizer_rec *q = &k->quantizers[k->n_quantizers];
    *q = (bb_quantizer_rec){.kind = BB_QUANTIZER_STATIC, .bits = bits, .segments = site->segments, .rows = site->rows,
                            .key_at = k->n_key, .step_at = k->n_step, .inv_s_at = BB_NONE};
    bool from_outside = site->value < k->model.pack.graph.n_inputs;
    memcpy(q->seg_channels, site->seg_channels, site->segments * sizeof *q->seg_channels);
    for (uint32_t r = 0; r < site->rows; r++) {
        k->step_key[k->n_key++] = k->cal.timesteps[r];
        for (uint32_t g = 0; g < site->segments; g++) {
            float tail[2 * BB_CALIBRATION_TAIL];
            bb_activation_stats stats = bb_calibration_stats(&site->stats[r * site->segments + g], tail);
            if (from_outside) widen(&stats);
            bb_activation_grid grid =
                bb_activation_grid_fit(&stats, bits, from_outside ? BB_RANGE_MINMAX : k->opt.range);
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

static bb_status add_layer(bb_make *k, uint32_t op_number, bb_error *err)
{
    const bb_graph *g = &k->model.pack.graph;
    const bb_op *op = &g->ops[op_number];
    uint32_t slot = op->weight[0];
    const bb_weight_slot *s = &g->weights[slot];
    const char *name = bb_graph_string(g, s->name);
    bool special = keeps_8_bits(k, op, bb_op_value(g, op_number));
    uint32_t wbits = special ? 8 : k->opt.wbits, abits = special ? 8 : k->opt.abits;
    const bb_site *site = bb_calibration_site(&k->cal, op->in[0]);
    if ((uint64_t)s->dim[1] * (s->rank == 4 ? s->dim[2] * s->dim[3] : 1) > BB_MAX_K || s->dim[0] >= BB_MAX_K)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "layer %s: more than %u inputs or outputs do not fit the exact sums",
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
    uint8_t *planes = bytes <= UINT32_MAX ? bb_blocks_take(&k->blocks, bytes, 1) : NULL;
    bb_block *scratch = k->blocks.last;
    w.rows = bb_blocks_take(&k->blocks, w.k * bb_par_threads(k->opt.par), sizeof *w.rows);
    if (!planes || !w.rows) return bb_fail(err, BB_ERR_SPACE, "layer %s: out of memory", name);
    w.args = (bb_quantize_layer_args){.weight = &k->model.pack.weights[slot], .outputs = l->outputs, .taps = l->taps,
                                      .channels = l->channels, .segments = site->segments, .bits = wbits,
                                      .range = k->opt.range, .planes = planes, .delta = k->delta + k->n_rows,
                                      .offset = k->offset + k->n_rows};
    memcpy(w.args.seg_channels, site->seg_channels, sizeof w.args.seg_channels);
    bb_par_for(k->opt.par, rows / BB_TILE, tile_item, &w);
    bb_blocks_give(&k->blocks, scratch);
    if (w.status != BB_OK) return bb_fail(err, w.status, "layer %s: a weight is infinite or not a number", name);
    k->tensors[k->n_tensors++] = (bb_tensor_out){name, BB_U8, 1, {(uint32_t)bytes}, planes};
    k->refs[slot] = (bb_weight_ref){BB_STORE_LAYER, k->n_layers++};
    k->n_rows += rows;
    k->weights_in_all += (uint64_t)l->outputs * w.k;
    k->weight_bits += (uint64_t)l->outputs * w.k * wbits;
    return BB_OK;
}

/* What stays as it is: vectors go to the pool, tables keep their tensor. */
static void keep_weight(bb_make *k, uint32_t slot)
{
    const bb_weight_slot *s = &k->model.pack.graph.weights[slot];
    const bb_weight *w = &k->model.pack.weights[slot];
    if (s->rank == 1) {
        k->refs[slot] = (bb_weight_ref){BB_STORE_POOL, k->n_f32};
        memcpy(k->f32 + k->n_f32, w->f32, s->dim[0] * sizeof(float));
        k->n_f32 += s->dim[0];
        return;
    }
    k->refs[slot] = (bb_weight_ref){BB_STORE_TENSOR, 0};
    k->tensors[k->n_tensors++] = (bb_tensor_out){
        .name = bb_graph_string(&k->model.pack.graph, s->name), .dtype = w->f32 ? BB_F32 : BB_F16, .rank = 2,
        .shape = {s->dim[0], w->stride}, .data = w->f32 ? (const void *)w->f32 : w->f16};
}

/* The op that uses a slot as its matrix, or BB_NONE. */
static uint32_t matrix_op(const bb_graph *g, uint32_t slot)
{
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (bb_is_matrix_op(&g->ops[i]) && g->ops[i].weight[0] == slot) return i;
    return BB_NONE;
}

static bool allocate(bb_make *k)
{
    const bb_graph *g = &k->model.pack.graph;
    size_t vectors = 0, rows = 0, steps = 0, keys = 0;
    for (uint32_t i = 0; i < g->n_weights; i++) {
        if (g->weights[i].rank == 1) vectors += g->weights[i].dim[0];
        else rows += bb_align_up(g->weights[i].dim[0], BB_TILE);
    }
    for (uint32_t i = 0; i < k->cal.n_sites; i++) {
        keys += 2 * (size_t)k->cal.sites[i].rows; /* at two bit widths at most */
        steps += 2 * (size_t)k->cal.sites[i].rows * k->cal.sites[i].segments;
    }
    size_t sites = 2 * (size_t)k->cal.n_sites;
    k->refs = bb_blocks_take(&k->blocks, g->n_weights, sizeof *k->refs);
    k->tensors = bb_blocks_take(&k->blocks, g->n_weights, sizeof *k->tensors);
    k->f32 = bb_blocks_take(&k->blocks, vectors, sizeof *k->f32);
    k->layers = bb_blocks_take(&k->blocks, g->n_weights, sizeof *k->layers);
    k->quantizers = bb_blocks_take(&k->blocks, sites, sizeof *k->quantizers);
    k->quantizer_value = bb_blocks_take(&k->blocks, sites, sizeof *k->quantizer_value);
    k->delta = bb_blocks_take(&k->blocks, rows, sizeof *k->delta);
    k->offset = bb_blocks_take(&k->blocks, rows, sizeof *k->offset);
    k->step_key = bb_blocks_take(&k->blocks, keys, sizeof *k->step_key);
    k->step_delta = bb_blocks_take(&k->blocks, steps, sizeof *k->step_delta);
    k->step_zero = bb_blocks_take(&k->blocks, steps, 1);
    return k->refs && k->tensors && k->f32 && k->layers && k->quantizers && k->quantizer_value &&
           k->delta && k->offset && k->step_key && k->step_delta && k->step_zero;
}

bb_status bb_layers_begin(bb_make *k, bb_error *err)
{
    return allocate(k) ? BB_OK : bb_out_of_memory(err, "quantizing");
}

bb_status bb_layers_step(bb_make *k, bb_error *err)
{
    uint32_t op = matrix_op(&k->model.pack.graph, k->slot);
    if (op == BB_NONE) keep_weight(k, k->slot);
    else BB_TRY(add_layer(k, op, err));
    return ++k->slot < k->model.pack.graph.n_weights ? BB_AGAIN : BB_DONE;
}
