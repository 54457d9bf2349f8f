/* A fixed pool: items are handed out by an atomic counter; a generation number wakes the workers. */
#include "base/par.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct bb_par {
    uint32_t threads; /* including the caller */
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    uint64_t generation; /* guarded by lock, like all below except next */
    uint32_t running;
    bool stop;
    bb_par_fn *fn;
    void *ctx;
    size_t count;
    atomic_size_t next;
    struct worker { bb_par *par; uint32_t index; pthread_t id; } workers[];
};

static void drain(bb_par *p, size_t thread)
{
    for (size_t i; (i = atomic_fetch_add(&p->next, 1)) < p->count;) p->fn(p->ctx, i, thread);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    bb_par *p = w->par;
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->generation == seen && !p->stop) pthread_cond_wait(&p->wake, &p->lock);
        if (p->stop) break;
        seen = p->generation;
        pthread_mutex_unlock(&p->lock);
        drain(p, w->index);
        pthread_mutex_lock(&p->lock);
        if (--p->running == 0) pthread_cond_signal(&p->idle);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

bb_par *bb_par_start(uint32_t threads)
{
    if (threads > BB_PAR_MAX) threads = BB_PAR_MAX;
    if (threads < 2) return NULL;
    bb_par *p = calloc(1, sizeof *p + (threads - 1) * sizeof *p->workers);
    if (!p) return NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->idle, NULL);
    p->threads = 1;
    for (uint32_t i = 1; i < threads; i++) {
        struct worker *w = &p->workers[i - 1];
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
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 1; i < p->threads; i++) pthread_join(p->workers[i - 1].id, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->idle);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

uint32_t bb_par_threads(const bb_par *p) { return p ? p->threads : 1; }

void bb_par_for(bb_par *p, size_t count, bb_par_fn *fn, void *ctx)
{
    if (!p || count < 2) {
        for (size_t i = 0; i < count; i++) fn(ctx, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->ctx = ctx;
    p->count = count;
    p->running = p->threads - 1;
    atomic_store(&p->next, 0);
    p->generation++;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    drain(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->running) pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
