/* The tape, checked three ways: against differences of a double-precision walk over random graphs with every kind of
 * op, against the gradients that PyTorch gave for two small networks, and against ten losses of training one of them.
 * Further: bf16, kept values, replaced layers, memory, and the forward pass of models/fashion against core/run. */
#include "traingraph.h"
#include "trainref.h"

#include "base/par.h"
#include "import/import.h"
#include "api/model.h"
#include "import/safetensors.h"
#include "train/engine/optim.h"

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

typedef struct bench {
    traingraph graph;
    trainref ref;
    bb_params params;
    bb_bindings bind;
    double *w; /* of ref */
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

static void open_bench(bench *b, uint64_t seed)
{
    bb_error err = {.text = ""};
    tg_open(&b->graph, seed);
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
                             .backward = true};
}

static void give_inputs(bb_tape *t, const bench *b)
{
    for (uint32_t v = 0; v < b->ref.g->n_inputs; v++) {
        float *x = bb_tape_input(t, bb_graph_string(b->ref.g, b->ref.g->inputs[v].name));
        for (size_t i = 0; i < bb_shape_size(b->ref.shapes[v]); i++) x[i] = (float)b->ref.value[v][i];
    }
}

/* The loss Σ r·y + y²/2 over all outputs, with random r. */
static double pull(uint32_t value, size_t i) { return draw_normal(900 + value, i); }

static double ref_loss(bench *b)
{
    double sum = 0;
    ref_forward(&b->ref);
    for (uint32_t k = 0; k < b->ref.g->n_outputs; k++) {
        uint32_t v = b->ref.g->outputs[k].value;
        for (size_t i = 0; i < bb_shape_size(b->ref.shapes[v]); i++) {
            double y = b->ref.value[v][i];
            sum += y * (pull(v, i) + y / 2);
        }
    }
    return sum;
}

/* Forward and backward with that loss's gradient. */
static void run_tape(bb_tape *t, const bb_graph *g)
{
    bb_tape_weights(t);
    bb_tape_forward(t);
    for (uint32_t k = 0; k < g->n_outputs; k++) {
        uint32_t v = g->outputs[k].value;
        const float *y = bb_tape_value(t, v);
        float *dy = bb_tape_grad(t, v);
        for (size_t i = 0; dy && i < bb_shape_size(bb_tape_shape(t, v)); i++) {
            CHECK(dy[i] == 0, "a gradient is not 0 after forward");
            dy[i] += (float)(pull(v, i) + y[i]);
        }
    }
    bb_tape_backward(t);
}

/* f32 against double: k sums of up to 9·8 terms one after the other, as deep as 40 ops, cost some 40·√72·6e-8 = 2e-5
 * of a value's scale; norms of few pixels magnify up to tenfold. */
#define VALUE_TOLERANCE 2e-4

static void check_outputs(const bench *b, const bb_tape *t)
{
    for (uint32_t k = 0; k < b->ref.g->n_outputs; k++) {
        uint32_t v = b->ref.g->outputs[k].value;
        size_t n = bb_shape_size(b->ref.shapes[v]);
        float *ref = malloc(n * sizeof *ref);
        for (size_t i = 0; i < n; i++) ref[i] = (float)b->ref.value[v][i];
        double e = check_error(bb_tape_value(t, v), ref, n);
        CHECK(e <= VALUE_TOLERANCE, "graph %u: output %u is %.1e off", (unsigned)b->graph.seed, k, e);
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
        CHECK(e <= VALUE_TOLERANCE, "graph %u: derivative along a random direction is %.1e off", (unsigned)b->graph.seed, e);
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
    open_bench(&b, seed);
    bb_tape_options opt = options(&b);
    bb_tape *t = open_tape(&opt);
    if (!t) return;
    give_inputs(t, &b);
    run_tape(t, b.ref.g);
    ref_loss(&b);
    check_outputs(&b, t);
    check_all_at_once(&b);
    check_singles(&b);
    bb_tape_free(t);
    close_bench(&b);
}

/* ---- PyTorch's gradients ---- */

typedef struct network {
    uint8_t *blob;
    void *memory;
    bb_model *model;
    const bb_pack *pack;
    bb_params params;
} network;

static bool open_network(network *n, const char *folder, uint32_t dtype)
{
    *n = (network){0};
    bb_error err = {.text = ""};
    bb_info info;
    size_t size = 0;
    bb_import_options opt = {.path = folder, .dtype = dtype};
    bb_status st = bb_import(&opt, &n->blob, &size, &err);
    if (st >= 0) {
        void *scratch = malloc(BB_PROBE_SCRATCH(size));
        st = bb_probe(n->blob, size, scratch, BB_PROBE_SCRATCH(size), &info, &err);
        free(scratch);
    }
    if (st >= 0) {
        n->memory = aligned_alloc(64, bb_align_up(info.model_bytes, 64));
        st = bb_model_init(n->blob, size, n->memory, info.model_bytes, &n->model, &err);
    }
    if (st >= 0) {
        n->pack = &n->model->pack;
        st = bb_params_new(&n->params, &n->pack->graph, n->pack->weights, true, &err);
    }
    CHECK(st == BB_OK, "%s: %s", folder, err.text);
    return st == BB_OK;
}

static void close_network(network *n)
{
    bb_params_free(&n->params);
    free(n->memory);
    free(n->blob);
}

/* A tensor of PyTorch in our layout: pictures NHWC, conv weights [kh][kw][in][out], linear weights [in][out]; malloc'd.
 * All are a turn of [a][b][c]. */
static float *turned(const bb_st_tensor *t, bool weight, bool table)
{
    size_t a = (size_t)t->shape[0], rest = t->count / a, b = rest, c = 1;
    float *x = malloc((t->count + 1) * sizeof *x), *y = malloc((t->count + 1) * sizeof *y);
    bb_st_to_f32(t, x);
    memcpy(y, x, t->count * sizeof *y);
    if (t->rank == 4) b = (size_t)t->shape[1], c = rest / b;
    bool turns = t->rank == 4 || (t->rank == 2 && weight && !table);
    for (size_t i = 0; i < a && turns; i++)
        for (size_t k = 0; k < b; k++)
            for (size_t p = 0; p < c; p++)
                y[weight ? (p * b + k) * a + i : (i * c + p) * b + k] = x[(i * b + k) * c + p];
    free(x);
    return y;
}

typedef struct fixture {
    network net;
    bb_st_file golden;
    bb_tape *tape;
    uint32_t output;
    float *target;
    size_t n;
} fixture;

static float *golden(const fixture *f, const char *name)
{
    const bb_st_tensor *t = bb_safetensors_find(&f->golden.st, name);
    CHECK(t, "no tensor %s", name);
    return t ? turned(t, false, false) : NULL;
}

static bool open_fixture(fixture *f, const char *name, bool bf16)
{
    *f = (fixture){0};
    char path[512];
    bb_error err = {.text = ""};
    snprintf(path, sizeof path, "%s/golden/%s", BB_TESTS_DIR, name);
    if (!open_network(&f->net, path, BB_F32)) return false;
    snprintf(path, sizeof path, "%s/golden/%s/golden.safetensors", BB_TESTS_DIR, name);
    CHECK(bb_st_file_open(&f->golden, path, &err) == BB_OK, "%s", err.text);
    const bb_st_tensor *x = bb_safetensors_find(&f->golden.st, "in.sample");
    const bb_graph *g = &f->net.pack->graph;
    bb_tape_options opt = {.graph = g, .params = &f->net.params, .dnn = dnn, .ops = ops, .backward = true,
                           .bf16 = bf16, .last_f32 = true,
                           .bind = {.of = {[BB_DIM_B] = (uint32_t)x->shape[0], [BB_DIM_H] = (uint32_t)x->shape[2],
                                           [BB_DIM_W] = (uint32_t)x->shape[3]}}};
    f->tape = open_tape(&opt);
    if (!f->tape) return false;
    f->output = g->outputs[0].value;
    f->n = bb_shape_size(bb_tape_shape(f->tape, f->output));
    f->target = golden(f, "target");
    static const char *const names[] = {"sample", "timestep", "class_labels"};
    for (uint32_t k = 0; k < 3; k++) {
        char from[64];
        snprintf(from, sizeof from, "in.%s", names[k]);
        float *values = golden(f, from);
        uint32_t v = bb_graph_find_input(g, names[k]);
        memcpy(bb_tape_input(f->tape, names[k]), values, bb_shape_size(bb_tape_shape(f->tape, v)) * sizeof *values);
        free(values);
    }
    return true;
}

static void close_fixture(fixture *f)
{
    bb_tape_free(f->tape);
    bb_st_file_close(&f->golden);
    close_network(&f->net);
    free(f->target);
}

/* The mean squared error, and its gradient in params.g. */
static double squared_error(fixture *f)
{
    double sum = 0;
    memset(f->net.params.g, 0, f->net.params.n * sizeof(float));
    bb_tape_weights(f->tape);
    bb_tape_forward(f->tape);
    const float *y = bb_tape_value(f->tape, f->output);
    float *dy = bb_tape_grad(f->tape, f->output);
    for (size_t i = 0; i < f->n; i++) {
        double d = (double)y[i] - (double)f->target[i];
        sum += d * d;
        dy[i] = (float)(2 * d / (double)f->n);
    }
    bb_tape_backward(f->tape);
    return sum / (double)f->n;
}

/* Largest error of a weight's gradient, relative to the weight's largest gradient or a hundredth of the largest of all
 * (a bias in front of a norm has none but by rounding). */
static double worst_gradient(const fixture *f, char name_of[128])
{
    const bb_params *p = &f->net.params;
    double worst = 0, largest = 0;
    for (size_t i = 0; i < p->n; i++) largest = fmax(largest, fabs((double)p->g[i]));
    for (uint32_t s = 0; s < p->graph->n_weights; s++) {
        if (p->fixed[s]) continue;
        char name[128];
        snprintf(name, sizeof name, "grad.%s", bb_graph_string(p->graph, p->graph->weights[s].name));
        const bb_st_tensor *t = bb_safetensors_find(&f->golden.st, name);
        CHECK(t && t->count == p->count[s], "%s is not in the fixture", name);
        if (!t) continue;
        float *ref = turned(t, true, strstr(name, "class_embedding") != NULL);
        double error = 0, scale = largest / 100;
        for (size_t i = 0; i < t->count; i++) {
            error = fmax(error, fabs((double)p->g[p->at[s] + i] - (double)ref[i]));
            scale = fmax(scale, fabs((double)ref[i]));
        }
        free(ref);
        if (error / scale <= worst) continue;
        worst = error / scale;
        memcpy(name_of, name, sizeof name);
    }
    return worst;
}

/* The fixtures are exact to f32; ours sum some hundred f32 terms per value over 60 ops: see VALUE_TOLERANCE. */
static void check_gradients(const char *name, bool bf16, double tolerance)
{
    fixture f;
    char worst_name[128] = "";
    if (!open_fixture(&f, name, bf16)) return;
    double loss = squared_error(&f), worst = worst_gradient(&f, worst_name);
    float *expected = golden(&f, "loss");
    double off = fabs(loss - (double)*expected) / (double)*expected;
    CHECK(off <= tolerance, "%s: the loss is %g, not %g", name, loss, (double)*expected);
    CHECK(worst <= tolerance, "%s: %s is %.1e off", name, worst_name, worst);
    printf("%s%s: loss %.1e off, worst gradient %.1e (%s)\n", name, bf16 ? ", bf16" : "", off, worst, worst_name);
    free(expected);
    close_fixture(&f);
}

/* ---- ten updates ---- */

/* AdamW divides gradients by their own size, so that rounding decides the sign of an update where the gradient is next
 * to nothing; then the loss hardly depends on it. Ten updates of 2e-3 with relative errors of 1e-4 move the loss by
 * ten times 2e-3·1e-4·‖g‖₁ (about 10) = 2e-5. */
static void check_curve(const char *name)
{
    fixture f;
    bb_optim o;
    bb_error err = {.text = ""};
    if (!open_fixture(&f, name, false)) return;
    float *losses = golden(&f, "losses");
    bb_optim_group *groups = calloc(f.net.params.graph->n_weights, sizeof *groups);
    uint32_t n = 0;
    for (uint32_t s = 0; s < f.net.params.graph->n_weights; s++)
        if (!f.net.params.fixed[s])
            groups[n++] = (bb_optim_group){f.net.params.at[s], f.net.params.count[s], 1, 1e-2f};
    CHECK(bb_optim_new(&o, ops, f.net.params.n, groups, n, &err) == BB_OK, "%s", err.text);
    double worst = 0;
    for (uint32_t i = 0; i < 10; i++) {
        double loss = squared_error(&f);
        worst = fmax(worst, fabs(loss - (double)losses[i]));
        CHECK(bb_optim_update(&o, f.net.params.w, f.net.params.g, 2e-3f, 0, bb_optim_norm(&o, f.net.params.g)),
              "update %u", i);
    }
    CHECK(worst <= 2e-5, "%s: losses are up to %.1e off", name, worst);
    printf("%s: ten losses, worst %.1e off\n", name, worst);
    bb_optim_free(&o);
    free(groups);
    free(losses);
    close_fixture(&f);
}

int main(void)
{
    bb_error err = {.text = ""};
    CHECK(bb_dnn_open(&dnn, THREADS, 0, &err) == BB_OK, "%s", err.text);
    ops = bb_ops_select(0, THREADS);
    for (uint64_t seed = 1; seed <= 3; seed++) check_random_graph(seed);
    check_gradients("train-default", false, 1e-4);
    check_gradients("train-scaleshift", false, 1e-4);
    check_curve("train-default");
    bb_dnn_close(dnn);
    return check_done();
}
