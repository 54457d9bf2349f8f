/* One update: which pictures at which steps, losses, gradients. */
#include "train/distill/distill.h"

#include "base/mathf.h"
#include "base/rng.h"

enum { STREAM_STEPS = BB_STREAM_TOOLS + 0x41, STREAM_PICTURES, MOST_PICTURES = 4096 };

/* Element `at` of the steps' round number `round`: each round has every step once, in an order of its own. */
static uint32_t step_at(const bb_distill *d, uint64_t number)
{
    uint32_t order[64], steps = d->opt.steps;
    uint64_t round = number / steps;
    for (uint32_t i = 0; i < steps; i++) order[i] = i;
    for (uint32_t i = steps - 1; i > 0; i--) {
        uint32_t k = (uint32_t)(bb_uniform(d->opt.seed, STREAM_STEPS, round * 64 + i) * (i + 1)), o = order[i];
        order[i] = order[k];
        order[k] = o;
    }
    return order[number % steps];
}

/* Item `item` of the whole batch over all processes. */
static bb_pick pick(const bb_distill *d, uint32_t item, uint32_t pictures)
{
    uint64_t number = d->update * pictures + item;
    uint32_t k = (uint32_t)(bb_uniform(d->opt.seed, STREAM_PICTURES, number) * d->opt.trajectories);
    return (bb_pick){d->opt.held_out + k, step_at(d, d->opt.mix_steps ? number : d->update)};
}

void bb_distill_forward(bb_distill *d, const bb_pick *picks)
{
    const bb_trajectories *t = &d->teacher;
    const bb_info *info = &d->in.teacher->pack.info;
    uint32_t batch = d->opt.batch;
    float *x = bb_tape_input(d->tape, "sample"), *time = bb_tape_input(d->tape, "timestep");
    float *label = bb_tape_input(d->tape, "class_labels");
    for (uint32_t item = 0; item < d->items; item++) {
        bb_pick p = picks[item % batch];
        bool null = t->halves == 2 && item < batch;
        memcpy(x + item * t->x_size, bb_trajectory_x(t, p.picture, p.step), t->x_size * sizeof *x);
        time[item] = t->timestep[p.step];
        if (label) label[item] = (float)(null ? info->null_label : t->label[p.picture]);
    }
    bb_tape_forward(d->tape);
    const float *out = bb_tape_value(d->tape, d->out);
    size_t all = batch * t->out_size;
    if (t->halves == 2) bb_guide(d->guided, out, out + all, d->opt.guidance, all);
    else memcpy(d->guided, out, all * sizeof *out);
}

/* Units of ε in a unit of the model's output. */
static double eps_factor(const bb_distill *d, uint32_t step)
{
    return d->teacher.out_size == d->teacher.x_size ? bb_predict_eps(&d->teacher.at[step], 0, 1) : 1;
}

static double task_loss(const bb_distill *d, bb_pick p, uint32_t picture)
{
    const bb_trajectories *t = &d->teacher;
    const float *target = bb_trajectory_target(t, p.picture, p.step), *guided = d->guided + picture * t->out_size;
    double sum = 0;
    for (size_t i = 0; i < t->out_size; i++) {
        double e = (double)guided[i] - target[i];
        sum += e * e;
    }
    return sum / (double)t->out_size;
}

/* scale: of the mean squared error in the whole loss. ε_u + s(ε_c − ε_u) has the derivatives 1 − s and s. */
static void task_gradient(bb_distill *d, bb_pick p, uint32_t picture, double scale)
{
    const bb_trajectories *t = &d->teacher;
    const float *target = bb_trajectory_target(t, p.picture, p.step), *guided = d->guided + picture * t->out_size;
    float *null = bb_tape_grad(d->tape, d->out) + picture * t->out_size;
    float *label = t->halves == 2 ? null + d->opt.batch * t->out_size : null;
    float of_label = t->halves == 2 ? d->opt.guidance : 1, factor = (float)(2 * scale / (double)t->out_size);
    for (size_t i = 0; i < t->out_size; i++) {
        float g = factor * (guided[i] - target[i]);
        if (t->halves == 2) null[i] += (1 - of_label) * g;
        label[i] += of_label * g;
    }
}

static const float *feature(const bb_distill *d, bb_pick p, uint32_t half, float *to)
{
    size_t n = bb_shape_size(d->teacher.feature);
    const uint16_t *from = bb_trajectory_feature(&d->teacher, p.picture, p.step, half);
    for (size_t i = 0; i < n; i++) to[i] = bb_f16_to_f32(from[i]);
    return to;
}

/* TRD averages features with those of the step before: the student's come from a pass of their own. */
static void forward_before(bb_distill *d, const bb_pick *picks)
{
    bb_pick before[256];
    size_t n = bb_shape_size(d->teacher.feature) * d->items;
    for (uint32_t i = 0; i < d->opt.batch; i++)
        before[i] = (bb_pick){picks[i].picture, picks[i].step - (picks[i].step > 0)};
    bb_distill_forward(d, before);
    memcpy(d->q_before, bb_tape_value(d->tape, d->teacher.feature_value), n * sizeof *d->q_before);
}

/* Loss of one item; its gradient, with weight 1, goes into the tape. number: of the item in all updates. */
static bb_status relation_loss(bb_distill *d, bb_pick p, uint32_t item, uint64_t number, double *loss, bb_error *err)
{
    const bb_trajectories *t = &d->teacher;
    uint32_t half = item / d->opt.batch;
    size_t n = bb_shape_size(t->feature), at = item * n;
    bb_features x = {.items = 1, .pixels = t->feature.h * t->feature.w, .channels = t->feature.c,
                     .f = feature(d, p, half, d->f + at), .q = bb_tape_value(d->tape, t->feature_value) + at,
                     .dq = bb_tape_grad(d->tape, t->feature_value) + at};
    bb_error inner = {0};
    if (d->opt.relation == BB_RELATION_TRD) {
        bb_pick earlier = {p.picture, p.step - 1};
        const float *f = p.step ? feature(d, earlier, half, d->f_before + at) : NULL;
        *loss = bb_trd(d->ops, d->dnn, &x, f, f ? d->q_before + at : NULL, d->opt.temperature, 1, &inner);
    } else {
        uint32_t rows = d->opt.pixels < x.pixels ? d->opt.pixels : x.pixels;
        *loss = bb_mtrd(d->ops, d->dnn, &x, &d->memory, d->opt.anchors, rows, d->opt.temperature, d->opt.seed, number,
                        1, &inner);
    }
    return inner.code < 0 ? bb_fail(err, inner.code, "--relation: %s", inner.text) : BB_OK;
}

static bb_status relation_losses(bb_distill *d, const bb_pick *picks, double *losses, uint32_t first, uint32_t pictures,
                                 bb_error *err)
{
    for (uint32_t item = 0; item < d->items; item++) {
        uint32_t picture = item % d->opt.batch;
        uint64_t number = (d->update * pictures + first + picture) * 2 + item / d->opt.batch;
        double loss;
        BB_TRY(relation_loss(d, picks[picture], item, number, &loss, err));
        losses[2 * (first + picture) + 1] += loss / d->teacher.halves;
    }
    return BB_OK;
}

static void relation_scale(bb_distill *d, uint32_t item, double scale)
{
    size_t n = bb_shape_size(d->teacher.feature);
    float *dq = bb_tape_grad(d->tape, d->teacher.feature_value) + item * n;
    for (size_t i = 0; i < n; i++) dq[i] *= (float)scale;
}

/* Teacher pixels of the whole batch go into the memory, the same in every process. */
static void push(bb_distill *d, bb_pick p, uint64_t number, uint32_t each)
{
    const bb_trajectories *t = &d->teacher;
    for (uint32_t half = 0; half < t->halves; half++) {
        bb_features x = {.items = 1, .pixels = t->feature.h * t->feature.w, .channels = t->feature.c,
                         .f = feature(d, p, half, d->f)};
        bb_pixel_memory_push(&d->memory, p.step, &x, 0, each, d->opt.seed, number * 2 + half);
    }
}

/* Pixels taken from an item, so that an update's items together give opt.push. */
static uint32_t pushed_each(const bb_distill *d, uint32_t pictures)
{
    uint32_t items = pictures * d->teacher.halves, pixels = d->teacher.feature.h * d->teacher.feature.w;
    uint32_t each = (d->opt.push + items - 1) / items;
    return each < pixels ? each : pixels;
}

bb_status bb_distill_warm_up(bb_distill *d, bb_error *err)
{
    uint32_t pixels = d->teacher.feature.h * d->teacher.feature.w, each = d->opt.push < pixels ? d->opt.push : pixels;
    uint64_t most = (uint64_t)d->opt.slot * d->opt.trajectories + d->opt.trajectories;
    if (d->opt.relation != BB_RELATION_MTRD) return BB_OK;
    for (uint64_t k = 0; k < most && !bb_pixel_memory_ready(&d->memory); k++)
        for (uint32_t step = 0; step < d->opt.steps; step++)
            push(d, (bb_pick){d->opt.held_out + (uint32_t)(k % d->opt.trajectories), step},
                 (1ull << 62) + k * d->opt.steps + step, each);
    return bb_pixel_memory_ready(&d->memory) ? BB_OK
                                             : bb_fail(err, BB_ERR_OPTION, "--relation mtrd: the memory does not fill");
}

/* Running means as in LAB's recipe: four parts old, one part new; before there is one, the loss itself. */
static void note_means(bb_distill *d, const bb_pick *picks, const double *losses, uint32_t pictures)
{
    double sum[64][2] = {{0}};
    uint32_t count[64] = {0};
    for (uint32_t i = 0; i < pictures; i++) {
        sum[picks[i].step][0] += losses[2 * i];
        sum[picks[i].step][1] += losses[2 * i + 1];
        count[picks[i].step]++;
    }
    for (uint32_t s = 0; s < d->opt.steps; s++) {
        double *mean[2] = {&d->task_mean[s], &d->relation_mean[s]};
        for (int k = 0; count[s] && k < 2; k++) {
            double now = sum[s][k] / count[s];
            *mean[k] = *mean[k] > 0 ? 0.8 * *mean[k] + 0.2 * now : now;
        }
    }
}

static double weight(const bb_distill *d, double mean) { return mean > 0 ? 1 / mean : 0; }

/* All gradients of this process; losses: of all processes. */
static bb_status backward(bb_distill *d, const bb_pick *picks, uint32_t pictures, bb_error *err)
{
    uint32_t batch = d->opt.batch, first = d->in.ranks->rank * batch;
    double *losses = d->losses;
    memset(losses, 0, 2 * pictures * sizeof *losses);
    if (d->opt.relation == BB_RELATION_TRD) forward_before(d, picks + first);
    bb_distill_forward(d, picks + first);
    for (uint32_t i = 0; i < batch; i++) losses[2 * (first + i)] = task_loss(d, picks[first + i], i);
    if (d->opt.relation) BB_TRY(relation_losses(d, picks + first, losses, first, pictures, err));
    bb_ranks_sum_f64(d->in.ranks, losses, 2 * pictures);
    note_means(d, picks, losses, pictures);
    for (uint32_t i = 0; i < batch; i++) {
        uint32_t s = picks[first + i].step;
        double eps = eps_factor(d, s), task = eps * eps, relation = d->opt.lambda;
        if (d->opt.normalize) task = weight(d, d->task_mean[s]), relation *= weight(d, d->relation_mean[s]);
        task_gradient(d, picks[first + i], i, task / pictures);
        for (uint32_t half = 0; d->opt.relation && half < d->teacher.halves; half++)
            relation_scale(d, half * batch + i, relation / pictures / d->teacher.halves);
    }
    bb_tape_backward(d->tape);
    return BB_OK;
}

/* What the progress line shows: squared errors by those at the start, slowly averaged. */
static void note_loss(bb_distill *d, const bb_pick *picks, uint32_t pictures)
{
    double sum = 0;
    for (uint32_t i = 0; i < pictures; i++) {
        double start = d->start[picks[i].step], eps = eps_factor(d, picks[i].step);
        sum += start > 0 ? d->losses[2 * i] * eps * eps / start / pictures : 0;
    }
    d->loss = d->loss > 0 ? 0.95 * d->loss + 0.05 * sum : sum;
}

static bool apply(bb_distill *d, float rate)
{
    float *w = bb_student_w(d->student), *g = bb_student_g(d->student);
    bb_ranks_sum(d->in.ranks, g, d->n);
    bool finite = bb_optim_update(&d->optim, w, g, rate, d->opt.clip, bb_optim_norm(&d->optim, g));
    if (!finite) return false;
    bb_distill_changed(d);
    return true;
}

bb_status bb_distill_step(bb_distill *d, float rate, bool trial, bb_error *err)
{
    bb_pick picks[MOST_PICTURES];
    double means[2][64];
    uint32_t pictures = d->opt.batch * d->in.ranks->count;
    BB_ASSERT(pictures <= MOST_PICTURES);
    memcpy(means[0], d->task_mean, sizeof means[0]);
    memcpy(means[1], d->relation_mean, sizeof means[1]);
    for (uint32_t i = 0; i < pictures; i++) picks[i] = pick(d, i, pictures);
    memset(bb_student_g(d->student), 0, d->n * sizeof(float));
    BB_TRY(backward(d, picks, pictures, err));
    bool applied = apply(d, rate);
    if (trial) {
        memcpy(d->task_mean, means[0], sizeof means[0]);
        memcpy(d->relation_mean, means[1], sizeof means[1]);
        return BB_OK;
    }
    d->skipped = applied ? 0 : d->skipped + 1;
    if (d->skipped == 20)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "the gradients of 20 updates in a row were not finite: the rates are "
                                                "too high for this model (--lr)");
    if (d->ema && applied) d->ops->ema(d->n, d->opt.ema, bb_student_w(d->student), d->ema);
    for (uint32_t i = 0; d->opt.relation == BB_RELATION_MTRD && i < pictures; i++)
        push(d, picks[i], d->update * pictures + i, pushed_each(d, pictures));
    note_loss(d, picks, pictures);
    return BB_OK;
}
