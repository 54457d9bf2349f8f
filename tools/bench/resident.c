#include "bench/resident.h"

#include "base/arena.h"

#include <stdlib.h>

enum { CACHE = 24576 }; /* bytes: three quarters of the usual 32 KB */

/* Different rows under a tile of BB_TILE_PIXELS pixels: of square kernels, else one a tap. */
static size_t side_of(size_t taps)
{
    size_t side = 1;
    while (side * side < taps) side++;
    return side;
}

static size_t row_count(size_t taps) { return side_of(taps) * (BB_TILE_PIXELS + side_of(taps) - 1); }

static size_t row_bytes(const bb_dot *way, size_t channels) { return bb_row_bytes(way->rows, channels); }

/* Cuts the channels until all is resident. */
static void cut_channels(bb_resident *r)
{
    bb_dot_shape *s = &r->shape;
    while (s->channels > BB_K_BLOCK &&
           r->way->panel_bytes(s) + row_count(s->taps) * row_bytes(r->way, s->channels) > CACHE) {
        const size_t whole = s->channels;
        s->channels -= BB_K_BLOCK;
        if (r->way->fits(s)) continue;
        s->channels = whole;
        break;
    }
}

static void take_all(bb_resident *r, const bb_kernels *kernels, bb_arena *arena)
{
    static const int8_t bias[BB_ROWS_FORMS] = {[BB_ROWS_CENTRED] = -30};
    const bb_dot_shape *s = &r->shape;
    const size_t count = row_count(s->taps), bytes = row_bytes(r->way, s->channels), side = side_of(s->taps);
    const size_t tap_stride = s->channels / BB_K_BLOCK * s->planes * BB_TILE;
    int32_t *acc = bb_arena_take(arena, BB_TILE_PIXELS * BB_TILE, sizeof *acc);
    int32_t *sums = bb_arena_take(arena, BB_TILE_PIXELS, sizeof *sums);
    const uint8_t **rows = bb_arena_take(arena, s->taps * BB_TILE_PIXELS, sizeof *rows);
    uint8_t *picture = bb_arena_take(arena, count, bytes), *panel = bb_arena_take(arena, r->way->panel_bytes(s), 1);
    uint8_t *codes = bb_arena_take(arena, count, s->channels), *planes = bb_arena_take(arena, s->taps, tap_stride);
    int16_t *multiplier = bb_arena_take(arena, s->planes * BB_TILE, sizeof *multiplier);
    int16_t *offset = bb_arena_take(arena, BB_TILE, sizeof *offset);
    int8_t *low = bb_arena_take(arena, BB_TILE, 1);
    if (!arena->base) return;
    for (size_t i = 0; i < count * s->channels; i++) codes[i] = (uint8_t)(i * 7 % (s->levels + 1));
    for (size_t i = 0; i < s->taps * tap_stride; i++) planes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (uint32_t i = 0; i < s->planes * BB_TILE; i++) multiplier[i] = (int16_t)(1 << i / BB_TILE);
    for (uint32_t i = 0; i < BB_TILE; i++) low[i] = (int8_t)(offset[i] = s->planes == BB_PLANES ? -128 : 0);
    const size_t n = count * s->channels;
    switch (r->way->rows) {
    case BB_ROWS_CODES: memcpy(picture, codes, n); break;
    case BB_ROWS_WIDE: kernels->widen((uint16_t *)(void *)picture, codes, n); break;
    case BB_ROWS_SIGNED: bb_signed_codes(picture, codes, n); break;
    case BB_ROWS_TABLES: case BB_ROWS_CENTRED:
        kernels->tables(&(bb_tables_args){.t = picture, .a = codes, .pixels = count, .channels = s->channels,
                                          .a_stride = s->channels, .t_stride = bytes, .bias = bias[r->way->rows]});
        break;
    case BB_ROWS_FORMS: break;
    }
    for (size_t tap = 0; tap < s->taps; tap++)
        for (size_t p = 0; p < BB_TILE_PIXELS; p++)
            rows[tap * BB_TILE_PIXELS + p] =
                picture + (tap / side * (BB_TILE_PIXELS + side - 1) + tap % side + p) % count * bytes;
    r->way->pack(&(bb_panel_args){.panel = panel, .shape = s, .planes = planes, .tap_stride = tap_stride,
                                  .multiplier = multiplier, .offset = offset, .low = low, .kernels = kernels});
    r->args = (bb_dot_args){.acc = acc, .rows = rows, .sums = sums, .panel = panel, .pixels = BB_TILE_PIXELS,
                            .shape = s};
}

bb_status bb_resident_make(bb_resident *r, const bb_kernels *kernels, const bb_dot *way, const bb_dot_shape *shape,
                           bb_error *err)
{
    *r = (bb_resident){.way = way, .shape = *shape};
    cut_channels(r);
    r->macs = (double)BB_TILE * BB_TILE_PIXELS * (double)r->shape.taps * (double)r->shape.channels;
    bb_arena arena = bb_arena_init(NULL, 0);
    take_all(r, kernels, &arena);
    const size_t bytes = bb_arena_need(&arena);
    r->memory = malloc(bytes);
    if (!r->memory) return bb_fail(err, BB_ERR_SPACE, "out of memory for the inner loop of %s", way->name);
    arena = bb_arena_init(r->memory, bytes);
    take_all(r, kernels, &arena);
    return BB_OK;
}

void bb_resident_free(bb_resident *r)
{
    free(r->memory);
    r->memory = NULL;
}

void bb_resident_run(void *ctx, uint32_t times)
{
    const bb_resident *r = ctx;
    for (uint32_t i = 0; i < times; i++) r->way->run(&r->args);
}
