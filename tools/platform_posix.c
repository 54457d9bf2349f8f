#define _XOPEN_SOURCE 700 /* realpath */

#include "platform.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
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

char *bb_full_path(const char *path) { return realpath(path, NULL); }

void bb_catch_signals(void (*handler)(int number))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}
