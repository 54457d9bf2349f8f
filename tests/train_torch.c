/* Training against PyTorch: gradients of every weight of two small networks, ten losses of AdamW on one of them
 * (tests/fixtures/make_train.py); the tape of models/fashion: its memory, and its forward pass against core's own. */
#include "check.h"

#include "api/model.h"
#include "base/rng.h"
#include "import/import.h"
#include "import/safetensors.h"
#include "train/engine/optim.h"
#include "train/engine/tape.h"

#include <unistd.h>

enum { THREADS = 2 };

static bb_dnn *dnn;
static const bb_ops *ops;

static bb_tape *open_tape(const bb_tape_options *opt)
{
    bb_tape *t = NULL;
    bb_error err = {.text = ""};
    bb_status st = bb_tape_new(&t, opt, &err);
    CHECK(st == BB_OK, "%s", err.text);
    return t;
}

/* ---- gradients ---- */

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

static bool open_fixture(fixture *f, const char *name)
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

/* The fixtures are exact to f32. A value of ours is a sum of up to 144 f32 terms, 80 ops one after the other, there and
 * back: 160·√144·6e-8 = 1e-4 of its scale at most. */
#define TOLERANCE 1e-4

static void check_gradients(const char *name)
{
    fixture f;
    char worst_name[128] = "";
    if (!open_fixture(&f, name)) return;
    double loss = squared_error(&f), worst = worst_gradient(&f, worst_name);
    float *expected = golden(&f, "loss");
    double off = fabs(loss - (double)*expected) / (double)*expected;
    CHECK(off <= TOLERANCE, "%s: the loss is %g, not %g", name, loss, (double)*expected);
    CHECK(worst <= TOLERANCE, "%s: %s is %.1e off", name, worst_name, worst);
    printf("%s: loss %.1e off, worst gradient %.1e (%s)\n", name, off, worst, worst_name);
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
    if (!open_fixture(&f, name)) return;
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

/* ---- the shipped teacher, against core's own pass ---- */

/* core sums in one order, oneDNN in another: see tests/parity.c, whose tolerance this is. */
static void check_fashion(uint32_t dtype)
{
    enum { BATCH = 2, PIXELS = 32 * 32 };
    network net;
    bb_error err = {.text = ""};
    if (!open_network(&net, BB_MODELS_DIR "/fashion", dtype)) return;
    bb_request req = {.size_of = sizeof req, .batch = BATCH};
    size_t bytes = 0;
    CHECK(bb_session_size(net.model, &req, &bytes, &err) == BB_OK, "%s", err.text);
    void *workspace = aligned_alloc(64, bb_align_up(bytes, 64));
    bb_session *session;
    CHECK(bb_session_init(net.model, &req, workspace, bytes, &session, &err) == BB_OK, "%s", err.text);
    bb_tape_options opt = {.graph = &net.pack->graph, .params = &net.params, .dnn = dnn, .ops = ops,
                           .bind = {.of = {[BB_DIM_B] = BATCH, [BB_DIM_H] = 32, [BB_DIM_W] = 32}}};
    bb_tape *t = open_tape(&opt);
    static const float timestep[BATCH] = {10, 900}, label[BATCH] = {2, 10};
    float *x = bb_tape_input(t, "sample");
    bb_normals(x, BATCH * PIXELS, 5, BB_STREAM_TOOLS, 0);
    memcpy(bb_tape_input(t, "timestep"), timestep, sizeof timestep);
    memcpy(bb_tape_input(t, "class_labels"), label, sizeof label);
    CHECK(!bb_tape_input(t, "nothing"), "an input of no such name");
    bb_tape_weights(t);
    bb_tape_forward(t);
    bb_begin(session, NULL, NULL);
    CHECK(bb_input(session, "sample", x, BATCH * PIXELS) == BB_OK, "sample");
    CHECK(bb_input(session, "timestep", timestep, BATCH) == BB_OK, "timestep");
    CHECK(bb_input(session, "class_labels", label, BATCH) == BB_OK, "class_labels");
    CHECK(bb_step(session, 0) == BB_DONE, "step");
    const float *y;
    uint32_t shape[4];
    CHECK(bb_output(session, "sample", &y, shape) == BB_OK, "output");
    double e = check_error(bb_tape_value(t, net.pack->graph.outputs[0].value), y, BATCH * PIXELS);
    CHECK(e <= 2e-5, "models/fashion: %.1e from core", e);
    printf("models/fashion: %.1e from core\n", e);
    bb_tape_free(t);
    free(workspace);
    close_network(&net);
}

/* ---- memory ---- */

#ifndef __SANITIZE_ADDRESS__ /* which has much of its own */
static size_t resident(void)
{
    unsigned long all, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%lu %lu", &all, &pages) != 2) pages = 0;
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* What bb_tape_bytes states is what a step takes: to a tenth where it was measured; of that an eighth is oneDNN's code,
 * which may be half or twice as much on other CPUs. First in the process, before oneDNN has made anything. */
static void check_memory(void)
{
    enum { BATCH = 16 };
    network net;
    bb_error err = {.text = ""};
    if (!open_network(&net, BB_MODELS_DIR "/fashion", BB_F32)) return;
    bb_tape_options opt = {.graph = &net.pack->graph, .params = &net.params, .dnn = dnn, .ops = ops, .bf16 = true,
                           .last_f32 = true, .backward = true,
                           .bind = {.of = {[BB_DIM_B] = BATCH, [BB_DIM_H] = 32, [BB_DIM_W] = 32}}};
    size_t before = resident(), stated = 0;
    CHECK(bb_tape_bytes(&opt, &stated, &err) == BB_OK, "%s", err.text);
    bb_tape *t = open_tape(&opt);
    bb_tape_weights(t);
    bb_tape_forward(t);
    bb_tape_backward(t);
    size_t taken = resident() - before;
    CHECK(!before || (taken > stated / 100 * 85 && taken < stated / 100 * 115), "%zu bytes stated, %zu taken", stated,
          taken);
    printf("models/fashion, batch %d: %.1f MB stated, %.1f taken\n", BATCH, (double)stated / 1e6, (double)taken / 1e6);
    bb_tape_free(t);
    close_network(&net);
}
#endif

int main(void)
{
    bb_error err = {.text = ""};
    CHECK(bb_dnn_open(&dnn, THREADS, 0, &err) == BB_OK, "%s", err.text);
    ops = bb_ops_select(0, THREADS);
#ifndef __SANITIZE_ADDRESS__
    check_memory();
#endif
    check_gradients("train-default");
    check_gradients("train-scaleshift");
    check_curve("train-default");
    check_fashion(BB_F32);
    check_fashion(BB_F16);
    bb_dnn_close(dnn);
    return check_done();
}
