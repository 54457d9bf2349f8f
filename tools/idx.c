#include "idx.h"

#include "gunzip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_HEAD = 4 + 4 * 4 };
#define LARGEST_DATA ((size_t)1 << 31)
#define MOST_PACKED 1032 /* bytes that deflate makes of one, at most */

/* The first `size` bytes of a file, packed or not, or all if there are fewer. */
static bb_status read_front(const bb_file *file, const char *path, uint8_t *out, size_t size, size_t *got,
                            bb_error *err)
{
    if (bb_is_gzip(file)) return bb_gunzip(file, path, out, size, got, err);
    *got = file->size < size ? file->size : size;
    if (*got) memcpy(out, file->data, *got);
    return BB_OK;
}

/* Bytes of the header, 0 if it is none. */
static size_t read_head(bb_idx *x, const uint8_t *head, size_t n)
{
    if (n < 4 || head[0] || head[1] || head[2] != 8 || head[3] < 1 || head[3] > BB_COUNT(x->dim)) return 0;
    x->dims = head[3];
    x->size = 1;
    if (n < 4 + 4 * (size_t)x->dims) return 0;
    for (uint32_t i = 0; i < BB_COUNT(x->dim); i++) {
        const uint8_t *p = head + 4 + 4 * i;
        x->dim[i] = i < x->dims ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : 1;
        if (!x->dim[i] || x->size > LARGEST_DATA / x->dim[i]) return 0;
        x->size *= x->dim[i];
    }
    return 4 + 4 * (size_t)x->dims;
}

static bb_status wrong_length(const bb_idx *x, const char *path, const char *how, bb_error *err)
{
    return bb_fail(err, BB_ERR_CORRUPT, "%s: %s than the %z bytes that its header tells; get it again", path, how,
                   x->size);
}

static bb_status read_all(bb_idx *x, const bb_file *file, const char *path, bb_error *err)
{
    uint8_t head[LARGEST_HEAD];
    size_t got;
    BB_TRY(read_front(file, path, head, sizeof head, &got, err));
    const size_t skip = read_head(x, head, got);
    if (!skip)
        return bb_fail(err, BB_ERR_MAGIC, "%s: not an IDX file of unsigned bytes with 1 to 4 dimensions", path);
    if (x->size / (bb_is_gzip(file) ? MOST_PACKED : 1) > file->size) return wrong_length(x, path, "shorter", err);
    uint8_t *all = malloc(skip + x->size + 1); /* one more, to see whether there is more */
    if (!all) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory for %z bytes", path, x->size);
    bb_status status = read_front(file, path, all, skip + x->size + 1, &got, err);
    if (status == BB_OK && got != skip + x->size)
        status = wrong_length(x, path, got < skip + x->size ? "shorter" : "longer", err);
    if (status == BB_OK) {
        memmove(all, all + skip, x->size);
        x->data = all;
    } else {
        free(all);
    }
    return status;
}

bb_status bb_idx_read(bb_idx *x, const char *path, bb_error *err)
{
    bb_file file;
    *x = (bb_idx){0};
    BB_TRY(bb_file_open(&file, path, err));
    bb_status status = read_all(x, &file, path, err);
    bb_file_close(&file);
    if (status < 0) *x = (bb_idx){0};
    return status;
}

void bb_idx_free(bb_idx *x)
{
    free(x->data);
    *x = (bb_idx){0};
}

/* FOLDER/name, or FOLDER/name.gz if only that is there. */
static bb_status read_part(bb_idx *x, const char *folder, const char *part, const char *kind, bb_error *err)
{
    char name[64], path[4096];
    snprintf(name, sizeof name, "%s-%s-ubyte", part, kind);
    bool fits = bb_path_join(path, sizeof path - 3, folder, name);
    if (!fits) return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", folder);
    if (!bb_path_exists(path)) {
        strcat(path, ".gz");
        if (!bb_path_exists(path))
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: there is no %s, with .gz or without (Debian has Fashion-MNIST: "
                           "apt-get install dataset-fashion-mnist)", folder, name);
    }
    BB_TRY(bb_idx_read(x, path, err));
    if (x->dims == (strstr(kind, "images") ? 3u : 1u)) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: has %u dimensions", path, x->dims);
}

static bb_status open_parts(bb_idx_set *s, const char *folder, const char *part, bb_error *err)
{
    BB_TRY(read_part(&s->pictures, folder, part, "images-idx3", err));
    BB_TRY(read_part(&s->labels, folder, part, "labels-idx1", err));
    s->n = s->pictures.dim[0];
    s->height = s->pictures.dim[1];
    s->width = s->pictures.dim[2];
    if (s->labels.dim[0] != s->n)
        return bb_fail(err, BB_ERR_CORRUPT, "%s: %u %s pictures, but %u labels", folder, s->n, part, s->labels.dim[0]);
    for (uint32_t i = 0; i < s->n; i++)
        if (bb_idx_label(s, i) >= s->classes) s->classes = bb_idx_label(s, i) + 1;
    return BB_OK;
}

bb_status bb_idx_open(bb_idx_set *s, const char *folder, bool test, bb_error *err)
{
    *s = (bb_idx_set){0};
    bb_status status = open_parts(s, folder, test ? "t10k" : "train", err);
    if (status < 0) bb_idx_close(s);
    return status;
}

void bb_idx_close(bb_idx_set *s)
{
    bb_idx_free(&s->pictures);
    bb_idx_free(&s->labels);
    *s = (bb_idx_set){0};
}

bool bb_idx_picture(const bb_idx_set *s, uint32_t i, uint32_t height, uint32_t width, uint8_t *out)
{
    if (s->height > height || s->width > width) return false;
    const size_t top = (height - s->height) / 2, left = (width - s->width) / 2;
    memset(out, 0, (size_t)height * width);
    for (size_t y = 0; y < s->height; y++)
        memcpy(out + (top + y) * width + left, s->pictures.data + ((size_t)i * s->height + y) * s->width, s->width);
    return true;
}
