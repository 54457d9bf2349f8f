#include "sheet.h"

#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wpedantic"
#include <stb/stb_easy_font.h>
#pragma GCC diagnostic pop

enum { GAP = 4, CAPTION = 14 };

static uint32_t cell_width(const bb_sheet *s) { return s->tile_width * s->scale + GAP; }
static uint32_t cell_height(const bb_sheet *s) { return s->tile_height * s->scale + GAP + CAPTION; }

bb_sheet bb_sheet_new(uint32_t rows, uint32_t columns, uint32_t tile_width, uint32_t tile_height, uint32_t scale)
{
    bb_sheet s = {.rows = rows, .columns = columns, .tile_width = tile_width, .tile_height = tile_height,
                  .scale = scale};
    if (!s.scale) s.scale = tile_width < 96 ? (96 + tile_width - 1) / tile_width : 1;
    s.image.width = columns * cell_width(&s) + GAP;
    s.image.height = rows * cell_height(&s) + GAP;
    if (!bb_png_scratch(&s.image)) return s; /* too large for the file it is meant for, or for size_t */
    size_t bytes = (size_t)s.image.width * s.image.height * 4;
    s.image.rgba = malloc(bytes);
    if (s.image.rgba) memset(s.image.rgba, 255, bytes);
    return s;
}

/* stb_easy_font gives axis-aligned quads at whole pixels; each is filled black, cut at the cell's edge. */
static void draw_text(bb_sheet *s, uint32_t x0, uint32_t y0, uint32_t x_end, const char *text)
{
    static char quads[32768];
    char ascii[64];
    size_t n = 0;
    for (; *text && n + 1 < sizeof ascii; text++)
        if (*text >= 32 && *text < 127) ascii[n++] = *text;
    ascii[n] = 0;
    int count = stb_easy_font_print(0, 0, ascii, NULL, quads, sizeof quads);
    for (int q = 0; q < count; q++) {
        float corner[2], opposite[2];
        memcpy(corner, quads + q * 64, sizeof corner);
        memcpy(opposite, quads + q * 64 + 32, sizeof opposite);
        for (int y = (int)corner[1]; y < (int)opposite[1]; y++)
            for (int x = (int)corner[0]; x < (int)opposite[0]; x++) {
                uint32_t px = x0 + (uint32_t)x, py = y0 + (uint32_t)y;
                if (px < x_end && py < s->image.height)
                    memset(s->image.rgba + ((size_t)py * s->image.width + px) * 4, 0, 3);
            }
    }
}

void bb_sheet_put(bb_sheet *s, uint32_t index, const uint8_t *rgba, const char *caption)
{
    uint32_t x0 = GAP + index % s->columns * cell_width(s), y0 = GAP + index / s->columns * cell_height(s);
    uint32_t width = s->tile_width * s->scale, height = s->tile_height * s->scale;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            memcpy(s->image.rgba + ((size_t)(y0 + y) * s->image.width + x0 + x) * 4,
                   rgba + ((size_t)(y / s->scale) * s->tile_width + x / s->scale) * 4, 4);
    draw_text(s, x0, y0 + height + 3, x0 + width, caption);
}

void bb_sheet_free(bb_sheet *s)
{
    free(s->image.rgba);
    s->image.rgba = NULL;
}
