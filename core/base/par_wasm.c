/* The pool of a WebAssembly module with shared memory. The host starts the threads: each has an instance of its own on
 * that memory and a stack of its own, and enters bb_par_work for good. Each thread has a range of the items, so that it
 * meets in its cache what it made in the round before; who is done with it goes on with the others' ranges.
 *
 * A round waits only for threads that have come to it: one that sleeps soundly, was started late or never delays
 * nobody. A thread counts itself in before it looks whether the round is open; the caller closes the round before it
 * looks who is in. All of that is sequentially consistent, so one of the two sees the other. */
#include "base/par.h"

#include <stdatomic.h>

#define LINE 64
#define SPINS 50000u /* looks at memory before sleeping, tens of µs: waking up takes as long, and ops follow quickly */

struct bb_par {
    uint32_t threads; /* including the caller */
    bb_par_fn *fn;    /* like ctx and the ranges' ends, written only between rounds */
    void *ctx;
    _Alignas(LINE) _Atomic uint32_t round; /* odd: open */
    _Alignas(LINE) _Atomic uint32_t inside; /* threads that may be at work, the caller not counted */
    _Atomic uint32_t broken;
    struct range { _Alignas(LINE) atomic_size_t next; size_t end; } ranges[BB_PAR_MAX];
};
static struct bb_par pool;

static void sleep_while(_Atomic uint32_t *at, uint32_t is)
{
    __builtin_wasm_memory_atomic_wait32((int *)at, (int)is, -1);
}

static void wake(_Atomic uint32_t *at, uint32_t threads) { __builtin_wasm_memory_atomic_notify((int *)at, threads); }

static void drain(size_t thread)
{
    for (size_t k = 0; k < pool.threads; k++) {
        struct range *r = &pool.ranges[(thread + k) % pool.threads];
        for (size_t i; (i = atomic_fetch_add(&r->next, 1)) < r->end;) pool.fn(pool.ctx, i, thread);
    }
}

/* Only the opening of a round wakes. */
static void wait_for_another_round(uint32_t seen)
{
    for (uint32_t spins = 0;; spins++) {
        uint32_t round = atomic_load(&pool.round);
        if (round % 2 && round != seen) return;
        if (spins >= SPINS) sleep_while(&pool.round, round);
    }
}

static void wait_until_alone(void)
{
    uint32_t inside;
    for (uint32_t spins = 0; (inside = atomic_load(&pool.inside)) != 0; spins++)
        if (spins >= SPINS) sleep_while(&pool.inside, inside);
}

static void leave(void)
{
    if (atomic_fetch_sub(&pool.inside, 1) == 1) wake(&pool.inside, 1);
}

void bb_par_work(uint32_t thread)
{
    for (uint32_t seen = 0;;) {
        wait_for_another_round(seen);
        atomic_fetch_add(&pool.inside, 1);
        seen = atomic_load(&pool.round);
        if (seen % 2 && thread < pool.threads) drain(thread);
        leave();
    }
}

void bb_par_broke(void)
{
    atomic_store(&pool.broken, 1);
    leave();
}

bb_par *bb_par_start(uint32_t threads)
{
    pool.threads = threads < BB_PAR_MAX ? threads : BB_PAR_MAX;
    return threads < 2 ? NULL : &pool;
}

void bb_par_stop(bb_par *par) { (void)par; }

uint32_t bb_par_threads(const bb_par *p) { return p ? p->threads : 1; }

void bb_par_for(bb_par *p, size_t count, bb_par_fn *fn, void *ctx)
{
    if (!p || count < 2) {
        for (size_t i = 0; i < count; i++) fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    for (size_t t = 0, begin = 0; t < p->threads; t++, begin = p->ranges[t - 1].end) {
        atomic_store(&p->ranges[t].next, begin);
        p->ranges[t].end = (size_t)((uint64_t)count * (t + 1) / p->threads);
    }
    atomic_fetch_add(&p->round, 1);
    wake(&p->round, p->threads - 1);
    drain(0);
    atomic_fetch_add(&p->round, 1);
    wait_until_alone();
    if (atomic_load(&p->broken)) __builtin_trap(); /* items are missing */
}
