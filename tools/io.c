/* Whole files in and out. Reading maps; writing goes through a temporary that is renamed at the end. */
#include "io.h"

#include "batch.h"
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The temporary being written. The flag is set only while the name is complete, so that a signal handler may
 * remove it at any time. */
static char temporary[4096 + 32];
static _Atomic int temporary_live;

bb_status bb_file_open(bb_file *f, const char *path, bb_error *err)
{
    *f = (bb_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    bb_status status = BB_OK;
    if (fstat(fd, &st)) {
        status = bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot read: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        status = bb_fail(err, BB_ERR_ARGUMENT, "%s: not a regular file", path);
    } else if (st.st_size < 0 || (uint64_t)st.st_size > SIZE_MAX / 2) {
        status = bb_fail(err, BB_ERR_SPACE, "%s: too large for this build's address space", path);
    } else if (st.st_size) { /* an empty file cannot be mapped and needs no map */
        void *map = bb_map_file(fd, (size_t)st.st_size);
        if (!map) {
            status = bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot read: %s", path, strerror(errno));
        } else {
            *f = (bb_file){.data = map, .size = (size_t)st.st_size, .map = map};
        }
    }
    close(fd);
    return status;
}

void bb_file_close(bb_file *f)
{
    if (f->map) bb_unmap_file(f->map, f->size);
    *f = (bb_file){0};
}

bool bb_path_exists(const char *path)
{
    struct stat st;
    /* What cannot be looked at is there: opening it then says why it cannot be read. */
    return stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

bool bb_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool bb_path_is_special(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

bool bb_path_join(char *out, size_t size, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    const char *slash = n && dir[n - 1] == '/' ? "" : "/";
    int length = snprintf(out, size, "%s%s%s", dir, slash, name);
    return length >= 0 && (size_t)length < size;
}

static bool write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n < (1u << 30) ? n : (1u << 30));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

bool bb_path_temporary(char *out, size_t size, const char *path)
{
    int length = snprintf(out, size, "%s.tmp.%llu", path, (unsigned long long)bb_run_id());
    return length >= 0 && (size_t)length < size;
}

bool bb_file_create(const char *path, const void *data, size_t n, bool sync)
{
    /* A new file of our own: what lies there under this name, a killed run's rest or another's link, is not written
     * to. */
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    int fd = open(path, flags, 0666);
    if (fd < 0 && errno == EEXIST && unlink(path) == 0) fd = open(path, flags, 0666);
    if (fd < 0) return false;
    bool ok = write_all(fd, data, n) && (!sync || fsync(fd) == 0);
    int reason = errno;
    if (close(fd) && ok) ok = false, reason = errno;
    errno = reason;
    return ok;
}

/* keep: rename the temporary over path; otherwise remove it again. */
static bb_status write_regular(const char *path, const void *data, size_t n, bool keep, bb_error *err)
{
    if (!bb_path_temporary(temporary, sizeof temporary, path))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", path);
    if (bb_path_is_dir(path)) return bb_fail(err, BB_ERR_ARGUMENT, "%s: is a folder; name a file", path);
    temporary_live = 1; /* before it exists: a signal in between must not leave an empty file */
    bool ok = bb_file_create(temporary, data, n, true) && (!keep || rename(temporary, path) == 0);
    int reason = errno;
    if (!ok || !keep) unlink(temporary);
    temporary_live = 0;
    return ok ? BB_OK : bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot write: %s", path, strerror(reason));
}

/* A pipe, a device: nothing to replace, so the bytes go straight there. */
static bb_status write_special(const char *path, const void *data, size_t n, bb_error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot write: %s", path, strerror(errno));
    bool ok = write_all(fd, data, n);
    int reason = errno;
    if (close(fd) && ok) ok = false, reason = errno;
    return ok ? BB_OK : bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot write: %s", path, strerror(reason));
}

bb_status bb_file_check_writable(const char *path, bb_error *err)
{
    return bb_path_is_special(path) ? BB_OK : write_regular(path, NULL, 0, false, err);
}

bb_status bb_file_write(const char *path, const void *data, size_t n, bb_error *err)
{
    return bb_path_is_special(path) ? write_special(path, data, n, err) : write_regular(path, data, n, true, err);
}

void bb_io_cleanup(void)
{
    if (temporary_live) unlink(temporary);
    bb_batch_cleanup();
}
