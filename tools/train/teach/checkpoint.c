/* See checkpoint.h. */
#include "train/teach/checkpoint.h"

#include "batch.h"
#include "import/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bb_teach_state_path(char *out, size_t size, const char *folder)
{
    return bb_path_join(out, size, folder, "train/state.safetensors");
}

bb_status bb_teach_check_folder(const char *folder, bb_error *err)
{
    char path[BB_PATH_MAX];
    if (!bb_teach_state_path(path, sizeof path, folder))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", folder);
    *strrchr(path, '/') = 0; /* train/ is made before anything else: without a state, by a run that had just begun */
    if (bb_path_is_dir(path)) return BB_OK;
    if (bb_path_exists(folder) && !bb_path_is_dir(folder))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: is a file; name a folder", folder);
    static const char *const models[] = {"model_index.json", "config.json", "unet"};
    for (size_t i = 0; i < BB_COUNT(models); i++)
        if (bb_path_join(path, sizeof path, folder, models[i]) && bb_path_exists(path))
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: holds a model already, and no run of training; name another "
                           "folder (--from begins with a model's weights)", folder);
    return BB_OK;
}

static bb_status put(const char *folder, const char *name, const void *data, size_t n, bb_error *err)
{
    char path[BB_PATH_MAX];
    bool kept;
    if (!data) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory for %s", folder, name);
    if (!bb_path_join(path, sizeof path, folder, name))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s/%s: the path is too long", folder, name);
    return bb_batch_file(path, data, n, &kept, err);
}

static bb_status put_reports(const char *folder, const bb_teach *t, const bb_course *run, const bb_png_bytes *samples,
                             bb_error *err)
{
    char name[64], path[BB_PATH_MAX], *csv = bb_log_csv(&run->log), *svg = bb_log_svg(&run->log, "Training");
    bb_status status = bb_batch_folder(folder, err);
    if (status == BB_OK && !bb_path_join(path, sizeof path, folder, "train"))
        status = bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", folder);
    if (status == BB_OK) status = bb_batch_folder(path, err);
    if (status == BB_OK) status = put(folder, "train/log.csv", csv, csv ? strlen(csv) : 0, err);
    if (status == BB_OK) status = put(folder, "train/loss.svg", svg, svg ? strlen(svg) : 0, err);
    snprintf(name, sizeof name, "train/samples-%07" PRIu64 ".png", t->optim.step);
    if (status == BB_OK && samples && samples->data) status = put(folder, name, samples->data, samples->n, err);
    free(csv);
    free(svg);
    return status;
}

bb_status bb_teach_checkpoint(const char *folder, uint32_t dtype, const bb_teach *t, const bb_course *run,
                              const bb_png_bytes *samples, bb_error *err)
{
    char path[BB_PATH_MAX];
    bb_status status = put_reports(folder, t, run, samples, err);
    if (status == BB_OK) status = bb_pipeline_put(t->pipe, &t->params, t->ema, dtype, folder, err);
    if (status == BB_OK) status = bb_batch_commit(err);
    else bb_batch_drop();
    BB_TRY(status);
    if (!bb_teach_state_path(path, sizeof path, folder))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", folder);
    return bb_state_save(path, t, run, err);
}
