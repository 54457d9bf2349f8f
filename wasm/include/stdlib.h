/* What the header-only packages use of <stdlib.h>, for the module, which has no libc. */
#ifndef BB_WASM_STDLIB_H
#define BB_WASM_STDLIB_H

#include <stddef.h>

static inline __attribute__((unused)) int abs(int x) { return x < 0 ? -x : x; }

#endif
