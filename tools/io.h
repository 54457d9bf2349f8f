/* Files for the tools: reading whole files, and writing so that nothing half-written is ever seen. */
#ifndef BB_TOOLS_IO_H
#define BB_TOOLS_IO_H

#include "base/status.h"

typedef struct bb_file {
    const uint8_t *data; /* 64-byte aligned, read-only */
    size_t size;
    void *map;           /* private */
} bb_file;

/* Maps a regular file. Errors (BB_ERR_ARGUMENT) name the path and the system's reason. */
bb_status bb_file_open(bb_file *f, const char *path, bb_error *err);
void bb_file_close(bb_file *f);
bool bb_path_exists(const char *path);
bool bb_path_is_dir(const char *path);
bool bb_path_is_special(const char *path); /* a pipe, a device */

/* dir + "/" + name into out; false if it does not fit. */
bool bb_path_join(char *out, size_t size, const char *dir, const char *name);

/* The name under which path is written before it takes its place: path.tmp.PID. False if it does not fit. */
bool bb_path_temporary(char *out, size_t size, const char *path);
/* Writes a new file, and waits until the disk has it if `sync`; an older one of that name is removed first. False: errno
 * says why, and part of it may be there. */
bool bb_file_create(const char *path, const void *data, size_t n, bool sync);

/* Writes path.tmp.PID, flushes, renames over path; removes the temporary on failure, and on SIGINT/SIGTERM
 * (io.c keeps its name in a static for the handler that cli.c installs: bb_io_cleanup is async-signal-safe). */
bb_status bb_file_write(const char *path, const void *data, size_t n, bb_error *err);
/* Whether bb_file_write can be expected to work: to be asked before long work, not after it. */
bb_status bb_file_check_writable(const char *path, bb_error *err);
void bb_io_cleanup(void); /* a batch (batch.h) too */

#endif
