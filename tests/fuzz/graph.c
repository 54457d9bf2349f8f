/* Graph words through the checker; shapes at several bindings; the memory plan, checked by a second definition of
 * liveness. Input: the words of the file's `graph` tensor (core/FORMAT.md §4), the strings behind them. */
#include "fuzz.h"

#include "run/run.h"

enum { HEAD_WORDS = 12, STAGE_WORDS = 4, MOST = 512 };

static bool cut(const uint8_t **at, size_t *left, uint32_t count, size_t each, void **out)
{
    if (count > *left / each) return false;
    *out = fuzz_copy(*at, count * each);
    *at += count * each;
    *left -= count * each;
    return true;
}

typedef struct arrays { void *stage, *inputs, *outputs, *values, *weights, *ops; char *strings; } arrays;

static bool take(bb_graph *g, arrays *w, const uint8_t *at, size_t left)
{
    uint32_t head[HEAD_WORDS];
    if (left < sizeof head) return false;
    memcpy(head, at, sizeof head);
    at += sizeof head;
    left -= sizeof head;
    *g = (bb_graph){.name = head[4], .n_inputs = head[5], .n_outputs = head[6], .n_values = head[7],
                    .n_weights = head[8], .n_ops = head[9]};
    if (!cut(&at, &left, 1, STAGE_WORDS * 4, &w->stage) ||
        !cut(&at, &left, g->n_inputs, sizeof *g->inputs, &w->inputs) ||
        !cut(&at, &left, g->n_outputs, sizeof *g->outputs, &w->outputs) ||
        !cut(&at, &left, g->n_values, sizeof *g->values, &w->values) ||
        !cut(&at, &left, g->n_weights, sizeof *g->weights, &w->weights) ||
        !cut(&at, &left, g->n_ops, sizeof *g->ops, &w->ops))
        return false;
    g->inputs = w->inputs, g->outputs = w->outputs, g->values = w->values, g->weights = w->weights, g->ops = w->ops;
    g->strings = w->strings = fuzz_copy(at, left);
    g->string_bytes = (uint32_t)left;
    return true;
}

static void release(arrays *w)
{
    void *all[] = {w->stage, w->inputs, w->outputs, w->values, w->weights, w->ops, w->strings};
    for (size_t i = 0; i < BB_COUNT(all); i++) free(all[i]);
}

/* Whether op number `at` or a later one reads v, or somebody after the last op does. */
static bool is_read(const bb_graph *g, uint32_t v, uint32_t at)
{
    bool read = false;
    for (uint32_t k = 0; k < g->n_outputs; k++) read = read || g->outputs[k].value == v;
    for (uint32_t i = 0; i < g->n_ops; i++)
        for (uint32_t k = 0; k < 4; k++) read = read || (g->ops[i].in[k] == v && i >= at);
    return read;
}

static size_t value_end(const bb_graph *g, const bb_plan *plan, uint32_t v)
{
    size_t windows = g->values[v].rate == BB_RATE_STEP ? plan->windows : 1;
    return plan->offset[BB_PLAIN][v] + windows * bb_shape_size(plan->shapes[v]) * sizeof(float);
}

/* Values of one moment do not share memory: whatever is read at op i or later is not what op i writes over. Inputs and
 * all below sample rate is needed at all times, as its ops may run before the others or in their place. */
static void check_plan(const bb_graph *g, const bb_plan *plan)
{
    for (uint32_t i = 0; i < g->n_ops; i++) {
        uint32_t y = bb_op_value(g, i);
        size_t y_at = plan->offset[BB_PLAIN][y], y_end = value_end(g, plan, y);
        FUZZ_CHECK(y_end <= plan->value_bytes);
        for (uint32_t v = 0; v < g->n_values; v++) {
            if (v == y) continue;
            bool kept = v < g->n_inputs || g->values[v].rate < BB_RATE_SAMPLE, made = v < y;
            if (kept || (made && is_read(g, v, i)))
                FUZZ_CHECK(value_end(g, plan, v) <= y_at || y_end <= plan->offset[BB_PLAIN][v]);
        }
    }
}

static void plan(const bb_graph *g, const bb_bindings *bind)
{
    bb_error err = {0};
    uint32_t n = g->n_values;
    bb_weight *weights = calloc(g->n_weights + 1, sizeof *weights);
    bb_shape *shapes = fuzz_block(n * sizeof *shapes);
    bb_plan p = {.shapes = shapes, .fusion = fuzz_block(g->n_ops * sizeof *p.fusion), .last = fuzz_block(n * sizeof *p.last),
                 .live = fuzz_block(n * sizeof *p.live)};
    for (uint32_t i = 0; i < BB_LAYOUTS; i++) p.offset[i] = fuzz_block(n * sizeof *p.offset[i]);
    static const float nothing;
    for (uint32_t i = 0; i < g->n_weights; i++)
        weights[i] = (bb_weight){.f32 = &nothing, .stride = (g->weights[i].dim[0] + 15) / 16 * 16};
    bb_pack pack = {.graph = *g, .weights = weights};
    bb_kernels kernels;
    bb_kernels_select(&kernels, bb_cpu_features());
    bb_status status = bb_plan_make(&p, &pack, &kernels, bind, 3, &err);
    fuzz_check_error(status, &err);
    for (uint32_t v = 0; status == BB_OK && v < n; v++) {
        uint32_t channels[4], sum = 0, parts = bb_graph_segments(g, shapes, v, channels);
        FUZZ_CHECK(parts >= 1 && parts <= 4);
        for (uint32_t k = 0; k < parts; k++) sum += channels[k];
        FUZZ_CHECK(sum == shapes[v].c);
    }
    if (status == BB_OK && n <= 64) check_plan(g, &p);
    for (uint32_t i = 0; i < BB_LAYOUTS; i++) free(p.offset[i]);
    free(p.fusion);
    free(p.last);
    free(p.live);
    free(shapes);
    free(weights);
}

FUZZ_TARGET(graph)
{
    static const bb_bindings bindings[] = {{{1, 1, 13, 11, 1, 1}}, {{1, 2, 5, 7, 3, 2}}, {{1, 1, 1, 1, 1, 1}},
                                           {{1, 4096, 16384, 16384, 77, 16}}, {{1, 0, 0, 0, 0, 0}}};
    bb_graph g = {0};
    arrays w = {0};
    bb_error err = {0};
    bb_status status = BB_ERR_SHORT;
    if (take(&g, &w, data, n)) {
        status = bb_graph_check(&g, &err);
        fuzz_check_error(status, &err);
    }
    for (size_t i = 0; status == BB_OK && i < BB_COUNT(bindings); i++) plan(&g, &bindings[i]);
    for (uint32_t i = 0; status == BB_OK && i < g.n_ops; i++) {
        FUZZ_CHECK(bb_op_label(&g, &g.ops[i])[0]);
        for (uint32_t k = 0; k < 4; k++) FUZZ_CHECK(g.ops[i].in[k] == BB_NONE || g.ops[i].in[k] < bb_op_value(&g, i));
    }
    if (status == BB_OK) FUZZ_CHECK(bb_graph_find_input(&g, bb_graph_string(&g, g.inputs[0].name)) == 0);
    release(&w);
    return status;
}

/* Words one at a time; whole arrays grow and shrink by a copied or a dropped record, the counts with them. */
FUZZ_MUTATOR(graph)
{
    fuzz_random r = {seed};
    if (n < HEAD_WORDS * 4 || fuzz_next(&r, 12) == 0) return fuzz_mutate(data, n, max);
    size_t words = n / 4;
    for (uint32_t times = 1 + fuzz_next(&r, 3); times; times--) {
        uint32_t word, other;
        uint8_t *at = data + (size_t)fuzz_next(&r, (uint32_t)words) * 4;
        memcpy(&word, at, 4);
        memcpy(&other, data + (size_t)fuzz_next(&r, (uint32_t)words) * 4, 4);
        word = fuzz_next(&r, 4) ? fuzz_word(&r, word) : other;
        memcpy(at, &word, 4);
    }
    return n;
}
