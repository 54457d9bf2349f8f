/* The pool behind bb_par_for, for par_pthread.c and par_wasm.c. Who includes this has defined par_host, what it keeps
 * itself in a pool, and then says how a thread sleeps.
 *
 * Each thread has a range of the items, so that it meets in its cache what it made in the round before; who is done
 * goes on with the others' ranges.
 *
 * A round waits only for threads that have come to it: one that sleeps soundly, was started late or never delays
 * nobody. A thread counts itself in before it looks whether the round is open; the caller closes the round before it
 * looks who is in. All of that is sequentially consistent, so one of the two sees the other. */
#ifndef BB_BASE_PAR_POOL_H
#define BB_BASE_PAR_POOL_H

#include "base/par.h"

#include <stdatomic.h>

#define PAR_LINE 64
#define PAR_SPINS 50000u /* looks before sleeping, tens of µs: waking up takes as long, and ops follow quickly */

struct bb_par {
    uint32_t threads; /* including the caller */
    bb_par_fn *fn;    /* like ctx and the ranges' ends, written only between rounds */
    void *ctx;
    par_host host;
    _Alignas(PAR_LINE) _Atomic uint32_t round;  /* odd: open */
    _Alignas(PAR_LINE) _Atomic uint32_t inside; /* threads that may be at work, the caller not counted */
    _Atomic uint32_t stop;
    struct par_range { _Alignas(PAR_LINE) atomic_size_t next; size_t end; } ranges[BB_PAR_MAX];
};

/* Until *at is no longer `is`, or a wake of it; at is the pool's round or inside. */
static void par_sleep(bb_par *p, _Atomic uint32_t *at, uint32_t is);
static void par_wake(bb_par *p, _Atomic uint32_t *at, uint32_t threads);

static void par_drain(bb_par *p, size_t thread)
{
    for (size_t k = 0; k < p->threads; k++) {
        struct par_range *r = &p->ranges[(thread + k) % p->threads];
        for (size_t i; (i = atomic_fetch_add(&r->next, 1)) < r->end;) p->fn(p->ctx, i, thread);
    }
}

/* Only the opening of a round wakes. */
static void par_wait_for_round(bb_par *p, uint32_t seen)
{
    for (uint32_t spins = 0;; spins++) {
        uint32_t round = atomic_load(&p->round);
        if (round % 2 && round != seen) return;
        if (spins >= PAR_SPINS) par_sleep(p, &p->round, round);
    }
}

static void par_wait_until_alone(bb_par *p)
{
    uint32_t inside;
    for (uint32_t spins = 0; (inside = atomic_load(&p->inside)) != 0; spins++)
        if (spins >= PAR_SPINS) par_sleep(p, &p->inside, inside);
}

static void par_leave(bb_par *p)
{
    if (atomic_fetch_sub(&p->inside, 1) == 1) par_wake(p, &p->inside, 1);
}

/* What a thread does until the pool stops. */
static void par_work(bb_par *p, uint32_t thread)
{
    for (uint32_t seen = 0; !atomic_load(&p->stop);) {
        par_wait_for_round(p, seen);
        atomic_fetch_add(&p->inside, 1);
        seen = atomic_load(&p->round);
        if (seen % 2 && thread < p->threads) par_drain(p, thread);
        par_leave(p);
    }
}

static void par_open(bb_par *p)
{
    atomic_fetch_add(&p->round, 1);
    par_wake(p, &p->round, p->threads - 1);
}

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
    par_open(p);
    par_drain(p, 0);
    atomic_fetch_add(&p->round, 1);
    par_wait_until_alone(p);
    BB_ASSERT(!atomic_load(&p->stop)); /* by bb_par_broke: items are missing */
}

#endif
