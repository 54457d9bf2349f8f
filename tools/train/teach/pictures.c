/* PNG files listed in a CSV file. */
#include "train/teach/data.h"

#include "io.h"

#include <stdlib.h>
#include <string.h>

#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_NO_FAILURE_STRINGS
#define STBI_MAX_DIMENSIONS 16384
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

#define PATH 4096

/* One line: where its two fields are, in the CSV file's own text, terminated there. */
typedef struct row { char *file, *label; uint32_t line; } row;

typedef struct table {
    const char *path;
    char *text;
    row *rows;
    uint32_t n;
} table;

/* Takes a field off *at, which is left behind its comma or at the line's end; quotes as in RFC 4180. NULL: another
 * form. */
static char *take_field(char **at, bool last)
{
    char *p = *at, *field = p, *to = p;
    if (*p == '"') {
        bool open = true;
        for (p++; *p && open;) {
            if (*p == '"' && *++p != '"') open = false;
            else *to++ = *p++;
        }
        if (open) return NULL;
    } else {
        while (*p && *p != ',') *to++ = *p++;
    }
    if (last ? *p != 0 : *p != ',') return NULL;
    *at = p + !last;
    *to = 0;
    return field;
}

static bb_status add_row(table *t, char *line, uint32_t number, bb_error *err)
{
    row r = {.line = number};
    size_t n = strlen(line);
    if (n && line[n - 1] == '\r') line[n - 1] = 0;
    if (!*line || (number == 1 && !strcmp(line, "file,label"))) return BB_OK;
    r.file = take_field(&line, false);
    r.label = r.file ? take_field(&line, true) : NULL;
    if (!r.label || !*r.file || !*r.label)
        return bb_fail(err, BB_ERR_CORRUPT, "%s: line %u must be file,label", t->path, number);
    if (t->n % 1024 == 0) {
        row *grown = realloc(t->rows, (t->n + 1024) * sizeof *grown);
        if (!grown) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", t->path);
        t->rows = grown;
    }
    t->rows[t->n++] = r;
    return BB_OK;
}

static bb_status read_table(table *t, bb_error *err)
{
    bb_file f;
    BB_TRY(bb_file_open(&f, t->path, err));
    t->text = malloc(f.size + 1);
    bb_status status = BB_OK;
    if (!t->text) status = bb_fail(err, BB_ERR_SPACE, "%s: out of memory", t->path);
    else if (f.size && memchr(f.data, 0, f.size)) status = bb_fail(err, BB_ERR_CORRUPT, "%s: not a text file", t->path);
    else if (f.size) memcpy(t->text, f.data, f.size);
    if (t->text) t->text[f.size] = 0;
    bb_file_close(&f);
    uint32_t number = 1;
    for (char *line = t->text; status == BB_OK && line && *line; number++) {
        char *end = strchr(line, '\n'), *next = end ? end + 1 : NULL;
        if (end) *end = 0;
        status = add_row(t, line, number, err);
        line = next;
    }
    if (status == BB_OK && !t->n) status = bb_fail(err, BB_ERR_CORRUPT, "%s: lists no pictures", t->path);
    return status;
}

/* ---- classes ---- */

static bool is_number(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits && digits < 6 && !text[digits] && strtoul(text, NULL, 10) < BB_DATA_MAX_CLASSES;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The distinct labels of the table, sorted. */
static bb_status collect_names(bb_data *d, const table *t, bb_error *err)
{
    const char **all = malloc(t->n * sizeof *all);
    if (!all) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", t->path);
    for (uint32_t i = 0; i < t->n; i++) all[i] = t->rows[i].label;
    qsort(all, t->n, sizeof *all, by_name);
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i++)
        if (!n || strcmp(all[n - 1], all[i]) != 0) all[n++] = all[i];
    bb_status status = n <= BB_DATA_MAX_CLASSES ? BB_OK
        : bb_fail(err, BB_ERR_UNSUPPORTED, "%s: %u different labels; supported: %u", t->path, n, BB_DATA_MAX_CLASSES);
    if (status == BB_OK) d->names = calloc(n, sizeof *d->names);
    bool space = d->names;
    if (space) d->classes = n;
    for (uint32_t i = 0; space && i < n; i++) space = (d->names[i] = strdup(all[i])) != NULL;
    free(all);
    return status < 0 || space ? status : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", t->path);
}

static bb_status number_names(bb_data *d, const table *t, const bb_data *names, bb_error *err)
{
    for (uint32_t i = 0; i < t->n; i++) {
        char *const key = t->rows[i].label;
        char **found = bsearch(&key, names->names, names->classes, sizeof key, by_name);
        if (!found) return bb_fail(err, BB_ERR_CORRUPT, "%s: line %u: no class is called %s in the training set",
                                   t->path, t->rows[i].line, key);
        d->label[i] = (uint16_t)(found - names->names);
    }
    return BB_OK;
}

static bb_status read_labels(bb_data *d, const table *t, const bb_data *like, bb_error *err)
{
    bool numbers = !like || !like->names;
    for (uint32_t i = 0; i < t->n && numbers; i++) {
        numbers = is_number(t->rows[i].label);
        if (numbers) d->label[i] = (uint16_t)strtoul(t->rows[i].label, NULL, 10);
    }
    if (numbers) return BB_OK;
    if (!like) BB_TRY(collect_names(d, t, err));
    else if (!like->names)
        return bb_fail(err, BB_ERR_CORRUPT, "%s: labels are names, but those of the training set are numbers", t->path);
    return number_names(d, t, like ? like : d, err);
}

/* ---- pictures ---- */

/* Chunks up to the last one lie in the file: stb takes memory for a chunk before it reads it. */
static bool has_whole_chunks(const bb_file *f)
{
    for (size_t at = 8; f->size >= 12 && at <= f->size - 12;) {
        const uint8_t *p = f->data + at;
        const size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (!memcmp(p + 4, "IEND", 4)) return true;
        if (n > f->size - at - 12) return false;
        at += 12 + n;
    }
    return false;
}

/* Sizes of the picture before its pixels are unpacked: the first one says what all must be. */
static bb_status check_picture(bb_data *d, const char *path, const bb_file *f, bool first, bb_error *err)
{
    int w = 0, h = 0, c = 0;
    if (f->size > (1u << 30) || !has_whole_chunks(f) || !stbi_info_from_memory(f->data, (int)f->size, &w, &h, &c))
        return bb_fail(err, BB_ERR_CORRUPT, "%s: not a PNG file, or damaged", path);
    if (c != 1 && c != 3)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: has an alpha channel; flatten it to grey or RGB", path);
    if ((uint64_t)w * (uint64_t)h * (uint64_t)c / 1032 > f->size) /* deflate's most */
        return bb_fail(err, BB_ERR_CORRUPT, "%s: damaged: it is too short for %ux%u pixels", path, (uint32_t)w,
                       (uint32_t)h);
    if (first) d->width = (uint32_t)w, d->height = (uint32_t)h, d->channels = (uint32_t)c;
    if ((uint32_t)w == d->width && (uint32_t)h == d->height && (uint32_t)c == d->channels) return BB_OK;
    return bb_fail(err, BB_ERR_CORRUPT, "%s: %ux%u with %u channels, but the first picture has %ux%u with %u; all "
                   "must be alike", path, (uint32_t)w, (uint32_t)h, (uint32_t)c, d->width, d->height, d->channels);
}

static bb_status read_picture(bb_data *d, const table *t, uint32_t i, const char *path, bb_error *err)
{
    bb_file f;
    int w, h, c;
    bb_status status = bb_file_open(&f, path, err);
    if (status == BB_OK) status = check_picture(d, path, &f, i == 0, err);
    size_t each = (size_t)d->width * d->height * d->channels;
    if (status == BB_OK && i == 0) {
        d->pixels = each <= SIZE_MAX / 2 / t->n ? malloc(each * t->n) : NULL;
        if (!d->pixels) status = bb_fail(err, BB_ERR_SPACE, "%s: out of memory for %u pictures of %z bytes", t->path,
                                         t->n, each);
    }
    if (status == BB_OK) {
        stbi_uc *p = stbi_load_from_memory(f.data, (int)f.size, &w, &h, &c, 0);
        if (p) memcpy(d->pixels + i * each, p, each);
        else status = bb_fail(err, BB_ERR_CORRUPT, "%s: a damaged PNG file, or out of memory", path);
        stbi_image_free(p);
    }
    bb_file_close(&f);
    if (status == BB_OK || !err) return status;
    bb_error inner = *err;
    return bb_fail(err, status, "%s: line %u: %s", t->path, t->rows[i].line, inner.text);
}

static bb_status read_pictures(bb_data *d, const table *t, bb_error *err)
{
    char folder[PATH], path[PATH];
    bb_format(folder, sizeof folder, "%s", t->path);
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const char *name = t->rows[i].file;
        bool whole = name[0] == '/' || !slash;
        bool fits = whole ? bb_format(path, sizeof path, "%s", name) == strlen(name)
            : bb_path_join(path, sizeof path, folder, name);
        if (!fits) return bb_fail(err, BB_ERR_ARGUMENT, "%s: line %u: the path is too long", t->path, t->rows[i].line);
        BB_TRY(read_picture(d, t, i, path, err));
    }
    return BB_OK;
}

bb_status bb_csv_open(bb_data *d, const char *path, const bb_data *like, bb_error *err)
{
    table t = {.path = path};
    bb_status status = read_table(&t, err);
    if (status == BB_OK) {
        d->count = t.n;
        d->label = malloc(t.n * sizeof *d->label);
        if (!d->label) status = bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    }
    if (status == BB_OK) status = read_labels(d, &t, like, err);
    if (status == BB_OK) status = read_pictures(d, &t, err);
    free(t.rows);
    free(t.text);
    return status;
}
