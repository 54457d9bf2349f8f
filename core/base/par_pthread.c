/* The pool of a native build. */
#include <pthread.h>
#include <stdlib.h>

#include "base/compiler.h"

typedef struct par_host {
    pthread_mutex_t lock; /* nothing is kept under it: it makes looking and going to sleep one */
    pthread_cond_t wake;
    struct worker { struct bb_par *par; uint32_t index; pthread_t id; } workers[64];
} par_host;

#include "base/par_pool.h"

_Static_assert(BB_PAR_MAX == 64, "room for all workers");

static void par_sleep(bb_par *p, _Atomic uint32_t *at, uint32_t is)
{
    pthread_mutex_lock(&p->host.lock);
    if (atomic_load(at) == is) pthread_cond_wait(&p->host.wake, &p->host.lock);
    pthread_mutex_unlock(&p->host.lock);
}

static void par_wake(bb_par *p, _Atomic uint32_t *at, uint32_t threads)
{
    (void)at;
    (void)threads;
    pthread_mutex_lock(&p->host.lock);
    pthread_cond_broadcast(&p->host.wake); /* of the round and of inside: who slept on the other looks again */
    pthread_mutex_unlock(&p->host.lock);
}

static void *work(void *arg)
{
    const struct worker *w = arg;
    par_work(w->par, w->index);
    return NULL;
}

bb_par *bb_par_start(uint32_t threads)
{
    if (threads > BB_PAR_MAX) threads = BB_PAR_MAX;
    if (threads < 2) return NULL;
    bb_par *p = aligned_alloc(PAR_LINE, sizeof *p);
    if (!p) return NULL;
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->host.lock, NULL);
    pthread_cond_init(&p->host.wake, NULL);
    p->threads = 1;
    for (uint32_t i = 1; i < threads; i++) {
        struct worker *w = &p->host.workers[i];
        *w = (struct worker){.par = p, .index = i};
        if (pthread_create(&w->id, NULL, work, w)) break;
        p->threads++;
    }
    if (p->threads == 1) {
        bb_par_stop(p);
        return NULL;
    }
    return p;
}

void bb_par_stop(bb_par *p)
{
    if (!p) return;
    atomic_store(&p->stop, 1);
    par_open(p); /* a round without items */
    for (uint32_t i = 1; i < p->threads; i++) pthread_join(p->host.workers[i].id, NULL);
    pthread_cond_destroy(&p->host.wake);
    pthread_mutex_destroy(&p->host.lock);
    free(p);
}
