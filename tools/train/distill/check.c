/* How far the student is from the teacher on pictures that it was not trained on. */
#include "train/distill/distill.h"

/* errors[steps]: sums over the held-out pictures. Passes are shared out over the processes. */
static void measure(bb_distill *d, bb_eps_error *errors)
{
    bb_pick picks[256];
    uint32_t pairs = d->opt.held_out * d->opt.steps, batch = d->opt.batch;
    for (uint32_t chunk = 0; chunk * batch < pairs; chunk++) {
        if (chunk % d->in.ranks->count != d->in.ranks->rank) continue;
        for (uint32_t i = 0; i < batch; i++) {
            uint32_t pair = chunk * batch + i < pairs ? chunk * batch + i : pairs - 1;
            picks[i] = (bb_pick){pair / d->opt.steps, pair % d->opt.steps};
        }
        bb_distill_forward(d, picks);
        for (uint32_t i = 0; i < batch && chunk * batch + i < pairs; i++) {
            bb_eps_error e = bb_trajectory_error(&d->teacher, picks[i].picture, picks[i].step,
                                                 d->guided + i * d->teacher.out_size);
            errors[picks[i].step].error += e.error;
            errors[picks[i].step].power += e.power;
        }
    }
    bb_ranks_sum_f64(d->in.ranks, &errors[0].error, 2 * (size_t)d->opt.steps);
}

bb_distill_check bb_distill_summary(const bb_eps_error *errors, const double *start, uint32_t steps)
{
    bb_distill_check c = {0};
    uint32_t counted = steps > 1 ? steps - 1 : 1, first = counted < 5 ? counted : 5;
    for (uint32_t s = 0; s < counted; s++) {
        double error = errors[s].power > 0 ? errors[s].error / errors[s].power : 0;
        c.error += error / counted;
        if (s < first) c.first += error / first;
        if (start) c.score += start[s] > 0 ? error / start[s] / counted : 0;
    }
    return c;
}

static void swap(float *a, float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = a[i];
        a[i] = b[i];
        b[i] = x;
    }
}

bb_status bb_distill_check_now(bb_distill *d, bb_error *err)
{
    bb_eps_error errors[64] = {{0}};
    float *w = bb_student_w(d->student);
    if (d->n_checks == BB_DISTILL_MOST_CHECKS) return bb_fail(err, BB_ERR_ORDER, "distill: too many checks");
    if (d->ema) swap(w, d->ema, d->n), bb_distill_changed(d);
    measure(d, errors);
    for (uint32_t s = 0; !d->n_checks && s < d->opt.steps; s++)
        d->start[s] = errors[s].power > 0 ? errors[s].error / errors[s].power : 0;
    bb_distill_check *c = &d->checks[d->n_checks];
    *c = bb_distill_summary(errors, d->start, d->opt.steps);
    c->update = d->update;
    if (!d->n_checks || c->score < d->checks[d->best_check].score) {
        d->best_check = d->n_checks;
        memcpy(d->best, w, d->n * sizeof *w);
    }
    d->n_checks++;
    if (d->ema) swap(w, d->ema, d->n), bb_distill_changed(d);
    return BB_OK;
}
