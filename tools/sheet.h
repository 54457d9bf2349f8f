/* A contact sheet: pictures in a grid, enlarged by whole numbers, each with a caption below. */
#ifndef BB_TOOLS_SHEET_H
#define BB_TOOLS_SHEET_H

#include "bitbrush.h"

typedef struct bb_sheet {
    bb_image image;   /* rgba malloc'd */
    uint32_t rows, columns, tile_width, tile_height, scale;
} bb_sheet;

/* scale 0: such that a tile is at least 96 pixels wide. rgba is NULL if memory ran out or no
 * PNG could hold it. */
bb_sheet bb_sheet_new(uint32_t rows, uint32_t columns, uint32_t tile_width, uint32_t tile_height, uint32_t scale);
void bb_sheet_put(bb_sheet *s, uint32_t index, const uint8_t *rgba, const char *caption);
void bb_sheet_free(bb_sheet *s);

#endif
