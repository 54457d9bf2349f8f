/* Data parallel over processes: MPI where the build found it, else one process. Draws of random numbers are numbered by
 * the item of the whole batch, so that N ranks with B items each equal one process with N·B items, to rounding. */
#ifndef BB_TRAIN_ENGINE_RANKS_H
#define BB_TRAIN_ENGINE_RANKS_H

#include "base/status.h"

typedef struct bb_ranks { uint32_t rank, count; } bb_ranks; /* {0, 1} without MPI, or when not started by mpirun */

bb_status bb_ranks_begin(bb_ranks *r, bb_error *err); /* once in a process */
void bb_ranks_end(void);
void bb_ranks_abort(int code);                          /* ends all ranks */
void bb_ranks_sum(const bb_ranks *r, float *x, size_t n);          /* in place, the same bits on all ranks */
void bb_ranks_sum_f64(const bb_ranks *r, double *x, size_t n);
void bb_ranks_copy(const bb_ranks *r, void *x, size_t bytes);      /* from rank 0 to all */
void bb_ranks_gather(const bb_ranks *r, const void *mine, size_t bytes, void *all); /* [count][bytes] on rank 0 */
bool bb_ranks_any(const bb_ranks *r, bool flag);                   /* also where to stop together */

#endif
