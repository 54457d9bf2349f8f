/* What each op of kernels/ops.inc is measured on: shapes that a denoiser has. The list makes the table: an op without
 * its function in ops.c does not compile. */
#ifndef BB_TOOLS_BENCH_OPS_H
#define BB_TOOLS_BENCH_OPS_H

#include "bench/timer.h"
#include "kernels/kernels.h"

typedef struct bb_bench_data bb_bench_data; /* the arrays that they work on, and the kernels */

typedef struct bb_bench_op {
    const char *name;
    double work; /* of one time */
    void (*run)(bb_bench_data *d);
} bb_bench_op;

extern const bb_bench_op bb_bench_ops[]; /* all of the list, and some in a further use */
extern const size_t bb_bench_n_ops;
const char *bb_bench_op_unit(const bb_bench_op *op); /* "GMAC/s" or "G values/s": of work / seconds / 10^9 */

typedef struct bb_bench_op_run { const bb_bench_op *op; bb_bench_data *data; } bb_bench_op_run;
void bb_bench_op_times(void *ctx, uint32_t times); /* for bb_timed; ctx is a bb_bench_op_run */

bb_status bb_bench_data_make(bb_bench_data **out, const bb_kernels *kernels, bb_error *err); /* free() it */

#endif
