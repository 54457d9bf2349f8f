/* What the tests of import share: a folder with a copy of a small checkpoint, remade for each case, ways to break it, and
 * what is expected of an import. */
#ifndef BB_TESTS_IMPORTCASE_H
#define BB_TESTS_IMPORTCASE_H

#define _XOPEN_SOURCE 700 /* mkdtemp, nftw */

#include "check.h"

#include "import/checkpoint.h"
#include "import/import.h"
#include "import/labels.h"
#include "import/safetensors.h"
#include "import/unet2d.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#define CASE BB_TESTS_DIR "/golden/unet2d-class"
#define WEIGHTS "diffusion_pytorch_model.safetensors"

static char folder[256]; /* "/tmp/…/model": a bare component, remade for each case */

/* ---- making broken things ---- */

static inline const char *in_folder(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static inline void put(const char *name, const void *data, size_t n)
{
    bb_error err = {.text = ""};
    CHECK(bb_file_write(in_folder(name), data, n, &err) == BB_OK, "%s", err.text);
}

static inline void put_text(const char *name, const char *text) { put(name, text, strlen(text)); }

/* A file of the case as a NUL-terminated copy. */
static inline char *get(const char *name, size_t *n)
{
    char path[512];
    bb_file f;
    snprintf(path, sizeof path, "%s/%s", CASE, name);
    CHECK(bb_file_open(&f, path, NULL) == BB_OK, "%s", path);
    char *copy = calloc(f.size + 1, 1);
    memcpy(copy, f.data, f.size);
    if (n) *n = f.size;
    bb_file_close(&f);
    return copy;
}

/* The first `old` in text becomes `new`; malloc'd. */
static inline char *replaced(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    CHECK(at, "the fixture has no %s", old);
    char *out = calloc(strlen(text) + strlen(new) + 1, 1);
    if (at) sprintf(out, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    return out;
}

static inline int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

static inline void clear_folder(void)
{
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    mkdir(folder, 0777);
}

/* A whole model: the case's config and a link to its weights. */
static inline void fresh_folder(void)
{
    clear_folder();
    char *config = get("config.json", NULL);
    put_text("config.json", config);
    free(config);
    CHECK(symlink(CASE "/" WEIGHTS, in_folder(WEIGHTS)) == 0, "symlink");
}

/* ---- expectations ---- */

static inline bb_status import(const char *path, uint32_t dtype, const char *labels, const char *null_label, bb_error *err)
{
    uint8_t *out = NULL;
    size_t size = 0;
    bb_import_options opt = {.path = path, .dtype = dtype, .labels = labels, .null_label = null_label};
    *err = (bb_error){.text = ""};
    bb_status st = bb_import(&opt, &out, &size, err);
    CHECK((st == BB_OK) == (out != NULL), "bytes without success, or the other way round");
    free(out);
    return st;
}

static inline void expect_error(const bb_error *err, bb_status st, bb_status status, const char *a, const char *b)
{
    CHECK(st == status, "status %d instead of %d: %s", st, status, err->text);
    CHECK(strstr(err->text, a) && strstr(err->text, b), "\"%s\" names not both %s and %s", err->text, a, b);
    CHECK(!strchr(err->text, '\n'), "more than one line: %s", err->text);
}

/* Importing the folder fails with status, in a line that has both a and b. */
static inline void expect(bb_status status, const char *a, const char *b)
{
    bb_error err;
    bb_status st = import(folder, BB_F32, NULL, NULL, &err);
    expect_error(&err, st, status, a, b);
}

static inline void expect_fine(const char *what)
{
    bb_error err;
    bb_status st = import(folder, BB_F32, NULL, NULL, &err);
    CHECK(st == BB_OK, "%s: %s", what, err.text);
}

/* Runs the tests with a folder to work in, which is removed afterwards; the program's exit code. */
static inline int run_in_folder(void (*const *tests)(void), size_t n)
{
    const char *tmp = getenv("TMPDIR");
    char root[200];
    snprintf(root, sizeof root, "%s/bitbrush-import-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(root)) return 1;
    snprintf(folder, sizeof folder, "%s/model", root);
    for (size_t i = 0; i < n; i++) tests[i]();
    nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return check_done();
}

#endif
