/* tools/io.h over memory, in place of tools/io.c: the files of the case that runs. Contents are exact copies, so that
 * AddressSanitizer sees a read past their end, which a mapped page would hide. */
#include "fuzz.h"
#include "io.h"

static struct { char path[64]; const void *data; size_t n; } files[FUZZ_FILES];
static size_t n_files;

void fuzz_file(const char *path, const void *data, size_t n)
{
    FUZZ_CHECK(n_files < FUZZ_FILES && strlen(path) < sizeof files[0].path);
    strcpy(files[n_files].path, path);
    files[n_files].data = data;
    files[n_files++].n = n;
}

void fuzz_files_forget(void) { n_files = 0; }

bb_status bb_file_open(bb_file *f, const char *path, bb_error *err)
{
    *f = (bb_file){0};
    for (size_t i = 0; i < n_files; i++) {
        if (strcmp(files[i].path, path) != 0) continue;
        if (!files[i].n) return BB_OK;
        f->map = fuzz_copy(files[i].data, files[i].n);
        f->data = f->map;
        f->size = files[i].n;
        return BB_OK;
    }
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot open", path);
}

void bb_file_close(bb_file *f)
{
    free(f->map);
    *f = (bb_file){0};
}

bool bb_path_exists(const char *path)
{
    for (size_t i = 0; i < n_files; i++)
        if (!strcmp(files[i].path, path)) return true;
    return bb_path_is_dir(path);
}

bool bb_path_is_dir(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < n_files; i++)
        if (!strncmp(files[i].path, path, n) && files[i].path[n] == '/') return true;
    return false;
}

bool bb_path_join(char *out, size_t size, const char *dir, const char *name)
{
    return bb_format(out, size, "%s/%s", dir, name) == strlen(dir) + 1 + strlen(name);
}

bb_status bb_file_write(const char *path, const void *data, size_t n, bb_error *err)
{
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot write %z bytes", path, n);
}

bb_status bb_file_check_writable(const char *path, bb_error *err) { return bb_file_write(path, NULL, 0, err); }
void bb_io_cleanup(void) {}
