/* One layer: a grid per output, codes, and codes cut into bit planes (core/FORMAT.md, blocks of 16 outputs × 8 k). */
#include "quant/quant.h"

#include "base/mathf.h"

uint32_t bb_k_blocks(uint32_t taps, uint32_t segments, const uint32_t *seg_channels)
{
    uint32_t blocks = 0;
    for (uint32_t g = 0; g < segments; g++) blocks += (seg_channels[g] + BB_K_BLOCK - 1) / BB_K_BLOCK;
    return taps * blocks;
}

size_t bb_plane_bytes(uint32_t rows, uint32_t k_blocks, uint32_t planes)
{
    return (size_t)rows * k_blocks * planes;
}

void bb_plane_set(uint8_t *planes, uint32_t n_planes, uint32_t k_blocks, uint32_t row, uint32_t k_block, uint32_t bit,
                  uint8_t code)
{
    uint8_t *block = planes + ((size_t)(row / BB_TILE) * k_blocks + k_block) * n_planes * BB_TILE + row % BB_TILE;
    for (uint32_t p = 0; p < n_planes; p++) {
        uint8_t mask = (uint8_t)(1u << bit);
        block[p * BB_TILE] = (uint8_t)((block[p * BB_TILE] & ~mask) | (code >> p & 1 ? mask : 0));
    }
}

static bool load_row(const bb_quantize_layer_args *a, uint32_t output)
{
    size_t k = (size_t)a->taps * a->channels;
    bool finite = true;
    for (size_t i = 0; i < k; i++) {
        size_t at = i * a->weight->stride + output;
        a->row[i] = a->weight->f32 ? a->weight->f32[at] : bb_f16_to_f32(a->weight->f16[at]);
        finite = finite && a->row[i] - a->row[i] == 0;
    }
    return finite;
}

static void store_row(const bb_quantize_layer_args *a, uint32_t output, uint32_t k_blocks, bb_weight_grid grid)
{
    const float *w = a->row;
    uint32_t block = 0;
    for (uint32_t tap = 0; tap < a->taps; tap++)
        for (uint32_t g = 0; g < a->segments; g++) {
            for (uint32_t c = 0; c < a->seg_channels[g]; c++)
                bb_plane_set(a->planes, a->bits, k_blocks, output, block + c / BB_K_BLOCK, c % BB_K_BLOCK,
                             bb_weight_code(*w++, grid, a->bits));
            block += (a->seg_channels[g] + BB_K_BLOCK - 1) / BB_K_BLOCK;
        }
}

bb_status bb_quantize_tile(const bb_quantize_layer_args *a, uint32_t tile)
{
    uint32_t k_blocks = bb_k_blocks(a->taps, a->segments, a->seg_channels);
    size_t tile_bytes = bb_plane_bytes(BB_TILE, k_blocks, a->bits);
    memset(a->planes + tile * tile_bytes, 0, tile_bytes);
    for (uint32_t n = tile * BB_TILE; n < (tile + 1) * BB_TILE; n++) {
        a->delta[n] = 0;
        a->offset[n] = a->bits == 8 ? -128 : 0; /* padding must keep to the integer range too */
        if (n >= a->outputs) continue;
        if (!load_row(a, n)) return BB_ERR_ARGUMENT;
        bb_weight_grid grid = bb_weight_grid_fit(a->row, (size_t)a->taps * a->channels, a->bits, a->range);
        a->delta[n] = grid.delta;
        a->offset[n] = grid.offset;
        store_row(a, n, k_blocks, grid);
    }
    return BB_OK;
}
