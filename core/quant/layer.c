/* Codes cut into bit planes (core/FORMAT.md §7, blocks of 16 outputs × 8 k): the one place that knows the bit order. */
#include "quant/quant.h"

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

void bb_planes_put(uint8_t *planes, uint32_t n_planes, uint32_t row, uint32_t taps, uint32_t segments,
                   const uint32_t *seg_channels, const uint8_t *codes)
{
    size_t tile = bb_plane_bytes(BB_TILE, bb_k_blocks(taps, segments, seg_channels), n_planes);
    uint8_t *block = planes + row / BB_TILE * tile + row % BB_TILE;
    for (uint32_t tap = 0; tap < taps; tap++)
        for (uint32_t g = 0; g < segments; g++)
            for (uint32_t c = 0; c < seg_channels[g]; c += BB_K_BLOCK, block += n_planes * BB_TILE)
                for (uint32_t bit = 0; bit < BB_K_BLOCK && c + bit < seg_channels[g]; bit++, codes++)
                    for (uint32_t p = 0; p < n_planes; p++)
                        block[p * BB_TILE] = (uint8_t)(block[p * BB_TILE] | (*codes >> p & 1) << bit);
}
