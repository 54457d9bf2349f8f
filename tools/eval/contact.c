/* The contact sheet: what the float model drew, and below it what became of it. */
#include "eval/print.h"
#include "sheet.h"

#include <stdlib.h>

enum { COLUMNS = 10, MOST = 30 };

static void put(const bb_evaluation *e, bb_sheet *sheet, uint32_t index, const bb_records *pictures, uint32_t i,
                uint8_t *rgba, const char *caption)
{
    const bb_info *info = &e->reference.model->pack.info;
    const uint32_t channels = bb_painter_channels(info);
    const uint8_t *from = pictures->data + (size_t)i * pictures->size;
    for (size_t p = 0; p < (size_t)info->width * info->height; p++) {
        for (uint32_t c = 0; c < 3; c++) rgba[4 * p + c] = from[p * channels + (channels == 3 ? c : 0)];
        rgba[4 * p + 3] = 255;
    }
    bb_sheet_put(sheet, index, rgba, caption);
}

static bb_status write_png(const bb_image *image, const char *path, bb_error *err)
{
    const char *const text[] = {"Software", "bitbrush", NULL};
    size_t bytes = bb_png_scratch(image), n;
    const uint8_t *png;
    void *scratch = malloc(bytes);
    if (!scratch) return bb_fail(err, BB_ERR_SPACE, "out of memory for the PNG");
    bb_status status = bb_png(image, text, scratch, bytes, &png, &n);
    status = status < 0 ? bb_fail(err, status, "PNG: %s", bb_strerror(status)) : bb_file_write(path, png, n, err);
    free(scratch);
    return status;
}

bb_status bb_write_sheet(const bb_evaluation *e, const char *path, bb_error *err)
{
    const bb_info *info = &e->reference.model->pack.info;
    const uint32_t n = e->images < MOST ? e->images : MOST, columns = n < COLUMNS ? n : COLUMNS;
    bb_sheet sheet = bb_sheet_new(2 * ((n + columns - 1) / columns), columns, info->width, info->height, 0);
    uint8_t *rgba = malloc((size_t)info->width * info->height * 4);
    char name[128], caption[160];
    bb_status status = BB_OK;
    if (!rgba || !sheet.image.rgba) status = bb_fail(err, BB_ERR_SPACE, "%s: the sheet is too large", path);
    for (uint32_t i = 0; i < n && status == BB_OK; i++) {
        const uint32_t above = i / columns * 2 * columns + i % columns;
        snprintf(name, sizeof name, "picture %u", i);
        if (info->classes) bb_host_label_name(&e->reference, bb_nth_label(info, i), name, sizeof name);
        snprintf(caption, sizeof caption, "float %s", name);
        put(e, &sheet, above, &e->teacher, i, rgba, caption);
        snprintf(caption, sizeof caption, "packed %s", name);
        put(e, &sheet, above + columns, &e->pictures, i, rgba, caption);
    }
    if (status == BB_OK) status = write_png(&sheet.image, path, err);
    free(rgba);
    bb_sheet_free(&sheet);
    return status;
}
