/* Parallel-for. The implementation is chosen by the build: par_pthread.c natively, par_wasm.c in the WebAssembly modules
 * whose memory threads can share, par_serial.c in the others.
 * Work items must not depend on each other, so results are the same for every thread count. */
#ifndef BB_BASE_PAR_H
#define BB_BASE_PAR_H

#include "base/compiler.h"
#include "bitbrush.h"

#define BB_PAR_MAX 64 /* threads */

/* item in 0..count-1; thread in 0..bb_par_threads-1, for per-thread scratch. */
typedef void bb_par_fn(void *ctx, size_t item, size_t thread);

/* Starts threads-1 workers (the caller is the last one). NULL when threads < 2 or none could be started:
 * a NULL pool is valid everywhere and runs on the caller. par_serial.c returns NULL; in par_wasm.c there is one pool
 * only, and the host starts the threads, at any time. */
bb_par *bb_par_start(uint32_t threads);
void bb_par_stop(bb_par *par);
uint32_t bb_par_threads(const bb_par *par);

/* Returns when all items are done. One caller at a time per pool. */
void bb_par_for(bb_par *par, size_t count, bb_par_fn *fn, void *ctx);

/* par_wasm.c only, for the host's threads. bb_par_work makes the calling one number `thread`, 1..threads-1, and returns
 * after bb_par_stop, which is for good there; if it trapped, bb_par_broke makes the round that it was in trap in the
 * caller of bb_par_for, too. */
void bb_par_work(uint32_t thread);
void bb_par_broke(void);

#endif
