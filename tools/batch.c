#include "batch.h"

#include "io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct entry {
    struct entry *before, *after;
    const char *path;  /* behind the struct */
    char *temporary;   /* behind it; NULL: a folder that was made */
    bool new, placed;  /* the commit: nothing was there before; it has its name */
} entry;

/* An entry is in the list before what it names exists, so that a signal handler finds all there is to remove. */
static entry *first;
static entry *_Atomic last;

static bb_status add(const char *path, bool folder, entry **out, bb_error *err)
{
    char name[4096 + 32] = "";
    if (!folder && !bb_path_temporary(name, sizeof name, path))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", path);
    size_t n = strlen(path) + 1, m = strlen(name) + 1;
    entry *e = malloc(sizeof *e + n + m);
    if (!e) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    char *text = (char *)(e + 1);
    *e = (entry){.before = last, .path = memcpy(text, path, n)};
    if (!folder) e->temporary = memcpy(text + n, name, m);
    if (last) last->after = e;
    else first = e;
    last = e;
    *out = e;
    return BB_OK;
}

bb_status bb_batch_folder(const char *path, bb_error *err)
{
    entry *e;
    if (bb_path_is_dir(path)) return BB_OK;
    BB_TRY(add(path, true, &e, err));
    if (mkdir(path, 0777)) return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot make this folder: %s", path, strerror(errno));
    return BB_OK;
}

/* What cannot be read is not the same: writing it then says what is wrong. */
static bool holds(const char *path, const void *data, size_t n)
{
    bb_file f;
    if (bb_file_open(&f, path, NULL) < 0) return false;
    bool same = f.size == n && (n == 0 || memcmp(f.data, data, n) == 0);
    bb_file_close(&f);
    return same;
}

bb_status bb_batch_file(const char *path, const void *data, size_t n, bool *kept, bb_error *err)
{
    entry *e;
    *kept = holds(path, data, n);
    if (*kept) return BB_OK;
    if (bb_path_is_dir(path)) return bb_fail(err, BB_ERR_ARGUMENT, "%s: is a folder where a file belongs", path);
    BB_TRY(add(path, false, &e, err));
    if (!bb_file_create(e->temporary, data, n, false))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot write: %s", path, strerror(errno));
    return BB_OK;
}

static bb_status place(entry *e, bb_error *err)
{
    if (!e->temporary) return BB_OK;
    e->new = !bb_path_exists(e->path);
    if (rename(e->temporary, e->path) == 0) {
        e->placed = true;
        return BB_OK;
    }
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot replace: %s", e->path, strerror(errno));
}

bb_status bb_batch_commit(bb_error *err)
{
    bb_status status = BB_OK;
    entry *file = first; /* the first one that is no folder */
    while (file && !file->temporary) file = file->after;
    for (entry *e = file ? file->after : NULL; status == BB_OK && e; e = e->after) status = place(e, err);
    if (status == BB_OK && file) status = place(file, err);
    for (const entry *e = last; status < 0 && e; e = e->before)
        if (e->placed && e->new) unlink(e->path);
    bb_batch_drop(); /* of what is in its place nothing is left to remove */
    return status;
}

void bb_batch_cleanup(void)
{
    for (const entry *e = last; e; e = e->before)
        if (e->temporary) unlink(e->temporary);
        else rmdir(e->path); /* does nothing to a folder that holds something */
}

void bb_batch_drop(void)
{
    bb_batch_cleanup();
    entry *e = first;
    last = first = NULL;
    while (e) {
        entry *next = e->after;
        free(e);
        e = next;
    }
}
