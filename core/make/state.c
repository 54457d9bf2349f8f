/* The state of calibration as bytes. One walk over its parts measures, saves, checks and loads them, so that the four
 * cannot disagree about the layout. */
#include "make/make.h"

enum { VERSION = 1 }; /* another one whenever calibration does anything else than before */
enum { KEPT = BB_CALIBRATION_SAMPLES + 2 * BB_CALIBRATION_TAIL };

typedef enum mode { MEASURE, SAVE, CHECK, LOAD } mode;

typedef struct walk {
    mode mode;
    uint8_t *to;
    const uint8_t *from;
    size_t at;
    bool good;
} walk;

typedef struct head { uint64_t drawn, picked; uint32_t version, pass, image, n_sites; } head;
typedef struct range { double count; float low, high; uint32_t n, n_low, n_high, zero; } range;

/* A few numbers, which the caller checks before it uses them. */
static void record(walk *w, void *p, size_t bytes)
{
    if (w->mode == SAVE) memcpy(w->to + w->at, p, bytes);
    if (w->mode == CHECK || w->mode == LOAD) memcpy(p, w->from + w->at, bytes);
    w->at += bytes;
}

static void floats(walk *w, float *x, size_t n)
{
    float v, not_finite = 0;
    if (w->mode == CHECK)
        for (size_t i = 0; i < n; i++) {
            memcpy(&v, w->from + w->at + i * sizeof v, sizeof v);
            not_finite += v - v;
        }
    w->good = w->good && not_finite == 0;
    if (w->mode == CHECK) w->at += n * sizeof *x;
    else record(w, x, n * sizeof *x);
}

/* seen: at least one picture has gone into the ranges. */
static void walk_range(walk *w, bb_range_stats *s, bool seen)
{
    range r = {s->count, s->low, s->high, s->n, s->n_low, s->n_high, 0};
    float *low = s->samples + BB_CALIBRATION_SAMPLES, *high = low + BB_CALIBRATION_TAIL;
    record(w, &r, sizeof r);
    if (w->mode == CHECK)
        w->good = w->good && r.n <= BB_CALIBRATION_SAMPLES && r.n_low <= BB_CALIBRATION_TAIL &&
                  r.n_high <= BB_CALIBRATION_TAIL && r.low <= r.high && r.low - r.low == 0 && r.high - r.high == 0 &&
                  r.count >= r.n_low && r.count >= r.n_high && r.count - r.count == 0 &&
                  (!seen || (r.n && r.n_low && r.n_high));
    floats(w, s->samples, KEPT);
    if (w->mode != LOAD) return;
    *s = (bb_range_stats){.low = r.low, .high = r.high, .samples = s->samples, .n = r.n, .n_low = r.n_low,
                          .n_high = r.n_high, .bound_low = bb_calibration_bound(low, r.n_low, 1),
                          .bound_high = bb_calibration_bound(high, r.n_high, -1), .count = r.count};
}

static void walk_inputs(walk *w, const bb_make *m, bb_job *job)
{
    floats(w, job->x, (size_t)job->k * m->cal.samples);
    for (uint32_t i = 0; i < m->cal.samples; i++) {
        uint8_t row = job->row[i];
        record(w, &row, 1);
        w->good = w->good && row < m->opt.steps;
        if (w->mode == LOAD) job->row[i] = row;
    }
}

static bool head_fits(const bb_make *m, const head *h)
{
    uint32_t before = bb_smoothing_images(m);
    if (h->version != VERSION || h->n_sites != m->cal.n_sites) return false;
    return h->pass == 0 ? h->image < before : h->pass == 1 ? h->image < m->opt.images :
           h->pass == 2 && h->image == m->opt.images;
}

/* Changes m in mode LOAD only. */
static walk walk_all(bb_make *m, walk w)
{
    bb_calibration *c = &m->cal;
    head h = {c->drawn, c->picked, VERSION, c->pass, c->image, c->n_sites};
    w.good = true;
    record(&w, &h, sizeof h);
    if (w.mode == CHECK) w.good = head_fits(m, &h);
    bool seen = h.pass > 1 || (h.pass == 1 && h.image);
    for (uint32_t i = 0; i < c->n_sites; i++) {
        bb_site *site = &c->sites[i];
        if (site->largest) floats(&w, site->largest, m->model.scratch.shapes[site->value].c);
        for (uint32_t k = 0; k < site->rows * site->segments; k++) walk_range(&w, &site->stats[k], seen);
    }
    for (uint32_t i = 0; i < m->model.pack.graph.n_weights; i++)
        if (m->jobs[i].op != BB_NONE && m->jobs[i].x) walk_inputs(&w, m, &m->jobs[i]);
    if (w.mode != LOAD) return w;
    c->drawn = h.drawn;
    c->picked = h.picked;
    c->pass = h.pass;
    c->image = h.image;
    return w;
}

/* Saving only reads; the walk is written for both ways. */
static bb_make *writable(const bb_make *m) { return (bb_make *)(uintptr_t)m; }

size_t bb_make_state_bytes(const bb_make *m)
{
    if (!m->started || m->failed < 0 || m->cal.step || m->refs) return 0;
    return walk_all(writable(m), (walk){.mode = MEASURE}).at;
}

void bb_make_state_save(const bb_make *m, void *out)
{
    if (bb_make_state_bytes(m)) walk_all(writable(m), (walk){.mode = SAVE, .to = out});
}

bb_status bb_make_state_load(bb_make *m, const void *bytes, size_t n, bb_error *err)
{
    if (m->failed < 0 || m->started || !bytes) return bb_fail(err, BB_ERR_ORDER, "bb_make_state_load: too late");
    bb_status status = bb_calibration_begin(m, err);
    if (status < 0) return m->failed = status;
    m->started = true;
    if (n != bb_make_state_bytes(m) || !walk_all(m, (walk){.mode = CHECK, .from = bytes}).good)
        return bb_fail(err, BB_ERR_CORRUPT, "not the state of this calibration");
    walk_all(m, (walk){.mode = LOAD, .from = bytes});
    if (m->cal.pass) bb_calibration_smooth(m);
    if (m->cal.pass < 2) return BB_OK;
    bb_calibration_finish(m);
    m->phase = BB_MAKE_QUANTIZE;
    return BB_OK;
}
