/* See loop.h. */
#include "train/teach/loop.h"

#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 400 }; /* of the log, about */

static uint64_t images_done(const bb_loop *l) { return l->teach->optim.step * bb_teach_whole(l->teach); }

/* A row of what came since the last one. */
static bb_status add_row(bb_loop *l, const bb_update *u, double held_out, bb_error *err)
{
    const double now = bb_now(), seconds = now - l->row_at;
    const uint64_t images = images_done(l);
    l->last = (bb_log_row){.update = l->teach->optim.step, .images = images, .loss = l->sum / (double)l->summed,
                           .held_out = held_out, .rate = u->rate, .norm = u->norm,
                           .speed = seconds > 0 ? (double)(l->summed * bb_teach_whole(l->teach)) / seconds : 0,
                           .seconds = l->run.seconds + now - l->begun};
    l->sum = 0;
    l->summed = 0;
    l->row_at = now;
    return bb_log_add(&l->run.log, &l->last, err);
}

/* On rank 0, whose files they are. */
static bb_status save(bb_loop *l, const bb_png_bytes *samples, bb_error *err)
{
    const double before = l->run.seconds;
    if (l->teach->ranks.rank) return BB_OK;
    l->run.seconds += bb_now() - l->begun;
    bb_status status = bb_teach_checkpoint(l->folder, l->dtype, l->teach, &l->run, samples, err);
    l->run.seconds = before;
    return status;
}

static bb_status draw(const bb_loop *l, bb_png_bytes *samples, bb_error *err)
{
    const bb_teach *t = l->teach;
    if (t->ranks.rank) return BB_OK;
    return bb_teach_samples(t->pipe, &t->params, t->ema, t->opt.threads, t->opt.cpu, samples, err);
}

static bb_status draw_and_save(bb_loop *l, bb_error *err)
{
    bb_png_bytes samples = {0};
    bb_status status = draw(l, &samples, err);
    if (status == BB_OK) status = save(l, &samples, err);
    free(samples.data);
    return status;
}

static void begin_interval(bb_loop *l)
{
    l->checkpoint_at = l->row_at = bb_now();
    l->checkpoint_images = images_done(l);
}

/* Seconds of an update, by some that change nothing because their rate is 0; the same on all ranks. */
static bb_status time_update(bb_loop *l, double *each, bool *stopped, bb_error *err)
{
    enum { WARM = 2, LEAST = 3 };
    static const double SECONDS = 8;
    bb_teach *t = l->teach;
    const float lr = t->opt.lr;
    bb_update u;
    double started = 0;
    t->opt.lr = 0;
    *each = 0;
    for (uint32_t n = 0; !*stopped && (n < WARM + LEAST || *each * (n - WARM) < SECONDS); n++) {
        if (n == WARM) started = bb_now();
        BB_TRY(bb_teach_update(t, &u, err));
        if (n >= WARM) *each = (bb_now() - started) / (double)(n + 1 - WARM);
        bb_ranks_copy(&t->ranks, each, sizeof *each);
        *stopped = bb_ranks_any(&t->ranks, bb_cli_interrupted());
    }
    t->opt.lr = lr;
    bb_teach_restart(t);
    return BB_OK;
}

/* Updates that fit into the budget, beside the checkpoints. */
static bb_status plan(bb_loop *l, bool *stopped, bb_error *err)
{
    bb_teach *t = l->teach;
    bb_png_bytes samples = {0};
    double each;
    if (!l->quiet) fprintf(stderr, "measuring speed, to fill %.0f s\n", l->budget);
    BB_TRY(time_update(l, &each, stopped, err));
    if (*stopped) return BB_OK;
    const double started = bb_now();
    bb_teach_held_out(t);
    BB_TRY(draw(l, &samples, err));
    free(samples.data);
    const double pause = bb_now() - started;
    const double interval = l->every_seconds > 0 ? l->every_seconds
        : each * (double)l->every_images / bb_teach_whole(t);
    const double left = l->budget - (bb_now() - l->begun) - pause; /* the last checkpoint */
    double updates = fmax(1, floor(left * interval / (interval + pause) / each));
    bb_ranks_copy(&t->ranks, &updates, sizeof updates);
    t->opt.updates = (uint64_t)updates;
    return BB_OK;
}

static bool due(const bb_loop *l)
{
    const uint64_t images = images_done(l) - l->checkpoint_images;
    return l->every_seconds > 0 ? bb_now() - l->checkpoint_at >= l->every_seconds : images >= l->every_images;
}

/* One update, its row in the log and its checkpoint where they are due. */
static bb_status advance(bb_loop *l, bool *stopped, bb_error *err)
{
    bb_teach *t = l->teach;
    bb_update u;
    const uint64_t each = t->opt.updates / ROWS + 1;
    BB_TRY(bb_teach_update(t, &u, err));
    l->sum += u.loss;
    l->summed++;
    const bool finished = t->optim.step == t->opt.updates;
    *stopped = bb_ranks_any(&t->ranks, bb_cli_interrupted());
    const bool pause = finished || bb_ranks_any(&t->ranks, due(l));
    if (*stopped && !finished) { /* quickly */
        BB_TRY(add_row(l, &u, NAN, err));
        return save(l, NULL, err);
    }
    if (pause) {
        const double speed_until = bb_now(), held_out = bb_teach_held_out(t);
        l->row_at += bb_now() - speed_until; /* measuring is no training */
        BB_TRY(add_row(l, &u, held_out, err));
        BB_TRY(draw_and_save(l, err));
        begin_interval(l);
    } else if (t->optim.step % each == 0) {
        BB_TRY(add_row(l, &u, NAN, err));
    }
    return BB_OK;
}

bb_status bb_loop_run(bb_loop *l, bool *stopped, bb_error *err)
{
    bb_teach *t = l->teach;
    *stopped = false;
    l->begun = bb_now();
    if (l->budget > 0 && !l->resumed) BB_TRY(plan(l, stopped, err));
    if (*stopped) return BB_OK; /* nothing was begun */
    BB_TRY(save(l, NULL, err)); /* the folder can be written to; and a finished run's files are whole */
    begin_interval(l);
    bb_progress progress = bb_progress_start("training (images)", (size_t)(t->opt.updates * bb_teach_whole(t)),
                                             l->quiet);
    progress.before = (size_t)images_done(l);
    while (!*stopped && t->optim.step < t->opt.updates) {
        BB_TRY(advance(l, stopped, err));
        const double loss = l->summed ? l->sum / (double)l->summed : l->last.loss;
        snprintf(progress.note, sizeof progress.note, ", %.0f images/s, loss %.5f",
                 (double)(images_done(l) - progress.before) / (bb_now() - progress.started), loss);
        bb_progress_step(&progress, (size_t)images_done(l));
    }
    l->run.seconds += bb_now() - l->begun;
    return BB_OK;
}
