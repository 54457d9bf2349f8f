/* Bump arena over the caller's memory, with a measure mode: init code runs once with base NULL to learn
 * its size and once for real, so the two cannot disagree. Blocks are 64-byte aligned and zeroed. */
#ifndef BB_BASE_ARENA_H
#define BB_BASE_ARENA_H

#include "base/compiler.h"

typedef struct bb_arena {
    uint8_t *base;   /* NULL: measuring */
    size_t size;     /* bytes at base */
    size_t used;     /* bytes handed out so far, multiple of BB_ALIGNMENT */
    bool overflow;   /* a request did not fit, or overflowed size_t */
} bb_arena;

/* mem need not be aligned; up to 63 bytes are lost at its start (sizes from measuring include them). */
bb_arena bb_arena_init(void *mem, size_t size);

/* count*each bytes, zeroed; NULL when measuring or when it does not fit (then overflow is set). */
void *bb_arena_take(bb_arena *a, size_t count, size_t each);

/* Bytes a caller has to provide so that everything taken so far fits. */
size_t bb_arena_need(const bb_arena *a);

#endif
