/* Statuses and the one control-flow macro. The public enum and bb_error live in bitbrush.h. */
#ifndef BB_BASE_STATUS_H
#define BB_BASE_STATUS_H

#include "base/compiler.h"
#include "bitbrush.h"

/* Passes a failure on; DONE and AGAIN count as success. */
#define BB_TRY(expr)                             \
    do {                                         \
        bb_status bb_try_status = (expr);        \
        if (bb_try_status < 0) return bb_try_status; \
    } while (0)

/* Fills err (may be NULL) and returns code. fmt knows %s (const char *, NULL shows as "?"), %u (uint32_t),
 * %d (int32_t), %z (size_t), %l (uint64_t) and %%; text that does not fit is cut. Never allocates. */
bb_status bb_fail(bb_error *err, bb_status code, const char *fmt, ...);

/* The same formatter for any buffer: writes at most size-1 characters and a NUL. Returns the length. */
size_t bb_format(char *out, size_t size, const char *fmt, ...);

#endif
