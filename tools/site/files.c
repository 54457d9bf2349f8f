/* The files of a site: collected, then written. */
#include "site/site.h"

#include "batch.h"
#include "platform.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 8 }; /* of folders in the page's */

bb_status bb_site_add_file(bb_site *s, const char *name, const uint8_t *data, size_t n, bb_file *map, void *heap,
                           bb_error *err)
{
    if (s->n_files == s->room) {
        uint32_t room = 2 * s->room + 64;
        bb_site_file *more = realloc(s->files, room * sizeof *more);
        if (more) s->files = more, s->room = room;
    }
    char *copy = s->n_files < s->room ? strdup(name) : NULL;
    if (!copy) {
        if (map) bb_file_close(map);
        free(heap);
        return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", name);
    }
    s->files[s->n_files++] = (bb_site_file){.name = copy, .data = data, .n = n, .map = map ? *map : (bb_file){0},
                                            .heap = heap};
    return BB_OK;
}

const bb_site_file *bb_site_file_named(const bb_site *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_files; i++)
        if (strcmp(s->files[i].name, name) == 0) return &s->files[i];
    return NULL;
}

/* ---- the page's folder ---- */

bb_status bb_site_find_page(bb_site *s, bb_error *err)
{
    char index[4096], program[4096];
    if (!s->page) {
        if (!bb_program_folder(program, sizeof program))
            return bb_fail(err, BB_ERR_OPTION, "--page DIR is missing: the page's folder, which a build leaves in "
                                               "build/page, cannot be looked for beside the program here");
        if (!bb_path_join(s->page_folder, sizeof s->page_folder, program, "page"))
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", program);
        s->page = s->page_folder;
    }
    if (!bb_path_join(index, sizeof index, s->page, "index.html") || !bb_path_exists(index))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: no page is there (it would have an index.html); build it, cmake -B build "
                                             "&& cmake --build build, or name its folder with --page DIR", s->page);
    return BB_OK;
}

typedef struct names { char **item; uint32_t n; } names;

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void free_names(names *list)
{
    for (uint32_t i = 0; i < list->n; i++) free(list->item[i]);
    free(list->item);
}

/* The names in a folder, sorted. */
static bb_status read_names(names *list, const char *path, bb_error *err)
{
    bb_status status = BB_OK;
    DIR *d = opendir(path);
    *list = (names){0};
    if (!d) return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot open: %s", path, strerror(errno));
    for (const struct dirent *e; status == BB_OK && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char **more = realloc(list->item, (list->n + 1) * sizeof *more);
        if (more) list->item = more;
        char *copy = more ? strdup(e->d_name) : NULL;
        if (copy) more[list->n++] = copy;
        else status = bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    }
    closedir(d);
    if (status < 0) free_names(list);
    else if (list->n) qsort(list->item, list->n, sizeof *list->item, by_text);
    return status;
}

/* below: where the folder is in the page's, "" or "js/". What hosts/ holds belongs to the root of a site. */
static bb_status add_folder(bb_site *s, const char *below, uint32_t depth, bb_error *err)
{
    static const char hosts[] = "hosts/";
    char path[4096], name[4096];
    names list;
    if (depth > DEPTH || !bb_path_join(path, sizeof path, s->page, below))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s/%s: folders too deep for a page", s->page, below);
    BB_TRY(read_names(&list, path, err));
    bb_status status = BB_OK;
    for (uint32_t i = 0; status == BB_OK && i < list.n; i++) {
        bb_file f;
        int n = snprintf(name, sizeof name, "%s%s", below, list.item[i]);
        if (strcmp(list.item[i], "site.json") == 0)
            status = bb_fail(err, BB_ERR_ARGUMENT, "%s: is a site, not a page; name the folder that it was made of with "
                                                   "--page DIR", path);
        else if (n < 0 || (size_t)n + 2 > sizeof name || !bb_path_join(path, sizeof path, s->page, name))
            status = bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", s->page);
        else if (bb_path_is_dir(path)) status = add_folder(s, strcat(name, "/"), depth + 1, err);
        else if ((status = bb_file_open(&f, path, err)) == BB_OK)
            status = bb_site_add_file(s, strncmp(name, hosts, sizeof hosts - 1) ? name : name + sizeof hosts - 1, f.data,
                                      f.size, &f, NULL, err);
    }
    free_names(&list);
    return status;
}

bb_status bb_site_add_page(bb_site *s, bb_error *err) { return add_folder(s, "", 0, err); }

/* ---- models ---- */

static bb_status add_parts(bb_site *s, const bb_site_model *m, bb_error *err)
{
    char name[BB_SITE_NAME + 40];
    const bb_file *file = &m->host.file;
    for (size_t at = 0, part = 0; at < file->size; at += (size_t)s->split, part++) {
        snprintf(name, sizeof name, "models/%s.safetensors.%03zu", m->name, part);
        BB_TRY(bb_site_add_file(s, name, file->data + at, bb_site_part(s, m, at), NULL, NULL, err));
    }
    return bb_site_add_parts_list(s, m, err);
}

bb_status bb_site_add_models(bb_site *s, bb_error *err)
{
    char name[BB_SITE_NAME + 40];
    for (uint32_t i = 0; i < s->n_models; i++) {
        const bb_site_model *m = &s->models[i];
        snprintf(name, sizeof name, "models/%s.safetensors", m->name);
        if (bb_site_is_split(s, m)) BB_TRY(add_parts(s, m, err));
        else BB_TRY(bb_site_add_file(s, name, m->host.file.data, m->host.file.size, NULL, NULL, err));
    }
    return BB_OK;
}

/* ---- writing ---- */

/* The folders of a file's path below out. */
static bb_status make_folders(char *path, size_t below, bb_error *err)
{
    for (char *slash = strchr(path + below, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bb_status status = bb_batch_folder(path, err);
        *slash = '/';
        BB_TRY(status);
    }
    return BB_OK;
}

static bb_status write_all(bb_site *s, bb_error *err)
{
    char path[4096];
    bool kept;
    size_t total = 0, done = 0, below = strlen(s->out);
    for (uint32_t i = 0; i < s->n_files; i++) total += s->files[i].n;
    bb_progress progress = bb_progress_start("copying (kB)", total / 1000 + 1, s->quiet);
    BB_TRY(bb_site_old_check_hidden(s, err));
    BB_TRY(bb_batch_folder(s->out, err));
    for (uint32_t i = 0; i < s->n_files; i++) {
        const bb_site_file *f = &s->files[i];
        if (!bb_path_join(path, sizeof path, s->out, f->name))
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", f->name);
        BB_TRY(make_folders(path, below + 1, err));
        BB_TRY(bb_batch_file(path, f->data, f->n, &kept, err));
        s->written += !kept;
        done += f->n;
        bb_progress_step(&progress, done / 1000);
    }
    bb_progress_step(&progress, progress.total);
    return bb_site_old_doom(s, err);
}

bb_status bb_site_write(bb_site *s, bb_error *err)
{
    bb_status status = write_all(s, err);
    if (status < 0) {
        bb_batch_drop();
        return status;
    }
    bb_cli_hold_signals(); /* what comes now is short, and half of it would be no site */
    status = bb_batch_commit(err);
    if (status == BB_OK) bb_site_old_sweep(s);
    bb_cli_release_signals();
    return status;
}

void bb_site_close(bb_site *s)
{
    for (uint32_t i = 0; i < s->n_files; i++) {
        free(s->files[i].name);
        free(s->files[i].heap);
        bb_file_close(&s->files[i].map);
    }
    free(s->files);
    for (uint32_t i = 0; i < s->n_models; i++) bb_host_close(&s->models[i].host);
    bb_site_old_close(&s->old);
}
