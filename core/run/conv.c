/* Geometry of convolutions, and the float convolution. */
#include "run/conv.h"

/* Enough work items that threads finish together, without splitting a tile's rows needlessly: expanding a tile's
 * weights is repeated per chunk. */
static uint32_t choose_chunks(const bb_conv *conv, uint32_t threads)
{
    uint32_t rows = conv->items * conv->oh;
    uint32_t want = threads < 2 ? 1 : (4 * threads + conv->tiles - 1) / conv->tiles;
    return want < rows ? want : rows;
}

void bb_conv_setup(bb_conv *conv, bb_run *run, uint32_t number)
{
    const bb_graph *g = &run->pack->graph;
    const bb_op *op = &g->ops[number];
    bb_shape x = run->shapes[op->in[0]], y = run->shapes[bb_op_value(g, number)];
    *conv = (bb_conv){.run = run, .op = op, .x = run->at[op->in[0]], .y = run->at[bb_op_value(g, number)],
                      .items = x.n, .ih = x.h, .iw = x.w, .oh = y.h, .ow = y.w, .c = x.c, .n = y.c,
                      .taps = 1, .kw = 1, .stride = 1, .tiles = (y.c + BB_TILE - 1) / BB_TILE};
    conv->bias = op->weight[1] == BB_NONE ? NULL : run->pack->weights[op->weight[1]].f32;
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
    conv->chunks = choose_chunks(conv, bb_par_threads(run->par));
}

void bb_conv_rows(const bb_conv *conv, uint32_t chunk, uint32_t *first, uint32_t *end)
{
    uint64_t rows = (uint64_t)conv->items * conv->oh;
    *first = (uint32_t)(rows * chunk / conv->chunks);
    *end = (uint32_t)(rows * (chunk + 1) / conv->chunks);
}

void bb_conv_gather(const bb_conv *conv, const void **rows, const uint8_t *base, size_t pixel_bytes, const void *pad,
                    uint32_t oy, uint32_t ox, uint32_t pixels)
{
    for (uint32_t p = 0; p < pixels; p++)
        for (uint32_t tap = 0; tap < conv->taps; tap++) {
            /* Unsigned: above or left of the picture wraps round to a huge number. */
            uint32_t iy = oy * conv->stride + tap / conv->kw - conv->top;
            uint32_t ix = (ox + p) * conv->stride + tap % conv->kw - conv->left;
            bool inside = iy < conv->ih && ix < conv->iw;
            *rows++ = inside ? base + ((size_t)iy * conv->iw + ix) * pixel_bytes : pad;
        }
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

static void conv_item(void *ctx, size_t item, size_t thread)
{
    const bb_conv *conv = ctx;
    const bb_weight *w = &conv->run->pack->weights[conv->op->weight[0]];
    uint8_t *scratch = conv->run->thread + thread * conv->run->thread_bytes;
    const void **rows = (const void **)(void *)scratch;
    uint32_t tile = (uint32_t)(item / conv->chunks), first, end;
    uint32_t n = conv->n - tile * BB_TILE < BB_TILE ? conv->n - tile * BB_TILE : BB_TILE;
    float y[BB_TILE_PIXELS * BB_TILE], bias[BB_TILE] = {0};
    bb_conv_f32_args a = {.y = y, .rows = (const float *const *)(void *)rows, .bias = bias, .taps = conv->taps,
                          .channels = conv->c};
    a.w = tile_weights(conv, w, tile, (float *)(void *)(scratch + bb_conv_row_bytes(conv->taps)), &a.w_stride);
    for (uint32_t j = 0; conv->bias && j < n; j++) bias[j] = conv->bias[tile * BB_TILE + j];
    bb_conv_rows(conv, (uint32_t)(item % conv->chunks), &first, &end);
    size_t item_floats = (size_t)conv->ih * conv->iw * conv->c;
    for (uint32_t r = first; r < end; r++) {
        const uint8_t *base = (const uint8_t *)(conv->x + r / conv->oh * item_floats);
        for (uint32_t ox = 0; ox < conv->ow; ox += BB_TILE_PIXELS) {
            a.pixels = conv->ow - ox < BB_TILE_PIXELS ? conv->ow - ox : BB_TILE_PIXELS;
            bb_conv_gather(conv, rows, base, conv->c * sizeof(float), conv->run->codes, r % conv->oh, ox,
                           (uint32_t)a.pixels);
            conv->run->kernels->conv_tile_f32(&a);
            float *out = conv->y + ((size_t)r * conv->ow + ox) * conv->n + tile * BB_TILE;
            for (size_t p = 0; p < a.pixels; p++) memcpy(out + p * conv->n, y + p * BB_TILE, n * sizeof *y);
        }
    }
}

void bb_conv_f32(bb_run *run, uint32_t op)
{
    bb_conv conv;
    bb_conv_setup(&conv, run, op);
    memset(run->codes, 0, conv.c * sizeof(float)); /* the padding pixel */
    run->codes_value = BB_NONE;
    bb_par_for(run->par, (size_t)conv.tiles * conv.chunks, conv_item, &conv);
}

size_t bb_conv_f32_thread_bytes(const bb_weight *w, uint32_t taps, uint32_t c)
{
    return bb_conv_row_bytes(taps) + (w->f16 ? (size_t)taps * c * BB_TILE * sizeof(float) : 0);
}
