#include "base/arena.h"

bb_arena bb_arena_init(void *mem, size_t size)
{
    bb_arena a = {.base = mem, .size = size};
    if (mem) {
        size_t skip = (size_t)(-(uintptr_t)mem & (BB_ALIGNMENT - 1));
        if (skip > size) skip = size;
        a.base += skip;
        a.size -= skip;
    }
    return a;
}

void *bb_arena_take(bb_arena *a, size_t count, size_t each)
{
    if (a->overflow || (each && count > (SIZE_MAX - BB_ALIGNMENT) / each)) {
        a->overflow = true;
        return NULL;
    }
    size_t bytes = bb_align_up(count * each, BB_ALIGNMENT);
    if (bytes > SIZE_MAX - a->used || (a->base && bytes > a->size - a->used)) {
        a->overflow = true;
        return NULL;
    }
    void *p = a->base ? a->base + a->used : NULL;
    a->used += bytes;
    if (p) memset(p, 0, bytes);
    return p;
}

size_t bb_arena_need(const bb_arena *a)
{
    return a->overflow || a->used > SIZE_MAX - BB_ALIGNMENT ? SIZE_MAX : a->used + BB_ALIGNMENT;
}
