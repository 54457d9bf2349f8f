/* bitbrush bench MODEL: a model's step, op by op and by kind of op. */
#include "bench/bench.h"
#include "bench/timer.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 256, LEAST_STEPS = 3 };

typedef struct op_time {
    uint32_t op;         /* of the graph */
    char kind[24], way[160];
    bool product;        /* conv or linear */
    enum { IN_ANOTHER, ONCE, EACH_STEP } runs; /* ONCE: in the first step only */
    uint32_t home;       /* the op that it is done in, if IN_ANOTHER */
    uint64_t macs;
    uint32_t n;
    double sample[SAMPLES], mean; /* the mean of the middle half */
} op_time;

typedef struct kind_time { const char *kind; uint32_t ops; double seconds; uint64_t macs; } kind_time;

typedef struct report {
    const bb_bench *b;
    bb_host host;
    bb_request req;
    uint32_t evaluations, labels; /* of a drawing; classes to draw in turn */
    op_time *ops;        /* [n_ops] */
    double *steps, *firsts; /* [SAMPLES] whole steps; whole first ones */
    uint32_t n_steps, n_firsts, n_kinds;
    kind_time kinds[64];
    double step, best, first; /* medians, and the shortest */
    double op_sum, once; /* of the means of ops in each step, and of those made once a schedule */
    double products;     /* of op_sum: convolutions, linears and their quantization */
} report;

static uint64_t macs_of(const bb_graph *g, const bb_shape *shapes, uint32_t i)
{
    const bb_op *op = &g->ops[i];
    const uint64_t y = bb_shape_size(shapes[bb_op_value(g, i)]);
    const bb_shape x = shapes[op->in[0]];
    if (op->kind == BB_OP_CONV2D) return y * op->conv.kh * op->conv.kw * x.c;
    if (op->kind == BB_OP_LINEAR) return y * x.c;
    if (op->kind != BB_OP_ATTENTION) return 0;
    return 2 * y * shapes[op->in[1]].h * shapes[op->in[1]].w;
}

static const char *op_label(const report *r, uint32_t i)
{
    const bb_graph *g = &r->host.model->pack.graph;
    return bb_op_label(g, &g->ops[i]);
}

static void describe_ops(report *r)
{
    const bb_model *m = r->host.model;
    const bb_graph *g = &m->pack.graph;
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const bb_op *op = &g->ops[i];
        op_time *t = &r->ops[i];
        char kernel[16] = "";
        *t = (op_time){.op = i, .product = op->kind == BB_OP_CONV2D || op->kind == BB_OP_LINEAR,
                       .macs = macs_of(g, m->scratch.shapes, i)};
        const bb_layer *layer = t->product ? m->pack.weights[op->weight[0]].layer : NULL;
        if (op->kind == BB_OP_CONV2D) snprintf(kernel, sizeof kernel, " %ux%u", op->conv.kh, op->conv.kw);
        snprintf(t->kind, sizeof t->kind, "%s%s%s", bb_op_name(op->kind), kernel, t->product && !layer ? " f32" : "");
        if (layer) bb_bench_ways(&m->kernels, op, layer, t->way, sizeof t->way);
    }
}

/* A new drawing of another class, so that nothing is left over from the one before. */
static bb_status begin(report *r, uint32_t drawing)
{
    bb_session *s = r->host.session;
    uint64_t seeds[64];
    for (uint32_t i = 0; i < r->req.batch; i++) {
        seeds[i] = drawing + i;
        if (r->labels) BB_TRY(bb_condition(s, i, &(bb_cond){(int32_t)((drawing + i) % r->labels)}));
    }
    return bb_begin(s, seeds, NULL);
}

static void keep(double *samples, uint32_t *n, double seconds)
{
    if (*n < SAMPLES) samples[(*n)++] = seconds;
}

static bb_status whole_steps(report *r, bool measured)
{
    bb_status status = BB_OK;
    for (uint32_t step = 0; status == BB_OK; step++) {
        const double start = bb_timing_now(r->host.par);
        status = bb_step(r->host.session, 0);
        const double seconds = bb_timing_now(r->host.par) - start;
        if (measured && step) keep(r->steps, &r->n_steps, seconds);
        else if (measured) keep(r->firsts, &r->n_firsts, seconds);
    }
    return status;
}

static bb_status single_ops(report *r, bool measured)
{
    bb_status status = BB_OK;
    for (uint32_t step = 0; status >= 0 && status != BB_DONE; step += status != BB_AGAIN) {
        const double start = bb_timing_now(r->host.par);
        status = bb_step(r->host.session, 1);
        const double seconds = bb_timing_now(r->host.par) - start;
        op_time *t = &r->ops[bb_session_ran(r->host.session)];
        if (step || t->runs == IN_ANOTHER) t->runs = step ? EACH_STEP : ONCE;
        if (measured) keep(t->sample, &t->n, seconds);
    }
    return status;
}

/* Drawings by whole steps and by ops in turn; the first of each are the warm-up. */
static bb_status measure(report *r)
{
    bb_progress progress = bb_progress_start("measuring (ms)", (size_t)(r->b->seconds * 1000) + 1, r->b->quiet);
    double start = bb_now();
    for (uint32_t drawing = 0; drawing < 4096; drawing++) {
        const double elapsed = bb_now() - start;
        const bool warm = drawing >= 2, enough = r->n_steps >= LEAST_STEPS && drawing >= 4;
        if (drawing == 2) start = bb_now();
        if (warm && enough && elapsed >= r->b->seconds) break;
        if (elapsed < r->b->seconds) bb_progress_step(&progress, (size_t)(elapsed * 1000));
        BB_TRY(begin(r, drawing));
        const bb_status status = drawing % 2 ? single_ops(r, warm) : whole_steps(r, warm);
        if (status < 0) return status;
    }
    bb_progress_step(&progress, progress.total);
    return BB_OK;
}

static int by_seconds(const void *a, const void *b)
{
    const double x = ((const kind_time *)a)->seconds, y = ((const kind_time *)b)->seconds;
    return (x < y) - (x > y);
}

static void add_kind(report *r, const op_time *t)
{
    uint32_t i = 0;
    while (i < r->n_kinds && strcmp(r->kinds[i].kind, t->kind) != 0) i++;
    if (i == BB_COUNT(r->kinds)) i--;
    else if (i == r->n_kinds) r->kinds[r->n_kinds++] = (kind_time){.kind = t->kind};
    r->kinds[i].ops++;
    r->kinds[i].seconds += t->mean;
    r->kinds[i].macs += t->macs;
}

/* The first layer that a fused op is done in. */
static uint32_t home_of(const report *r, uint32_t i)
{
    const bb_graph *g = &r->host.model->pack.graph;
    const bb_fusion *fusion = r->host.model->scratch.fusion; /* of the session just made */
    const uint32_t value = bb_op_value(g, i);
    for (uint32_t layer = 0; layer < g->n_ops; layer++) {
        const bb_fusion *f = &fusion[layer];
        if (layer == i || !r->ops[layer].runs) continue;
        if (f->y == value || f->norm == i || (f->silu && g->ops[layer].in[0] == value)) return layer;
    }
    return i;
}

static void sum_up(report *r)
{
    const uint32_t n_ops = r->host.model->pack.graph.n_ops;
    for (uint32_t i = 0; i < n_ops; i++) {
        op_time *t = &r->ops[i];
        t->mean = bb_middle_mean(t->sample, t->n);
        if (t->runs == IN_ANOTHER) t->home = home_of(r, i);
        if (t->runs == ONCE) r->once += t->mean;
        if (t->runs != EACH_STEP) continue;
        r->op_sum += t->mean;
        if (t->product) r->products += t->mean;
        add_kind(r, t);
    }
    r->step = bb_median(r->steps, r->n_steps);
    r->best = r->steps[0]; /* sorted now */
    r->first = bb_median(r->firsts, r->n_firsts);
    qsort(r->kinds, r->n_kinds, sizeof *r->kinds, by_seconds);
}

/* ---- printing ---- */

static int by_time(const void *a, const void *b)
{
    const op_time *x = a, *y = b;
    if (x->runs != y->runs) return x->runs > y->runs ? -1 : 1;
    return (x->mean < y->mean) - (x->mean > y->mean);
}

static void print_step(const report *r)
{
    bb_stats stats;
    bb_stats_get(r->host.session, &stats);
    const double macs = (double)stats.macs_per_step;
    if (r->b->json) {
        printf(",\"model\":{\"file\":");
        bb_cli_print_json(r->b->model);
        printf(",\"height\":%u,\"width\":%u,\"items\":%u,\"evaluations\":%u,\"macs\":%.0f,", r->req.height,
               r->req.width, r->req.batch * (r->req.guidance != 1 ? 2 : 1), r->evaluations, macs);
        printf("\"step_ms\":%.6g,\"step_best_ms\":%.6g,\"first_step_ms\":%.6g,\"ops_ms\":%.6g,\"once_ms\":%.6g,",
               r->step * 1e3, r->best * 1e3, r->first * 1e3, r->op_sum * 1e3, r->once * 1e3);
        printf("\"gmacs\":%.6g,", macs / r->step * 1e-9);
        printf("\"products_share\":%.4g,\"rest_share\":%.4g", r->products / r->op_sum, 1 - r->products / r->op_sum);
        return;
    }
    char name[256];
    snprintf(name, sizeof name, "%s", r->b->model);
    bb_cli_plain(name);
    printf("%s, %ux%u pixels, batch %u%s\n", name, r->req.width, r->req.height, r->req.batch,
           r->req.guidance != 1 ? " twice, as guidance is on" : "");
    printf("step %.3f ms, %.1f GMAC/s, median of %u; the shortest %.3f ms, the first of a drawing %.3f ms\n",
           r->step * 1e3, macs / r->step * 1e-9, r->n_steps, r->best * 1e3, r->first * 1e3);
    printf("its ops one by one %.3f ms; those made once for all %u evaluations %.3f ms\n", r->op_sum * 1e3,
           r->evaluations, r->once * 1e3);
    printf("convolutions, linears and their quantization %.1f %%, the rest %.1f %%\n", 100 * r->products / r->op_sum,
           100 - 100 * r->products / r->op_sum);
}

static double rate(uint64_t macs, double seconds) { return seconds > 0 ? (double)macs / seconds * 1e-9 : 0; }

static void print_kinds(const report *r)
{
    if (r->b->json) printf(",\"kinds\":[");
    else printf("\n%-24s %5s %9s %8s %8s\n", "kind", "ops", "ms", "share %", "GMAC/s");
    for (uint32_t i = 0; i < r->n_kinds; i++) {
        const kind_time *k = &r->kinds[i];
        if (r->b->json)
            printf("%s{\"kind\":\"%s\",\"ops\":%u,\"ms\":%.6g,\"share\":%.4g,\"macs\":%.0f}", i ? "," : "", k->kind,
                   k->ops, k->seconds * 1e3, k->seconds / r->op_sum, (double)k->macs);
        else if (k->macs)
            printf("%-24s %5u %9.3f %8.1f %8.1f\n", k->kind, k->ops, k->seconds * 1e3, 100 * k->seconds / r->op_sum,
                   rate(k->macs, k->seconds));
        else printf("%-24s %5u %9.3f %8.1f\n", k->kind, k->ops, k->seconds * 1e3, 100 * k->seconds / r->op_sum);
    }
    if (r->b->json) printf("]");
}

static void print_op(const report *r, const op_time *t, bool first)
{
    const bb_graph *g = &r->host.model->pack.graph;
    const bb_op *op = &g->ops[t->op];
    const bb_shape *shapes = r->host.model->scratch.shapes, x = shapes[op->in[0]], y = shapes[bb_op_value(g, t->op)];
    const char *label = op_label(r, t->op);
    static const char *const runs[] = {"in another", "once", "each step"};
    if (r->b->json) {
        printf("%s{\"op\":%u,\"path\":", first ? "" : ",", t->op);
        bb_cli_print_json(label);
        printf(",\"kind\":\"%s\",\"shape\":[%u,%u,%u,%u],\"inputs\":%u,\"way\":\"%s\",\"macs\":%.0f,\"ms\":%.6g,"
               "\"runs\":\"%s\",", t->kind, y.n, y.h, y.w, y.c, x.c, t->way, (double)t->macs, t->mean * 1e3,
               runs[t->runs]);
        if (t->runs == IN_ANOTHER) printf("\"in\":%u}", t->home);
        else printf("\"share\":%.4g}", t->runs == EACH_STEP ? t->mean / r->op_sum : 0);
        return;
    }
    char path[64], shape[48];
    snprintf(path, sizeof path, "%.*s", (int)strcspn(label, "\n"), label);
    bb_cli_plain(path);
    snprintf(shape, sizeof shape, "%ux%u %u->%u", y.w, y.h, x.c, y.c);
    printf("%-40s %-18s %-18s %8.2f", path, t->kind, shape, (double)t->macs * 1e-6);
    if (t->runs == IN_ANOTHER) {
        snprintf(path, sizeof path, "%s", op_label(r, t->home));
        bb_cli_plain(path);
        printf(" in %s\n", path);
        return;
    }
    printf(" %9.4f", t->mean * 1e3);
    if (t->runs == EACH_STEP)
        printf(" %8.1f %8.1f  %s\n", 100 * t->mean / r->op_sum, rate(t->macs, t->mean), t->way);
    else printf(" %8s %8.1f  %s\n", "once", rate(t->macs, t->mean), t->way);
}

static void print_ops(const report *r)
{
    const uint32_t n_ops = r->host.model->pack.graph.n_ops, n = r->b->top && r->b->top < n_ops ? r->b->top : n_ops;
    if (r->b->json) printf(",\"ops\":[");
    else
        printf("\n%-40s %-18s %-18s %8s %9s %8s %8s  %s\n", "op", "kind", "shape", "MMAC", "ms", "share %", "GMAC/s",
               "way");
    if (r->b->top) qsort(r->ops, n_ops, sizeof *r->ops, by_time);
    bool first = true;
    for (uint32_t i = 0; i < n; i++) {
        if (!bb_bench_wanted(r->b, op_label(r, r->ops[i].op))) continue;
        print_op(r, &r->ops[i], first);
        first = false;
    }
    if (r->b->json) printf("]}");
}

static bb_status open_model(report *r, bb_error *err)
{
    const bb_bench *b = r->b;
    BB_TRY(bb_host_open(&r->host, b->model, &b->host, err));
    const bb_info *info = &r->host.model->pack.info;
    r->host.model->kernels = b->kernels;
    r->labels = info->classes;
    r->req = (bb_request){.size_of = sizeof r->req, .width = b->size[1] ? b->size[1] : info->width,
                          .height = b->size[0] ? b->size[0] : info->height, .batch = b->batch,
                          .steps = b->steps ? b->steps : bb_host_steps(&r->host), .guidance = b->guidance};
    BB_TRY(bb_host_session(&r->host, &r->req, err));
    bb_session_fuse(r->host.session, !b->unfused);
    bb_stats stats;
    bb_stats_get(r->host.session, &stats);
    r->evaluations = stats.steps;
    r->ops = calloc(stats.ops, sizeof *r->ops);
    r->steps = calloc(SAMPLES, sizeof *r->steps);
    r->firsts = calloc(SAMPLES, sizeof *r->firsts);
    if (!r->ops || !r->steps || !r->firsts) return bb_fail(err, BB_ERR_SPACE, "out of memory for the measured times");
    describe_ops(r);
    for (uint32_t i = 0; b->only && !bb_bench_wanted(b, op_label(r, i)); i++)
        if (i + 1 == stats.ops) return bb_fail(err, BB_ERR_OPTION, "--only %s: no op of that name", b->only);
    return BB_OK;
}

bb_status bb_bench_model(const bb_bench *b, bb_error *err)
{
    report r = {.b = b};
    bb_status status = open_model(&r, err);
    if (status == BB_OK) {
        status = measure(&r);
        if (status < 0) bb_fail(err, status, "%s", bb_strerror(status));
    }
    if (status == BB_OK) {
        sum_up(&r);
        bb_bench_print_machine(b, &r.host.model->kernels, r.host.par);
        print_step(&r);
        print_kinds(&r);
        print_ops(&r);
    }
    free(r.ops);
    free(r.steps);
    free(r.firsts);
    bb_host_close(&r.host);
    return status;
}
