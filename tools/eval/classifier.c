#include "eval/classifier.h"

#include "base/mathf.h"
#include "base/sha256.h"
#include "import/safetensors.h"
#include "run/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 16, PIXELS = BB_CLASSIFIER_SIDE * BB_CLASSIFIER_SIDE };

/* ---- the graph ---- */

static uint32_t block(bb_builder *b, uint32_t x, uint32_t number, uint32_t out)
{
    bb_build_enter(b, "blocks.%u", number);
    x = bb_build_conv2d(b, x, "conv", out, 3, 1, (bb_pads){1, 1, 1, 1});
    x = bb_build_group_norm(b, x, "norm", 8, 1e-5f);
    x = bb_build_silu(b, x);
    return bb_build_leave(b, bb_build_avg_pool2d(b, x, 2));
}

bb_status bb_classifier_graph(bb_builder *b, uint32_t classes, bb_error *err)
{
    bb_builder_init(b, "classifier", err);
    uint32_t x = bb_build_input(b, "sample", BB_RATE_SAMPLE, bb_dim_symbol(BB_DIM_B), bb_dim_symbol(BB_DIM_H),
                                bb_dim_symbol(BB_DIM_W), 1);
    x = block(b, x, 0, 32);
    x = block(b, x, 1, 64);
    x = block(b, x, 2, 64); /* 4 × 4 pixels */
    bb_build_enter(b, "head");
    x = bb_build_silu(b, bb_build_conv2d(b, x, "features", BB_CLASSIFIER_FEATURES, 4, 1, (bb_pads){0}));
    bb_build_output(b, "features", x);
    x = bb_build_linear(b, x, "logits", classes);
    bb_build_output(b, "logits", bb_build_leave(b, x));
    return bb_builder_finish(b);
}

/* ---- its file ---- */

/* Taps, inputs and outputs of a slot's matrix; 1 × 1 × n for a vector. */
typedef struct matrix { size_t taps, in, out; } matrix;

static matrix matrix_of(const bb_weight_slot *s)
{
    if (s->rank == 1) return (matrix){1, 1, s->dim[0]};
    return (matrix){s->rank == 4 ? (size_t)s->dim[2] * s->dim[3] : 1, s->dim[1], s->dim[0]};
}

/* Rows of a matrix, and vectors, are padded as in a packed file: kernels read whole tiles. */
static size_t row_floats(matrix m) { return bb_align_up(m.out, BB_ALIGNMENT / sizeof(float)); }

static bb_status load_slot(bb_classifier *c, uint32_t slot, const bb_safetensors *st, const char *path, float *at,
                           bb_error *err)
{
    const bb_weight_slot *s = &c->builder.graph.weights[slot];
    const char *name = bb_graph_string(&c->builder.graph, s->name);
    const bb_st_tensor *t = bb_safetensors_find(st, name);
    const matrix m = matrix_of(s);
    if (!t) return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: no classifier of bitbrush eval: there is no tensor %s", path,
                           name);
    bool fits = t->rank == s->rank;
    for (uint32_t i = 0; fits && i < s->rank; i++) fits = t->shape[i] == s->dim[i];
    if (!fits) return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor %s has another shape than the classifier's", path,
                              name);
    float *dense = malloc(t->count * sizeof *dense);
    if (!dense) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    bb_st_to_f32(t, dense);
    bool finite = true;
    for (size_t i = 0; i < t->count; i++) finite = finite && isfinite(dense[i]);
    for (size_t o = 0; o < m.out; o++)
        for (size_t i = 0; i < m.in; i++)
            for (size_t k = 0; k < m.taps; k++)
                at[(k * m.in + i) * row_floats(m) + o] = dense[(o * m.in + i) * m.taps + k];
    free(dense);
    c->weight[slot] = (bb_weight){.f32 = at, .stride = (uint32_t)row_floats(m)};
    return finite ? BB_OK : bb_fail(err, BB_ERR_CORRUPT, "%s: tensor %s holds values that are not finite", path, name);
}

static bb_status load(bb_classifier *c, const bb_st_file *f, const char *path, bb_error *err)
{
    const bb_st_tensor *logits = bb_safetensors_find(&f->st, "head.logits.weight");
    const bb_st_tensor *accuracy = bb_safetensors_find(&f->st, "test_accuracy");
    if (!logits || logits->rank != 2 || logits->shape[0] < 2 || logits->shape[0] > 256)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: no classifier of bitbrush eval: head.logits.weight is missing or "
                       "has no 2 to 256 rows", path);
    c->classes = (uint32_t)logits->shape[0];
    BB_TRY(bb_classifier_graph(&c->builder, c->classes, err));
    const bb_graph *g = &c->builder.graph;
    size_t floats = 0, at = 0;
    for (uint32_t i = 0; i < g->n_weights; i++) {
        const matrix m = matrix_of(&g->weights[i]);
        floats += m.taps * m.in * row_floats(m);
    }
    c->memory = aligned_alloc(BB_ALIGNMENT, floats * sizeof *c->memory);
    c->weight = calloc(g->n_weights, sizeof *c->weight);
    if (!c->memory || !c->weight) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    memset(c->memory, 0, floats * sizeof *c->memory);
    for (uint32_t i = 0; i < g->n_weights; i++) {
        const matrix m = matrix_of(&g->weights[i]);
        BB_TRY(load_slot(c, i, &f->st, path, c->memory + at, err));
        at += m.taps * m.in * row_floats(m);
    }
    float value = NAN;
    if (accuracy && accuracy->count == 1) bb_st_to_f32(accuracy, &value);
    c->accuracy = value;
    c->pack = (bb_pack){.graph = *g, .weights = c->weight};
    return BB_OK;
}

bb_status bb_classifier_open(bb_classifier *c, const char *path, bb_error *err)
{
    bb_st_file f;
    *c = (bb_classifier){0};
    BB_TRY(bb_st_file_open(&f, path, err));
    bb_sha256(f.file.data, f.file.size, c->sha256);
    bb_status status = load(c, &f, path, err);
    bb_st_file_close(&f);
    return status;
}

void bb_classifier_close(bb_classifier *c)
{
    free(c->memory);
    free(c->weight);
    bb_builder_free(&c->builder);
    *c = (bb_classifier){0};
}

bb_status bb_classifier_write(const bb_graph *g, const float *w, const size_t *at, double accuracy, uint8_t **out,
                              size_t *n, bb_error *err)
{
    enum { MOST = 32 };
    bb_st_out list[MOST + 1];
    uint16_t *half[MOST] = {0};
    const float value = (float)accuracy;
    bb_status status = BB_OK;
    BB_ASSERT(g->n_weights <= MOST);
    for (uint32_t s = 0; s < g->n_weights && status == BB_OK; s++) {
        const bb_weight_slot *slot = &g->weights[s];
        const matrix m = matrix_of(slot);
        half[s] = malloc(m.taps * m.in * m.out * sizeof **half);
        list[s] = (bb_st_out){.name = bb_graph_string(g, slot->name), .rank = slot->rank, .data = half[s],
                              .dtype = BB_ST_F16};
        memcpy(list[s].shape, slot->dim, sizeof slot->dim);
        if (!half[s]) status = bb_fail(err, BB_ERR_SPACE, "out of memory for the classifier");
        for (size_t o = 0; status == BB_OK && o < m.out; o++)
            for (size_t i = 0; i < m.in; i++)
                for (size_t k = 0; k < m.taps; k++)
                    half[s][(o * m.in + i) * m.taps + k] = bb_f32_to_f16(w[at[s] + (k * m.in + i) * m.out + o]);
    }
    list[g->n_weights] = (bb_st_out){.name = "test_accuracy", .rank = 1, .shape = {1}, .data = &value};
    if (status == BB_OK) status = bb_safetensors_write(list, g->n_weights + 1, out, n, err);
    for (uint32_t s = 0; s < g->n_weights; s++) free(half[s]);
    return status;
}

/* ---- running ---- */

typedef struct work {
    const bb_classifier *c;
    bb_run run[BB_PAR_MAX];
    void *workspace[BB_PAR_MAX];
    uint32_t features_value, logits_value;
    const uint8_t *pictures;
    size_t n;
    float *features;
    uint8_t *found;
} work;

static bb_status open_runs(work *w, const bb_kernels *kernels, uint32_t threads, bb_error *err)
{
    enum { VALUES = 64 };
    bb_shape shapes[VALUES];
    bb_fusion fusion[VALUES];
    size_t offset[BB_LAYOUTS][VALUES];
    uint32_t last[VALUES], live[VALUES];
    bb_plan plan = {.shapes = shapes, .fusion = fusion, .offset = {offset[BB_PLAIN], offset[BB_FUSED]}, .last = last,
                    .live = live};
    const bb_bindings bind = {{1, BATCH, BB_CLASSIFIER_SIDE, BB_CLASSIFIER_SIDE, 1, 1}};
    BB_ASSERT(w->c->pack.graph.n_values <= VALUES);
    BB_TRY(bb_plan_make(&plan, &w->c->pack, kernels, &bind, 1, err));
    bb_arena arena = bb_arena_init(NULL, 0);
    bb_run_init(&w->run[0], &w->c->pack, kernels, NULL, &plan, &arena);
    const size_t bytes = bb_arena_need(&arena);
    for (uint32_t t = 0; t < threads; t++) {
        w->workspace[t] = malloc(bytes);
        if (!w->workspace[t]) return bb_fail(err, BB_ERR_SPACE, "out of memory for the classifier");
        arena = bb_arena_init(w->workspace[t], bytes);
        bb_run_init(&w->run[t], &w->c->pack, kernels, NULL, &plan, &arena);
    }
    return BB_OK;
}

static void run_batch(void *ctx, size_t item, size_t thread)
{
    work *w = ctx;
    bb_run *r = &w->run[thread];
    const size_t first = item * BATCH, count = w->n - first < BATCH ? w->n - first : BATCH;
    float *x = r->at[0];
    for (size_t i = 0; i < (size_t)BATCH * PIXELS; i++)
        x[i] = i < count * PIXELS ? w->pictures[first * PIXELS + i] / 127.5f - 1 : 0;
    bb_run_inputs_changed(r);
    for (uint32_t op = 0; op < w->c->pack.graph.n_ops; op++) {
        bb_run_op(r, op);
        /* The features' memory may be reused once the logits are made. */
        if (bb_op_value(&w->c->pack.graph, op) == w->features_value && w->features)
            memcpy(w->features + first * BB_CLASSIFIER_FEATURES, r->at[w->features_value],
                   count * BB_CLASSIFIER_FEATURES * sizeof(float));
    }
    for (size_t i = 0; w->found && i < count; i++) {
        const float *logit = r->at[w->logits_value] + i * w->c->classes;
        uint32_t best = 0;
        for (uint32_t k = 1; k < w->c->classes; k++) best = logit[k] > logit[best] ? k : best;
        w->found[first + i] = (uint8_t)best;
    }
}

bb_status bb_classifier_run(const bb_classifier *c, const bb_kernels *kernels, bb_par *par, const uint8_t *pictures,
                            size_t n, float *features, uint8_t *found, bb_error *err)
{
    work *w = calloc(1, sizeof *w);
    if (!w) return bb_fail(err, BB_ERR_SPACE, "out of memory for the classifier");
    w->c = c;
    w->features_value = bb_graph_find_output(&c->pack.graph, "features");
    w->logits_value = bb_graph_find_output(&c->pack.graph, "logits");
    w->pictures = pictures;
    w->n = n;
    w->features = features;
    w->found = found;
    bb_status status = open_runs(w, kernels, bb_par_threads(par), err);
    if (status == BB_OK) bb_par_for(par, (n + BATCH - 1) / BATCH, run_batch, w);
    for (uint32_t t = 0; t < BB_PAR_MAX; t++) free(w->workspace[t]);
    free(w);
    return status;
}
