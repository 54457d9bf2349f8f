/* See data.h: what a path means, and items as floats. */
#include "train/teach/data.h"

#include "base/sha256.h"
#include "idx.h"

#include <stdlib.h>
#include <string.h>

#define PATH 4096

static bool find_csv(char *out, const char *path)
{
    if (!bb_path_is_dir(path)) return bb_format(out, PATH, "%s", path) < PATH - 1 && bb_path_exists(path);
    return bb_path_join(out, PATH, path, "labels.csv") && bb_path_exists(out);
}

bool bb_data_has_test_part(const char *path)
{
    static const char *const names[] = {"t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"};
    char file[PATH];
    for (size_t i = 0; i < BB_COUNT(names); i++)
        if (bb_path_join(file, sizeof file, path, names[i]) && bb_path_exists(file)) return true;
    return false;
}

/* Takes the pictures as they are. */
static bb_status open_idx(bb_data *d, const char *path, bool test, bb_error *err)
{
    bb_idx_set set;
    BB_TRY(bb_idx_open(&set, path, test, err));
    *d = (bb_data){.count = set.n, .width = set.width, .height = set.height, .channels = 1,
                   .pixels = set.pictures.data};
    set.pictures.data = NULL;
    d->label = malloc(d->count * sizeof *d->label);
    for (uint32_t i = 0; d->label && i < d->count; i++) d->label[i] = (uint16_t)bb_idx_label(&set, i);
    bb_idx_close(&set);
    return d->label ? BB_OK : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
}

/* The picture's sizes and classes must be those of the training set. */
static bb_status check_like(const bb_data *d, const char *path, const bb_data *like, bb_error *err)
{
    if (!like) return BB_OK;
    if (d->width != like->width || d->height != like->height || d->channels != like->channels)
        return bb_fail(err, BB_ERR_CORRUPT,
                       "%s: pictures of %ux%u with %u channels, but the training set's are %ux%u with %u", path,
                       d->width, d->height, d->channels, like->width, like->height, like->channels);
    if (d->classes <= like->classes) return BB_OK;
    return bb_fail(err, BB_ERR_CORRUPT, "%s: has class %u, but the training set's classes are 0 to %u", path,
                   d->classes - 1, like->classes - 1);
}

bb_status bb_data_open(bb_data *d, const char *path, bool test, const bb_data *like, bb_error *err)
{
    char csv[PATH];
    *d = (bb_data){0};
    if (!bb_path_exists(path)) return bb_fail(err, BB_ERR_ARGUMENT, "%s: no such file or folder", path);
    bb_status status = find_csv(csv, path) ? bb_csv_open(d, csv, like, err) : open_idx(d, path, test, err);
    for (uint32_t i = 0; status == BB_OK && i < d->count; i++)
        if (d->label[i] >= d->classes) d->classes = d->label[i] + 1u;
    if (status == BB_OK) status = check_like(d, path, like, err);
    if (status < 0) bb_data_free(d);
    return status;
}

void bb_data_free(bb_data *d)
{
    for (uint32_t i = 0; d->names && i < d->classes; i++) free(d->names[i]);
    free(d->names);
    free(d->pixels);
    free(d->label);
    *d = (bb_data){0};
}

void bb_data_sha256(const bb_data *d, char out[65])
{
    char text[256], pixels[65], labels[65];
    bb_sha256(d->pixels, (size_t)d->count * d->height * d->width * d->channels, pixels);
    bb_sha256((const uint8_t *)d->label, (size_t)d->count * sizeof *d->label, labels);
    size_t n = bb_format(text, sizeof text, "%u %u %u %u %s %s", d->count, d->height, d->width, d->channels, pixels,
                         labels);
    bb_sha256((const uint8_t *)text, n, out);
}

void bb_data_item(const bb_data *d, uint32_t i, bool mirror, float pad, uint32_t height, uint32_t width, float *out)
{
    const uint32_t c = d->channels, top = (height - d->height) / 2, left = (width - d->width) / 2;
    const uint8_t *picture = d->pixels + (size_t)i * d->height * d->width * c;
    for (size_t k = 0; k < (size_t)height * width * c; k++) out[k] = pad;
    for (uint32_t y = 0; y < d->height; y++)
        for (uint32_t x = 0; x < d->width; x++) {
            const uint8_t *from = picture + ((size_t)y * d->width + (mirror ? d->width - 1 - x : x)) * c;
            float *to = out + ((size_t)(y + top) * width + x + left) * c;
            for (uint32_t k = 0; k < c; k++) to[k] = (float)from[k] / 127.5f - 1.0f;
        }
}
