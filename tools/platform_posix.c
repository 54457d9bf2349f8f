#define _XOPEN_SOURCE 700 /* realpath */
#define _DEFAULT_SOURCE   /* madvise */

#include "platform.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void *bb_map_file(int fd, size_t n)
{
    void *map = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    return map == MAP_FAILED ? NULL : map;
}

void bb_unmap_file(void *map, size_t n) { munmap(map, n); }

uint64_t bb_run_id(void) { return (uint64_t)getpid(); }

uint32_t bb_core_count(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 1 ? (uint32_t)cores : 1;
}

void *bb_large_memory(size_t n)
{
    enum { LARGE = 1 << 21 };
    const size_t align = n < LARGE ? 64 : LARGE;
    void *memory = aligned_alloc(align, n ? (n + align - 1) / align * align : align);
#ifdef MADV_HUGEPAGE
    if (memory && align == LARGE) madvise(memory, n, MADV_HUGEPAGE); /* without it pages are small, and all works */
#endif
    return memory;
}

double bb_thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void bb_cpu_name(char *out, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, size, "unknown CPU");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
}

char *bb_full_path(const char *path) { return realpath(path, NULL); }

bool bb_program_folder(char *out, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", out, size);
    while (n > 0 && (size_t)n < size && out[n - 1] != '/') n--;
    if (n <= 0 || (size_t)n == size) return false;
    out[n > 1 ? n - 1 : n] = 0;
    return true;
}

void bb_catch_signals(void (*handler)(int number))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}
