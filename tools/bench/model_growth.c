/* bitbrush bench MODEL --growth: a whole step against the picture's size and the number of pictures. */
#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>

enum { POINTS = 4, SERIES = 2, STEPS = 20 };

typedef struct point {
    bb_session *session;
    void *workspace;
    uint32_t height, width, batch;
    uint64_t macs;
    bb_status failed;
} point;

typedef struct report {
    const bb_bench *b;
    bb_host host;
    point points[SERIES][POINTS]; /* sizes, batches */
    bb_timed timed[SERIES * POINTS];
    size_t n[SERIES];
} report;

static bb_status begin(const point *p)
{
    static const uint64_t seeds[64];
    return bb_begin(p->session, seeds, NULL);
}

/* Steps of a drawing that begins anew where it ends; what is made once for a schedule stays. */
static void run_steps(void *ctx, uint32_t times)
{
    point *p = ctx;
    for (uint32_t i = 0; i < times && p->failed >= 0; i++) {
        bb_status status = bb_step(p->session, 0);
        if (status == BB_DONE) status = begin(p);
        if (status < 0) p->failed = status;
    }
}

/* BB_ERR_SIZE if the model cannot draw that. */
static bb_status open_point(report *r, point *p, bb_error *err)
{
    const bb_info *info = &r->host.model->pack.info;
    const uint32_t steps = bb_host_steps(&r->host);
    const bb_request req = {.size_of = sizeof req, .height = p->height, .width = p->width, .batch = p->batch,
                            .steps = r->b->steps ? r->b->steps : steps, .guidance = r->b->guidance, .par = r->host.par};
    size_t bytes;
    BB_TRY(bb_session_size(r->host.model, &req, &bytes, err));
    p->workspace = malloc(bytes);
    if (!p->workspace) return bb_fail(err, BB_ERR_SPACE, "out of memory: the drawing needs %z bytes", bytes);
    BB_TRY(bb_session_init(r->host.model, &req, p->workspace, bytes, &p->session, err));
    for (uint32_t i = 0; info->classes && i < p->batch; i++) BB_TRY(bb_condition(p->session, i, &(bb_cond){0}));
    bb_stats stats;
    bb_stats_get(p->session, &stats);
    p->macs = stats.macs_per_step;
    return begin(p);
}

/* Half, own, twice and four times the size; sizes that the model cannot draw are left out. */
static bb_status open_sizes(report *r, bb_error *err)
{
    const bb_info *info = &r->host.model->pack.info;
    for (uint32_t i = 0; i < POINTS; i++) {
        point *p = &r->points[0][r->n[0]];
        *p = (point){.height = (info->height << i) / 2, .width = (info->width << i) / 2, .batch = 1};
        const bb_status status = p->height && p->width ? open_point(r, p, err) : BB_ERR_SIZE;
        if (status == BB_OK) r->n[0]++;
        else if (status != BB_ERR_SIZE) return status;
    }
    return BB_OK;
}

static bb_status open_all(report *r, bb_error *err)
{
    const bb_info *info = &r->host.model->pack.info;
    BB_TRY(open_sizes(r, err));
    for (; r->n[1] < POINTS; r->n[1]++) {
        point *p = &r->points[1][r->n[1]];
        *p = (point){.height = info->height, .width = info->width, .batch = 1u << r->n[1]};
        BB_TRY(open_point(r, p, err));
    }
    for (size_t s = 0, n = 0; s < SERIES; s++)
        for (size_t i = 0; i < r->n[s]; i++) r->timed[n++] = (bb_timed){.run = run_steps, .ctx = &r->points[s][i]};
    return BB_OK;
}

static bb_status measure(report *r, bb_error *err)
{
    bb_timing how = bb_bench_timing(r->b);
    how.par = r->host.par;
    BB_TRY(bb_time_all(r->timed, r->n[0] + r->n[1], &how, err));
    for (size_t s = 0; s < SERIES; s++)
        for (size_t i = 0; i < r->n[s]; i++)
            if (r->points[s][i].failed < 0) return bb_fail(err, r->points[s][i].failed, "a step failed");
    return BB_OK;
}

static void print_point(const report *r, const point *p, const bb_timed *t, bool first)
{
    const double ms = t->best * 1e3, gmacs = (double)p->macs / t->best * 1e-9;
    if (r->b->json)
        printf("%s{\"height\":%u,\"width\":%u,\"batch\":%u,\"macs\":%.0f,\"best_ms\":%.6g,\"gmacs\":%.6g}",
               first ? "" : ",", p->height, p->width, p->batch, (double)p->macs, ms, gmacs);
    else printf("%5ux%-5u %5u %10.1f %10.3f %8.1f\n", p->width, p->height, p->batch, (double)p->macs * 1e-6, ms, gmacs);
}

/* Pixels for sizes, pictures for batches; and what multiply-adds alone would give. */
static void print_series(const report *r, size_t s, const bb_timed *t)
{
    static const char *const names[SERIES] = {"pixels", "batch"};
    double x[POINTS], y[POINTS], macs[POINTS];
    if (r->b->json) printf("%s{\"grows\":\"%s\",\"points\":[", s ? "," : "", names[s]);
    for (size_t i = 0; i < r->n[s]; i++) {
        const point *p = &r->points[s][i];
        x[i] = s ? p->batch : (double)p->height * p->width;
        y[i] = t[i].best;
        macs[i] = (double)p->macs;
        print_point(r, p, &t[i], i == 0);
    }
    const bool fits = r->n[s] > 1;
    const double exponent = fits ? bb_fit_exponent(x, y, r->n[s]) : 0;
    const double arithmetic = fits ? bb_fit_exponent(x, macs, r->n[s]) : 0;
    if (r->b->json) printf("],\"exponent\":%.4g,\"arithmetic\":%.4g}", exponent, arithmetic);
    else printf("exponent over %s %.2f, of its multiply-adds %.2f\n\n", names[s], exponent, arithmetic);
}

static void print_all(const report *r)
{
    bb_bench_print_machine(r->b, &r->host.model->kernels, r->host.par);
    if (r->b->json) printf(",\"growth\":[");
    else printf("\n%11s %5s %10s %10s %8s\n", "size", "batch", "MMAC", "best ms", "GMAC/s");
    print_series(r, 0, r->timed);
    print_series(r, 1, r->timed + r->n[0]);
    if (r->b->json) printf("]");
}

bb_status bb_bench_model_growth(const bb_bench *b, bb_error *err)
{
    report *r = calloc(1, sizeof *r);
    if (!r) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    r->b = b;
    bb_status status = bb_host_open(&r->host, b->model, &b->host, err);
    if (status == BB_OK) {
        r->host.model->kernels = b->kernels;
        status = open_all(r, err);
    }
    if (status == BB_OK) status = measure(r, err);
    if (status == BB_OK) print_all(r);
    for (size_t s = 0; s < SERIES; s++)
        for (size_t i = 0; i < POINTS; i++) free(r->points[s][i].workspace);
    bb_host_close(&r->host);
    free(r);
    return status;
}
