/* WASI preview 1: no memory maps, processes, threads, signals or current folder. */
#define _GNU_SOURCE /* getentropy */

#include "platform.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ALIGNMENT 64

void *bb_map_file(int fd, size_t n)
{
    if (n > SIZE_MAX - ALIGNMENT) {
        errno = ENOMEM;
        return NULL;
    }
    uint8_t *bytes = aligned_alloc(ALIGNMENT, (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    for (size_t done = 0; bytes && done < n;) {
        ssize_t got = read(fd, bytes + done, n - done);
        if (got > 0) {
            done += (size_t)got;
            continue;
        }
        if (got < 0 && errno == EINTR) continue;
        if (!got) errno = EIO; /* the file has become shorter */
        free(bytes);
        return NULL;
    }
    return bytes;
}

void bb_unmap_file(void *map, size_t n)
{
    (void)n;
    free(map);
}

uint64_t bb_run_id(void)
{
    uint64_t id = 0;
    return getentropy(&id, sizeof id) ? 0 : id;
}

uint32_t bb_core_count(void) { return 1; }

void *bb_large_memory(size_t n) { return aligned_alloc(ALIGNMENT, (n / ALIGNMENT + 1) * ALIGNMENT); }

double bb_thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void bb_cpu_name(char *out, size_t size) { snprintf(out, size, "unknown CPU"); }

char *bb_full_path(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    char *copy = malloc(n + 1);
    if (copy) memcpy(copy, path, n), copy[n] = 0;
    return copy;
}

bool bb_program_folder(char *out, size_t size) { return false; }

/* Whoever runs the module ends it, and gives it no last word. */
void bb_catch_signals(void (*handler)(int number)) { (void)handler; }
