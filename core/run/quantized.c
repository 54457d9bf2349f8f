/* Quantized convolution and linear: the integer contract of core/FORMAT.md §6–7, walked over the kernels.
 *
 * codes scratch, per item: scales m [channels] f32, the padding pixel [padded], codes [pixels][padded], where a pixel
 * has its segments one after the other, each padded with zeros to a multiple of 8 channels. */
#include "run/conv.h"

typedef struct codes_layout { size_t m, pad, codes, item; } codes_layout; /* byte offsets in an item; its size */

static codes_layout layout_of(const bb_quantizer *q, size_t pixels)
{
    codes_layout l = {.pad = bb_align_up(q->channels * sizeof(float), BB_ALIGNMENT)};
    l.codes = l.pad + bb_align_up(q->padded, BB_ALIGNMENT);
    l.item = l.codes + bb_align_up(pixels * q->padded, BB_ALIGNMENT);
    return l;
}

typedef struct qconv {
    bb_conv conv;
    const bb_layer *layer;
    codes_layout at;
} qconv;

/* Each item of a batch may be at another timestep. */
static uint32_t step_row(const bb_run *run, const bb_quantizer *q, uint32_t item)
{
    if (q->rec->rows == 1 || run->timestep == BB_NONE) return 0;
    return bb_step_row(q, run->at[run->timestep][item]);
}

/* m = f32(inv_s/δ) and the padding pixel: code z is a real zero. */
static void prepare_item(const qconv *c, uint32_t item)
{
    const bb_quantizer *q = c->layer->quantizer;
    uint8_t *base = c->conv.run->codes + item * c->at.item, *pad = base + c->at.pad;
    float *m = (float *)(void *)base;
    uint32_t row = step_row(c->conv.run, q, item), channel = 0;
    memset(pad, 0, q->padded);
    for (uint32_t g = 0; g < q->rec->segments; g++) {
        float delta = q->delta[row * q->rec->segments + g];
        uint8_t zero = q->zero[row * q->rec->segments + g];
        for (uint32_t k = 0; k < q->rec->seg_channels[g]; k++, channel++) {
            m[channel] = (q->inv_s ? q->inv_s[channel] : 1.0f) / delta;
            pad[k] = zero;
        }
        pad += bb_align_up(q->rec->seg_channels[g], BB_K_BLOCK);
    }
}

#define QUANTIZE_PIXELS 64u /* per work item */

static void quantize_item(void *ctx, size_t work, size_t thread)
{
    const qconv *c = ctx;
    const bb_quantizer *q = c->layer->quantizer;
    size_t pixels = (size_t)c->conv.ih * c->conv.iw, per_item = (pixels + QUANTIZE_PIXELS - 1) / QUANTIZE_PIXELS;
    uint32_t item = (uint32_t)(work / per_item), row = step_row(c->conv.run, q, item);
    size_t first = work % per_item * QUANTIZE_PIXELS;
    uint8_t *base = c->conv.run->codes + item * c->at.item;
    bb_quantize_args a = {.a = base + c->at.codes + first * q->padded, .m = (const float *)(const void *)base,
                          .x = c->conv.x + (item * pixels + first) * c->conv.c,
                          .pixels = pixels - first < QUANTIZE_PIXELS ? pixels - first : QUANTIZE_PIXELS,
                          .a_stride = q->padded, .x_stride = c->conv.c, .levels = (1u << q->rec->bits) - 1};
    (void)thread;
    for (uint32_t g = 0; g < q->rec->segments; g++) {
        a.channels = q->rec->seg_channels[g];
        a.zero = q->zero[row * q->rec->segments + g];
        c->conv.run->kernels->quantize(&a);
        a.a += bb_align_up(a.channels, BB_K_BLOCK);
        a.x += a.channels;
        a.m += a.channels;
    }
}

static void quantize_input(qconv *c)
{
    bb_run *run = c->conv.run;
    uint32_t value = c->conv.op->in[0], quantizer = c->layer->rec->quantizer;
    if (run->codes_value == value && run->codes_quantizer == quantizer) return;
    for (uint32_t item = 0; item < c->conv.items; item++) prepare_item(c, item);
    size_t pixels = (size_t)c->conv.ih * c->conv.iw, per_item = (pixels + QUANTIZE_PIXELS - 1) / QUANTIZE_PIXELS;
    bb_par_for(run->par, c->conv.items * per_item, quantize_item, c);
    run->codes_value = value;
    run->codes_quantizer = quantizer;
}

/* One tile's constants, gathered once per work item. */
typedef struct tile {
    uint32_t row;            /* first packed row */
    uint32_t n_planes;
    const uint8_t *planes;
    const int16_t *multiplier;
    uint32_t out[BB_TILE];   /* natural outputs; BB_NONE in padding */
    bool contiguous;         /* 16 natural outputs in a row */
    int16_t powers[BB_MAX_PLANES * BB_TILE]; /* multipliers of uniform planes */
    int8_t low[BB_TILE];     /* weights of output j are in low[j] .. low[j] + spread */
    uint32_t spread;
    float bias[BB_TILE], e[BB_MAX_SEGMENTS * BB_TILE];
    int32_t zsum[BB_MAX_SEGMENTS * BB_TILE];
} tile;

/* Finds tile number `want` among the width classes. */
static void find_tile(const bb_layer *l, uint32_t want, tile *t)
{
    size_t plane_at = 0, multiplier_at = 0;
    uint32_t row = 0, number = 0, i = 0;
    for (;; i++) {
        uint32_t tiles = (l->rec->class_rows[i] + BB_TILE - 1) / BB_TILE, planes = l->rec->class_planes[i];
        uint32_t skip = want - number < tiles ? want - number : tiles;
        plane_at += (size_t)skip * l->k_blocks * planes * BB_TILE;
        multiplier_at += (size_t)skip * planes * BB_TILE;
        row += skip * BB_TILE;
        number += skip;
        if (skip < tiles) break;
    }
    t->row = row;
    t->n_planes = l->rec->class_planes[i];
    t->planes = l->planes + plane_at;
    for (uint32_t p = 0; p < t->n_planes; p++)
        for (uint32_t j = 0; j < BB_TILE; j++) t->powers[p * BB_TILE + j] = (int16_t)(1 << p);
    t->multiplier = l->multiplier ? l->multiplier + multiplier_at : t->powers;
    t->spread = 0;
    for (uint32_t j = 0; j < BB_TILE; j++) {
        int32_t low = l->offset[row + j], high = low;
        for (uint32_t p = 0; p < t->n_planes; p++) {
            int32_t m = t->multiplier[p * BB_TILE + j];
            if (m < 0) low += m; else high += m;
        }
        t->low[j] = (int8_t)low; /* the reader has checked that all weights fit */
        if ((uint32_t)(high - low) > t->spread) t->spread = (uint32_t)(high - low);
    }
}

static void load_outputs(const qconv *c, tile *t)
{
    t->contiguous = true;
    for (uint32_t j = 0; j < BB_TILE; j++) {
        uint32_t row = t->row + j, out = c->layer->perm ? c->layer->perm[row] : row;
        t->out[j] = out < c->conv.n ? out : BB_NONE;
        t->bias[j] = t->out[j] != BB_NONE && c->conv.bias ? c->conv.bias[out] : 0;
        if (t->out[j] == BB_NONE || t->out[j] != t->out[0] + j) t->contiguous = false;
    }
}

/* e = f32(δ·Δ) and z·Σw for an item's step row. */
static void load_scales(const qconv *c, uint32_t item, tile *t)
{
    const bb_layer *l = c->layer;
    const bb_quantizer *q = l->quantizer;
    uint32_t row = step_row(c->conv.run, q, item);
    for (uint32_t g = 0; g < q->rec->segments; g++) {
        uint32_t at = row * q->rec->segments + g;
        for (uint32_t j = 0; j < BB_TILE; j++) {
            t->e[g * BB_TILE + j] = q->delta[at] * l->delta[t->row + j];
            t->zsum[g * BB_TILE + j] = q->zero[at] * l->wsum[(size_t)g * l->rows + t->row + j];
        }
    }
}

static void store_tile(const qconv *c, const tile *t, const float *y, size_t pixel, size_t pixels)
{
    float *out = c->conv.y + pixel * c->conv.n;
    for (size_t p = 0; p < pixels; p++, out += c->conv.n, y += BB_TILE) {
        if (t->contiguous) memcpy(out + t->out[0], y, BB_TILE * sizeof *y);
        else
            for (uint32_t j = 0; j < BB_TILE; j++)
                if (t->out[j] != BB_NONE) out[t->out[j]] = y[j];
    }
}

static void conv_item(void *ctx, size_t work, size_t thread)
{
    const qconv *c = ctx;
    const bb_conv *conv = &c->conv;
    const bb_kernels *k = conv->run->kernels;
    const bb_quantizer *q = c->layer->quantizer;
    uint8_t *scratch = conv->run->thread + thread * conv->run->thread_bytes;
    const void **rows = (const void **)(void *)scratch;
    int8_t *w = (int8_t *)(scratch + bb_conv_row_bytes(conv->taps));
    int32_t acc[BB_MAX_SEGMENTS * BB_TILE_PIXELS * BB_TILE];
    float y[BB_TILE_PIXELS * BB_TILE];
    uint32_t first, end, loaded = BB_NONE;
    tile t;
    find_tile(c->layer, (uint32_t)(work / conv->chunks), &t);
    load_outputs(c, &t);
    k->expand_tile(&(bb_expand_args){.w = w, .planes = t.planes, .multiplier = t.multiplier, .n_planes = t.n_planes,
                                     .offset = c->layer->offset + t.row, .k_blocks = c->layer->k_blocks});
    bb_conv_rows(conv, (uint32_t)(work % conv->chunks), &first, &end);
    for (uint32_t r = first; r < end; r++) {
        uint32_t item = r / conv->oh;
        const uint8_t *base = conv->run->codes + item * c->at.item;
        if (item != loaded) load_scales(c, loaded = item, &t);
        for (uint32_t ox = 0; ox < conv->ow; ox += BB_TILE_PIXELS) {
            uint32_t pixels = conv->ow - ox < BB_TILE_PIXELS ? conv->ow - ox : BB_TILE_PIXELS;
            bb_conv_gather(conv, rows, base + c->at.codes, q->padded, base + c->at.pad, r % conv->oh, ox, pixels);
            size_t a_first = 0;
            for (uint32_t g = 0; g < q->rec->segments; g++) {
                size_t channels = bb_align_up(q->rec->seg_channels[g], BB_K_BLOCK);
                k->dot_tile(&(bb_dot_args){.acc = acc + g * BB_TILE_PIXELS * BB_TILE,
                                           .rows = (const uint8_t *const *)(void *)rows,
                                           .w = w + a_first * BB_TILE, .pixels = pixels, .taps = conv->taps,
                                           .channels = channels, .tap_stride = (size_t)q->padded * BB_TILE,
                                           .a_first = a_first, .levels = (1u << q->rec->bits) - 1,
                                           .low = t.low, .spread = t.spread});
                a_first += channels;
            }
            k->dequantize_tile(&(bb_dequantize_args){.y = y, .acc = acc, .zsum = t.zsum, .e = t.e, .bias = t.bias,
                                                     .pixels = pixels, .segments = q->rec->segments});
            store_tile(c, &t, y, (size_t)r * conv->ow + ox, pixels);
        }
    }
}

void bb_conv_quantized(bb_run *run, uint32_t op, const bb_layer *layer)
{
    qconv c = {.layer = layer};
    bb_conv_setup(&c.conv, run, op);
    c.conv.tiles = layer->rows / BB_TILE;
    c.at = layout_of(layer->quantizer, (size_t)c.conv.ih * c.conv.iw);
    quantize_input(&c);
    bb_par_for(run->par, (size_t)c.conv.tiles * c.conv.chunks, conv_item, &c);
}

size_t bb_conv_quantized_thread_bytes(const bb_layer *layer)
{
    return bb_conv_row_bytes(layer->rec->taps) + (size_t)layer->k_blocks * BB_K_BLOCK * BB_TILE;
}

size_t bb_conv_quantized_codes_bytes(const bb_layer *layer, bb_shape x)
{
    return x.n * layout_of(layer->quantizer, (size_t)x.h * x.w).item;
}
