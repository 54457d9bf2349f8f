/* Geometry of convolutions, and the float convolution. */
#include "run/conv.h"

void bb_conv_setup(bb_conv *conv, bb_run *run, uint32_t number)
{
    const bb_graph *g = &run->pack->graph;
    const bb_op *op = &g->ops[number];
    const bb_fusion f = run->layout == BB_FUSED ? run->fusion[number] : bb_fusion_none(g, number);
    bb_shape x = run->shapes[f.x], y = run->shapes[f.y];
    *conv = (bb_conv){.run = run, .op = op, .fusion = f, .x = run->at[f.x], .y = run->at[f.y],
                      .items = x.n, .ih = x.h, .iw = x.w, .oh = y.h, .ow = y.w, .c = x.c, .n = y.c,
                      .taps = 1, .kw = 1, .stride = 1, .runs = (y.h * y.w + BB_TILE_PIXELS - 1) / BB_TILE_PIXELS};
    conv->bias = op->weight[1] == BB_NONE ? NULL : run->pack->weights[op->weight[1]].f32;
    if (f.add != BB_NONE) {
        bb_shape add = run->shapes[f.add];
        conv->add = run->at[f.add];
        conv->add_item = (size_t)add.h * add.w * add.c;
        conv->add_pixel = add.h == y.h && add.w == y.w ? add.c : 0;
    }
    bool flat = true;
    if (op->kind == BB_OP_CONV2D) {
        conv->taps = op->conv.kh * op->conv.kw;
        conv->kw = op->conv.kw;
        conv->stride = op->conv.stride;
        conv->top = op->conv.top;
        conv->left = op->conv.left;
        flat = conv->taps == 1 && conv->stride == 1;
    }
    if (flat) {
        conv->iw = conv->ow = x.h * x.w;
        conv->ih = conv->oh = 1;
    }
}

uint32_t bb_conv_parts(const bb_conv *conv, uint32_t columns)
{
    const uint32_t threads = bb_par_threads(conv->run->par), runs = conv->items * conv->runs;
    const uint32_t want = threads < 2 ? 1 : (4 * threads + columns - 1) / columns;
    return want < runs ? want : runs;
}

void bb_conv_part(const bb_conv *conv, uint32_t part, uint32_t parts, uint32_t *first, uint32_t *end)
{
    const uint64_t runs = (uint64_t)conv->items * conv->runs;
    *first = (uint32_t)(runs * part / parts);
    *end = (uint32_t)(runs * (part + 1) / parts);
}

/* Pixels p .. p+n−1 of a run, which lie in one row of the output from (oy, ox) on. */
static void gather_row(const bb_conv *conv, const void **rows, const uint8_t *base, size_t pixel_bytes, const void *pad,
                       uint32_t oy, uint32_t ox, uint32_t n)
{
    const uint32_t kh = conv->taps / conv->kw;
    for (uint32_t ky = 0; ky < kh; ky++) {
        /* Unsigned: above or left of the picture wraps round to a huge number. */
        const uint32_t iy = oy * conv->stride + ky - conv->top, width = iy < conv->ih ? conv->iw : 0;
        const uint8_t *row = base + (width ? (size_t)iy * conv->iw * pixel_bytes : 0);
        for (uint32_t kx = 0; kx < conv->kw; kx++, rows += BB_TILE_PIXELS) {
            uint32_t ix = ox * conv->stride + kx - conv->left;
            size_t at = (size_t)(int32_t)ix * pixel_bytes;
            for (uint32_t p = 0; p < n; p++, ix += conv->stride, at += conv->stride * pixel_bytes)
                rows[p] = ix < width ? row + at : pad;
        }
    }
}

uint32_t bb_conv_gather(const bb_conv *conv, const void **rows, const uint8_t *base, size_t pixel_bytes,
                        const void *pad, uint32_t run)
{
    const uint32_t first = run * BB_TILE_PIXELS, left = conv->oh * conv->ow - first;
    const uint32_t pixels = left < BB_TILE_PIXELS ? left : BB_TILE_PIXELS;
    uint32_t oy = first / conv->ow, ox = first % conv->ow;
    for (uint32_t p = 0, n; p < pixels; p += n, oy++, ox = 0) {
        n = conv->ow - ox < pixels - p ? conv->ow - ox : pixels - p;
        gather_row(conv, rows + p, base, pixel_bytes, pad, oy, ox, n);
    }
    for (uint32_t tap = 0; tap < conv->taps; tap++)
        for (uint32_t p = pixels; p < BB_TILE_PIXELS; p++) rows[tap * BB_TILE_PIXELS + p] = pad;
    return pixels;
}

/* A tile's weights: in place if f32, else expanded into the thread's scratch. */
static const float *tile_weights(const bb_conv *conv, const bb_weight *w, uint32_t tile, float *scratch, size_t *stride)
{
    size_t k = (size_t)conv->taps * conv->c;
    if (w->f32) {
        *stride = w->stride;
        return w->f32 + tile * BB_TILE;
    }
    for (size_t i = 0; i < k; i++)
        conv->run->kernels->f16_to_f32(scratch + i * BB_TILE, w->f16 + i * w->stride + tile * BB_TILE, BB_TILE);
    *stride = BB_TILE;
    return scratch;
}

typedef struct f32_walk { bb_conv conv; uint32_t parts; } f32_walk;

static void conv_item(void *ctx, size_t work, size_t thread)
{
    const f32_walk *walk = ctx;
    const bb_conv *conv = &walk->conv;
    const bb_weight *w = &conv->run->pack->weights[conv->op->weight[0]];
    uint8_t *scratch = conv->run->thread + thread * conv->run->thread_bytes;
    const void **rows = (const void **)(void *)scratch;
    uint32_t tile = (uint32_t)(work / walk->parts), first, end;
    uint32_t n = conv->n - tile * BB_TILE < BB_TILE ? conv->n - tile * BB_TILE : BB_TILE;
    float y[BB_TILE_PIXELS * BB_TILE], bias[BB_TILE] = {0};
    bb_conv_f32_args a = {.y = y, .rows = (const float *const *)(void *)rows, .bias = bias, .taps = conv->taps,
                          .channels = conv->c, .outputs = n};
    a.w = tile_weights(conv, w, tile, (float *)(void *)(scratch + bb_conv_row_bytes(conv->taps)), &a.w_stride);
    for (uint32_t j = 0; conv->bias && j < n; j++) bias[j] = conv->bias[tile * BB_TILE + j];
    bb_conv_part(conv, (uint32_t)(work % walk->parts), walk->parts, &first, &end);
    size_t item_floats = (size_t)conv->ih * conv->iw * conv->c, out_pixels = (size_t)conv->oh * conv->ow;
    for (uint32_t r = first; r < end; r++) {
        uint32_t item = r / conv->runs, run = r % conv->runs;
        a.pixels = bb_conv_gather(conv, rows, (const uint8_t *)(conv->x + item * item_floats),
                                  conv->c * sizeof(float), conv->run->codes, run);
        conv->run->kernels->conv_tile_f32(&a);
        float *out = conv->y + (item * out_pixels + run * BB_TILE_PIXELS) * conv->n + tile * BB_TILE;
        for (size_t p = 0; p < a.pixels; p++) memcpy(out + p * conv->n, y + p * BB_TILE, n * sizeof *y);
    }
}

void bb_conv_f32(bb_run *run, uint32_t op)
{
    f32_walk walk;
    bb_conv_setup(&walk.conv, run, op);
    const uint32_t tiles = (walk.conv.n + BB_TILE - 1) / BB_TILE;
    walk.parts = bb_conv_parts(&walk.conv, tiles);
    memset(run->codes, 0, walk.conv.c * sizeof(float)); /* the padding pixel */
    run->codes_value = BB_NONE;
    bb_par_for(run->par, (size_t)tiles * walk.parts, conv_item, &walk);
}

size_t bb_conv_f32_thread_bytes(const bb_weight *w, uint32_t taps, uint32_t c)
{
    return bb_conv_row_bytes(taps) + (w->f16 ? (size_t)taps * c * BB_TILE * sizeof(float) : 0);
}
