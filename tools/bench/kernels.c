/* bitbrush bench without a model: each dot way, layers of all widths against their inner loop, each op. */
#include "bench/bench.h"
#include "bench/layer.h"
#include "bench/ops.h"
#include "bench/resident.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const bb_bench_shape shapes[] = {
    {"conv3x3_128_32", BB_OP_CONV2D, 1, 32, 32, 128, 128, 3},
    {"conv3x3_64_28", BB_OP_CONV2D, 1, 28, 28, 64, 64, 3},
    {"conv3x3_256_8", BB_OP_CONV2D, 1, 8, 8, 256, 256, 3},
    {"conv1x1_128_32", BB_OP_CONV2D, 1, 32, 32, 128, 128, 1},
    {"linear_128_196", BB_OP_LINEAR, 1, 14, 14, 128, 128, 1},
    {"linear_384_256", BB_OP_LINEAR, 1, 16, 16, 384, 384, 1},
};
static const bb_bench_width widths[] = {
    {"f32", 0, {0}, false},        {"w1a4", 4, {1}, true}, {"w2a4", 4, {2}, false}, {"w2a4_ladder", 4, {2}, true},
    {"w3a6", 6, {3}, false},       {"w4a4", 4, {4}, false}, {"w4a8", 8, {4}, false}, {"w8a8", 8, {8}, false},
};
enum { LAYERS = BB_COUNT(shapes) * BB_COUNT(widths) };

typedef struct way_trial { const bb_kernels *kernels; uint32_t way; double macs; uint8_t *scratch; } way_trial;

typedef struct layer_entry {
    char name[64], ways[160];
    const bb_bench_shape *shape;
    bb_bench_layer layer;
    bb_resident resident;
    bb_timed *time, *resident_time; /* the second: NULL for float layers */
} layer_entry;

typedef struct report {
    const bb_bench *b;
    way_trial trials[BB_DOTS];
    layer_entry *layers; /* [LAYERS] at most */
    bb_bench_op_run *ops;
    bb_bench_data *data;
    bb_timed *timed;
    size_t n_trials, n_layers, n_ops, n_timed, first_op;
} report;

static void run_trial(void *ctx, uint32_t times)
{
    way_trial *t = ctx;
    t->macs = bb_dot_trial(t->kernels, t->way, times, t->scratch) / times;
}

static bb_timed *add_timed(report *r, void (*run)(void *, uint32_t), void *ctx)
{
    r->timed[r->n_timed] = (bb_timed){.run = run, .ctx = ctx};
    return &r->timed[r->n_timed++];
}

static void add_ways(report *r, uint8_t *scratch)
{
    for (uint32_t i = 0; i < BB_DOTS && r->b->kernels.dots[i]; i++) {
        if (!bb_bench_wanted(r->b, r->b->kernels.dots[i]->name)) continue;
        way_trial *t = &r->trials[r->n_trials++];
        *t = (way_trial){.kernels = &r->b->kernels, .way = i, .scratch = scratch};
        add_timed(r, run_trial, t);
    }
}

static bb_status add_layer(report *r, const bb_bench_shape *shape, const bb_bench_width *width, bb_error *err)
{
    layer_entry *e = &r->layers[r->n_layers];
    snprintf(e->name, sizeof e->name, "%s.%s", shape->name, width->name);
    if (!bb_bench_wanted(r->b, e->name)) return BB_OK;
    r->n_layers++;
    e->shape = shape;
    BB_TRY(bb_bench_layer_make(&e->layer, shape, width, &r->b->kernels, r->b->par, err));
    e->time = add_timed(r, bb_bench_layer_run, &e->layer);
    if (!width->bits) return BB_OK;
    bb_dot_shape dot;
    const bb_dot *way = bb_conv_quantized_way(&r->b->kernels, &e->layer.op, &e->layer.layer, 0, &dot);
    bb_bench_ways(&r->b->kernels, &e->layer.op, &e->layer.layer, e->ways, sizeof e->ways);
    BB_TRY(bb_resident_make(&e->resident, &r->b->kernels, way, &dot, err));
    e->resident_time = add_timed(r, bb_resident_run, &e->resident);
    return BB_OK;
}

static bb_status add_all(report *r, uint8_t *scratch, bb_error *err)
{
    add_ways(r, scratch);
    for (size_t i = 0; i < BB_COUNT(shapes); i++)
        for (size_t k = 0; k < BB_COUNT(widths); k++) BB_TRY(add_layer(r, &shapes[i], &widths[k], err));
    r->first_op = r->n_timed;
    for (size_t i = 0; i < bb_bench_n_ops; i++) {
        if (!bb_bench_wanted(r->b, bb_bench_ops[i].name)) continue;
        r->ops[r->n_ops] = (bb_bench_op_run){&bb_bench_ops[i], r->data};
        add_timed(r, bb_bench_op_times, &r->ops[r->n_ops++]);
    }
    if (r->n_timed) return BB_OK;
    return bb_fail(err, BB_ERR_OPTION, "--only %s: nothing of that name (without --only, all names are listed)",
                   r->b->only);
}

/* ---- printing ---- */

static double rate(double work, double seconds) { return seconds > 0 ? work / seconds * 1e-9 : 0; }

/* 0 if the shape's float layer was not measured. */
static double float_seconds(const report *r, const bb_bench_shape *shape)
{
    for (size_t i = 0; i < r->n_layers; i++)
        if (r->layers[i].shape == shape && !r->layers[i].resident_time) return r->layers[i].time->median;
    return 0;
}

static void print_ways(const report *r)
{
    static const char *const forms[] = {"codes", "tables", "centred tables", "wide codes", "signed codes"};
    _Static_assert(BB_COUNT(forms) == BB_ROWS_FORMS, "a word for each form");
    if (r->b->json) printf(",\"ways\":[");
    else if (r->n_trials) printf("\n%-34s %16s %8s %8s\n", "dot way, inner loop in cache", "reads", "GMAC/s", "cost");
    for (size_t i = 0; i < r->n_trials; i++) {
        const way_trial *t = &r->trials[i];
        const bb_dot *way = r->b->kernels.dots[t->way];
        const double speed = rate(t->macs, r->timed[i].median), cost = (double)r->b->kernels.cost[t->way];
        if (r->b->json)
            printf("%s{\"name\":\"%s\",\"rows\":\"%s\",\"per_plane\":%s,\"gmacs\":%.6g,\"cost\":%.6g}", i ? "," : "",
                   way->name, forms[way->rows], way->per_plane ? "true" : "false", speed, cost);
        else
            printf("%-34s %16s %8.1f %8.2f%s\n", way->name, forms[way->rows], speed, cost,
                   way->per_plane ? " a plane" : "");
    }
    if (r->b->json) printf("]");
}

static void print_layer(const report *r, const layer_entry *e, bool first)
{
    const double macs = (double)e->layer.macs, seconds = e->time->median, plain = float_seconds(r, e->shape);
    const double speed = rate(macs, seconds), of_float = plain / seconds;
    /* Of shortest times, as the other work of a machine disturbs a layer and a loop unlike. Threads share the layer. */
    const double resident = e->resident_time ? rate(e->resident.macs, e->resident_time->best) : 0;
    const double fraction = resident > 0 ? rate(macs, e->time->best) / (resident * bb_par_threads(r->b->par)) : 0;
    if (r->b->json) {
        printf("%s{\"name\":\"%s\",\"way\":\"%s\",\"macs\":%.0f,\"median_ms\":%.6g,\"best_ms\":%.6g,\"gmacs\":%.6g",
               first ? "" : ",", e->name, e->ways, macs, seconds * 1e3, e->time->best * 1e3, speed);
        if (e->resident_time) printf(",\"resident_gmacs\":%.6g,\"fraction\":%.4g", resident, fraction);
        if (plain > 0) printf(",\"times_f32\":%.4g", of_float);
        printf("}");
        return;
    }
    printf("%-28s %9.3f %9.3f %8.1f", e->name, seconds * 1e3, e->time->best * 1e3, speed);
    if (plain > 0) printf(" %7.2f", of_float);
    else printf(" %7s", "");
    if (e->resident_time) printf(" %9.1f %8.2f", resident, fraction);
    else printf(" %9s %8s", "", "");
    printf("  %s\n", e->ways);
}

static void print_layers(const report *r)
{
    if (r->b->json) printf(",\"layers\":[");
    else if (r->n_layers)
        printf("\n%-28s %9s %9s %8s %7s %9s %8s  %s\n", "layer, float in to float out", "median ms", "best ms",
               "GMAC/s", "x f32", "in cache", "fraction", "way");
    for (size_t i = 0; i < r->n_layers; i++) print_layer(r, &r->layers[i], i == 0);
    if (r->b->json) printf("]");
}

static void print_ops(const report *r)
{
    if (r->b->json) printf(",\"ops\":[");
    else if (r->n_ops) printf("\n%-28s %9s %9s\n", "op", "median us", "");
    for (size_t i = 0; i < r->n_ops; i++) {
        const bb_bench_op *op = r->ops[i].op;
        const double seconds = r->timed[r->first_op + i].median, speed = rate(op->work, seconds);
        if (r->b->json)
            printf("%s{\"name\":\"%s\",\"median_us\":%.6g,\"rate\":%.6g,\"unit\":\"%s\"}", i ? "," : "", op->name,
                   seconds * 1e6, speed, bb_bench_op_unit(op));
        else printf("%-28s %9.2f %9.2f %s\n", op->name, seconds * 1e6, speed, bb_bench_op_unit(op));
    }
    if (r->b->json) printf("]");
}

bb_status bb_bench_kernels(const bb_bench *b, bb_error *err)
{
    report r = {.b = b, .layers = calloc(LAYERS, sizeof *r.layers), .ops = calloc(bb_bench_n_ops, sizeof *r.ops),
                .timed = calloc(BB_DOTS + 2 * LAYERS + bb_bench_n_ops, sizeof *r.timed)};
    uint8_t *scratch = aligned_alloc(BB_ALIGNMENT, BB_DOT_TRIAL_BYTES);
    const bb_timing how = bb_bench_timing(b);
    bb_status status = r.layers && r.ops && r.timed && scratch ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory");
    if (status == BB_OK) status = bb_bench_data_make(&r.data, &b->kernels, err);
    if (status == BB_OK) status = add_all(&r, scratch, err);
    if (status == BB_OK) status = bb_time_all(r.timed, r.n_timed, &how, err);
    if (status == BB_OK) {
        bb_bench_print_machine(b, &b->kernels, b->par);
        print_ways(&r);
        print_layers(&r);
        print_ops(&r);
    }
    for (size_t i = 0; i < r.n_layers; i++) {
        bb_bench_layer_free(&r.layers[i].layer);
        bb_resident_free(&r.layers[i].resident);
    }
    free(scratch);
    free(r.data);
    free(r.timed);
    free(r.ops);
    free(r.layers);
    return status;
}
