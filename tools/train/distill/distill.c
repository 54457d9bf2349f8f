#include "train/distill/distill.h"

#include "progress.h"

#include <math.h>
#include <stdlib.h>

enum { TOGETHER = 4 }; /* pictures that the teacher draws in one session */

static bb_status out_of_memory(bb_error *err)
{
    return bb_fail(err, BB_ERR_SPACE, "out of memory for the training: take a smaller --batch or fewer --trajectories");
}

static bb_status open_teacher(bb_distill *d, bb_error *err)
{
    const bb_distill_options *o = &d->opt;
    bb_trajectories_options t = {.held_out = o->held_out, .count = o->trajectories,
                                 .steps = o->steps, .guidance = o->guidance, .seed = o->seed,
                                 .features = o->relation != BB_RELATION_NONE, .par = d->in.par,
                                 .together = TOGETHER * d->in.ranks->count};
    BB_TRY(bb_trajectories_new(&d->teacher, d->in.teacher, &t, err));
    d->teacher_bytes = bb_trajectories_bytes(&d->teacher);
    if (o->relation != BB_RELATION_MTRD) return BB_OK;
    BB_TRY(bb_pixel_memory_new(&d->memory, o->steps, o->slot, d->teacher.feature.c, err));
    d->teacher_bytes += (size_t)o->steps * o->slot * d->teacher.feature.c * sizeof(float);
    return BB_OK;
}

static bb_status open_student(bb_distill *d, bb_error *err)
{
    const bb_distill_options *o = &d->opt;
    bb_optim_group *groups = NULL;
    bb_student_options s = {.packed = d->in.start, .blob = d->in.blob, .blob_bytes = d->in.blob_bytes,
                            .teacher = d->in.teacher, .weights = o->weights, .rank = o->rank, .seed = o->seed,
                            .inside = o->inside,
                            .train_scales = o->rate[BB_STUDENT_KIND_SCALES] > 0,
                            .train_activations = o->rate[BB_STUDENT_KIND_STEPS] > 0 ||
                                                 o->rate[BB_STUDENT_KIND_ZEROS] > 0,
                            .train_float = o->rate[BB_STUDENT_KIND_FLOATS] > 0};
    BB_TRY(bb_student_new(&d->student, &s, err));
    d->n = bb_student_size(d->student);
    uint32_t n = bb_student_groups(d->student, o->rate, NULL);
    groups = malloc((n + 1) * sizeof *groups);
    if (!groups) return out_of_memory(err);
    bb_student_groups(d->student, o->rate, groups);
    bb_status status = bb_optim_new(&d->optim, d->ops, d->n, groups, n, err);
    free(groups);
    d->student_bytes = d->n * sizeof(float) * (o->ema > 0 ? 6 : 5);
    return status;
}

static bb_status open_network(bb_distill *d, bb_error *err)
{
    const bb_info *info = &d->in.teacher->pack.info;
    const bb_graph *g = &d->in.teacher->pack.graph;
    const bb_tape_layer *layers;
    d->items = d->opt.batch * d->teacher.halves;
    d->sample = bb_graph_find_input(g, "sample");
    d->out = bb_graph_find_output(g, "sample");
    bb_bindings bind = {{1, d->items, info->height, info->width, 1, 1}};
    BB_TRY(bb_student_bind(d->student, &bind, d->dnn, d->ops, &d->params, &layers, err));
    bb_tape_options tape = {.graph = d->params->graph, .bind = bind, .params = d->params, .dnn = d->dnn,
                            .ops = bb_student_ops(d->student), .last_f32 = true, .backward = true,
                            .keep = &d->teacher.feature_value, .n_keep = d->teacher.feature_value != BB_NONE,
                            .layers = layers};
    BB_TRY(bb_tape_bytes(&tape, &d->network_bytes, err));
    BB_TRY(bb_tape_new(&d->tape, &tape, err));
    bb_student_changed(d->student);
    bb_tape_weights(d->tape);
    return BB_OK;
}

static bb_status open_scratch(bb_distill *d, bb_error *err)
{
    size_t feature = d->opt.relation ? d->items * bb_shape_size(d->teacher.feature) : 0, f = sizeof(float);
    d->best = malloc(d->n * f);
    d->ema = d->opt.ema > 0 ? malloc(d->n * f) : NULL;
    d->guided = malloc(d->opt.batch * d->teacher.out_size * f);
    d->losses = malloc(2 * sizeof(double) * d->opt.batch * d->in.ranks->count);
    d->f = malloc(feature * f + 1);
    d->f_before = malloc(feature * f + 1);
    d->q_before = malloc(feature * f + 1);
    if (!d->best || (d->opt.ema > 0 && !d->ema) || !d->guided || !d->losses || !d->f || !d->f_before || !d->q_before)
        return out_of_memory(err);
    memcpy(d->best, bb_student_w(d->student), d->n * f);
    if (d->ema) memcpy(d->ema, bb_student_w(d->student), d->n * f);
    return BB_OK;
}

bb_status bb_distill_open(bb_distill *d, const bb_distill_setup *setup, bb_error *err)
{
    *d = (bb_distill){.opt = *setup->opt, .in = *setup, .updates = setup->opt->updates};
    bb_status status = bb_dnn_open(&d->dnn, setup->threads, setup->cpu, err);
    d->ops = bb_ops_select(setup->cpu, setup->threads);
    if (status >= 0) status = open_teacher(d, err);
    if (status >= 0) status = open_student(d, err);
    if (status >= 0) status = open_network(d, err);
    if (status >= 0) status = open_scratch(d, err);
    if (status < 0) bb_distill_close(d);
    return status;
}

void bb_distill_close(bb_distill *d)
{
    free(d->best);
    free(d->ema);
    free(d->guided);
    free(d->losses);
    free(d->f);
    free(d->f_before);
    free(d->q_before);
    bb_tape_free(d->tape);
    bb_optim_free(&d->optim);
    bb_student_free(d->student);
    bb_pixel_memory_free(&d->memory);
    bb_trajectories_free(&d->teacher);
    bb_dnn_close(d->dnn);
    *d = (bb_distill){0};
}

/* Every process draws its share. */
bb_status bb_distill_draw(bb_distill *d, bb_error *err)
{
    bb_trajectories *t = &d->teacher;
    const bb_ranks *r = d->in.ranks;
    BB_TRY(bb_trajectories_draw(t, d->drawn + r->rank * TOGETHER, TOGETHER, err));
    BB_TRY(bb_trajectories_share(t, r, d->drawn, TOGETHER, err));
    d->drawn += r->count * TOGETHER;
    return d->drawn < t->total ? BB_AGAIN : BB_DONE;
}

void bb_distill_changed(bb_distill *d)
{
    bb_student_changed(d->student);
    if (d->opt.rate[BB_STUDENT_KIND_FLOATS] > 0) bb_tape_weights(d->tape);
}

static uint64_t rounds(const bb_distill *d, double updates)
{
    uint64_t steps = d->opt.steps, n = updates > 0 ? (uint64_t)updates / steps : 0;
    return (n ? n : 1) * steps;
}

bb_status bb_distill_begin(bb_distill *d, double seconds, bb_error *err)
{
    double begun = bb_now();
    BB_TRY(bb_distill_warm_up(d, err));
    double warm = bb_now();
    BB_TRY(bb_distill_check_now(d, err));
    double now = bb_now();
    d->trial = (bb_distill_trial){.check = now - warm, .seconds = seconds - (now - begun)};
    bb_ranks_copy(d->in.ranks, &d->trial, sizeof d->trial); /* all stop trying at the same update */
    return BB_OK;
}

bb_status bb_distill_try(bb_distill *d, bb_error *err)
{
    enum { WARM = 2, LEAST = 4 };
    static const double SHARE = 1.0 / 30, SECONDS = 30; /* machines that others use change their speed by the second */
    bb_distill_trial *t = &d->trial;
    if (d->updates) return BB_DONE;
    if (t->done == WARM) t->begun = bb_now();
    BB_TRY(bb_distill_step(d, 0, true, err));
    t->done++;
    double spent = t->done > WARM ? bb_now() - t->begun : 0;
    bb_ranks_copy(d->in.ranks, &spent, sizeof spent);
    if (t->done < WARM + LEAST || spent < fmin(SECONDS, SHARE * t->seconds)) return BB_AGAIN;
    d->optim.step = 0;
    memset(d->optim.m, 0, d->n * sizeof(float));
    memset(d->optim.v, 0, d->n * sizeof(float));
    d->updates = rounds(d, (t->seconds - spent - (d->opt.checks + 2) * t->check) / (spent / (t->done - WARM)));
    bb_ranks_copy(d->in.ranks, &d->updates, sizeof d->updates);
    return BB_DONE;
}

static bool check_due(const bb_distill *d)
{
    uint64_t every = (d->updates + d->opt.checks - 1) / d->opt.checks;
    return d->update % every == 0 || d->update == d->updates;
}

bb_status bb_distill_update(bb_distill *d, bool *checked, bb_error *err)
{
    *checked = false;
    if (d->update >= d->updates) return BB_DONE;
    BB_TRY(bb_distill_step(d, bb_rate_at(BB_DECAY_LINEAR, d->update, d->updates, d->opt.warmup, 0), false, err));
    d->update++;
    if (check_due(d)) {
        BB_TRY(bb_distill_check_now(d, err));
        *checked = true;
        if (d->opt.patience && d->n_checks - 1 - d->best_check >= d->opt.patience) return BB_DONE;
    }
    return d->update == d->updates ? BB_DONE : BB_AGAIN;
}

bb_status bb_distill_result(bb_distill *d, const char *command, uint8_t **out, size_t *n, bb_error *err)
{
    memcpy(bb_student_w(d->student), d->best, d->n * sizeof(float));
    bb_distill_changed(d);
    return bb_student_write(d->student, command, d->opt.seed, out, n, err);
}
