/* The choice among dot ways, and the trial by which a host can measure them. */
#include "kernels/dots.h"

#include "kernels/kernels.h"

size_t bb_expanded_bytes(const bb_dot_shape *s) { return s->taps * s->channels * BB_TILE; }

void bb_expand_panel(const bb_panel_args *a)
{
    for (size_t tap = 0; tap < a->shape->taps; tap++)
        a->kernels->expand_tile(&(bb_expand_args){
            .w = (int8_t *)a->panel + tap * a->shape->channels * BB_TILE, .planes = a->planes + tap * a->tap_stride,
            .multiplier = a->multiplier, .offset = a->offset, .k_blocks = a->shape->channels / BB_K_BLOCK,
            .n_planes = a->shape->planes});
}

uint32_t bb_dot_choose(const bb_kernels *kernels, const bb_dot_shape *shape, float reuse)
{
    uint32_t best = 0;
    float least = 0;
    for (uint32_t i = 0; i < BB_DOTS && kernels->dots[i]; i++) {
        const bb_dot *way = kernels->dots[i];
        if (!way->fits(shape)) continue;
        float cost = kernels->cost[i] * (way->per_plane ? (float)shape->planes : 1.0f);
        if (way->rows != BB_ROWS_CODES)
            cost += (bb_rows_are_tables(way->rows) ? BB_DOT_TABLE_COST : BB_DOT_WIDE_COST) / reuse;
        if (least == 0 || cost < least) {
            best = i;
            least = cost;
        }
    }
    BB_ASSERT(least > 0); /* the scalar way, or a set's general one, fits everything */
    return best;
}

/* A shape that the way fits: few planes and narrow codes first, as the ways for them are the particular ones. */
static bool find_shape(const bb_dot *way, bb_dot_shape *shape)
{
    static const struct { uint8_t levels, planes; bool uniform; } tries[] = {
        {15, 1, true}, {15, 2, true}, {15, 4, true}, {127, 4, true}, {255, 4, true}, {255, 8, true}};
    for (size_t i = 0; i < BB_COUNT(tries); i++) {
        *shape = (bb_dot_shape){.taps = 9, .channels = 64, .levels = tries[i].levels, .planes = tries[i].planes,
                                .spread = (1u << tries[i].planes) - 1, .uniform = tries[i].uniform};
        if (way->fits(shape)) return true;
    }
    return false;
}

double bb_dot_trial(const bb_kernels *kernels, uint32_t dot, uint32_t rounds, void *scratch)
{
    enum { TAPS = 9, CHANNELS = 64, WIDTH = BB_TILE_PIXELS + 2 };
    static const int16_t offset[BB_TILE];
    static const int8_t low[BB_TILE];
    bb_dot_shape shape;
    const bb_dot *way = dot < BB_DOTS ? kernels->dots[dot] : NULL;
    if (!way || !find_shape(way, &shape)) return 0;
    int16_t multiplier[BB_PLANES * BB_TILE];
    for (uint32_t i = 0; i < BB_PLANES * BB_TILE; i++) multiplier[i] = (int16_t)(1 << i / BB_TILE);

    /* scratch: acc, row pointers, sums, three picture rows of the way's form, the panel */
    uint8_t *at = scratch;
    int32_t *acc = scratch;
    const uint8_t **rows = (const uint8_t **)(void *)(at + 512);
    int32_t *sums = (int32_t *)(void *)(at + 512 + 640);
    uint8_t *picture = at + 512 + 640 + 64, *panel = at + 10240;
    const size_t row_bytes = bb_row_bytes(way->rows, CHANNELS);
    BB_ASSERT(sizeof(void *) * TAPS * BB_TILE_PIXELS <= 640 && 10240 + way->panel_bytes(&shape) <= BB_DOT_TRIAL_BYTES);
    memset(scratch, 0, BB_DOT_TRIAL_BYTES);
    for (size_t tap = 0; tap < TAPS; tap++)
        for (size_t p = 0; p < BB_TILE_PIXELS; p++)
            rows[tap * BB_TILE_PIXELS + p] = picture + (tap / 3 * WIDTH + tap % 3 + p) % (8704 / row_bytes) * row_bytes;
    /* The planes are zeros out of the scratch's end, which is where a panel of this shape does not reach. */
    const size_t plane_bytes = (size_t)TAPS * CHANNELS / 8 * shape.planes * BB_TILE;
    way->pack(&(bb_panel_args){.panel = panel, .shape = &shape, .planes = at + BB_DOT_TRIAL_BYTES - plane_bytes,
                               .tap_stride = plane_bytes / TAPS, .multiplier = multiplier, .offset = offset,
                               .low = low, .kernels = kernels});
    const bb_dot_args args = {.acc = acc, .rows = (const uint8_t *const *)rows, .sums = sums, .panel = panel,
                              .pixels = BB_TILE_PIXELS, .shape = &shape};
    for (uint32_t i = 0; i < rounds; i++) way->run(&args);
    return (double)rounds * BB_TILE * BB_TILE_PIXELS * TAPS * CHANNELS * (way->per_plane ? shape.planes : 1);
}
