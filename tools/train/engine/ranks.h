/* Data parallel over processes: MPI where the build found it, else one process. Draws of random numbers are numbered by
 * the item of the whole batch, so that N ranks with B items each equal one process with N·B items, to rounding.
 *
 * All functions but begin, abort and here are called by all ranks at the same place of the program, with the same sizes;
 * with one rank they do nothing (gather copies). Only rank 0 prints and writes files. A rank that fails says why and
 * calls bb_ranks_abort; one that dies takes the others with it, too.
 *
 * On Ctrl-C mpirun sends SIGTERM to all ranks, and SIGKILL a second later (more with OMPI_MCA_odls_base_sigkill_timeout
 * in its environment): loops hold signals (cli.h) and ask bb_ranks_any(bb_cli_interrupted()), so that all end at the
 * same update. */
#ifndef BB_TRAIN_ENGINE_RANKS_H
#define BB_TRAIN_ENGINE_RANKS_H

#include "base/status.h"

typedef struct bb_ranks { uint32_t rank, count; } bb_ranks; /* {0, 1} when not started by mpirun */

/* Once in a process. BB_ERR_ARGUMENT: mpirun started several, but this build has no MPI or another one. */
bb_status bb_ranks_begin(bb_ranks *r, bb_error *err);
void bb_ranks_end(void);          /* waits for all ranks: on success only */
/* Removes half-written files and ends all ranks with this exit code. With one rank it returns, and the command ends as
 * usual. */
void bb_ranks_abort(int code);
uint32_t bb_ranks_here(void);     /* ranks on this machine, which share its cores; 1 before begin */

/* In place: x[i] of rank 0 + x[i] of rank 1 + …, rounded after each; the same bits on all ranks and in every run. */
void bb_ranks_sum(const bb_ranks *r, float *x, size_t n);
void bb_ranks_sum_f64(const bb_ranks *r, double *x, size_t n);
void bb_ranks_copy(const bb_ranks *r, void *x, size_t bytes);      /* from rank 0 to all */
void bb_ranks_gather(const bb_ranks *r, const void *mine, size_t bytes, void *all); /* [count][bytes] on rank 0 */
bool bb_ranks_any(const bb_ranks *r, bool flag);                   /* also where to stop together */

#endif
