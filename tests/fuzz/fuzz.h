/* What the fuzz targets share. A target is one function that feeds untrusted bytes to one reader and uses whatever the
 * reader accepts. It aborts on a broken promise of the reader; memory faults are the sanitizers' to find. Its verdict
 * is the reader's status: the same in every build, which wasm.test.mjs compares. A target is linked with libFuzzer
 * (libfuzzer.c) or with a program that replays files (replay.c). */
#ifndef BB_TESTS_FUZZ_H
#define BB_TESTS_FUZZ_H

#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_TARGET(name) int32_t fuzz_##name(const uint8_t *data, size_t n)
/* X(name) of every target. */
#define FUZZ_TARGETS(X)                                                                                       \
    X(json) X(safetensors) X(pickle) X(torch) X(pack) X(graph) X(png) X(scheduler) X(labels) X(unet2d) X(checkpoint) \
    X(lora) X(idx) X(pictures) X(make) X(cli)
#define FUZZ_DECLARE(name) FUZZ_TARGET(name);
FUZZ_TARGETS(FUZZ_DECLARE)

/* A promise of the code under test that must hold in every build. */
#define FUZZ_CHECK(x)                                                              \
    do {                                                                           \
        if (!(x)) {                                                                \
            fprintf(stderr, "FUZZ %s:%d: %s\n", __FILE__, __LINE__, #x);           \
            abort();                                                               \
        }                                                                          \
    } while (0)

/* Exactly n bytes at a multiple of 64, so that AddressSanitizer sees the first byte too many. Never NULL. */
static inline void *fuzz_block(size_t n)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, n ? n : 1)) abort();
    return p;
}

static inline void *fuzz_copy(const void *from, size_t n)
{
    void *p = fuzz_block(n);
    if (n) memcpy(p, from, n);
    return p;
}

/* A failure carries its own status and one line of text. */
static inline void fuzz_check_error(bb_status status, const bb_error *err)
{
    if (status >= 0) return;
    FUZZ_CHECK(err->code == status && err->text[0] && memchr(err->text, 0, sizeof err->text));
}

/* ---- files.c: io.h over memory; there is no file system under a fuzz target ---- */

/* From now on `path` is a file of n bytes (borrowed); its folders exist too. At most FUZZ_FILES. */
#define FUZZ_FILES 8
void fuzz_file(const char *path, const void *data, size_t n);
void fuzz_files_forget(void);

/* ---- tinymodel.c ---- */

struct bb_model *fuzz_model(void);

/* Memory for core/make (bb_make_memory): checks the order of giving back; request number fail_at is refused. */
#define FUZZ_STACK 4096
typedef struct fuzz_stack {
    struct { void *at; size_t bytes; } blocks[FUZZ_STACK];
    size_t n;
    uint32_t taken, fail_at;
} fuzz_stack;
void *fuzz_stack_take(void *user, size_t bytes);
void fuzz_stack_give(void *user, void *block, size_t bytes);

/* ---- mutate.c ---- */

/* libFuzzer's own mutation, or nothing in a build without it. */
size_t fuzz_mutate(uint8_t *data, size_t n, size_t max);

typedef struct fuzz_random { uint64_t state; } fuzz_random;
uint32_t fuzz_next(fuzz_random *r, uint32_t below); /* 0..below-1 */
/* A word like `old`, or one at which arithmetic goes wrong. */
uint32_t fuzz_word(fuzz_random *r, uint32_t old);

/* Mutates the JSON header of a safetensors file in place, with the length kept right and padded to 64. */
size_t fuzz_mutate_header(uint8_t *data, size_t n, size_t max, fuzz_random *r);
/* Sections: u32 length and bytes each, any number. The one numbered k; false if there are not so many. */
bool fuzz_section(const uint8_t *data, size_t n, uint32_t k, const uint8_t **at, size_t *bytes);
/* Mutates one of the first `sections` sections; of number `headed`, mostly the safetensors header. */
size_t fuzz_mutate_sections(uint8_t *data, size_t n, size_t max, unsigned seed, uint32_t sections, uint32_t headed);

#define FUZZ_MUTATOR(name) size_t mutate_##name(uint8_t *data, size_t n, size_t max, unsigned seed)
FUZZ_MUTATOR(pack);
FUZZ_MUTATOR(graph);
FUZZ_MUTATOR(safetensors);
FUZZ_MUTATOR(torch);
FUZZ_MUTATOR(checkpoint);
FUZZ_MUTATOR(lora);
FUZZ_MUTATOR(idx);
FUZZ_MUTATOR(pictures);

#endif
