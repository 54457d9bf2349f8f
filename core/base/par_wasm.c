/* The pool of a WebAssembly module with shared memory. The host starts the threads: each has an instance of its own on
 * that memory and a stack of its own, and enters bb_par_work for good. */
#include "base/compiler.h"

typedef struct par_host { uint32_t none; } par_host;

#include "base/par_pool.h"

static bb_par pool;

static void par_sleep(bb_par *p, _Atomic uint32_t *at, uint32_t is)
{
    __builtin_wasm_memory_atomic_wait32((int *)at, (int)is, -1);
}

static void par_wake(bb_par *p, _Atomic uint32_t *at, uint32_t threads)
{
    __builtin_wasm_memory_atomic_notify((int *)at, threads);
}

void bb_par_work(uint32_t thread) { par_work(&pool, thread); }

void bb_par_broke(void)
{
    atomic_store(&pool.stop, 1);
    par_leave(&pool);
}

bb_par *bb_par_start(uint32_t threads)
{
    if (threads < 2) return NULL;
    pool.threads = threads < BB_PAR_MAX ? threads : BB_PAR_MAX;
    return &pool;
}

void bb_par_stop(bb_par *par)
{
    if (!par) return;
    atomic_store(&par->stop, 1);
    par_open(par); /* a round without items, to wake who sleeps */
}
