/* What the tools ask of the operating system beyond C and plain file calls. platform_posix.c and platform_wasi.c have
 * it; the build takes one of them. */
#ifndef BB_TOOLS_PLATFORM_H
#define BB_TOOLS_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The n > 0 bytes of an open file, read-only, at least 64-byte aligned; NULL and errno if that fails. */
void *bb_map_file(int fd, size_t n);
void bb_unmap_file(void *map, size_t n);

/* Tells temporary files of this run from those of others at the same time. */
uint64_t bb_run_id(void);

uint32_t bb_core_count(void);

/* Memory of n bytes, aligned to 64, that is read and written from end to end over and over: in large pages where the
 * system has them. To be freed by free; NULL: out of memory. */
void *bb_large_memory(size_t n);

/* Seconds that this thread has had a core; where the system does not tell, of a clock. */
double bb_thread_seconds(void);

/* What the CPU calls itself, "unknown CPU" where the system does not tell. */
void bb_cpu_name(char *out, size_t size);

/* Without links and dots where the system can tell, and without slashes at the end; on the heap, NULL if there is no
 * such path or no memory. */
char *bb_full_path(const char *path);

/* The folder of the running program; false where the system does not tell. */
bool bb_program_folder(char *out, size_t size);

/* Calls handler, which must be async-signal-safe, when the user or the system asks the program to end. */
void bb_catch_signals(void (*handler)(int number));

#endif
