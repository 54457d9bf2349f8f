/* The sheet of samples; see checkpoint.h. */
#include "train/teach/checkpoint.h"

#include "host.h"
#include "sheet.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_COLUMNS = 10, ROWS = 2, STEPS = 20 };

static bb_status png_of(const bb_image *image, bb_png_bytes *out, bb_error *err)
{
    size_t scratch_bytes = bb_png_scratch(image);
    const uint8_t *png;
    void *scratch = malloc(scratch_bytes);
    bb_status status = scratch ? bb_png(image, NULL, scratch, scratch_bytes, &png, &out->n) : BB_ERR_SPACE;
    if (status == BB_OK) out->data = malloc(out->n);
    if (out->data) memcpy(out->data, png, out->n);
    free(scratch);
    return out->data ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory for the samples");
}

static bb_status draw(bb_host *h, bb_png_bytes *out, bb_error *err)
{
    const bb_info *info = &h->model->pack.info;
    const uint32_t kinds = info->classes - (info->null_label >= 0 ? 1 : 0);
    const uint32_t columns = info->classes && kinds < MOST_COLUMNS ? kinds : MOST_COLUMNS;
    bb_image tile = {.width = info->width, .height = info->height,
                     .rgba = malloc((size_t)info->width * info->height * 4)};
    bb_sheet sheet = bb_sheet_new(ROWS, columns, info->width, info->height, 0);
    bb_status status = tile.rgba && sheet.image.rgba ? BB_OK
        : bb_fail(err, BB_ERR_SPACE, "out of memory for the samples");
    bb_progress silent = bb_progress_start("drawing", STEPS, true);
    for (uint32_t i = 0; status == BB_OK && i < ROWS * columns; i++) {
        const int32_t label = info->classes ? bb_nth_label(info, i) : 0;
        char name[128] = "";
        if (info->classes) bb_host_label_name(h, label, name, sizeof name);
        status = bb_host_draw(h, 1 + i, label, &tile, &silent, 0, err);
        if (status == BB_OK) bb_sheet_put(&sheet, i, tile.rgba, name);
    }
    if (status == BB_OK) status = png_of(&sheet.image, out, err);
    free(tile.rgba);
    bb_sheet_free(&sheet);
    return status;
}

bb_status bb_teach_samples(const bb_pipeline *p, const bb_params *params, const float *w, uint32_t threads,
                           uint32_t cpu, bb_png_bytes *out, bb_error *err)
{
    const bb_host_options options = {.threads = threads, .cpu = cpu};
    uint8_t *bytes = NULL;
    size_t n = 0;
    bb_host h = {0};
    *out = (bb_png_bytes){0};
    BB_TRY(bb_pipeline_pack(p, params, w, "bitbrush train", &bytes, &n, err));
    bb_status status = bb_host_open_bytes(&h, "samples", bytes, n, &options, err);
    const uint32_t steps = p->schedule.train_steps < STEPS ? p->schedule.train_steps : STEPS;
    if (status == BB_OK) {
        bb_request req = {.size_of = sizeof req, .steps = steps, .guidance = bb_host_guidance(&h),
                          .sampler = BB_SAMPLER_DDIM};
        status = bb_host_session(&h, &req, err);
    }
    if (status == BB_OK) status = draw(&h, out, err);
    bb_host_close(&h);
    free(bytes);
    return status;
}
