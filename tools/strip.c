#include "strip.h"

#include "sheet.h"

#include <stdio.h>
#include <stdlib.h>

static bb_status draw_row(bb_host *h, const char *name, uint32_t row, const bb_request *req, bb_image *tile,
                          bb_sheet *sheet, bb_error *err)
{
    bb_progress quiet = bb_progress_start("", 0, true);
    BB_TRY(bb_host_session(h, req, err));
    for (uint32_t i = 0; i < sheet->columns; i++) {
        BB_TRY(bb_host_draw(h, i, bb_nth_label(&h->model->pack.info, i), tile, &quiet, 0, err));
        bb_sheet_put(sheet, row * sheet->columns + i, tile->rgba, i ? "" : name);
    }
    return BB_OK;
}

static bb_status write_png(const char *path, const bb_image *image, bb_error *err)
{
    const char *const text[] = {"Software", "bitbrush", NULL};
    size_t scratch_bytes = bb_png_scratch(image), bytes;
    const uint8_t *png;
    void *scratch = malloc(scratch_bytes);
    if (!scratch) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory for the PNG", path);
    bb_status status = bb_png(image, text, scratch, scratch_bytes, &png, &bytes);
    if (status < 0) bb_fail(err, status, "%s: %s", path, bb_strerror(status));
    else status = bb_file_write(path, png, bytes, err);
    free(scratch);
    return status;
}

bb_status bb_strip_write(const char *path, bb_host *const hosts[], const char *const names[], uint32_t n,
                         uint32_t columns, const bb_request *req, bb_error *err)
{
    const bb_info *info = &hosts[0]->model->pack.info;
    bb_image tile = {.width = info->width, .height = info->height};
    tile.rgba = malloc((size_t)tile.width * tile.height * 4);
    bb_sheet sheet = bb_sheet_new(n, columns, tile.width, tile.height, 0);
    bb_status status = tile.rgba && sheet.image.rgba ? BB_OK : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    for (uint32_t row = 0; status >= 0 && row < n; row++)
        status = draw_row(hosts[row], names[row], row, req, &tile, &sheet, err);
    if (status >= 0) status = write_png(path, &sheet.image, err);
    free(tile.rgba);
    bb_sheet_free(&sheet);
    return status;
}
