/* Class pictures: a strip for the models of one teacher, drawn by the first of them; tile i shows class i. */
#include "site/site.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Draws the null class, or all the others, each from seed 1. *done: evaluations so far. */
static bb_status draw_tiles(bb_host *h, const bb_image *strip, bool null, bb_progress *progress, size_t *done,
                            bb_error *err)
{
    const bb_info *info = &h->model->pack.info;
    const bb_request req = {.size_of = sizeof req, .steps = bb_host_steps(h),
                            .guidance = null ? 1 : bb_host_guidance(h)};
    bb_stats stats;
    BB_TRY(bb_host_session(h, &req, err));
    bb_stats_get(h->session, &stats);
    progress->total = (size_t)info->classes * stats.steps;
    for (uint32_t i = 0; i < info->classes; i++) {
        if (((int32_t)i == info->null_label) != null) continue;
        bb_image tile = {.width = info->width, .height = info->height, .stride = 4 * strip->width,
                         .rgba = strip->rgba + (size_t)4 * info->width * i};
        BB_TRY(bb_host_draw(h, 1, (int32_t)i, &tile, progress, *done, err));
        *done += stats.steps;
    }
    return BB_OK;
}

static bb_status draw_all(bb_site *s, bb_site_model *m, const bb_image *strip, bb_error *err)
{
    char what[BB_SITE_NAME + 40];
    size_t done = 0;
    snprintf(what, sizeof what, "drawing classes of %s (steps)", m->name);
    bb_progress progress = bb_progress_start(what, 0, s->quiet);
    bb_host_threads(&m->host, s->host_options.threads);
    bb_status status = draw_tiles(&m->host, strip, false, &progress, &done, err);
    if (status >= 0 && m->host.model->pack.info.null_label >= 0)
        status = draw_tiles(&m->host, strip, true, &progress, &done, err);
    bb_host_threads(&m->host, 1);
    return status;
}

/* bytes of *png lie in *heap. */
static bb_status draw_strip(bb_site *s, bb_site_model *m, const uint8_t **png, size_t *n, void **heap, bb_error *err)
{
    static const char *const text[] = {"Software", "bitbrush", NULL};
    const bb_info *info = &m->host.model->pack.info;
    bb_image strip = {.width = info->width * info->classes, .height = info->height};
    size_t scratch = bb_png_scratch(&strip);
    if (!scratch)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: its class pictures are too large for one PNG; use --no-pictures",
                       m->path);
    strip.rgba = malloc((size_t)4 * strip.width * strip.height);
    *heap = malloc(scratch);
    bb_status status = strip.rgba && *heap
        ? draw_all(s, m, &strip, err)
        : bb_fail(err, BB_ERR_SPACE, "%s: out of memory for its class pictures; --no-pictures leaves them out", m->path);
    if (status >= 0) {
        status = bb_png(&strip, text, *heap, scratch, png, n);
        if (status < 0) bb_fail(err, status, "PNG: %s", bb_strerror(status));
    }
    free(strip.rgba);
    return status;
}

static bb_status keep_strip(bb_site *s, const char *name, bb_error *err)
{
    char path[4096];
    bb_file f;
    if (!bb_path_join(path, sizeof path, s->out, name))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", name);
    BB_TRY(bb_file_open(&f, path, err));
    return bb_site_add_file(s, name, f.data, f.size, &f, NULL, err);
}

static bb_status add_strip(bb_site *s, bb_site_model *m, bb_error *err)
{
    char name[BB_SITE_NAME + 40];
    const uint8_t *png;
    size_t n;
    void *heap = NULL;
    snprintf(name, sizeof name, "models/%s.classes.png", m->name);
    if (bb_site_old_has_strip(s, m)) return keep_strip(s, name, err);
    bb_status status = draw_strip(s, m, &png, &n, &heap, err);
    if (status < 0) {
        free(heap);
        return status;
    }
    s->drawn++;
    return bb_site_add_file(s, name, png, n, NULL, heap, err);
}

/* The first of the models before i whose pictures are those of i, too; i itself if there is none. */
static uint32_t artist_of(const bb_site *s, uint32_t i)
{
    const bb_site_model *m = &s->models[i];
    const bb_info *a = &m->host.model->pack.info;
    for (uint32_t k = 0; k < i && m->group[0]; k++) {
        const bb_info *b = &s->models[k].host.model->pack.info;
        if (strcmp(s->models[k].group, m->group) == 0 && a->classes == b->classes && a->width == b->width &&
            a->height == b->height && a->null_label == b->null_label)
            return k;
    }
    return i;
}

void bb_site_choose_artists(bb_site *s)
{
    for (uint32_t i = 0; i < s->n_models && !s->no_pictures; i++) {
        uint32_t classes = s->models[i].host.model->pack.info.classes;
        if (classes && classes <= BB_SITE_CLASSES) s->models[i].artist = artist_of(s, i);
    }
}

bb_status bb_site_add_pictures(bb_site *s, bb_error *err)
{
    for (uint32_t i = 0; i < s->n_models; i++)
        if (s->models[i].artist == i) BB_TRY(add_strip(s, &s->models[i], err));
    return BB_OK;
}
