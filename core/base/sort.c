#include "base/sort.h"

/* Lets element `at` of a heap of n sink to its place; the one that belongs at the end is on top. */
static void sink(const bb_sort *s, size_t at, size_t n)
{
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && s->before(s->user, child, child + 1)) child++;
        if (!s->before(s->user, at, child)) return;
        s->swap(s->user, at, child);
    }
}

void bb_heapsort(const bb_sort *s, size_t n)
{
    for (size_t i = n / 2; i-- > 0;) sink(s, i, n);
    for (size_t i = n; i-- > 1;) {
        s->swap(s->user, 0, i);
        sink(s, 0, i);
    }
}
