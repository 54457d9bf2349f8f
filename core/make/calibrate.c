/* Activation statistics from the model's own sampling trajectories: no data set is needed. */
#include "make/make.h"

#include "base/rng.h"
#include "sample/sampler.h"

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
static bool collect(bb_make *m, bb_range_stats *s, const float *x, size_t pixels, size_t stride, uint32_t channels)
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
    uint32_t quota = (BB_CALIBRATION_SAMPLES + m->opt.images - 1) / m->opt.images;
    uint32_t end = s->n + quota < BB_CALIBRATION_SAMPLES ? s->n + quota : BB_CALIBRATION_SAMPLES;
    while (s->n < end) {
        size_t at = (size_t)(bb_uniform(m->opt.seed, BB_STREAM_TOOLS, m->cal.drawn++) * (double)(pixels * channels));
        s->samples[s->n++] = x[at / channels * stride + at % channels];
    }
    return not_finite == 0;
}

/* Runs after every op; the op's input is still in memory then. */
static void observe(void *user, const bb_run *run, uint32_t value)
{
    bb_make *m = user;
    const bb_graph *g = &run->pack->graph;
    uint32_t number = m->cal.site_of_op[value - g->n_inputs];
    if (number == BB_NONE) return;
    const bb_site *site = &m->cal.sites[number];
    bb_shape shape = run->shapes[site->value];
    const float *x = run->at[site->value];
    size_t pixels = (size_t)shape.n * shape.h * shape.w;
    uint32_t row = site->rows > 1 ? m->cal.step : 0;
    for (uint32_t seg = 0; seg < site->segments; seg++) {
        bool finite = collect(m, &site->stats[row * site->segments + seg], x, pixels, shape.c,
                              site->seg_channels[seg]);
        if (!finite) m->cal.broken = site->first_op;
        x += site->seg_channels[seg];
    }
}

static bool add_site(bb_make *m, uint32_t op)
{
    const bb_graph *g = &m->model.pack.graph;
    bb_calibration *c = &m->cal;
    uint32_t value = g->ops[op].in[0];
    if (bb_calibration_site(c, value)) return true;
    bb_site *site = &c->sites[c->n_sites];
    *site = (bb_site){.value = value, .first_op = op,
                      .rows = g->values[value].rate <= BB_RATE_PROMPT ? 1 : m->opt.steps};
    site->segments = bb_graph_segments(g, m->model.scratch.shapes, value, site->seg_channels);
    uint32_t n = site->rows * site->segments;
    const uint32_t kept = BB_CALIBRATION_SAMPLES + 2 * BB_CALIBRATION_TAIL;
    site->stats = bb_blocks_take(&m->blocks, n, sizeof *site->stats);
    float *samples = bb_blocks_take(&m->blocks, (size_t)n * kept, sizeof *samples);
    if (!site->stats || !samples) return false;
    c->site_of_op[op] = c->n_sites++;
    for (uint32_t i = 0; i < n; i++)
        site->stats[i] = (bb_range_stats){.samples = samples + (size_t)i * kept, .bound_low = BB_INFINITY,
                                          .bound_high = -BB_INFINITY};
    return true;
}

static bool add_sites(bb_make *m)
{
    const bb_graph *g = &m->model.pack.graph;
    m->cal.site_of_op = bb_blocks_take(&m->blocks, g->n_ops, sizeof *m->cal.site_of_op);
    m->cal.sites = bb_blocks_take(&m->blocks, g->n_ops, sizeof *m->cal.sites);
    if (!m->cal.site_of_op || !m->cal.sites) return false;
    for (uint32_t i = 0; i < g->n_ops; i++) {
        m->cal.site_of_op[i] = BB_NONE;
        if (bb_is_matrix_op(&g->ops[i]) && !add_site(m, i)) return false;
    }
    return true;
}

bb_status bb_calibration_begin(bb_make *m, bb_error *err)
{
    size_t bytes;
    bb_sampler_plan plan;
    const bb_request req = {.size_of = sizeof req, .steps = m->opt.steps, .guidance = m->opt.guidance,
                            .sampler = BB_SAMPLER_DDIM, .par = m->opt.par};
    BB_TRY(bb_sampler_plan_init(&plan, &m->model.pack.schedule, req.sampler, req.steps, 0, err));
    for (uint32_t i = 0; i < req.steps; i++) m->cal.timesteps[i] = (float)plan.timesteps[i];
    BB_TRY(bb_session_size(&m->model, &req, &bytes, err)); /* which also infers all shapes */
    m->cal.broken = BB_NONE;
    if (!add_sites(m)) return bb_out_of_memory(err, "calibration");
    m->cal.before = m->blocks.last;
    void *ws = bb_blocks_take(&m->blocks, bytes, 1);
    if (!ws) return bb_out_of_memory(err, "calibration");
    BB_TRY(bb_session_init(&m->model, &req, ws, bytes, &m->cal.session, err));
    bb_session_observe(m->cal.session, observe, m);
    return BB_OK;
}

static bb_status begin_picture(bb_make *m)
{
    uint64_t seed = m->opt.seed + m->cal.image;
    const bb_info *info = &m->model.pack.info;
    if (info->classes)
        BB_TRY(bb_condition(m->cal.session, 0, &(bb_cond){bb_nth_label(info, m->cal.image)}));
    return bb_begin(m->cal.session, &seed, NULL);
}

bb_status bb_calibration_step(bb_make *m, bb_error *err)
{
    bb_calibration *c = &m->cal;
    bb_status status = c->step == 0 ? begin_picture(m) : BB_OK;
    if (status >= 0) status = bb_step(c->session, 0);
    if (status < 0) return bb_fail(err, status, "calibration: %s", bb_strerror(status));
    if (c->broken != BB_NONE)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "calibration: the input of %s is infinite or not a number",
                       bb_op_label(&m->model.pack.graph, &m->model.pack.graph.ops[c->broken]));
    if (++c->step < m->opt.steps) return BB_AGAIN;
    c->step = 0;
    if (++c->image < m->opt.images) return BB_AGAIN;
    c->session = NULL;
    bb_blocks_give(&m->blocks, c->before);
    return BB_DONE;
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
