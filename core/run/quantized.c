/* Quantized convolution and linear: the integer contract of core/FORMAT.md §6–7, walked over the kernels.
 *
 * Work is cut into groups of tiles, whose panels a thread makes once, by parts of the output pixels. A run of pixels is
 * gathered once for all tiles of the group.
 *
 * thread scratch: held_group, row pointers, the group's panels. */
#include "run/codes.h"

#define GROUP_TILES 8u      /* at most */
#define GROUP_BYTES 98304u  /* of panels: they stream from the second cache, rows stay in the first */

/* A width class as the walker sees it. */
typedef struct tile_class {
    bb_dot_shape shape;  /* of the first segment; spread is a bound for all tiles */
    const bb_dot *way;
    size_t panel_bytes;  /* of a tile, all segments */
    uint32_t tiles, group, groups; /* tiles in all; tiles a group, and groups */
} tile_class;

typedef struct qconv {
    bb_conv conv;
    const bb_layer *layer;
    bb_codes at;
    tile_class classes[BB_MAX_CLASSES];
    uint32_t groups, parts;
} qconv;

const bb_dot *bb_conv_quantized_way(const bb_kernels *k, const bb_op *op, const bb_layer *l, uint32_t which,
                                    bb_dot_shape *shape)
{
    const bb_quantizer_rec *q = l->quantizer->rec;
    const uint32_t stride = op->kind == BB_OP_CONV2D ? op->conv.stride : 1, planes = l->rec->class_planes[which];
    *shape = (bb_dot_shape){.taps = l->rec->taps, .channels = bb_align_up(q->seg_channels[0], BB_K_BLOCK),
                            .levels = (1u << q->bits) - 1, .planes = planes,
                            .spread = planes == BB_PLANES ? 255 : 127, .uniform = !l->multiplier};
    if (shape->uniform) shape->spread = (1u << planes) - 1;
    return k->dots[bb_dot_choose(k, shape, (float)l->rec->outputs * (float)l->rec->taps / (float)(stride * stride))];
}

static tile_class plan_class(const bb_kernels *k, const bb_op *op, const bb_layer *l, uint32_t i)
{
    const bb_quantizer_rec *q = l->quantizer->rec;
    tile_class c = {.tiles = (l->rec->class_rows[i] + BB_TILE - 1) / BB_TILE};
    c.way = bb_conv_quantized_way(k, op, l, i, &c.shape);
    for (uint32_t g = 0; g < q->segments; g++) {
        bb_dot_shape shape = c.shape;
        shape.channels = bb_align_up(q->seg_channels[g], BB_K_BLOCK);
        c.panel_bytes += bb_align_up(c.way->panel_bytes(&shape), BB_ALIGNMENT);
    }
    c.group = (uint32_t)(GROUP_BYTES / c.panel_bytes);
    c.group = c.group < 1 ? 1 : c.group > GROUP_TILES ? GROUP_TILES : c.group;
    c.groups = (c.tiles + c.group - 1) / c.group;
    return c;
}

static uint32_t forms_of(const bb_kernels *k, const bb_op *op, const bb_layer *layer)
{
    uint32_t forms = 0;
    for (uint32_t i = 0; i < layer->rec->n_classes; i++) forms |= 1u << plan_class(k, op, layer, i).way->rows;
    return forms;
}

/* One tile's constants, gathered once per work item. */
typedef struct tile {
    uint32_t row;            /* first packed row */
    uint32_t out[BB_TILE];   /* natural outputs; BB_NONE in padding */
    bool contiguous;         /* 16 natural outputs in a row */
    bool halves;             /* 8 in a row, or padding, in each half: width classes are of 8 channels each */
    uint8_t *panel[BB_MAX_SEGMENTS];
    bb_dot_shape shape[BB_MAX_SEGMENTS];
    float bias[BB_TILE], e[BB_MAX_SEGMENTS * BB_TILE];
    int32_t zsum[BB_MAX_SEGMENTS * BB_TILE];
} tile;

/* What a thread has ready from one work item to the next: parts of a group that follow each other share its panels. */
typedef struct held_group { uint32_t number; tile tiles[GROUP_TILES]; } held_group; /* BB_NONE: none yet */

#define HELD_BYTES bb_align_up(sizeof(held_group), BB_ALIGNMENT)

static held_group *held_by(const bb_run *run, size_t thread)
{
    return (held_group *)(void *)(run->thread + thread * run->thread_bytes);
}

/* Where a tile's data is in the file. */
typedef struct tile_source { uint32_t row; const uint8_t *planes; const int16_t *multiplier; } tile_source;

/* The tile `skip` tiles into class number `which`. */
static tile_source find_tile(const bb_layer *l, uint32_t which, uint32_t skip)
{
    size_t plane_at = 0, multiplier_at = 0;
    uint32_t row = 0;
    for (uint32_t i = 0; i <= which; i++) {
        const uint32_t planes = l->rec->class_planes[i];
        const uint32_t tiles = i < which ? (l->rec->class_rows[i] + BB_TILE - 1) / BB_TILE : skip;
        plane_at += (size_t)tiles * l->k_blocks * planes * BB_TILE;
        multiplier_at += (size_t)tiles * planes * BB_TILE;
        row += tiles * BB_TILE;
    }
    return (tile_source){row, l->planes + plane_at, l->multiplier ? l->multiplier + multiplier_at : NULL};
}

#define HALF (BB_TILE / 2u)

static void load_outputs(const qconv *c, tile *t)
{
    t->halves = true;
    for (uint32_t j = 0; j < BB_TILE; j++) {
        uint32_t row = t->row + j, out = c->layer->perm ? c->layer->perm[row] : row;
        t->out[j] = out < c->conv.n ? out : BB_NONE;
        t->bias[j] = t->out[j] != BB_NONE && c->conv.bias ? c->conv.bias[out] : 0;
        const uint32_t first = t->out[j / HALF * HALF];
        if (t->out[j] != (first == BB_NONE ? BB_NONE : first + j % HALF)) t->halves = false;
    }
    t->contiguous = t->halves && t->out[0] != BB_NONE && t->out[HALF] == t->out[0] + HALF;
}

/* The tile's constants and its panels, at `panel`. */
static void load_tile(const qconv *c, const tile_class *class, const tile_source *from, uint8_t *panel, tile *t)
{
    const bb_quantizer *q = c->layer->quantizer;
    const uint32_t planes = class->shape.planes;
    const int16_t *offset = c->layer->offset + from->row;
    int16_t powers[BB_MAX_PLANES * BB_TILE];
    int8_t low[BB_TILE];
    for (uint32_t p = 0; p < planes * BB_TILE; p++) powers[p] = (int16_t)(1 << p / BB_TILE);
    const int16_t *multiplier = from->multiplier ? from->multiplier : powers;
    uint32_t spread = 0;
    for (uint32_t j = 0; j < BB_TILE; j++) {
        int32_t least = offset[j], most = least;
        for (uint32_t p = 0; p < planes; p++) {
            int32_t m = multiplier[p * BB_TILE + j];
            if (m < 0) least += m; else most += m;
        }
        low[j] = (int8_t)least; /* the reader has checked that all weights fit */
        if ((uint32_t)(most - least) > spread) spread = (uint32_t)(most - least);
    }
    t->row = from->row;
    const uint8_t *at = from->planes;
    for (uint32_t g = 0; g < q->rec->segments; g++) {
        t->panel[g] = panel;
        t->shape[g] = class->shape;
        t->shape[g].channels = bb_align_up(q->rec->seg_channels[g], BB_K_BLOCK);
        t->shape[g].spread = spread;
        class->way->pack(&(bb_panel_args){.panel = panel, .shape = &t->shape[g], .planes = at,
                                          .tap_stride = (size_t)q->padded / BB_K_BLOCK * planes * BB_TILE,
                                          .multiplier = multiplier, .offset = offset, .low = low,
                                          .kernels = c->conv.run->kernels});
        panel += bb_align_up(class->way->panel_bytes(&t->shape[g]), BB_ALIGNMENT);
        at += t->shape[g].channels / BB_K_BLOCK * planes * BB_TILE;
    }
    load_outputs(c, t);
}

/* e = f32(δ·Δ) and z·Σw for an item's step row. */
static void load_scales(const qconv *c, uint32_t item, tile *t)
{
    const bb_layer *l = c->layer;
    const bb_quantizer *q = l->quantizer;
    uint32_t row = bb_codes_step(c->conv.run, q, item);
    for (uint32_t g = 0; g < q->rec->segments; g++) {
        uint32_t at = row * q->rec->segments + g;
        for (uint32_t j = 0; j < BB_TILE; j++) {
            t->e[g * BB_TILE + j] = q->delta[at] * l->delta[t->row + j];
            t->zsum[g * BB_TILE + j] = q->zero[at] * l->wsum[(size_t)g * l->rows + t->row + j];
        }
    }
}

/* From staged[pixels][BB_TILE] to places that are not in a row, and the addend to them. Counts are constant in the
 * inner loops: they are a seventh of a mixed layer's time otherwise. */
static void store_apart(const qconv *c, const tile *t, const float *staged, float *y, const float *add, uint32_t pixels)
{
    for (uint32_t p = 0; p < pixels; p++, staged += BB_TILE, y += c->conv.n) {
        if (add && p) add += c->conv.add_pixel;
        for (uint32_t j = 0; j < BB_TILE; j += t->halves ? HALF : 1) {
            const uint32_t out = t->out[j];
            if (out == BB_NONE) continue;
            if (!t->halves) y[out] = add ? staged[j] + add[out] : staged[j];
            else if (!add) memcpy(y + out, staged + j, HALF * sizeof *y);
            else
                for (uint32_t i = 0; i < HALF; i++) y[out + i] = staged[j + i] + add[out + i];
        }
    }
}

/* One tile of one run: sums, scales, and y in place. add: the fused sum's addend from this pixel on, or NULL. */
static void run_tile(const qconv *c, const bb_dot *way, const tile *t, const uint8_t *const *rows,
                     const int32_t (*sums)[BB_TILE_PIXELS], size_t pixel, const float *add, uint32_t pixels)
{
    const bb_kernels *k = c->conv.run->kernels;
    const uint32_t segments = c->layer->quantizer->rec->segments;
    _Alignas(BB_ALIGNMENT) int32_t acc[BB_MAX_SEGMENTS * BB_TILE_PIXELS * BB_TILE];
    size_t first = 0;
    for (uint32_t g = 0; g < segments; g++) {
        way->run(&(bb_dot_args){.acc = acc + g * BB_TILE_PIXELS * BB_TILE, .rows = rows, .first = first,
                                .sums = sums[g], .panel = t->panel[g], .pixels = pixels, .shape = &t->shape[g]});
        first += bb_row_bytes(way->rows, t->shape[g].channels);
    }
    float staged[BB_TILE_PIXELS * BB_TILE], *out = c->conv.y + pixel * c->conv.n;
    bb_dequantize_args a = {.y = staged, .y_stride = BB_TILE, .acc = acc, .zsum = t->zsum, .e = t->e, .bias = t->bias,
                            .pixels = pixels, .segments = segments};
    if (t->contiguous) {
        a.y = out + t->out[0];
        a.y_stride = c->conv.n;
        a.add = add ? add + t->out[0] : NULL;
        a.add_stride = c->conv.add_pixel;
    }
    k->dequantize_tile(&a);
    if (!t->contiguous) store_apart(c, t, staged, out, add, pixels);
}

/* Σ over the taps of each pixel's codes. */
static void add_codes(const qconv *c, int32_t (*sums)[BB_TILE_PIXELS], const void *const *rows, size_t row_bytes)
{
    for (uint32_t g = 0; g < c->layer->quantizer->rec->segments; g++)
        for (uint32_t p = 0; p < BB_TILE_PIXELS; p++) {
            int32_t sum = 0;
            for (uint32_t tap = 0; tap < c->conv.taps; tap++)
                sum += bb_codes_sum(rows[tap * BB_TILE_PIXELS + p], row_bytes, g);
            sums[g][p] = sum;
        }
}

/* A group of tiles over a part of the runs. */
static void conv_item(void *ctx, size_t work, size_t thread)
{
    const qconv *c = ctx;
    const bb_conv *conv = &c->conv;
    const bb_quantizer *q = c->layer->quantizer;
    const uint32_t number = (uint32_t)(work / c->parts);
    uint32_t group = number, which = 0, first, end, loaded = BB_NONE;
    for (; group >= c->classes[which].groups; which++) group -= c->classes[which].groups;
    const tile_class *class = &c->classes[which];
    const bb_rows form = class->way->rows;
    held_group *held = held_by(conv->run, thread);
    uint8_t *scratch = (uint8_t *)held + HELD_BYTES;
    const void **rows = (const void **)(void *)scratch;
    scratch += bb_conv_row_bytes(conv->taps);

    tile *tiles = held->tiles;
    const uint32_t n = class->tiles - group * class->group < class->group ? class->tiles - group * class->group
                                                                          : class->group;
    for (uint32_t i = 0; i < n && held->number != number; i++) {
        const tile_source from = find_tile(c->layer, which, group * class->group + i);
        load_tile(c, class, &from, scratch + i * class->panel_bytes, &tiles[i]);
    }
    held->number = number;
    bb_conv_part(conv, (uint32_t)(work % c->parts), c->parts, &first, &end);
    for (uint32_t r = first; r < end; r++) {
        const uint32_t item = r / conv->runs, run = r % conv->runs;
        const uint8_t *base = conv->run->codes + item * c->at.item;
        if (item != loaded)
            for (uint32_t i = 0; i < n; i++) load_scales(c, item, &tiles[i]);
        loaded = item;
        const uint32_t pixels = bb_conv_gather(conv, rows, base + c->at.rows[form], c->at.stride[form],
                                               base + c->at.pad[form], run);
        int32_t sums[BB_MAX_SEGMENTS][BB_TILE_PIXELS];
        if (class->way->sums) add_codes(c, sums, (const void *const *)rows, bb_row_bytes(form, q->padded));
        const size_t pixel = (size_t)item * conv->oh * conv->ow + run * BB_TILE_PIXELS;
        const float *add = conv->add ? conv->add + item * conv->add_item + run * BB_TILE_PIXELS * conv->add_pixel : NULL;
        for (uint32_t i = 0; i < n; i++)
            run_tile(c, class->way, &tiles[i], (const uint8_t *const *)(void *)rows,
                     (const int32_t (*)[BB_TILE_PIXELS])sums, pixel, add, pixels);
    }
}

void bb_conv_quantized(bb_run *run, uint32_t op, const bb_layer *layer)
{
    qconv c = {.layer = layer};
    bb_conv_setup(&c.conv, run, op);
    uint32_t forms = 0;
    for (uint32_t i = 0; i < layer->rec->n_classes; i++) {
        c.classes[i] = plan_class(run->kernels, c.conv.op, layer, i);
        c.groups += c.classes[i].groups;
        forms |= 1u << c.classes[i].way->rows;
    }
    c.parts = bb_conv_parts(&c.conv, c.groups);
    c.at = bb_codes_layout(layer->quantizer, (size_t)c.conv.ih * c.conv.iw, forms);
    bb_codes_make(&c.conv, layer, &c.at);
    for (uint32_t t = 0; t < bb_par_threads(run->par); t++) held_by(run, t)->number = BB_NONE;
    bb_par_for(run->par, (size_t)c.groups * c.parts, conv_item, &c);
}

size_t bb_conv_quantized_thread_bytes(const bb_kernels *kernels, const bb_op *op, const bb_layer *layer)
{
    size_t most = 0;
    for (uint32_t i = 0; i < layer->rec->n_classes; i++) {
        const tile_class c = plan_class(kernels, op, layer, i);
        const size_t bytes = c.panel_bytes * (c.tiles < c.group ? c.tiles : c.group);
        if (bytes > most) most = bytes;
    }
    return HELD_BYTES + bb_conv_row_bytes(layer->rec->taps) + most;
}

size_t bb_conv_quantized_codes_bytes(const bb_kernels *kernels, const bb_op *op, const bb_layer *layer, bb_shape x)
{
    const size_t pixels = (size_t)x.h * x.w;
    const uint32_t forms = forms_of(kernels, op, layer);
    const bb_codes one = bb_codes_layout(layer->quantizer, 1, forms);
    uint64_t pixel_bytes = 0;
    for (uint32_t f = 0; f < BB_ROWS_FORMS; f++) pixel_bytes += one.stride[f];
    /* values have at most 2^28 elements, so 64 bits hold this; half of the address space never fits anyway */
    if (x.n * (pixels * pixel_bytes + one.item) > SIZE_MAX / 2) return SIZE_MAX / BB_ALIGNMENT * BB_ALIGNMENT;
    return x.n * bb_codes_layout(layer->quantizer, pixels, forms).item;
}
