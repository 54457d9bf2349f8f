/* bitbrush bench --growth: how times grow with pixels, channels, batch and planes. They are the shortest of all rounds,
 * as the question is what the work costs, and not what a busy machine makes of it. */
#include "bench/bench.h"
#include "bench/layer.h"
#include "bench/timer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS = 8 };

static const bb_bench_width w2a4 = {"w2a4", 4, {2}, false}, w4a8 = {"w4a8", 8, {4}, false},
                            f32 = {"f32", 0, {0}, false};

/* A shape grown in one dimension. */
typedef enum dimension { SIDE, CHANNELS, ITEMS } dimension;
static const char *const dimensions[] = {"pixels", "channels", "batch"};
typedef struct series {
    const char *name;
    const bb_bench_width *width;
    dimension dimension;
    double exponent;        /* that its arithmetic has */
    uint32_t at[5];         /* sides, channels or items; 0 ends them */
    bb_bench_shape shape;
} series;

static const series all_series[] = {
    {"conv3x3_128 w2a4", &w2a4, SIDE, 1, {8, 16, 32, 64}, {"conv", BB_OP_CONV2D, 1, 0, 0, 128, 128, 3}},
    {"conv3x3_128 w4a8", &w4a8, SIDE, 1, {8, 16, 32, 64}, {"conv", BB_OP_CONV2D, 1, 0, 0, 128, 128, 3}},
    {"group_norm_128", &f32, SIDE, 1, {8, 16, 32, 64}, {"norm", BB_OP_GROUP_NORM, 1, 0, 0, 128, 128, 1}},
    {"silu_128", &f32, SIDE, 1, {8, 16, 32, 64}, {"silu", BB_OP_SILU, 1, 0, 0, 128, 128, 1}},
    {"attention_128", &f32, SIDE, 2, {8, 12, 16, 24}, {"attention", BB_OP_ATTENTION, 1, 0, 0, 128, 128, 1}},
    {"conv3x3_16x16 w2a4", &w2a4, CHANNELS, 2, {32, 64, 128, 256}, {"conv", BB_OP_CONV2D, 1, 16, 16, 0, 0, 3}},
    {"conv3x3_16x16 w4a8", &w4a8, CHANNELS, 2, {32, 64, 128, 256}, {"conv", BB_OP_CONV2D, 1, 16, 16, 0, 0, 3}},
    {"conv3x3_128_16 w2a4", &w2a4, ITEMS, 1, {1, 2, 4, 8}, {"conv", BB_OP_CONV2D, 0, 16, 16, 128, 128, 3}},
    {"attention_128_14", &f32, ITEMS, 1, {1, 2, 4, 8}, {"attention", BB_OP_ATTENTION, 0, 14, 14, 128, 128, 1}},
};

/* Planes: uniform, then ladders; mixed layers have a third of their outputs in each class. w222a4 shows what of their
 * time is for classes and outputs out of order, and not for planes. */
static const bb_bench_shape plane_shape = {"conv3x3_96_28", BB_OP_CONV2D, 1, 28, 28, 96, 96, 3};
static const bb_bench_width plane_widths[] = {
    {"w1a4", 4, {1}, false}, {"w2a4", 4, {2}, false}, {"w3a4", 4, {3}, false}, {"w4a4", 4, {4}, false},
    {"w5a4", 4, {5}, false}, {"w6a4", 4, {6}, false}, {"w7a4", 4, {7}, false}, {"w8a4", 4, {8}, false},
    {"w123a4", 4, {3, 2, 1}, false}, {"w222a4", 4, {2, 2, 2}, false},
    {"w1a4_ladder", 4, {1}, true}, {"w2a4_ladder", 4, {2}, true}, {"w3a4_ladder", 4, {3}, true},
    {"w123a4_ladder", 4, {3, 2, 1}, true}, {"w222a4_ladder", 4, {2, 2, 2}, true},
    {"w1a8", 8, {1}, false}, {"w2a8", 8, {2}, false}, {"w3a8", 8, {3}, false}, {"w4a8", 8, {4}, false},
    {"w8a8", 8, {8}, false}, {"w123a8", 8, {3, 2, 1}, false},
};

typedef struct report {
    const bb_bench *b;
    bb_bench_layer *layers;
    bb_timed *timed;
    size_t n;
} report;

enum { MOST = BB_COUNT(all_series) * 5 + BB_COUNT(plane_widths) };

static bb_status add(report *r, const bb_bench_shape *shape, const bb_bench_width *width, bb_error *err)
{
    bb_bench_layer *l = &r->layers[r->n];
    r->timed[r->n++] = (bb_timed){.run = bb_bench_layer_run, .ctx = l};
    return bb_bench_layer_make(l, shape, width, &r->b->kernels, r->b->par, err);
}

static size_t points_of(const series *s)
{
    size_t n = 0;
    while (n < BB_COUNT(s->at) && s->at[n]) n++;
    return n;
}

static double x_of(const series *s, size_t i) { return s->dimension == SIDE ? (double)s->at[i] * s->at[i] : s->at[i]; }

static bb_status add_series(report *r, const series *s, bb_error *err)
{
    for (size_t i = 0; i < points_of(s); i++) {
        bb_bench_shape shape = s->shape;
        if (s->dimension == SIDE) shape.width = shape.height = s->at[i];
        if (s->dimension == CHANNELS) shape.channels = shape.outputs = s->at[i];
        if (s->dimension == ITEMS) shape.items = s->at[i];
        BB_TRY(add(r, &shape, s->width, err));
    }
    return BB_OK;
}

static bool plane_wanted(const bb_bench *b, const bb_bench_width *w)
{
    char name[64];
    snprintf(name, sizeof name, "%s %s", plane_shape.name, w->name);
    return bb_bench_wanted(b, name);
}

static bb_status add_all(report *r, bb_error *err)
{
    for (size_t i = 0; i < BB_COUNT(all_series); i++)
        if (bb_bench_wanted(r->b, all_series[i].name)) BB_TRY(add_series(r, &all_series[i], err));
    for (size_t i = 0; i < BB_COUNT(plane_widths); i++)
        if (plane_wanted(r->b, &plane_widths[i])) BB_TRY(add(r, &plane_shape, &plane_widths[i], err));
    if (r->n) return BB_OK;
    return bb_fail(err, BB_ERR_OPTION, "--only %s: nothing of that name (without --only, all names are listed)",
                   r->b->only);
}

/* ---- printing ---- */

static void print_series(const report *r, const series *s, const bb_timed *t, bool first)
{
    double x[POINTS], y[POINTS];
    const size_t n = points_of(s);
    for (size_t i = 0; i < n; i++) x[i] = x_of(s, i), y[i] = t[i].best;
    const double exponent = bb_fit_exponent(x, y, n);
    if (r->b->json) {
        printf("%s{\"name\":\"%s\",\"grows\":\"%s\",\"exponent\":%.4g,\"arithmetic\":%g,\"at\":[", first ? "" : ",",
               s->name, dimensions[s->dimension], exponent, s->exponent);
        for (size_t i = 0; i < n; i++) printf("%s%g", i ? "," : "", x[i]);
        printf("],\"best_ms\":[");
        for (size_t i = 0; i < n; i++) printf("%s%.6g", i ? "," : "", y[i] * 1e3);
        printf("]}");
        return;
    }
    printf("%-20s %-9s %8.2f %10g ", s->name, dimensions[s->dimension], exponent, s->exponent);
    for (size_t i = 0; i < n; i++) printf("  %g: %.4g ms", x[i], y[i] * 1e3);
    printf("\n");
}

/* Seconds of the one-class layer of so many planes that is otherwise like `like`; 0 if it was not measured. */
static double plane_seconds(const report *r, const bb_timed *t, const bb_bench_width *like, uint32_t planes)
{
    for (size_t i = 0; i < BB_COUNT(plane_widths); i++) {
        const bb_bench_width *w = &plane_widths[i];
        if (!plane_wanted(r->b, w)) continue;
        if (!w->planes[1] && w->planes[0] == planes && w->bits == like->bits && w->ladder == like->ladder)
            return t->best;
        t++;
    }
    return 0;
}

/* Mean of the layers that have one of the classes each; 0 if there is one class, or one was not measured. */
static double parts_seconds(const report *r, const bb_timed *first, const bb_bench_width *w)
{
    double sum = 0;
    for (uint32_t k = 0; k < 3; k++) {
        const double part = w->planes[1] ? plane_seconds(r, first, w, w->planes[k]) : 0;
        if (part == 0) return 0;
        sum += part;
    }
    return sum / 3;
}

static void print_plane(const report *r, const bb_bench_width *w, const bb_timed *first, const bb_timed *t)
{
    const bb_bench_layer *l = &r->layers[t - r->timed];
    const double ms = t->best * 1e3, one = plane_seconds(r, first, w, 1), parts = parts_seconds(r, first, w);
    char ways[160];
    bb_bench_ways(&r->b->kernels, &l->op, &l->layer, ways, sizeof ways);
    if (r->b->json) {
        printf("%s{\"name\":\"%s\",\"way\":\"%s\",\"best_ms\":%.6g", t == first ? "" : ",", w->name, ways, ms);
        if (one > 0) printf(",\"times_one_plane\":%.4g", t->best / one);
        if (parts > 0) printf(",\"times_parts\":%.4g", t->best / parts);
        printf("}");
        return;
    }
    printf("%-28s %9.3f ", w->name, ms);
    if (one > 0) printf("%8.2f ", t->best / one);
    else printf("%8s ", "");
    if (parts > 0) printf("%8.2f  %s\n", t->best / parts, ways);
    else printf("%8s  %s\n", "", ways);
}

static void print_planes(const report *r, const bb_timed *first)
{
    const bb_timed *t = first;
    if (r->b->json) printf(",\"planes\":[");
    else if (t < r->timed + r->n)
        printf("\n%-28s %9s %8s %8s  %s\n", plane_shape.name, "best ms", "x w1", "x parts", "way");
    for (size_t i = 0; i < BB_COUNT(plane_widths); i++)
        if (plane_wanted(r->b, &plane_widths[i])) print_plane(r, &plane_widths[i], first, t++);
    if (r->b->json) printf("]");
}

static void print_all(const report *r)
{
    const bb_timed *t = r->timed;
    bb_bench_print_machine(r->b, &r->b->kernels, r->b->par);
    if (r->b->json) printf(",\"growth\":[");
    else printf("\n%-20s %-9s %8s %10s   best times\n", "growth", "with", "exponent", "arithmetic");
    for (size_t i = 0; i < BB_COUNT(all_series); i++) {
        if (!bb_bench_wanted(r->b, all_series[i].name)) continue;
        print_series(r, &all_series[i], t, t == r->timed);
        t += points_of(&all_series[i]);
    }
    if (r->b->json) printf("]");
    print_planes(r, t);
    if (!r->b->json && t < r->timed + r->n)
        printf("x parts: a third of the outputs in each of 1, 2 and 3 planes, against the mean of the three layers\n");
}

bb_status bb_bench_growth(const bb_bench *b, bb_error *err)
{
    report r = {.b = b, .layers = calloc(MOST, sizeof *r.layers), .timed = calloc(MOST, sizeof *r.timed)};
    const bb_timing how = bb_bench_timing(b);
    bb_status status = r.layers && r.timed ? add_all(&r, err) : bb_fail(err, BB_ERR_SPACE, "out of memory");
    if (status == BB_OK) status = bb_time_all(r.timed, r.n, &how, err);
    if (status == BB_OK) print_all(&r);
    for (size_t i = 0; i < r.n; i++) bb_bench_layer_free(&r.layers[i]);
    free(r.timed);
    free(r.layers);
    return status;
}
