#include "run/codes.h"

static const int8_t table_bias[BB_ROWS_FORMS] = {[BB_ROWS_CENTRED] = -30};

bb_codes bb_codes_layout(const bb_quantizer *q, size_t pixels, uint32_t forms)
{
    bb_codes l = {.forms = forms | 1u << BB_ROWS_CODES};
    size_t at = bb_align_up(q->channels * sizeof(float), BB_ALIGNMENT);
    for (uint32_t f = 0; f < BB_ROWS_FORMS; f++) {
        if (!(l.forms >> f & 1)) continue;
        const size_t bytes = bb_row_bytes((bb_rows)f, q->padded) + BB_MAX_SEGMENTS * sizeof(int32_t);
        l.stride[f] = bb_align_up(bytes, f == BB_ROWS_CODES ? 16 : 64); /* tables: a cache line each 16 channels */
        l.pad[f] = at;
        l.rows[f] = at + bb_align_up(l.stride[f], BB_ALIGNMENT);
        at = l.rows[f] + bb_align_up(pixels * l.stride[f], BB_ALIGNMENT);
    }
    l.item = at;
    return l;
}

uint32_t bb_codes_step(const bb_run *run, const bb_quantizer *q, uint32_t item)
{
    if (q->rec->rows == 1 || run->timestep == BB_NONE) return 0;
    return bb_step_row(q, run->at[run->timestep][item]);
}

typedef struct codes_walk {
    const bb_conv *conv;
    const bb_quantizer *q;
    const bb_codes *at;
    size_t pixels, runs; /* of an item */
} codes_walk;

BB_INLINE int32_t *sums_of(uint8_t *row, size_t row_bytes) { return (int32_t *)(void *)(row + row_bytes); }

/* The other forms of n rows whose codes and sums are made; rows: where they begin, of each form. */
static void make_forms(const codes_walk *w, uint8_t *base, const size_t *rows, size_t n)
{
    const bb_codes *at = w->at;
    for (uint32_t f = BB_ROWS_CODES + 1; f < BB_ROWS_FORMS; f++) {
        if (!(at->forms >> f & 1)) continue;
        const bb_kernels *kernels = w->conv->run->kernels;
        uint8_t *code = base + rows[BB_ROWS_CODES], *row = base + rows[f];
        if (bb_rows_are_tables((bb_rows)f))
            kernels->tables(&(bb_tables_args){
                .t = row, .a = code, .pixels = n, .channels = w->q->padded, .a_stride = at->stride[BB_ROWS_CODES],
                .t_stride = at->stride[f], .bias = table_bias[f]});
        for (size_t p = 0; p < n; p++, code += at->stride[BB_ROWS_CODES], row += at->stride[f]) {
            if (f == BB_ROWS_WIDE) kernels->widen((uint16_t *)(void *)row, code, w->q->padded);
            if (f == BB_ROWS_SIGNED) bb_signed_codes(row, code, w->q->padded);
            memcpy(sums_of(row, bb_row_bytes((bb_rows)f, w->q->padded)), sums_of(code, w->q->padded),
                   BB_MAX_SEGMENTS * sizeof(int32_t));
        }
    }
}

/* m = f32(inv_s/δ) and the padding pixel. */
static void prepare_item(const codes_walk *w, uint32_t item)
{
    const bb_quantizer *q = w->q;
    uint8_t *base = w->conv->run->codes + item * w->at->item, *pad = base + w->at->pad[BB_ROWS_CODES];
    int32_t *sums = sums_of(pad, q->padded);
    float *m = (float *)(void *)(base + w->at->m);
    uint32_t row = bb_codes_step(w->conv->run, q, item), channel = 0;
    memset(pad, 0, w->at->stride[BB_ROWS_CODES]);
    for (uint32_t g = 0; g < q->rec->segments; g++) {
        float delta = q->delta[row * q->rec->segments + g];
        uint8_t zero = q->zero[row * q->rec->segments + g];
        for (uint32_t k = 0; k < q->rec->seg_channels[g]; k++, channel++) {
            m[channel] = (q->inv_s ? q->inv_s[channel] : 1.0f) / delta;
            pad[k] = zero;
        }
        sums[g] = (int32_t)(zero * q->rec->seg_channels[g]);
        pad += bb_align_up(q->rec->seg_channels[g], BB_K_BLOCK);
    }
    make_forms(w, base, w->at->pad, 1);
}

/* Mean and reciprocal deviation of an item's channels, for the norm in front. */
static void stats_item(void *ctx, size_t item, size_t thread)
{
    const codes_walk *w = ctx;
    const bb_conv *conv = w->conv;
    const bb_op *norm = &conv->run->pack->graph.ops[conv->fusion.norm];
    float *mean = conv->run->stats + item * 2 * conv->c;
    (void)thread;
    conv->run->kernels->norm_stats(&(bb_norm_stats_args){
        .mean = mean, .rstd = mean + conv->c, .x = conv->x + item * w->pixels * conv->c, .pixels = w->pixels,
        .c = conv->c, .groups = norm->norm.groups, .eps = norm->norm.eps});
}

/* What is done to x before it becomes codes. */
static void prepare_front(const codes_walk *w, uint32_t item, bb_quantize_args *a)
{
    const bb_conv *conv = w->conv;
    a->silu = conv->fusion.silu;
    if (conv->fusion.norm == BB_NONE) return;
    const bb_op *norm = &conv->run->pack->graph.ops[conv->fusion.norm];
    a->mean = conv->run->stats + (size_t)item * 2 * conv->c;
    a->rstd = a->mean + conv->c;
    a->scale = conv->run->pack->weights[norm->weight[0]].f32;
    a->shift = conv->run->pack->weights[norm->weight[1]].f32;
}

#define RUN 64u /* pixels of a work item */

static void quantize_run(void *ctx, size_t work, size_t thread)
{
    const codes_walk *w = ctx;
    const bb_quantizer *q = w->q;
    const bb_codes *at = w->at;
    uint32_t item = (uint32_t)(work / w->runs), row = bb_codes_step(w->conv->run, q, item);
    size_t first = work % w->runs * RUN, rows[BB_ROWS_FORMS];
    uint8_t *base = w->conv->run->codes + item * at->item;
    int32_t sum[RUN];
    for (uint32_t f = 0; f < BB_ROWS_FORMS; f++) rows[f] = at->rows[f] + first * at->stride[f];
    bb_quantize_args a = {.a = base + rows[BB_ROWS_CODES], .sum = sum, .m = (const float *)(const void *)(base + at->m),
                          .x = w->conv->x + (item * w->pixels + first) * w->conv->c,
                          .pixels = w->pixels - first < RUN ? w->pixels - first : RUN,
                          .a_stride = at->stride[BB_ROWS_CODES], .x_stride = w->conv->c,
                          .levels = (1u << q->rec->bits) - 1};
    (void)thread;
    prepare_front(w, item, &a);
    for (uint32_t g = 0; g < q->rec->segments; g++) {
        a.channels = q->rec->seg_channels[g];
        a.zero = q->zero[row * q->rec->segments + g];
        w->conv->run->kernels->quantize(&a);
        for (size_t p = 0; p < a.pixels; p++)
            sums_of(base + rows[BB_ROWS_CODES] + p * a.a_stride, q->padded)[g] = sum[p];
        a.a += bb_align_up(a.channels, BB_K_BLOCK);
        a.x += a.channels;
        a.m += a.channels;
        if (!a.mean) continue;
        a.mean += a.channels;
        a.rstd += a.channels;
        a.scale += a.channels;
        a.shift += a.channels;
    }
    make_forms(w, base, rows, a.pixels);
}

void bb_codes_make(const bb_conv *conv, const bb_layer *layer, const bb_codes *at)
{
    bb_run *run = conv->run;
    codes_walk w = {.conv = conv, .q = layer->quantizer, .at = at, .pixels = (size_t)conv->ih * conv->iw};
    w.runs = (w.pixels + RUN - 1) / RUN;
    if (run->codes_value == conv->op->in[0] && run->codes_quantizer == layer->rec->quantizer &&
        run->codes_forms == at->forms)
        return;
    for (uint32_t item = 0; item < conv->items; item++) prepare_item(&w, item);
    if (conv->fusion.norm != BB_NONE) bb_par_for(run->par, conv->items, stats_item, &w);
    bb_par_for(run->par, conv->items * w.runs, quantize_run, &w);
    run->codes_value = conv->op->in[0];
    run->codes_quantizer = layer->rec->quantizer;
    run->codes_forms = at->forms;
}
