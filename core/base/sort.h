/* Heapsort by callbacks: in place, and no order of a hostile file makes it slow. Equal elements may change places. */
#ifndef BB_BASE_SORT_H
#define BB_BASE_SORT_H

#include "base/compiler.h"

typedef struct bb_sort {
    void *user;
    bool (*before)(const void *user, size_t a, size_t b); /* element a stands before element b */
    void (*swap)(void *user, size_t a, size_t b);
} bb_sort;

void bb_heapsort(const bb_sort *s, size_t n);

#endif
