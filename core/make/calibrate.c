/* Activation statistics from the model's own sampling trajectories: no data set is needed. */
#include "make/make.h"

#include "base/rng.h"
#include "sample/sampler.h"

static uint32_t worst_of(const float *tail, uint32_t n, float sign)
{
    uint32_t worst = 0;
    for (uint32_t i = 1; i < n; i++)
        if (sign * tail[i] > sign * tail[worst]) worst = i;
    return worst;
}

float bb_calibration_bound(const float *tail, uint32_t n, float sign)
{
    return n < BB_CALIBRATION_TAIL ? sign * BB_INFINITY : tail[worst_of(tail, n, sign)];
}

/* Keeps the TAIL smallest of all sign·v: replaces the worst kept one, and says what the next must beat. */
static void keep_tail(float *tail, uint32_t *n, float *bound, float v, float sign)
{
    if (*n < BB_CALIBRATION_TAIL) {
        tail[(*n)++] = v;
    } else {
        uint32_t worst = worst_of(tail, *n, sign);
        if (sign * v < sign * tail[worst]) tail[worst] = v;
    }
    *bound = bb_calibration_bound(tail, *n, sign);
}

/* One segment of a value: extremes over all of it, and a random sample. False if a value is not finite. */
static bool collect(bb_make *m, bb_range_stats *s, const float *x, const float *inv_s, uint32_t visits, size_t pixels,
                    size_t stride, uint32_t channels)
{
    float not_finite = 0; /* becomes NaN for good at the first inf − inf or NaN − NaN */
    for (size_t p = 0; p < pixels; p++)
        for (uint32_t k = 0; k < channels; k++) {
            float v = inv_s ? x[p * stride + k] * inv_s[k] : x[p * stride + k];
            not_finite += v - v;
            s->low = v < s->low ? v : s->low;
            s->high = v > s->high ? v : s->high;
            if (v < s->bound_low) keep_tail(s->samples + BB_CALIBRATION_SAMPLES, &s->n_low, &s->bound_low, v, 1);
            if (v > s->bound_high)
                keep_tail(s->samples + BB_CALIBRATION_SAMPLES + BB_CALIBRATION_TAIL, &s->n_high, &s->bound_high, v, -1);
        }
    s->count += (double)pixels * channels;
    uint32_t quota = (BB_CALIBRATION_SAMPLES + visits - 1) / visits;
    uint32_t end = s->n + quota < BB_CALIBRATION_SAMPLES ? s->n + quota : BB_CALIBRATION_SAMPLES;
    while (s->n < end) {
        size_t at = (size_t)(bb_uniform(m->opt.seed, BB_STREAM_TOOLS, m->cal.drawn++) * (double)(pixels * channels));
        float v = x[at / channels * stride + at % channels];
        s->samples[s->n++] = inv_s ? v * inv_s[at % channels] : v;
    }
    return not_finite == 0;
}

/* The largest |x| of every channel. NaN counts as nothing here: the next pass meets it. */
static void measure(float *largest, const float *x, size_t pixels, uint32_t channels)
{
    for (size_t p = 0; p < pixels; p++, x += channels)
        for (uint32_t k = 0; k < channels; k++) {
            float v = x[k] < 0 ? -x[k] : x[k];
            largest[k] = v > largest[k] ? v : largest[k];
        }
}

/* The inputs of one output position as column `at` of job->x; outside the picture they are 0. */
static void pick(bb_make *m, bb_job *job, const bb_run *run, uint32_t at)
{
    const bb_op *op = &run->pack->graph.ops[job->op];
    bb_shape in = run->shapes[op->in[0]], out = run->shapes[bb_op_value(&run->pack->graph, job->op)];
    bool conv = op->kind == BB_OP_CONV2D;
    size_t pixels = (size_t)out.n * out.h * out.w;
    size_t p = (size_t)(bb_uniform(m->opt.seed, BB_STREAM_TOOLS + 1, m->cal.picked++) * (double)pixels);
    uint32_t item = (uint32_t)(p / out.w / out.h), oy = (uint32_t)(p / out.w % out.h), ox = (uint32_t)(p % out.w);
    float *to = job->x + at;
    for (uint32_t tap = 0; tap < job->taps; tap++) {
        int64_t y = oy, x = ox;
        if (conv) {
            y = (int64_t)oy * op->conv.stride + tap / op->conv.kw - op->conv.top;
            x = (int64_t)ox * op->conv.stride + tap % op->conv.kw - op->conv.left;
        }
        bool inside = y >= 0 && y < in.h && x >= 0 && x < in.w;
        const float *from = run->at[op->in[0]]; /* not moved outside the picture: not even unread */
        if (inside) from += (((size_t)item * in.h + (size_t)y) * in.w + (size_t)x) * in.c;
        for (uint32_t c = 0; c < in.c; c++, to += m->cal.samples) *to = inside ? from[c] : 0;
    }
    job->row[at] = (uint8_t)m->cal.step;
}

/* Evenly over all steps, and over the pictures inside a step. */
static void sample_inputs(bb_make *m, bb_job *job, const bb_run *run)
{
    bool once = m->model.pack.graph.values[m->cal.sites[job->site].value].rate <= BB_RATE_PROMPT;
    uint64_t visits = (uint64_t)m->opt.images * (once ? 1 : m->opt.steps);
    uint64_t visit = once ? m->cal.image : (uint64_t)m->cal.step * m->opt.images + m->cal.image;
    uint32_t end = (uint32_t)((visit + 1) * m->cal.samples / visits);
    for (uint32_t at = (uint32_t)(visit * m->cal.samples / visits); at < end; at++) pick(m, job, run, at);
}

static void collect_site(bb_make *m, bb_site *site, const bb_run *run)
{
    bb_shape shape = run->shapes[site->value];
    const float *x = run->at[site->value];
    size_t pixels = (size_t)shape.n * shape.h * shape.w;
    uint32_t row = site->rows > 1 ? m->cal.step : 0, channel = 0;
    bool once = run->pack->graph.values[site->value].rate <= BB_RATE_PROMPT;
    uint32_t visits = m->opt.images * (once || site->rows > 1 ? 1 : m->opt.steps);
    if (m->cal.pass == 0) {
        if (site->largest) measure(site->largest, x, pixels, shape.c);
        return;
    }
    for (uint32_t seg = 0; seg < site->segments; channel += site->seg_channels[seg++])
        if (!collect(m, &site->stats[row * site->segments + seg], x + channel,
                     site->inv_s ? site->inv_s + channel : NULL, visits, pixels, shape.c, site->seg_channels[seg]))
            m->cal.broken = site->first_op;
}

/* Runs after every op; the op's input is still in memory then. */
static void observe(void *user, const bb_run *run, uint32_t value)
{
    bb_make *m = user;
    const bb_op *op = &run->pack->graph.ops[value - run->pack->graph.n_inputs];
    uint32_t number = m->cal.site_of_op[value - run->pack->graph.n_inputs];
    if (number != BB_NONE) collect_site(m, &m->cal.sites[number], run);
    if (!bb_is_matrix_op(op) || !m->cal.samples || m->cal.pass == 0) return;
    bb_job *job = &m->jobs[op->weight[0]];
    if (&run->pack->graph.ops[job->op] == op && job->x) sample_inputs(m, job, run);
}

static bool add_site(bb_make *m, uint32_t op)
{
    const bb_graph *g = &m->model.pack.graph;
    bb_calibration *c = &m->cal;
    uint32_t value = g->ops[op].in[0];
    if (bb_calibration_site(c, value)) return true;
    bb_site *site = &c->sites[c->n_sites];
    bool one = g->values[value].rate <= BB_RATE_PROMPT || m->opt.tables == BB_TABLES_STATIC;
    *site = (bb_site){.value = value, .first_op = op, .rows = one ? 1 : m->opt.steps, .inv_s_at = BB_NONE};
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

/* Room for sampled inputs, where something is chosen by output error. Fewer of them in large models. */
static bool add_samples(bb_make *m)
{
    const bb_graph *g = &m->model.pack.graph;
    uint64_t k = 1;
    for (uint32_t i = 0; i < g->n_weights; i++)
        if (m->jobs[i].op != BB_NONE) k += m->jobs[i].k;
    uint64_t n = BB_INPUT_BYTES / (k * sizeof(float)) / 16 * 16;
    m->cal.samples = n < 32 ? 32 : n > BB_INPUT_SAMPLES ? BB_INPUT_SAMPLES : (uint32_t)n;
    for (uint32_t i = 0; i < g->n_weights; i++) {
        bb_job *job = &m->jobs[i];
        if (job->op == BB_NONE || job->kept_float) continue;
        job->x = bb_blocks_take(&m->blocks, (size_t)m->cal.samples * job->k, sizeof *job->x);
        job->row = bb_blocks_take(&m->blocks, m->cal.samples, 1);
        if (!job->x || !job->row) return false;
    }
    return true;
}

/* Sites whose readers all get the asked bits are smoothed. */
static bool add_smoothing(bb_make *m)
{
    const bb_graph *g = &m->model.pack.graph;
    for (uint32_t i = 0; i < g->n_weights; i++) {
        if (m->jobs[i].op == BB_NONE) continue;
        const bb_site *site = bb_calibration_site(&m->cal, g->ops[m->jobs[i].op].in[0]);
        m->jobs[i].site = (uint32_t)(site - m->cal.sites);
    }
    for (uint32_t i = 0; m->opt.smoothing > 0 && i < m->cal.n_sites; i++) {
        bb_site *site = &m->cal.sites[i];
        bool all_low = site->value >= g->n_inputs;
        for (uint32_t k = 0; k < g->n_weights; k++)
            if (m->jobs[k].op != BB_NONE && m->jobs[k].site == i) all_low = all_low && m->jobs[k].low;
        if (!all_low) continue;
        uint32_t channels = m->model.scratch.shapes[site->value].c;
        site->largest = bb_blocks_take(&m->blocks, channels, sizeof *site->largest);
        site->inv_s = bb_blocks_take(&m->blocks, channels, sizeof *site->inv_s);
        if (!site->largest || !site->inv_s) return false;
    }
    return true;
}

uint32_t bb_smoothing_images(const bb_make *m) { return m->opt.smoothing > 0 ? (m->opt.images + 3) / 4 : 0; }

/* s = max|x|^a / max|w|^(1−a) per input channel, over all layers that read the site (SmoothQuant). */
static void smooth(bb_make *m, uint32_t number)
{
    bb_site *site = &m->cal.sites[number];
    uint32_t channels = m->model.scratch.shapes[site->value].c;
    for (uint32_t c = 0; c < channels; c++) {
        float w = 0, x = site->largest[c];
        for (uint32_t slot = 0; slot < m->model.pack.graph.n_weights; slot++) {
            const bb_job *job = &m->jobs[slot];
            if (job->op == BB_NONE || job->site != number) continue;
            for (uint32_t tap = 0; tap < job->taps; tap++)
                for (uint32_t n = 0; n < job->outputs; n++) {
                    float v = bb_weight_at(&m->weights[slot], n, (size_t)tap * channels + c);
                    v = v < 0 ? -v : v;
                    w = v > w ? v : w;
                }
        }
        bool usable = x > 1e-20f && x < 1e20f && w > 1e-20f && w < 1e20f; /* dead channels stay as they are */
        double a = (double)m->opt.smoothing;
        site->inv_s[c] = usable ? (float)bb_exp((1 - a) * bb_log((double)w) - a * bb_log((double)x)) : 1;
    }
}

void bb_calibration_smooth(bb_make *m)
{
    for (uint32_t i = 0; i < m->cal.n_sites; i++)
        if (m->cal.sites[i].largest) smooth(m, i);
}

void bb_calibration_finish(bb_make *m)
{
    m->cal.session = NULL;
    bb_blocks_give(&m->blocks, m->cal.before);
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
    m->cal.pass = bb_smoothing_images(m) ? 0 : 1;
    BB_TRY(bb_jobs_begin(m, err));
    if (!add_sites(m) || !add_smoothing(m) || !add_samples(m)) return bb_out_of_memory(err, "calibration");
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
    if (++c->image < (c->pass ? m->opt.images : bb_smoothing_images(m))) return BB_AGAIN;
    if (c->pass++ == 0) {
        bb_calibration_smooth(m);
        c->image = 0;
        return BB_AGAIN;
    }
    bb_calibration_finish(m);
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

bb_site *bb_calibration_site(bb_calibration *c, uint32_t value)
{
    for (uint32_t i = 0; i < c->n_sites; i++)
        if (c->sites[i].value == value) return &c->sites[i];
    return NULL;
}
