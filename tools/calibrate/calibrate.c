#include "calibrate/calibrate.h"

#include "base/rng.h"
#include "import/labels.h"
#include "progress.h"
#include "sample/sampler.h"

#include <math.h>
#include <stdlib.h>

typedef struct collector {
    bb_calibration *out;
    const bb_session *session;
    uint32_t *site_of_op; /* [n_ops] site number, BB_NONE */
    uint32_t quota;       /* samples per image */
    uint64_t seed, drawn; /* of the stream that picks positions; numbers used so far */
    uint32_t broken;      /* value that was infinite or NaN; BB_NONE */
} collector;

/* Keeps the TAIL smallest of all sign·v: replaces the worst kept one, and says what the next must beat. */
static void keep_tail(float *tail, uint32_t *n, float *bound, float v, float sign)
{
    if (*n < BB_CALIBRATION_TAIL) {
        tail[(*n)++] = v;
        if (*n < BB_CALIBRATION_TAIL) return;
    }
    uint32_t worst = 0;
    for (uint32_t i = 1; i < *n; i++)
        if (sign * tail[i] > sign * tail[worst]) worst = i;
    if (sign * v < sign * tail[worst]) {
        tail[worst] = v;
        for (uint32_t i = 0; i < *n; i++)
            if (sign * tail[i] > sign * tail[worst]) worst = i;
    }
    *bound = tail[worst];
}

/* One segment of a value: extremes over all of it, and a random sample. False if a value is not finite. */
static bool collect(collector *c, bb_range_stats *s, const float *x, size_t pixels, size_t stride, uint32_t channels)
{
    float not_finite = 0; /* becomes NaN for good at the first inf − inf or NaN − NaN */
    for (size_t p = 0; p < pixels; p++)
        for (uint32_t k = 0; k < channels; k++) {
            float v = x[p * stride + k];
            not_finite += v - v;
            s->low = v < s->low ? v : s->low;
            s->high = v > s->high ? v : s->high;
            if (v < s->bound_low) keep_tail(s->samples + BB_CALIBRATION_SAMPLES, &s->n_low, &s->bound_low, v, 1);
            if (v > s->bound_high)
                keep_tail(s->samples + BB_CALIBRATION_SAMPLES + BB_CALIBRATION_TAIL, &s->n_high, &s->bound_high, v, -1);
        }
    s->count += (double)pixels * channels;
    uint32_t end = s->n + c->quota < BB_CALIBRATION_SAMPLES ? s->n + c->quota : BB_CALIBRATION_SAMPLES;
    while (s->n < end) {
        size_t at = (size_t)(bb_uniform(c->seed, BB_STREAM_TOOLS, c->drawn++) * (double)(pixels * channels));
        s->samples[s->n++] = x[at / channels * stride + at % channels];
    }
    return not_finite == 0;
}

/* Runs after every op; the op's input is still in memory then. */
static void observe(void *user, const bb_run *run, uint32_t value)
{
    collector *c = user;
    const bb_graph *g = &run->pack->graph;
    uint32_t number = c->site_of_op[value - g->n_inputs];
    bb_stats stats;
    if (number == BB_NONE) return;
    const bb_site *site = &c->out->sites[number];
    bb_shape shape = run->shapes[site->value];
    bb_stats_get(c->session, &stats);
    const float *x = run->at[site->value];
    size_t pixels = (size_t)shape.n * shape.h * shape.w;
    uint32_t row = site->rows > 1 ? stats.step : 0;
    for (uint32_t seg = 0; seg < site->segments; seg++) {
        bool finite = collect(c, &site->stats[row * site->segments + seg], x, pixels, shape.c,
                              site->seg_channels[seg]);
        if (!finite) c->broken = site->first_op;
        x += site->seg_channels[seg];
    }
}

static bool add_site(collector *c, const bb_model *m, const bb_shape *shapes, uint32_t op)
{
    const bb_graph *g = &m->pack.graph;
    uint32_t value = g->ops[op].in[0];
    if (bb_calibration_site(c->out, value)) return true;
    bb_site *site = &c->out->sites[c->out->n_sites];
    *site = (bb_site){.value = value, .first_op = op,
                      .rows = g->values[value].rate <= BB_RATE_PROMPT ? 1 : c->out->steps};
    site->segments = bb_graph_segments(g, shapes, value, site->seg_channels);
    site->stats = calloc((size_t)site->rows * site->segments, sizeof *site->stats);
    if (!site->stats) return false;
    c->site_of_op[op] = c->out->n_sites++;
    for (uint32_t i = 0; i < site->rows * site->segments; i++) {
        site->stats[i].bound_low = INFINITY;
        site->stats[i].bound_high = -INFINITY;
        site->stats[i].samples = malloc((BB_CALIBRATION_SAMPLES + 2 * BB_CALIBRATION_TAIL) * sizeof(float));
        if (!site->stats[i].samples) return false;
    }
    return true;
}

static bool add_sites(collector *c, const bb_model *m)
{
    const bb_graph *g = &m->pack.graph;
    const bb_shape *shapes = m->scratch.shapes; /* of the session just planned */
    for (uint32_t i = 0; i < g->n_ops; i++) {
        c->site_of_op[i] = BB_NONE;
        if (g->ops[i].kind != BB_OP_CONV2D && g->ops[i].kind != BB_OP_LINEAR) continue;
        if (!add_site(c, m, shapes, i)) return false;
    }
    return true;
}

static bb_status draw_all(const collector *c, bb_session *s, const bb_model *m, const bb_calibration_options *opt,
                          bb_error *err)
{
    bb_progress progress = bb_progress_start("calibrating (steps)", (size_t)opt->images * opt->steps, opt->quiet);
    for (uint32_t i = 0; i < opt->images; i++) {
        uint64_t seed = opt->seed + i;
        if (m->pack.info.classes) BB_TRY(bb_condition(s, 0, &(bb_cond){bb_nth_label(&m->pack.info, i)}));
        BB_TRY(bb_begin(s, &seed, NULL));
        for (uint32_t step = 0; step < opt->steps; step++) {
            bb_status status = bb_step(s, 0);
            if (status < 0) return bb_fail(err, status, "calibration: %s", bb_strerror(status));
            if (c->broken != BB_NONE)
                return bb_fail(err, BB_ERR_UNSUPPORTED, "calibration: the input of %s is infinite or not a number",
                               bb_op_label(&m->pack.graph, &m->pack.graph.ops[c->broken]));
            bb_progress_step(&progress, (size_t)i * opt->steps + step + 1);
        }
    }
    return BB_OK;
}

bb_status bb_calibrate(bb_calibration *out, const bb_model *m, const bb_calibration_options *opt, bb_error *err)
{
    size_t bytes;
    bb_session *s;
    bb_sampler_plan plan;
    *out = (bb_calibration){.steps = opt->steps};
    bb_request req = {.size_of = sizeof req, .steps = opt->steps, .guidance = opt->guidance,
                      .sampler = BB_SAMPLER_DDIM, .par = opt->par};
    BB_TRY(bb_sampler_plan_init(&plan, &m->pack.schedule, req.sampler, req.steps, 0, err));
    for (uint32_t i = 0; i < opt->steps; i++) out->timesteps[i] = (float)plan.timesteps[i];
    BB_TRY(bb_session_size(m, &req, &bytes, err));
    uint32_t n_ops = m->pack.graph.n_ops;
    collector c = {.out = out, .quota = (BB_CALIBRATION_SAMPLES + opt->images - 1) / opt->images, .seed = opt->seed,
                   .broken = BB_NONE};
    void *ws = malloc(bytes);
    c.site_of_op = malloc(n_ops * sizeof *c.site_of_op);
    out->sites = calloc(n_ops, sizeof *out->sites);
    bb_status status = BB_ERR_SPACE;
    if (!ws || !c.site_of_op || !out->sites) bb_fail(err, status, "calibration: out of memory");
    else if ((status = bb_session_init(m, &req, ws, bytes, &s, err)) == BB_OK) {
        c.session = s;
        if (!add_sites(&c, m)) status = bb_fail(err, BB_ERR_SPACE, "calibration: out of memory");
        bb_session_observe(s, observe, &c);
        if (status == BB_OK) status = draw_all(&c, s, m, opt, err);
    }
    free(ws);
    free(c.site_of_op);
    return status;
}

void bb_calibration_free(bb_calibration *c)
{
    for (uint32_t i = 0; i < c->n_sites; i++) {
        bb_site *site = &c->sites[i];
        for (uint32_t k = 0; site->stats && k < site->rows * site->segments; k++) free(site->stats[k].samples);
        free(site->stats);
    }
    free(c->sites);
    *c = (bb_calibration){0};
}

bb_activation_stats bb_calibration_stats(const bb_range_stats *s, float *tail)
{
    const float *low = s->samples + BB_CALIBRATION_SAMPLES, *high = low + BB_CALIBRATION_TAIL;
    bb_activation_stats out = {.low = s->low, .high = s->high, .tail = tail, .sample = s->samples, .n_sample = s->n,
                               .tail_low = s->bound_low, .tail_high = s->bound_high, .count = s->count};
    for (uint32_t i = 0; i < s->n_low; i++) tail[out.n_tail++] = low[i];
    for (uint32_t i = 0; i < s->n_high; i++) tail[out.n_tail++] = high[i];
    /* So few values that the tails hold them all (twice): then they are the whole story. */
    if (s->n_low < BB_CALIBRATION_TAIL || s->bound_low >= s->bound_high) out.n_sample = 0;
    return out;
}

const bb_site *bb_calibration_site(const bb_calibration *c, uint32_t value)
{
    for (uint32_t i = 0; i < c->n_sites; i++)
        if (c->sites[i].value == value) return &c->sites[i];
    return NULL;
}
