/* The tape against differences of a double-precision walk, over random graphs with every kind of op; further its use:
 * repeated passes, forward only, kept values, replaced layers, bf16. Against PyTorch and core: tests/train_torch.c. */
#include "traingraph.h"
#include "trainref.h"

enum { THREADS = 2, ITEMS = 2 };

static bb_dnn *dnn;
static const bb_ops *ops;

static float draw_normal(uint64_t seed, uint64_t number)
{
    float x;
    bb_normals(&x, 1, seed, BB_STREAM_TOOLS + 1, number);
    return x;
}

static bb_tape *open_tape(const bb_tape_options *opt)
{
    bb_tape *t = NULL;
    bb_error err = {.text = ""};
    bb_status st = bb_tape_new(&t, opt, &err);
    CHECK(st == BB_OK, "%s", err.text);
    return t;
}

/* ---- random graphs ---- */

enum { SEEN = 64 };

typedef struct bench {
    traingraph graph;
    trainref ref;
    bb_params params;
    bb_bindings bind;
    double *w; /* of ref */
    uint32_t seen[SEEN], n_seen, n_kept; /* what the loss is of: kept values, then outputs */
} bench;

/* Matrices N(0, 1)/√fan-in, norms around 1, else small. */
static void fill_weights(bench *b)
{
    const bb_graph *g = &b->graph.b.graph;
    for (uint32_t s = 0; s < g->n_weights; s++) {
        const bb_weight_slot *slot = &g->weights[s];
        const float *constant = b->graph.b.constants[s];
        double fan = slot->rank == 1 ? 16 : 1;
        for (uint32_t k = 1; k < slot->rank; k++) fan *= slot->dim[k];
        for (size_t i = 0; i < b->params.count[s]; i++) {
            float *w = &b->params.w[b->params.at[s] + i];
            *w = constant ? constant[i] : draw_normal(b->graph.seed, b->params.at[s] + i) / (float)sqrt(fan);
        }
    }
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (g->ops[i].kind == BB_OP_GROUP_NORM)
            for (size_t k = 0; k < b->params.count[g->ops[i].weight[0]]; k++)
                b->params.w[b->params.at[g->ops[i].weight[0]] + k] += 1;
    for (size_t i = 0; i < b->params.n; i++) b->w[i] = b->params.w[i];
}

/* Every seventh value is kept. */
static void choose_seen(bench *b)
{
    const bb_graph *g = &b->graph.b.graph;
    bool *is_output = calloc(g->n_values, sizeof *is_output);
    for (uint32_t k = 0; k < g->n_outputs; k++) is_output[g->outputs[k].value] = true;
    for (uint32_t v = g->n_inputs; v < g->n_values && b->n_kept < SEEN / 2; v += 7)
        if (!is_output[v]) b->seen[b->n_kept++] = v;
    b->n_seen = b->n_kept;
    for (uint32_t k = 0; k < g->n_outputs && b->n_seen < SEEN; k++) b->seen[b->n_seen++] = g->outputs[k].value;
    free(is_output);
}

static void open_bench(bench *b, uint64_t seed, bool keeps)
{
    bb_error err = {.text = ""};
    *b = (bench){0};
    tg_open(&b->graph, seed);
    choose_seen(b);
    if (!keeps) memmove(b->seen, b->seen + b->n_kept, (b->n_seen -= b->n_kept) * sizeof *b->seen), b->n_kept = 0;
    b->bind = (bb_bindings){.of = {[BB_DIM_B] = ITEMS, [BB_DIM_H] = TG_HEIGHT, [BB_DIM_W] = TG_WIDTH}};
    ref_open(&b->ref, &b->graph.b.graph, &b->bind);
    CHECK(bb_params_new(&b->params, &b->graph.b.graph, NULL, true, &err) == BB_OK, "%s", err.text);
    b->w = malloc(b->params.n * sizeof *b->w);
    b->ref.w = b->w;
    b->ref.at = b->params.at;
    fill_weights(b);
    for (uint32_t i = 0; i < ITEMS; i++) {
        b->ref.value[1][i] = i ? 37 : 2;
        b->ref.value[2][i] = 1 + i;
    }
    for (size_t i = 0; i < bb_shape_size(b->ref.shapes[0]); i++) b->ref.value[0][i] = draw_normal(seed + 100, i);
}

static void close_bench(bench *b)
{
    ref_close(&b->ref);
    bb_params_free(&b->params);
    bb_builder_free(&b->graph.b);
    free(b->w);
}

static bb_tape_options options(bench *b)
{
    return (bb_tape_options){.graph = &b->graph.b.graph, .bind = b->bind, .params = &b->params, .dnn = dnn, .ops = ops,
                             .backward = true, .keep = b->seen, .n_keep = b->n_kept};
}

static void give_inputs(bb_tape *t, const bench *b)
{
    for (uint32_t v = 0; v < b->ref.g->n_inputs; v++) {
        float *x = bb_tape_input(t, bb_graph_string(b->ref.g, b->ref.g->inputs[v].name));
        for (size_t i = 0; i < bb_shape_size(b->ref.shapes[v]); i++) x[i] = (float)b->ref.value[v][i];
    }
}

/* The loss Σ r·y + y²/2 over outputs and kept values, with random r. */
static double pull(uint32_t value, size_t i) { return draw_normal(900 + value, i); }

static double ref_loss(bench *b)
{
    double sum = 0;
    ref_forward(&b->ref);
    for (uint32_t k = 0; k < b->n_seen; k++) {
        uint32_t v = b->seen[k];
        for (size_t i = 0; i < bb_shape_size(b->ref.shapes[v]); i++) {
            double y = b->ref.value[v][i];
            sum += y * (pull(v, i) + y / 2);
        }
    }
    return sum;
}

/* Forward and backward with that loss's gradient. */
static void run_tape(bb_tape *t, const bench *b)
{
    bb_tape_weights(t);
    bb_tape_forward(t);
    for (uint32_t k = 0; k < b->n_seen; k++) {
        uint32_t v = b->seen[k];
        const float *y = bb_tape_value(t, v);
        float *dy = bb_tape_grad(t, v);
        for (size_t i = 0; dy && i < bb_shape_size(bb_tape_shape(t, v)); i++) {
            CHECK(dy[i] == 0, "a gradient is not 0 after forward");
            dy[i] += (float)(pull(v, i) + y[i]);
        }
    }
    bb_tape_backward(t);
}

/* f32 against double: sums of up to 72 terms, 40 ops one after the other, cost at most 40·√72·6e-8 = 2e-5 of a value's
 * scale. */
#define VALUE_TOLERANCE 2e-5

static void check_outputs(const bench *b, const bb_tape *t)
{
    for (uint32_t k = 0; k < b->n_seen; k++) {
        uint32_t v = b->seen[k];
        size_t n = bb_shape_size(b->ref.shapes[v]);
        float *ref = malloc(n * sizeof *ref);
        for (size_t i = 0; i < n; i++) ref[i] = (float)b->ref.value[v][i];
        double e = check_error(bb_tape_value(t, v), ref, n);
        CHECK(e <= VALUE_TOLERANCE, "graph %u: value %u is %.1e off", (unsigned)b->graph.seed, v, e);
        free(ref);
    }
}

/* Central difference of the double walk along direction d, [n] from `first`. Its own error is about h² = 1e-8. */
static double difference(bench *b, const double *d, size_t first, size_t n)
{
    const double h = 1e-4;
    double loss[2];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++) b->w[first + i] += (side ? -h : h) * d[i];
        loss[side] = ref_loss(b);
        for (size_t i = 0; i < n; i++) b->w[first + i] = b->params.w[first + i];
    }
    return (loss[0] - loss[1]) / (2 * h);
}

static bool is_fixed(const bench *b, uint32_t slot) { return b->params.fixed[slot]; }

static void check_all_at_once(bench *b)
{
    double *d = malloc(b->params.n * sizeof *d), expected = 0, size = 0;
    for (uint32_t trial = 0; trial < 4; trial++) {
        expected = size = 0;
        memset(d, 0, b->params.n * sizeof *d);
        for (uint32_t s = 0; s < b->ref.g->n_weights; s++)
            for (size_t i = b->params.at[s]; i < b->params.at[s] + b->params.count[s] && !is_fixed(b, s); i++) {
                d[i] = draw_normal(77 + trial, i);
                expected += d[i] * (double)b->params.g[i];
                size += pow(d[i] * (double)b->params.g[i], 2);
            }
        double e = fabs(difference(b, d, 0, b->params.n) - expected) / sqrt(size);
        CHECK(e <= VALUE_TOLERANCE, "graph %u: a directional derivative is %.1e off", (unsigned)b->graph.seed, e);
    }
    free(d);
}

/* Up to SINGLE coordinates of each weight. The tolerance is relative to the weight's largest derivative, and has a
 * floor at a tenth of that of the largest of all: a weight in front of a norm may have none but by rounding. */
enum { SINGLE = 12 };
static void check_singles(bench *b)
{
    double largest = 0, worst = 0, one = 1;
    for (size_t i = 0; i < b->params.n; i++) largest = fmax(largest, fabs((double)b->params.g[i]));
    for (uint32_t s = 0; s < b->ref.g->n_weights; s++) {
        size_t at = b->params.at[s], count = b->params.count[s], step = count > SINGLE ? count / SINGLE : 1;
        double scale = largest / 10;
        for (size_t i = 0; i < count; i++) scale = fmax(scale, fabs((double)b->params.g[at + i]));
        for (size_t i = 0; i < count; i += step) {
            double expected = is_fixed(b, s) ? 0 : difference(b, &one, at + i, 1);
            double e = fabs(expected - (double)b->params.g[at + i]) / scale;
            CHECK(e <= VALUE_TOLERANCE, "graph %u: %s[%zu]: %g, not %g", (unsigned)b->graph.seed,
                  bb_graph_string(b->ref.g, b->ref.g->weights[s].name), i, (double)b->params.g[at + i], expected);
            if (e > worst) worst = e;
        }
    }
    printf("graph %u: %u ops, %zu weights, derivatives %.1e off\n", (unsigned)b->graph.seed, b->ref.g->n_ops,
           b->params.n, worst);
}

static void check_random_graph(uint64_t seed)
{
    bench b;
    open_bench(&b, seed, seed % 2 == 0);
    bb_tape_options opt = options(&b);
    bb_tape *t = open_tape(&opt);
    if (!t) return;
    give_inputs(t, &b);
    run_tape(t, &b);
    ref_loss(&b);
    check_outputs(&b, t);
    check_all_at_once(&b);
    check_singles(&b);
    bb_tape_free(t);
    close_bench(&b);
}

/* ---- how the tape is used ---- */

/* ‖a − b‖ / ‖b‖ */
static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, size = 0;
    for (size_t i = 0; i < n; i++) d += pow((double)a[i] - (double)b[i], 2), size += pow((double)b[i], 2);
    return sqrt(d / size);
}

/* The weights' gradient by a tape with these options, in a copy; malloc'd. */
static float *gradient_by(bench *b, const bb_tape_options *opt)
{
    bb_tape *t = open_tape(opt);
    float *g = malloc(b->params.n * sizeof *g);
    memset(b->params.g, 0, b->params.n * sizeof *g);
    give_inputs(t, b);
    run_tape(t, b);
    memcpy(g, b->params.g, b->params.n * sizeof *g);
    bb_tape_free(t);
    return g;
}

/* A second pass adds the same bits to the gradients; a new tape gives the same bits. */
static void check_repeats(void)
{
    bench b;
    open_bench(&b, 1, false);
    bb_tape_options opt = options(&b);
    float *once = gradient_by(&b, &opt), *again = gradient_by(&b, &opt);
    CHECK(!memcmp(once, again, b.params.n * sizeof *once), "two tapes give different bits");
    bb_tape *t = open_tape(&opt);
    give_inputs(t, &b);
    for (int pass = 0; pass < 2; pass++) {
        memset(b.params.g, 0, b.params.n * sizeof(float));
        run_tape(t, &b);
        CHECK(!memcmp(once, b.params.g, b.params.n * sizeof *once), "pass %d gives different bits", pass);
    }
    run_tape(t, &b);
    for (size_t i = 0; i < b.params.n; i++) again[i] = 2 * once[i];
    CHECK(distance(b.params.g, again, b.params.n) < 1e-6, "a further pass does not add to the gradients");
    bb_tape_free(t);
    free(once);
    free(again);
    close_bench(&b);
}

/* Without a backward pass: less memory, the same values. */
static void check_forward_only(void)
{
    bench b;
    open_bench(&b, 2, true);
    bb_tape_options opt = options(&b);
    bb_error err;
    size_t bytes[2] = {0};
    bb_tape *t[2];
    for (int k = 0; k < 2; k++) {
        opt.backward = !k;
        CHECK(bb_tape_bytes(&opt, &bytes[k], &err) == BB_OK, "bytes");
        t[k] = open_tape(&opt);
        give_inputs(t[k], &b);
        bb_tape_weights(t[k]);
        bb_tape_forward(t[k]);
    }
    CHECK(3 * bytes[1] < 2 * bytes[0], "%zu bytes without a backward pass, %zu with it", bytes[1], bytes[0]);
    for (uint32_t k = 0; k < b.n_seen; k++) {
        size_t n = bb_shape_size(bb_tape_shape(t[0], b.seen[k])) * sizeof(float);
        CHECK(!memcmp(bb_tape_value(t[0], b.seen[k]), bb_tape_value(t[1], b.seen[k]), n), "value %u", b.seen[k]);
        CHECK(!bb_tape_grad(t[1], b.seen[k]), "a gradient without a backward pass");
    }
    bb_tape_free(t[0]);
    bb_tape_free(t[1]);
    close_bench(&b);
}

/* A layer of the user's own in place of every linear op: the same arithmetic, written plainly. */
typedef struct plain_layer { bb_params *params; float timestep; } plain_layer; /* timestep: of item 1 */

static void plain_forward(void *self, const bb_layer_pass *p)
{
    plain_layer *l = self;
    size_t rows = (size_t)p->in.n * p->in.h * p->in.w;
    const float *w = l->params->w + l->params->at[p->op->weight[0]];
    const float *b = l->params->w + l->params->at[p->op->weight[1]];
    l->timestep = p->timestep[1];
    memcpy(p->kept, p->x, rows * p->in.c * sizeof *p->x);
    for (size_t i = 0; i < rows * p->out.c; i++) {
        double sum = b[i % p->out.c];
        for (size_t c = 0; c < p->in.c; c++)
            sum += (double)p->x[i / p->out.c * p->in.c + c] * (double)w[c * p->out.c + i % p->out.c];
        p->y[i] = (float)sum;
    }
}

static void plain_backward(void *self, const bb_layer_pass *p)
{
    plain_layer *l = self;
    size_t rows = (size_t)p->in.n * p->in.h * p->in.w;
    const float *w = l->params->w + l->params->at[p->op->weight[0]], *x = p->kept;
    float *dw = l->params->g + l->params->at[p->op->weight[0]], *db = l->params->g + l->params->at[p->op->weight[1]];
    CHECK(!memcmp(x, p->x, rows * p->in.c * sizeof *x), "x or what the layer kept has changed");
    for (size_t i = 0; i < rows * p->out.c; i++) {
        size_t row = i / p->out.c * p->in.c, o = i % p->out.c;
        db[o] += p->dy[i];
        for (size_t c = 0; c < p->in.c; c++) {
            dw[c * p->out.c + o] += p->dy[i] * x[row + c];
            if (p->dx) p->dx[row + c] += p->dy[i] * w[c * p->out.c + o];
        }
    }
}

static size_t kept_by(const bench *b, const bb_op *op)
{
    return op->kind == BB_OP_LINEAR ? bb_shape_size(b->ref.shapes[op->in[0]]) * sizeof(float) : 0;
}

static void check_layers(void)
{
    bench b;
    open_bench(&b, 2, true);
    bb_tape_options opt = options(&b);
    float *expected = gradient_by(&b, &opt);
    plain_layer self = {.params = &b.params};
    bb_tape_layer *layers = calloc(b.ref.g->n_ops, sizeof *layers);
    for (uint32_t i = 0; i < b.ref.g->n_ops; i++) {
        layers[i] = (bb_tape_layer){.self = &self, .kept_bytes = kept_by(&b, &b.ref.g->ops[i])};
        if (b.ref.g->ops[i].kind != BB_OP_LINEAR) continue;
        layers[i].forward = plain_forward;
        layers[i].backward = plain_backward;
    }
    opt.layers = layers;
    float *g = gradient_by(&b, &opt);
    double off = distance(g, expected, b.params.n);
    CHECK(off < 1e-5, "replaced layers: gradients are %.1e off", off);
    CHECK(self.timestep == 37, "the timestep is not told");
    free(layers);
    free(expected);
    free(g);
    close_bench(&b);
}

/* Rounding to bf16 changes an operand by up to 2^-9, by 1.1e-3 in the mean square. An op's two operands and what comes
 * from the layers before add up like √(2·depth): 40 ops one after the other, there and back, give √160·1.1e-3 = 1.4e-2.
 * Norms of few pixels and softmax magnify it. What is too good to be bf16 fails, too. */
static void check_bf16(void)
{
    if (!bb_dnn_bf16(dnn)) return;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        bench b;
        open_bench(&b, seed, true);
        bb_tape_options opt = options(&b);
        float *expected = gradient_by(&b, &opt);
        opt.bf16 = true;
        float *g = gradient_by(&b, &opt);
        double off = distance(g, expected, b.params.n);
        CHECK(off < 5e-2 && off > 1e-4, "bf16: gradients are %.1e off", off);
        free(expected);
        free(g);
        close_bench(&b);
    }
}

/* A graph's sizes that do not fit it, and a batch that no memory holds, are errors. */
static void check_refusals(void)
{
    bench b;
    open_bench(&b, 1, false);
    bb_tape_options opt = options(&b);
    bb_tape *t = NULL;
    bb_error err = {.text = ""};
    opt.bind.of[BB_DIM_B] = 0;
    CHECK(bb_tape_new(&t, &opt, &err) == BB_ERR_SIZE && !t, "no items: %s", err.text);
    CHECK(strstr(err.text, "sample"), "%s", err.text);
    close_bench(&b);
}

int main(void)
{
    bb_error err = {.text = ""};
    CHECK(bb_dnn_open(&dnn, THREADS, 0, &err) == BB_OK, "%s", err.text);
    ops = bb_ops_select(0, THREADS);
    for (uint64_t seed = 0; seed <= 4; seed++) check_random_graph(seed);
    check_repeats();
    check_forward_only();
    check_layers();
    check_bf16();
    check_refusals();
    bb_dnn_close(dnn);
    return check_done();
}
