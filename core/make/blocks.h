/* The caller's memory as a stack of blocks, so that everything can be given back at any moment, in order. */
#ifndef BB_MAKE_BLOCKS_H
#define BB_MAKE_BLOCKS_H

#include "base/compiler.h"
#include "bitbrush_make.h"

typedef struct bb_block bb_block;
typedef struct bb_blocks {
    bb_make_memory memory;
    bb_block *last;
} bb_blocks;

/* count·each bytes (0 is fine), zeroed, aligned to BB_ALIGNMENT; NULL if there is no memory. */
void *bb_blocks_take(bb_blocks *b, size_t count, size_t each);
/* Gives back all blocks taken since `last` was b->last; NULL: all. */
void bb_blocks_give(bb_blocks *b, bb_block *last);

#endif
