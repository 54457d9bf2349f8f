#include "make/blocks.h"

struct bb_block {
    bb_block *before;
    size_t bytes; /* with this head */
};

void *bb_blocks_take(bb_blocks *b, size_t count, size_t each)
{
    if (each && count > (SIZE_MAX / 2 - 2 * BB_ALIGNMENT) / each) return NULL;
    size_t bytes = sizeof(bb_block) + BB_ALIGNMENT + count * each;
    bb_block *block = b->memory.take(b->memory.user, bytes);
    if (!block) return NULL;
    *block = (bb_block){b->last, bytes};
    b->last = block;
    uint8_t *data = (uint8_t *)(block + 1);
    data += -(uintptr_t)data & (BB_ALIGNMENT - 1);
    memset(data, 0, count * each);
    return data;
}

void bb_blocks_give(bb_blocks *b, bb_block *last)
{
    while (b->last && b->last != last) {
        bb_block *block = b->last;
        b->last = block->before;
        b->memory.give(b->memory.user, block, block->bytes);
    }
}
