#include "train/distill/trajectories.h"

#include "base/mathf.h"
#include "base/rng.h"

#include <stdlib.h>

enum { STREAM_LABELS = BB_STREAM_TOOLS + 0x40 };

/* Apart from the seeds of eval (0 …) and of calibration (1,000,000 …). */
static uint64_t seed_of(const bb_trajectories *t, uint32_t picture)
{
    uint32_t held_out = t->opt.held_out;
    return picture < held_out ? 1900000ull + picture : 2000000ull + t->opt.seed * 1000000ull + picture - held_out;
}

static int32_t label_of(const bb_trajectories *t, uint32_t picture)
{
    const bb_info *info = &t->teacher->pack.info;
    if (!info->classes) return 0;
    if (picture < t->opt.held_out) return bb_nth_label(info, picture);
    uint32_t n = info->classes - (info->null_label >= 0);
    int32_t label = (int32_t)(bb_uniform(seed_of(t, picture), STREAM_LABELS, 0) * n);
    return label + (info->null_label >= 0 && label >= info->null_label);
}

/* What enters the last norm on the way to the output; BB_NONE if there is none. */
static uint32_t find_feature(const bb_graph *g)
{
    uint32_t value = bb_graph_find_output(g, "sample");
    while (value >= g->n_inputs && value != BB_NONE) {
        const bb_op *op = &g->ops[value - g->n_inputs];
        value = op->in[0];
        if (op->kind == BB_OP_GROUP_NORM) return value;
    }
    return BB_NONE;
}

static bb_status find_sizes(bb_trajectories *t, bb_error *err)
{
    const bb_pack *pack = &t->teacher->pack;
    const bb_graph *g = &pack->graph;
    bb_bindings bind = {{1, 1, pack->info.height, pack->info.width, 1, 1}};
    bb_shape *shapes = malloc(g->n_values * sizeof *shapes);
    if (!shapes) return bb_fail(err, BB_ERR_SPACE, "trajectories: out of memory");
    bb_status status = bb_graph_shapes(g, &bind, shapes, err);
    if (status >= 0) {
        t->x_size = bb_shape_size(shapes[bb_graph_find_input(g, "sample")]);
        t->out_size = bb_shape_size(shapes[bb_graph_find_output(g, "sample")]);
        if (t->feature_value != BB_NONE) t->feature = shapes[t->feature_value];
    }
    free(shapes);
    return status;
}

static bb_status find_steps(bb_trajectories *t, bb_error *err)
{
    bb_schedule sched = t->teacher->pack.schedule;
    bb_sampler_plan *plan = malloc(sizeof *plan);
    if (!plan) return bb_fail(err, BB_ERR_SPACE, "trajectories: out of memory");
    bb_status status = bb_sampler_plan_init(plan, &sched, BB_SAMPLER_DDIM, t->opt.steps, 0, err);
    sched.thresholding = false; /* bounds are for x̂0, and none is made here */
    for (uint32_t i = 0; status >= 0 && i < t->opt.steps; i++) {
        t->timestep[i] = plan->timesteps[i];
        t->at[i] = bb_predictor_init(&sched, (int32_t)plan->timesteps[i], &(bb_sampler_io){0});
    }
    free(plan);
    return status;
}

static void *rows(const bb_trajectories *t, size_t bytes)
{
    size_t n = (size_t)t->total * t->opt.steps;
    return bytes && n > SIZE_MAX / 2 / bytes ? NULL : malloc(n * bytes + 1);
}

bb_status bb_trajectories_new(bb_trajectories *t, const bb_model *teacher, const bb_trajectories_options *opt,
                              bb_error *err)
{
    *t = (bb_trajectories){.opt = *opt, .teacher = teacher, .halves = opt->guidance == 1 ? 1 : 2,
                           .feature_value = BB_NONE};
    BB_ASSERT(opt->steps <= BB_COUNT(t->timestep) && opt->together);
    t->total = (opt->held_out + opt->count + opt->together - 1) / opt->together * opt->together;
    if (t->halves == 2 && teacher->pack.info.null_label < 0)
        return bb_fail(err, BB_ERR_GUIDANCE, "--guidance: this model has no null class, so guidance must be 1");
    if (opt->features && (t->feature_value = find_feature(&teacher->pack.graph)) == BB_NONE)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "--relation: this model has no norm before its output to compare");
    BB_TRY(find_sizes(t, err));
    BB_TRY(find_steps(t, err));
    t->label = malloc((t->total + 1) * sizeof *t->label);
    t->x = rows(t, t->x_size * sizeof *t->x);
    t->target = rows(t, t->out_size * sizeof *t->target);
    if (opt->features) t->features = rows(t, t->halves * bb_shape_size(t->feature) * sizeof *t->features);
    if (!t->label || !t->x || !t->target || (opt->features && !t->features)) {
        bb_trajectories_free(t);
        return bb_fail(err, BB_ERR_SPACE, "out of memory for %u trajectories: take fewer (--trajectories)", t->total);
    }
    for (uint32_t i = 0; i < t->total; i++) t->label[i] = label_of(t, i);
    return BB_OK;
}

void bb_trajectories_free(bb_trajectories *t)
{
    free(t->label);
    free(t->x);
    free(t->target);
    free(t->features);
    t->label = NULL, t->x = t->target = NULL, t->features = NULL;
}

size_t bb_trajectories_bytes(const bb_trajectories *t)
{
    size_t features = t->features ? t->halves * bb_shape_size(t->feature) * sizeof *t->features : 0;
    return (size_t)t->total * t->opt.steps * ((t->x_size + t->out_size) * sizeof *t->x + features);
}

/* A session that draws n pictures together from `first` on. */
typedef struct drawing {
    const bb_trajectories *t;
    bb_session *session;
    void *workspace;
    uint32_t first, n, step;
} drawing;

static bb_status open_drawing(drawing *d, const bb_trajectories *t, const bb_model *model, uint32_t first, uint32_t n,
                              bb_error *err)
{
    bb_request req = {.size_of = sizeof req, .batch = n, .steps = t->opt.steps, .sampler = BB_SAMPLER_DDIM,
                      .guidance = t->opt.guidance, .par = t->opt.par};
    size_t bytes;
    *d = (drawing){.t = t, .first = first, .n = n};
    BB_TRY(bb_session_size(model, &req, &bytes, err));
    d->workspace = malloc(bytes);
    if (!d->workspace) return bb_fail(err, BB_ERR_SPACE, "out of memory: drawing needs %z bytes", bytes);
    bb_status status = bb_session_init(model, &req, d->workspace, bytes, &d->session, err);
    uint64_t *seeds = malloc(n * sizeof *seeds);
    if (status >= 0 && !seeds) status = bb_fail(err, BB_ERR_SPACE, "out of memory");
    for (uint32_t i = 0; status >= 0 && i < n; i++) {
        seeds[i] = seed_of(t, first + i);
        if (model->pack.info.classes) status = bb_condition(d->session, i, &(bb_cond){t->label[first + i]});
    }
    if (status >= 0) status = bb_begin(d->session, seeds, NULL);
    free(seeds);
    return status;
}

/* bb_observe_fn: the teacher's features, rounded to f16. */
static void keep_feature(void *user, const bb_run *run, uint32_t value)
{
    const drawing *d = user;
    const bb_trajectories *t = d->t;
    if (value != t->feature_value) return;
    size_t n = bb_shape_size(t->feature);
    for (uint32_t item = 0; item < d->n * t->halves; item++) {
        const float *from = run->at[value] + item * n;
        uint16_t *to = bb_trajectory_feature(t, d->first + item % d->n, d->step, item / d->n);
        for (size_t k = 0; k < n; k++) to[k] = bb_f32_to_f16(from[k]);
    }
}

bb_status bb_trajectories_draw(bb_trajectories *t, uint32_t first, uint32_t n, bb_error *err)
{
    drawing d;
    bb_status status = open_drawing(&d, t, t->teacher, first, n, err);
    if (status >= 0 && t->features) bb_session_observe(d.session, keep_feature, &d);
    for (; status >= 0 && d.step < t->opt.steps; d.step++) {
        size_t size;
        const float *x = bb_session_x(d.session, &size);
        for (uint32_t i = 0; i < n; i++)
            memcpy(bb_trajectory_x(t, first + i, d.step), x + i * size, size * sizeof *x);
        status = bb_step(d.session, 0);
        const float *guided = bb_session_prediction(d.session, &size);
        for (uint32_t i = 0; i < n; i++)
            memcpy(bb_trajectory_target(t, first + i, d.step), guided + i * size, size * sizeof *guided);
    }
    free(d.workspace);
    return status < 0 ? status : BB_OK;
}

bb_status bb_trajectories_share(bb_trajectories *t, const bb_ranks *ranks, uint32_t first, uint32_t n, bb_error *err)
{
    size_t steps = t->opt.steps, features = t->features ? t->halves * bb_shape_size(t->feature) * 2 : 0;
    const struct { void *at; size_t each; } arrays[] = {
        {t->x, steps * t->x_size * 4}, {t->target, steps * t->out_size * 4}, {t->features, steps * features}};
    for (size_t i = 0; ranks->count > 1 && i < BB_COUNT(arrays); i++) {
        size_t bytes = n * arrays[i].each;
        uint8_t *all = (uint8_t *)arrays[i].at + first * arrays[i].each, *mine = malloc(bytes + 1);
        if (!mine) return bb_fail(err, BB_ERR_SPACE, "trajectories: out of memory");
        if (bytes) {
            memcpy(mine, all + ranks->rank * bytes, bytes);
            bb_ranks_gather(ranks, mine, bytes, all);
            bb_ranks_copy(ranks, all, ranks->count * bytes);
        }
        free(mine);
    }
    return BB_OK;
}

bb_eps_error bb_trajectory_error(const bb_trajectories *t, uint32_t picture, uint32_t step, const float *guided)
{
    const float *x = bb_trajectory_x(t, picture, step), *target = bb_trajectory_target(t, picture, step);
    const bb_predictor *p = &t->at[step];
    bool plain = t->out_size != t->x_size; /* with learned variances an output is no picture */
    bb_eps_error sum = {0};
    for (size_t i = 0; i < t->out_size; i++) {
        double a = plain ? target[i] : bb_predict_eps(p, x[i], target[i]);
        double b = plain ? guided[i] : bb_predict_eps(p, x[i], guided[i]);
        sum.error += (a - b) * (a - b);
        sum.power += a * a;
    }
    return sum;
}

bb_status bb_trajectories_measure(const bb_trajectories *t, const bb_model *model, bb_eps_error *errors, bb_error *err)
{
    drawing d;
    bb_status status = open_drawing(&d, t, model, 0, t->opt.held_out, err);
    for (; status >= 0 && d.step < t->opt.steps; d.step++) {
        size_t size;
        float *x = bb_session_x(d.session, &size);
        for (uint32_t i = 0; i < d.n; i++) memcpy(x + i * size, bb_trajectory_x(t, i, d.step), size * sizeof *x);
        status = bb_step(d.session, 0);
        const float *guided = bb_session_prediction(d.session, &size);
        for (uint32_t i = 0; i < d.n; i++) {
            bb_eps_error e = bb_trajectory_error(t, i, d.step, guided + i * size);
            errors[d.step].error += e.error;
            errors[d.step].power += e.power;
        }
    }
    free(d.workspace);
    return status < 0 ? status : BB_OK;
}
