/* A drawing: the sampler's loop around the denoiser, cut into steps and, inside a step, into ops. */
#include "api/model.h"

#include "base/mathf.h"
#include "base/rng.h"
#include "image/image.h"
#include "sample/sampler.h"

enum state { NEW, DRAWING, FINISHED };

struct bb_session {
    const bb_model *model;
    bb_request req;          /* defaults resolved */
    bb_sampler_plan plan;    /* unused when req.steps is 0 */
    bb_run run;
    uint32_t rows;           /* items of the denoiser's batch: pictures × guidance halves */
    uint32_t sample, timestep, labels, output; /* value ids; labels may be BB_NONE */
    size_t pixels, x_size, out_size; /* per picture: pixels, floats of x, floats of the model output */
    uint32_t out_channels;
    float *x, *x0, *guided;  /* [batch] pictures each */
    float *history;          /* [batch][plan.buffers] pictures */
    float *noise, *scratch;  /* one picture each */
    int32_t *label;          /* [batch]; -1: not set */
    uint64_t *seed;          /* [batch] */
    enum state state;
    uint32_t step, pass, op; /* pass 0: ops below sample rate; 1: the others */
    uint32_t ran;            /* the last op that did */
    bool unfused;            /* bb_session_fuse */
    bool labels_new;         /* bb_condition has changed something since the last bb_begin */
    bool prompt_made, schedule_made; /* values of prompt rate; of step rate, all evaluations */
    bool observed;           /* this step: plain layout, graph order */
    uint64_t workspace_bytes;
    int cancel;              /* accessed atomically */
    bb_tap_fn tap; void *tap_user;
};

static bool guided(const bb_request *req) { return req->guidance != 0 && req->guidance != 1; }

/* Copies what the caller's version of the struct has, fills defaults, checks ranges. */
static bb_status resolve(const bb_model *m, const bb_request *given, bb_request *req, bb_error *err)
{
    const bb_info *info = &m->pack.info;
    *req = (bb_request){0};
    if (!given || given->size_of < 8 || given->size_of > 4096)
        return bb_fail(err, BB_ERR_ARGUMENT, "request: size_of is not set");
    memcpy(req, given, given->size_of < sizeof *req ? given->size_of : sizeof *req);
    req->size_of = sizeof *req;
    if (!req->width) req->width = info->width;
    if (!req->height) req->height = info->height;
    if (!req->batch) req->batch = 1;
    if (req->width > 16384 || req->height > 16384 || req->batch > 4096)
        return bb_fail(err, BB_ERR_ARGUMENT, "request: width, height or batch is too large");
    if (!(req->guidance > -1e6f && req->guidance < 1e6f))
        return bb_fail(err, BB_ERR_ARGUMENT, "guidance: not a usable number");
    if (!(req->eta >= 0 && req->eta <= 1)) return bb_fail(err, BB_ERR_ARGUMENT, "eta: must be 0 to 1");
    if (req->steps && guided(req) && info->null_label < 0)
        return bb_fail(err, BB_ERR_GUIDANCE, "guidance: this model has no null class, so guidance must be 1 "
                                             "(import it with --null-label if it was trained with one)");
    return BB_OK;
}

/* Everything a session takes from its workspace, measuring or for real; s is a stack copy when measuring. */
static void take_memory(bb_session *s, bb_arena *arena)
{
    uint32_t batch = s->req.batch;
    bb_run_init(&s->run, &s->model->pack, &s->model->kernels, s->req.par, &s->model->scratch, arena);
    if (!s->req.steps) return;
    s->x = bb_arena_take(arena, batch * s->x_size, sizeof *s->x);
    s->x0 = bb_arena_take(arena, batch * s->x_size, sizeof *s->x0);
    s->guided = bb_arena_take(arena, batch * s->out_size, sizeof *s->guided);
    s->history = bb_arena_take(arena, batch * s->x_size, s->plan.buffers * sizeof *s->history);
    s->noise = bb_arena_take(arena, s->x_size, sizeof *s->noise);
    s->scratch = bb_arena_take(arena, s->x_size, sizeof *s->scratch);
    s->label = bb_arena_take(arena, batch, sizeof *s->label);
    s->seed = bb_arena_take(arena, batch, sizeof *s->seed);
}

/* Fills all of s that does not need memory, and plans the run in the model's scratch. */
static bb_status prepare(bb_session *s, const bb_model *m, const bb_request *given, bb_error *err)
{
    const bb_graph *g = &m->pack.graph;
    *s = (bb_session){.model = m};
    BB_TRY(resolve(m, given, &s->req, err));
    s->rows = s->req.batch * (s->req.steps && guided(&s->req) ? 2 : 1);
    s->sample = bb_graph_find_input(g, "sample");
    s->timestep = bb_graph_find_input(g, "timestep");
    s->labels = bb_graph_find_input(g, "class_labels");
    s->output = bb_graph_find_output(g, "sample");
    bb_bindings bind = {{1, s->rows, s->req.height, s->req.width, 1, 1}};
    bb_plan plan = m->scratch; /* arrays stay the model's */
    if (s->req.steps)
        BB_TRY(bb_sampler_plan_init(&s->plan, &m->pack.schedule, s->req.sampler, s->req.steps, s->req.eta, err));
    BB_TRY(bb_plan_make(&plan, &m->pack, &m->kernels, &bind, s->req.steps ? s->plan.evaluations : 1, err));
    ((bb_model *)m)->scratch = plan;
    bb_shape x = plan.shapes[s->sample], y = plan.shapes[s->output];
    bool fits = x.h == s->req.height && x.w == s->req.width && y.h == x.h && y.w == x.w &&
                bb_shape_size(plan.shapes[s->timestep]) == s->rows &&
                (s->labels == BB_NONE || bb_shape_size(plan.shapes[s->labels]) == s->rows);
    /* Every op keeps the number of items, so what holds for the inputs holds for all values. */
    for (uint32_t v = 0; v < g->n_inputs; v++) fits = fits && plan.shapes[v].n == s->rows;
    if (!fits)
        return bb_fail(err, BB_ERR_SIZE, "this model cannot draw %u×%u pixels in a batch of %u", s->req.width,
                       s->req.height, s->req.batch);
    s->pixels = (size_t)x.h * x.w;
    s->x_size = s->pixels * x.c;
    s->out_size = s->pixels * y.c;
    s->out_channels = y.c;
    return BB_OK;
}

bb_status bb_session_size(const bb_model *m, const bb_request *req, size_t *bytes, bb_error *err)
{
    bb_session s;
    BB_TRY(prepare(&s, m, req, err));
    bb_arena arena = bb_arena_init(NULL, 0);
    bb_arena_take(&arena, 1, sizeof s);
    take_memory(&s, &arena);
    *bytes = bb_arena_need(&arena);
    return *bytes == SIZE_MAX ? bb_fail(err, BB_ERR_SIZE, "the picture is too large for this machine's memory") : BB_OK;
}

bb_status bb_session_init(const bb_model *m, const bb_request *req, void *ws, size_t size, bb_session **out,
                          bb_error *err)
{
    bb_arena arena = bb_arena_init(ws, ws ? size : 0);
    bb_session *s = ws ? bb_arena_take(&arena, 1, sizeof *s) : NULL;
    if (!s) return bb_fail(err, BB_ERR_SPACE, "the workspace is too small: ask bb_session_size");
    BB_TRY(prepare(s, m, req, err));
    take_memory(s, &arena);
    if (arena.overflow) return bb_fail(err, BB_ERR_SPACE, "the workspace is too small: ask bb_session_size");
    for (uint32_t i = 0; s->label && i < s->req.batch; i++) s->label[i] = -1;
    s->workspace_bytes = arena.used;
    *out = s;
    return BB_OK;
}

bb_status bb_condition(bb_session *s, uint32_t image, const bb_cond *cond)
{
    if (!s->req.steps || image >= s->req.batch || !cond) return BB_ERR_ARGUMENT;
    if (cond->label < 0 || (uint32_t)cond->label >= s->model->pack.info.classes) return BB_ERR_LABEL;
    s->labels_new = s->labels_new || s->label[image] != cond->label;
    s->label[image] = cond->label;
    return BB_OK;
}

/* With guidance the first half of the rows is unconditional, the second half has the labels. */
static void fill_labels(bb_session *s)
{
    for (uint32_t row = 0; s->labels != BB_NONE && row < s->rows; row++) {
        bool null = s->rows > s->req.batch && row < s->req.batch;
        s->run.at[s->labels][row] = (float)(null ? s->model->pack.info.null_label : s->label[row % s->req.batch]);
    }
}

bb_status bb_begin(bb_session *s, const uint64_t *seeds, const float *noise)
{
    s->state = NEW;
    s->step = s->pass = s->op = 0;
    __atomic_store_n(&s->cancel, 0, __ATOMIC_RELAXED);
    bb_run_inputs_changed(&s->run);
    if (!s->req.steps) {
        s->prompt_made = s->schedule_made = false;
        s->state = DRAWING;
        return BB_OK;
    }
    if (!seeds) return BB_ERR_ARGUMENT;
    for (uint32_t i = 0; i < s->req.batch; i++) {
        if (s->model->pack.info.classes && s->label[i] < 0) return BB_ERR_ORDER;
        float *x = s->x + i * s->x_size;
        s->seed[i] = seeds[i];
        if (noise) memcpy(x, noise + i * s->x_size, s->x_size * sizeof *x);
        else bb_normals(x, s->x_size, seeds[i], 0, 0);
        memcpy(s->x0 + i * s->x_size, x, s->x_size * sizeof *x);
        for (size_t k = 0; s->plan.first_sigma != 1 && k < s->x_size; k++) x[k] = x[k] * s->plan.first_sigma;
    }
    if (s->labels_new) s->prompt_made = s->schedule_made = s->labels_new = false;
    fill_labels(s);
    s->state = DRAWING;
    return BB_OK;
}

static void fill_sample(bb_session *s)
{
    float *sample = s->run.at[s->sample], divisor = bb_sampler_input_divisor(&s->plan, s->step);
    for (uint32_t row = 0; row < s->rows; row++) {
        const float *x = s->x + row % s->req.batch * s->x_size;
        for (size_t k = 0; k < s->x_size; k++) sample[row * s->x_size + k] = x[k] / divisor;
    }
}

/* Step-rate values stand for all evaluations while they are made for the whole schedule, else for this step. An
 * observer sees every value of every step. */
static void fill_timesteps(bb_session *s)
{
    bool all = s->run.windows > 1 && !s->schedule_made && !s->observed;
    bb_run_window(&s->run, all ? 0 : s->run.windows > 1 ? s->step : 0, all ? s->run.windows : 1);
    float *t = s->run.at[s->timestep];
    for (uint32_t e = 0; e < s->run.count; e++)
        for (uint32_t row = 0; row < s->rows; row++) t[e * s->rows + row] = s->plan.timesteps[all ? e : s->step];
}

static void finish_step(bb_session *s)
{
    const float *out = s->run.at[s->output];
    uint32_t batch = s->req.batch, channels = s->run.shapes[s->sample].c;
    for (uint32_t i = 0; i < batch; i++) {
        float *guided_output = s->guided + i * s->out_size;
        if (s->rows > batch)
            bb_guide(guided_output, out + i * s->out_size, out + (batch + i) * s->out_size, s->req.guidance,
                     s->out_size);
        else
            memcpy(guided_output, out + i * s->out_size, s->out_size * sizeof *out);
        bool noisy = bb_sampler_needs_noise(&s->plan, s->step);
        if (noisy) bb_normals(s->noise, s->x_size, s->seed[i], 1 + s->step, 0);
        bb_sampler_step(&s->plan, &s->model->pack.schedule, s->step, &(bb_sampler_io){
            .x = s->x + i * s->x_size, .model_output = guided_output, .noise = noisy ? s->noise : NULL,
            .pred_x0 = s->x0 + i * s->x_size, .scratch = s->scratch,
            .history = s->history + (size_t)i * s->plan.buffers * s->x_size, .pixels = s->pixels,
            .channels = channels, .out_channels = s->out_channels});
    }
    s->step++;
}

/* An observer sees values in graph order: all ops run in the second pass then, those of one value at the first step. */
static bool is_due(const bb_session *s)
{
    bb_rate rate = bb_run_rate(&s->run, s->op);
    if (bb_run_skips(&s->run, s->op)) return false;
    if (s->observed) return s->pass == 1 && (rate > BB_RATE_PROMPT || !s->prompt_made || !s->step);
    if ((rate == BB_RATE_SAMPLE) != (s->pass == 1)) return false;
    return rate == BB_RATE_SAMPLE || (rate == BB_RATE_STEP ? !s->schedule_made : !s->prompt_made);
}

static void finish_pass(bb_session *s)
{
    if (s->pass == (s->observed ? 1 : 0)) {
        s->prompt_made = true;
        s->schedule_made = s->schedule_made || s->run.count > 1;
        if (s->run.count > 1) bb_run_window(&s->run, s->step, 1);
    }
    s->op = 0;
    s->pass++;
}

bb_status bb_step(bb_session *s, uint32_t max_ops)
{
    if (s->state != DRAWING) return BB_ERR_ORDER;
    if (s->pass == 0 && s->op == 0) {
        s->observed = s->run.observe;
        bb_run_layout(&s->run, s->unfused || s->observed ? BB_PLAIN : BB_FUSED);
        if (s->req.steps) fill_sample(s), fill_timesteps(s);
    }
    for (uint32_t done = 0; s->pass < 2; finish_pass(s))
        for (; s->op < s->model->pack.graph.n_ops; s->op++) {
            if (__atomic_load_n(&s->cancel, __ATOMIC_RELAXED)) {
                s->state = NEW;
                return BB_ERR_CANCELLED;
            }
            if (!is_due(s)) continue;
            if (max_ops && done == max_ops) return BB_AGAIN;
            bb_run_op(&s->run, s->op);
            s->ran = s->op;
            done++;
        }
    s->pass = 0;
    if (s->req.steps) finish_step(s);
    if (s->step < s->plan.evaluations) return BB_OK;
    s->state = FINISHED;
    return BB_DONE;
}

static bb_status picture(const bb_session *s, const float *x, bb_image *out)
{
    if (!out || !out->rgba || out->width != s->req.width || out->height != s->req.height ||
        (out->stride && out->stride < 4 * out->width))
        return BB_ERR_ARGUMENT;
    bb_rgba(x, s->run.shapes[s->sample].c, out);
    return BB_OK;
}

bb_status bb_preview(const bb_session *s, uint32_t image, bb_image *out)
{
    if (!s->req.steps || image >= s->req.batch) return BB_ERR_ARGUMENT;
    if (s->state == NEW) return BB_ERR_ORDER;
    return picture(s, s->x0 + image * s->x_size, out);
}

bb_status bb_decode(const bb_session *s, uint32_t image, bb_image *out)
{
    if (!s->req.steps || image >= s->req.batch) return BB_ERR_ARGUMENT;
    if (s->state != FINISHED) return BB_ERR_ORDER;
    return picture(s, s->x + image * s->x_size, out);
}

bb_status bb_input(bb_session *s, const char *name, const float *data, size_t count)
{
    uint32_t v = bb_graph_find_input(&s->model->pack.graph, name);
    if (s->req.steps || v == BB_NONE || count != bb_shape_size(s->run.shapes[v])) return BB_ERR_ARGUMENT;
    if (v == s->labels)
        for (size_t i = 0; i < count; i++)
            if (!(data[i] >= 0 && data[i] < (float)s->model->pack.info.classes && bb_round_even(data[i]) == data[i]))
                return BB_ERR_LABEL;
    memcpy(s->run.at[v], data, count * sizeof *data);
    bb_run_inputs_changed(&s->run);
    return BB_OK;
}

bb_status bb_output(const bb_session *s, const char *name, const float **data, uint32_t shape[4])
{
    uint32_t v = bb_graph_find_output(&s->model->pack.graph, name);
    if (v == BB_NONE) return BB_ERR_ARGUMENT;
    bb_shape y = s->run.shapes[v];
    *data = s->run.at[v];
    memcpy(shape, (const uint32_t[]){y.n, y.h, y.w, y.c}, 4 * sizeof *shape);
    return BB_OK;
}

void bb_stats_get(const bb_session *s, bb_stats *out)
{
    uint32_t n_ops = s->model->pack.graph.n_ops, passed = 0;
    for (uint32_t i = 0; i < n_ops; i++) {
        uint32_t pass = s->observed || bb_run_rate(&s->run, i) == BB_RATE_SAMPLE;
        passed += pass < s->pass || (pass == s->pass && i < s->op);
    }
    *out = (bb_stats){.step = s->step, .steps = s->plan.evaluations, .op = passed, .ops = n_ops,
                      .workspace_bytes = s->workspace_bytes, .macs_per_step = s->run.macs};
}

void bb_cancel(bb_session *s) { __atomic_store_n(&s->cancel, 1, __ATOMIC_RELAXED); }

static void observe(void *user, const bb_run *run, uint32_t value)
{
    bb_session *s = user;
    const bb_graph *g = &run->pack->graph;
    if (g->values[value].path == BB_NONE) return;
    bb_shape y = run->shapes[value];
    s->tap(s->tap_user, bb_graph_string(g, g->values[value].path), run->at[value],
           (const uint32_t[]){y.n, y.h, y.w, y.c});
}

void bb_tap(bb_session *s, bb_tap_fn fn, void *user)
{
    s->tap = fn;
    s->tap_user = user;
    bb_session_observe(s, fn ? observe : NULL, s);
}

void bb_session_observe(bb_session *s, bb_observe_fn fn, void *user)
{
    s->run.observe = fn;
    s->run.user = user;
}

void bb_session_fuse(bb_session *s, bool on) { s->unfused = !on; }

float *bb_session_x(bb_session *s, size_t *n)
{
    *n = s->x_size;
    return s->x;
}

const float *bb_session_prediction(const bb_session *s, size_t *n)
{
    *n = s->out_size;
    return s->guided;
}

uint32_t bb_session_ran(const bb_session *s) { return s->ran; }
