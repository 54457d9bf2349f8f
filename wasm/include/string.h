/* What the header-only packages use of <string.h>; wasm/libc.c has the bodies. */
#ifndef BB_WASM_STRING_H
#define BB_WASM_STRING_H

#include <stddef.h>

void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
