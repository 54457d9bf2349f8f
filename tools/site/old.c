/* The site that is there already: whether it is one of ours, what of it can stay, and what goes. */
#include "site/site.h"

#include "platform.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char FOLDER[] = "models/";

/* Whether this is the temporary name of a file, "site.json.tmp.123"; *n: characters of the file's own name. */
static bool is_temporary(const char *name, size_t *n)
{
    static const char mark[] = ".tmp.";
    const char *digits = strrchr(name, '.');
    if (!digits || !digits[1] || strspn(digits + 1, "0123456789") != strlen(digits + 1)) return false;
    *n = (size_t)(digits + 1 - name) - (sizeof mark - 1);
    return (size_t)(digits - name) > sizeof mark - 2 && memcmp(name + *n, mark, sizeof mark - 1) == 0;
}

static bb_status foreign(const bb_site *s, const char *why, bb_error *err)
{
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: %s, so nothing in it is replaced; name a new or empty folder", s->out, why);
}

/* Hidden files are a repository's or the system's, and nobody's site. A site.json that a killed run has left under its
 * temporary name shows that the rest is ours. */
static bb_status check_empty(bb_site *s, bb_error *err)
{
    bool found = false;
    size_t n;
    DIR *d = opendir(s->out);
    if (!d) return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot open: %s", s->out, strerror(errno));
    for (const struct dirent *e; (e = readdir(d));) {
        found |= e->d_name[0] != '.';
        s->old.unfinished |= is_temporary(e->d_name, &n) && n == 9 && memcmp(e->d_name, "site.json", n) == 0;
    }
    closedir(d);
    return found && !s->old.unfinished ? foreign(s, "has files, but no site.json", err) : BB_OK;
}

static bb_status parse(bb_json *json, const bb_file *f, void **tokens)
{
    size_t scratch = bb_json_scratch(f->size);
    *tokens = malloc(scratch);
    if (!*tokens) return BB_ERR_SPACE;
    return bb_json_parse(json, (const char *)f->data, f->size, *tokens, scratch) ? BB_OK : BB_ERR_CORRUPT;
}

bb_status bb_site_old_read(bb_site *s, bb_error *err)
{
    char path[4096];
    bb_site_old *old = &s->old;
    if (!bb_path_join(path, sizeof path, s->out, "site.json"))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", s->out);
    if (!bb_path_exists(s->out)) return BB_OK;
    if (!bb_path_is_dir(s->out)) return bb_fail(err, BB_ERR_ARGUMENT, "%s: not a folder; name one with -o", s->out);
    if (!bb_path_exists(path)) return check_empty(s, err);
    BB_TRY(bb_file_open(&old->file, path, err));
    bb_status status = parse(&old->json, &old->file, &old->tokens);
    if (status == BB_ERR_SPACE) return bb_fail(err, status, "%s: out of memory", path);
    if (status < 0 || !bb_json_is_array(&old->json, bb_json_member(&old->json, 0, "models")))
        return foreign(s, "has a site.json that bitbrush did not write", err);
    return BB_OK;
}

bb_status bb_site_old_check_hidden(const bb_site *s, bb_error *err)
{
    char path[4096];
    for (uint32_t i = 0; i < s->n_files && !s->old.json.text && !s->old.unfinished; i++)
        if (s->files[i].name[0] == '.' && bb_path_join(path, sizeof path, s->out, s->files[i].name) &&
            bb_path_exists(path))
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: is there already, and a site has one of its own; move it away", path);
    return BB_OK;
}

void bb_site_old_close(bb_site_old *old)
{
    for (uint32_t i = 0; i < old->n_doomed; i++) free(old->doomed[i]);
    free(old->doomed);
    free(old->tokens);
    bb_file_close(&old->file);
    *old = (bb_site_old){0};
}

static uint32_t first_model(const bb_json *j) { return bb_json_first(j, bb_json_member(j, 0, "models")); }

/* The width and height of a PNG's header. */
static bool strip_fits(const bb_file *f, const bb_info *info)
{
    static const uint8_t head[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    uint32_t size[2] = {0};
    if (f->size < 24 || memcmp(f->data, head, 16) != 0) return false;
    for (int i = 0; i < 8; i++) size[i / 4] = size[i / 4] << 8 | f->data[16 + i];
    return size[0] == info->width * info->classes && size[1] == info->height;
}

bool bb_site_old_has_strip(const bb_site *s, const bb_site_model *m)
{
    char path[4096], name[BB_SITE_NAME + 40];
    const bb_json *j = &s->old.json;
    bb_file f;
    snprintf(name, sizeof name, "models/%s.classes.png", m->name);
    uint32_t e = first_model(j);
    while (e != BB_JSON_NONE && !bb_json_equals(j, bb_json_member(j, e, "name"), m->name)) e = bb_json_next(j, e);
    if (!bb_json_equals(j, bb_json_member(j, e, "sha256"), m->sha256) ||
        !bb_json_equals(j, bb_json_member(j, e, "pictures"), name) ||
        !bb_path_join(path, sizeof path, s->out, name) || bb_file_open(&f, path, NULL) < 0)
        return false;
    bool fits = strip_fits(&f, &m->host.model->pack.info);
    bb_file_close(&f);
    return fits;
}

/* A name in models/, as this program writes them: site.json may have been edited, and nothing outside goes. */
static bool ours(const char *name)
{
    size_t n = sizeof FOLDER - 1;
    return strncmp(name, FOLDER, n) == 0 && name[n] && name[n] != '.' && !strpbrk(name + n, "/\\");
}

/* A model of the new site may come from the old one's folder. */
static bool is_source(const bb_site *s, const char *path)
{
    char *full = bb_full_path(path);
    bool found = !full;
    for (uint32_t i = 0; i < s->n_models && !found; i++) {
        char *source = bb_full_path(s->models[i].path);
        found = !source || strcmp(source, full) == 0;
        free(source);
    }
    free(full);
    return found;
}

static bb_status doom(bb_site *s, const char *name, bb_error *err)
{
    char path[4096];
    if (!ours(name) || bb_site_file_named(s, name) || !bb_path_join(path, sizeof path, s->out, name) ||
        !bb_path_exists(path) || is_source(s, path))
        return BB_OK;
    char **more = realloc(s->old.doomed, (s->old.n_doomed + 1) * sizeof *more);
    if (more) s->old.doomed = more;
    char *copy = more ? strdup(path) : NULL;
    if (!copy) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    more[s->old.n_doomed++] = copy;
    return BB_OK;
}

/* The parts that a .parts.json names, beside it. One that cannot be read names none. */
static bb_status doom_parts(bb_site *s, const char *name, bb_error *err)
{
    char path[4096], part[512];
    bb_file f;
    bb_json j;
    void *tokens = NULL;
    bb_status status = BB_OK;
    if (!ours(name) || !bb_path_join(path, sizeof path, s->out, name) || bb_file_open(&f, path, NULL) < 0) return BB_OK;
    uint32_t e = parse(&j, &f, &tokens) == BB_OK ? bb_json_first(&j, bb_json_member(&j, 0, "parts")) : BB_JSON_NONE;
    for (; status == BB_OK && e != BB_JSON_NONE; e = bb_json_next(&j, e)) {
        size_t n = (size_t)snprintf(part, sizeof part, "%s", FOLDER);
        if (bb_json_string(&j, bb_json_member(&j, e, "file"), part + n, sizeof part - n)) status = doom(s, part, err);
    }
    free(tokens);
    bb_file_close(&f);
    return status;
}

bb_status bb_site_old_doom(bb_site *s, bb_error *err)
{
    static const char parts[] = ".parts.json";
    const bb_json *j = &s->old.json;
    char name[512];
    for (uint32_t e = first_model(j); e != BB_JSON_NONE; e = bb_json_next(j, e)) {
        if (bb_json_string(j, bb_json_member(j, e, "file"), name, sizeof name)) {
            size_t n = strlen(name), end = sizeof parts - 1;
            if (n > end && strcmp(name + n - end, parts) == 0) BB_TRY(doom_parts(s, name, err));
            BB_TRY(doom(s, name, err));
        }
        if (bb_json_string(j, bb_json_member(j, e, "pictures"), name, sizeof name)) BB_TRY(doom(s, name, err));
    }
    return BB_OK;
}

static bool same_folder(const char *a, const char *b)
{
    const char *x = strrchr(a, '/'), *y = strrchr(b, '/');
    return x && y ? x - a == y - b && memcmp(a, b, (size_t)(x - a)) == 0 : !x && !y;
}

/* Temporaries of killed runs in the folder of a file, of whichever files to be. */
static void sweep_temporaries(const bb_site *s, const char *name)
{
    char folder[4096], file[4096];
    const char *slash = strrchr(name, '/');
    size_t below = slash ? (size_t)(slash + 1 - name) : 0, n;
    snprintf(file, sizeof file, "%.*s", (int)below, name);
    if (!bb_path_join(folder, sizeof folder, s->out, file)) return;
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        char path[4096];
        if (!is_temporary(e->d_name, &n) || below + n >= sizeof file) continue;
        memcpy(file + below, e->d_name, n);
        file[below + n] = 0;
        if (bb_site_file_named(s, file) && bb_path_join(path, sizeof path, folder, e->d_name)) unlink(path);
    }
    if (d) closedir(d);
}

void bb_site_old_sweep(bb_site *s)
{
    for (uint32_t i = 0; i < s->old.n_doomed; i++)
        if (unlink(s->old.doomed[i]) == 0) s->removed++;
    for (uint32_t i = 0; i < s->n_files; i++) /* once a folder: its files come one after the other */
        if (i == 0 || !same_folder(s->files[i - 1].name, s->files[i].name)) sweep_temporaries(s, s->files[i].name);
}
