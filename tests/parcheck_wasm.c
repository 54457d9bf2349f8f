/* bitbrush-parcheck.wasm: bb_par_for of modules with threads. Node starts the threads (js/par.test.mjs) and also
 * measures through it. */
#include "parcheck.h"

uint32_t parcheck_test(uint32_t threads, uint32_t rounds);
void parcheck_bench(uint32_t threads, uint32_t rounds, uint32_t items, uint32_t work);
void parcheck_trap(uint32_t threads);
void parcheck_stop(uint32_t threads);

uint32_t parcheck_test(uint32_t threads, uint32_t rounds) { return parcheck_run(bb_par_start(threads), rounds); }

static void additions(void *ctx, size_t item, size_t thread)
{
    (void)item;
    (void)thread;
    for (volatile uint32_t left = *(uint32_t *)ctx; left; left--) continue;
}

/* Rounds of items of as much work. */
void parcheck_bench(uint32_t threads, uint32_t rounds, uint32_t items, uint32_t work)
{
    bb_par *par = bb_par_start(threads);
    for (uint32_t i = 0; i < rounds; i++) bb_par_for(par, items, additions, &work);
}

static void trap_elsewhere(void *ctx, size_t item, size_t thread)
{
    volatile uint32_t *there = ctx;
    if (thread) {
        *there = 1;
        __builtin_trap();
    }
    for (uint32_t left = 1u << 30; left && !*there; left--) continue; /* some seconds */
}

/* Traps on a thread that is not the caller, who has to trap then, too; returns if none comes. */
void parcheck_trap(uint32_t threads)
{
    volatile uint32_t there = 0;
    bb_par_for(bb_par_start(threads), threads, trap_elsewhere, (void *)(uintptr_t)&there);
}

void parcheck_stop(uint32_t threads) { bb_par_stop(bb_par_start(threads)); }
