/* A dot way's inner loop alone, on rows, panel and sums that stay in the nearest cache: what is left for a whole layer
 * to reach. */
#ifndef BB_TOOLS_BENCH_RESIDENT_H
#define BB_TOOLS_BENCH_RESIDENT_H

#include "base/status.h"
#include "kernels/kernels.h"

typedef struct bb_resident {
    const bb_dot *way;
    bb_dot_shape shape; /* with as many of the channels as fit */
    bb_dot_args args;
    double macs;        /* of one run: outputs × pixels × k, whatever the planes */
    void *memory;
} bb_resident;

/* Makes it at an address that it keeps. shape: of a layer's tile that the way fits. */
bb_status bb_resident_make(bb_resident *r, const bb_kernels *kernels, const bb_dot *way, const bb_dot_shape *shape,
                           bb_error *err);
void bb_resident_free(bb_resident *r);
void bb_resident_run(void *ctx, uint32_t times); /* for bb_timed */

#endif
