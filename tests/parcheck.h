/* What bb_par_for promises, for every implementation: natively in par.c, in WebAssembly in parcheck_wasm.c. */
#ifndef BB_TESTS_PARCHECK_H
#define BB_TESTS_PARCHECK_H

#include "base/par.h"

#define PARCHECK_ITEMS 257u

typedef struct parcheck {
    uint32_t count, now, wrong[BB_PAR_MAX];
    uint32_t value[2][PARCHECK_ITEMS]; /* of the last round and of this one */
    uint8_t hits[PARCHECK_ITEMS];
    volatile uint8_t busy[BB_PAR_MAX];
    uint32_t threads;
} parcheck;

static uint32_t parcheck_next(const uint32_t *last, uint32_t count, uint32_t i)
{
    return last[(i + 1) % count] * 31 + last[(i + count / 2) % count] + i;
}

/* An item needs what others made in the last round, so an item left out, done twice or seen too late shows. */
static void parcheck_item(void *ctx, size_t i, size_t thread)
{
    parcheck *c = ctx;
    if (thread >= c->threads) {
        c->wrong[0]++;
        return;
    }
    if (c->busy[thread]) c->wrong[thread]++; /* two at once with the scratch of one */
    c->busy[thread] = 1;
    c->hits[i]++;
    /* Some are not done when all are taken. */
    for (volatile uint32_t left = (uint32_t)i % 8 * 100; left; left--) continue;
    c->value[c->now][i] = parcheck_next(c->value[!c->now], c->count, (uint32_t)i);
    c->busy[thread] = 0;
}

/* Number of promises broken in that many rounds; fewer items than threads, none and one included. */
static uint32_t parcheck_run(bb_par *par, uint32_t rounds)
{
    static const uint32_t counts[] = {PARCHECK_ITEMS, 2, 3, 1, 64, 0, 7};
    static parcheck c;
    uint32_t wrong = 0;
    for (uint32_t k = 0; k < BB_COUNT(counts); k++) {
        uint32_t want[2][PARCHECK_ITEMS] = {{0}};
        c = (parcheck){.count = counts[k], .threads = bb_par_threads(par)};
        for (uint32_t r = 0; r < rounds; r++) {
            c.now = r % 2;
            memset(c.hits, 0, sizeof c.hits);
            bb_par_for(par, c.count, parcheck_item, &c);
            for (uint32_t i = 0; i < c.count; i++) {
                want[r % 2][i] = parcheck_next(want[!(r % 2)], c.count, i);
                wrong += c.hits[i] != 1 || c.value[r % 2][i] != want[r % 2][i];
            }
        }
        for (uint32_t t = 0; t < BB_PAR_MAX; t++) wrong += c.wrong[t];
    }
    return wrong;
}

#endif
