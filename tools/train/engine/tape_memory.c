/* Where buffers lie: largest first, each at the lowest place that is free for its whole life. */
#include "train/engine/tape_plan.h"

static bool meet(const bb_tape_buffer *a, const bb_tape_buffer *b) { return a->from <= b->to && b->from <= a->to; }

/* A heap would be shorter to run, an insertion is shorter to read: there are some thousand buffers. */
static void sort_by_size(const bb_tape_plan *p, uint32_t *order)
{
    for (uint32_t i = 0; i < p->n_buffers; i++) {
        uint32_t k = i;
        for (; k && p->buffers[order[k - 1]].bytes < p->buffers[i].bytes; k--) order[k] = order[k - 1];
        order[k] = i;
    }
}

/* order[0..n−1] are placed, by rising offset; b joins them. */
static void place(bb_tape_plan *p, uint32_t *order, uint32_t n, uint32_t b)
{
    bb_tape_buffer *buffer = &p->buffers[b];
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        const bb_tape_buffer *other = &p->buffers[order[i]];
        if (!meet(buffer, other)) continue;
        if (other->offset >= at + buffer->bytes) break;
        if (other->offset + other->bytes > at) at = other->offset + other->bytes;
    }
    buffer->offset = at;
    if (at + buffer->bytes > p->bytes) p->bytes = at + buffer->bytes;
    uint32_t k = n;
    for (; k && p->buffers[order[k - 1]].offset > at; k--) order[k] = order[k - 1];
    order[k] = b;
}

void bb_tape_plan_place(bb_tape_plan *p, uint32_t *order)
{
    sort_by_size(p, order);
    for (uint32_t i = 0; i < p->n_buffers; i++) place(p, order, i, order[i]);
}
