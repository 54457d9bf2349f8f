/* A student's whole network: against core on the packed model at the start, and after some updates against core on the
 * written file; what trains and what does not; the same bits in every run. */
#include "studentcase.h"

#include "train/engine/optim.h"

enum { ITEMS = 4, UPDATES = 8, THREADS = 1 };

static bb_dnn *dnn;
static const bb_ops *ops;

/* Batches of inputs, and what the network should answer. */
typedef struct batch {
    size_t n; /* values of a picture tensor */
    float *x, *target, timestep[ITEMS], label[ITEMS];
} batch;

typedef struct network {
    const student_case *c;
    bb_student *s;
    bb_params *params;
    bb_tape *tape;
    uint32_t output;
} network;

static batch new_batch(const student_case *c, uint64_t seed)
{
    static const float steps[ITEMS] = {950, 700, 450, 3};
    const bb_info info = c->packed.model->pack.info;
    batch b = {.n = (size_t)ITEMS * info.width * info.height * info.channels};
    b.x = block(b.n * sizeof *b.x), b.target = block(b.n * sizeof *b.target);
    bb_normals(b.x, b.n, seed, 0, 0);
    for (uint32_t i = 0; i < ITEMS; i++) b.timestep[i] = steps[i], b.label[i] = (float)((seed + i) % info.classes);
    return b;
}

static void drop_batch(batch *b) { free(b->x), free(b->target); }

static bool open_network(network *n, const student_case *c, bb_student_options opt)
{
    bb_error err = {.text = ""};
    const bb_pack *p = &c->packed.model->pack;
    const bb_tape_layer *layers;
    *n = (network){.c = c, .s = new_student(c, opt), .output = bb_graph_find_output(&p->graph, "sample")};
    if (!n->s) return false;
    bb_tape_options tape = {.graph = &p->graph, .bind = {{1, ITEMS, p->info.height, p->info.width, 1, 1}}, .dnn = dnn,
                            .ops = ops, .last_f32 = true, .backward = true};
    bb_status status = bb_student_bind(n->s, &tape.bind, dnn, ops, &n->params, &layers, &err);
    tape.params = n->params;
    tape.layers = layers;
    tape.ops = bb_student_ops(n->s);
    if (status >= 0) status = bb_tape_new(&n->tape, &tape, &err);
    CHECK(status == BB_OK, "%s: %s", c->name, err.text);
    if (status == BB_OK) bb_tape_weights(n->tape);
    return status == BB_OK;
}

static void close_network(network *n)
{
    if (n->tape) bb_tape_free(n->tape);
    bb_student_free(n->s);
}

static void fill(float *to, const float *from, size_t n) { memcpy(to, from, n * sizeof *to); }

static const float *forward(network *n, const batch *b)
{
    fill(bb_tape_input(n->tape, "sample"), b->x, b->n);
    fill(bb_tape_input(n->tape, "timestep"), b->timestep, ITEMS);
    fill(bb_tape_input(n->tape, "class_labels"), b->label, ITEMS);
    bb_tape_forward(n->tape);
    return bb_tape_value(n->tape, n->output);
}

/* Mean squared error, and its gradients; those of the batch before are gone. */
static double gradients(network *n, const batch *b)
{
    const float *y = forward(n, b);
    float *dy = bb_tape_grad(n->tape, n->output);
    double loss = 0;
    memset(n->s->g, 0, n->s->n * sizeof *n->s->g);
    for (size_t i = 0; i < b->n; i++) {
        const double e = (double)y[i] - (double)b->target[i];
        loss += e * e / (double)b->n;
        dy[i] += (float)(2 * e / (double)b->n);
    }
    bb_tape_backward(n->tape);
    return loss;
}

/* ---- core ---- */

/* What core's run of a model is compared with: the codes that the student keeps. */
typedef struct watcher { const network *n; uint64_t codes, flipped; } watcher;

static void count_codes(watcher *w, const bb_run *run, const bb_student_op *o, const bb_layer *layer, const float *x)
{
    const bb_quantizer *q = layer->quantizer;
    const uint32_t segments = q->rec->segments;
    for (size_t i = 0; i < (size_t)o->items * o->pixels * q->channels; i++) {
        const uint32_t c = (uint32_t)(i % q->channels), item = (uint32_t)(i / ((size_t)o->pixels * q->channels));
        const uint32_t row = q->rec->rows == 1 ? 0 : bb_step_row(q, run->at[run->timestep][item]);
        uint32_t g = 0, left = c;
        for (; left >= q->rec->seg_channels[g]; g++) left -= q->rec->seg_channels[g];
        const float zero = q->zero[row * segments + g], top = (float)((1u << q->rec->bits) - 1) - zero;
        float v = x[i] * ((q->inv_s ? q->inv_s[c] : 1.0f) / q->delta[row * segments + g]);
        v = v > -zero ? v : -zero;
        v = v < top ? v : top;
        w->flipped += (float)o->code[i] != bb_round_even(v) + zero;
        w->codes++;
    }
}

static void watch(void *user, const bb_run *run, uint32_t value)
{
    watcher *w = user;
    const bb_graph *g = &run->pack->graph;
    if (!w->n || value < g->n_inputs) return;
    const bb_student_op *o = &w->n->s->at_op[value - g->n_inputs];
    const bb_op *op = &g->ops[value - g->n_inputs];
    if (o->s && o->matrix != BB_NONE && o->leader == o->op)
        count_codes(w, run, o, run->pack->weights[op->weight[0]].layer, run->at[op->in[0]]);
}

/* The network's output by core; w->n: NULL for the output only. */
static bool run_core(bb_model *model, const batch *b, float *y, watcher *w)
{
    bb_error err = {.text = ""};
    const bb_request req = {.size_of = sizeof req, .batch = ITEMS};
    bb_session *session = NULL;
    size_t bytes = 0;
    bb_status status = bb_session_size(model, &req, &bytes, &err);
    void *ws = block(bytes);
    if (status >= 0) status = bb_session_init(model, &req, ws, bytes, &session, &err);
    if (status >= 0) {
        bb_begin(session, NULL, NULL);
        bb_input(session, "sample", b->x, b->n);
        bb_input(session, "timestep", b->timestep, ITEMS);
        bb_input(session, "class_labels", b->label, ITEMS);
        bb_session_observe(session, watch, w);
        while ((status = bb_step(session, 0)) == BB_AGAIN) {}
    }
    CHECK(status == BB_DONE, "%s", err.text);
    if (status == BB_DONE) {
        const float *out;
        uint32_t shape[4];
        bb_output(session, "sample", &out, shape);
        fill(y, out, b->n);
    }
    free(ws);
    return status == BB_DONE;
}

static double relative_rms(const float *a, const float *b, size_t n)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        power += (double)b[i] * (double)b[i];
    }
    return sqrt(error / power);
}

/* The bounds. Codes flip where sums of norms and float layers, in another order, end on the other side of a
 * half; each flip moves its layer's sums by a level. */
static void check_parity(const network *n, bb_model *model, const batch *b, const float *y, const char *when)
{
    float *core = block(b->n * sizeof *core);
    watcher w = {.n = n};
    if (run_core(model, b, core, &w)) {
        const double rms = relative_rms(y, core, b->n), flipped = (double)w.flipped / (double)w.codes;
        printf("%s, %s: outputs %.2g from core's (relative RMS), %.4f %% of %u activation codes flipped\n", n->c->name,
               when, rms, 100 * flipped, (unsigned)w.codes);
        CHECK(rms <= 1e-2, "%s, %s: relative RMS %g", n->c->name, when, rms);
        CHECK(flipped <= 1e-3 && w.codes > 0, "%s, %s: %g of the codes", n->c->name, when, flipped);
    }
    free(core);
}

/* ---- training ---- */

static const float factor[BB_STUDENT_KINDS] = {1.0f / 60, 1e-3f, 1e-2f, 0.04f, 1e-3f};

/* Updates towards the teacher's outputs; losses of the first and the last one. */
static bool train(network *n, uint32_t updates, batch *b, double loss[2])
{
    bb_error err = {.text = ""};
    bb_optim optim;
    const uint32_t count = bb_student_groups(n->s, factor, NULL);
    bb_optim_group *groups = calloc(count, sizeof *groups);
    watcher none = {0};
    bb_student_groups(n->s, factor, groups);
    bb_status status = bb_optim_new(&optim, ops, n->s->n, groups, count, &err);
    CHECK(status == BB_OK, "%s", err.text);
    bool ok = status == BB_OK && run_core((bb_model *)&n->c->teacher, b, b->target, &none);
    for (uint32_t i = 0; ok && i < updates; i++) {
        loss[i > 0] = gradients(n, b);
        ok = bb_optim_update(&optim, n->s->w, n->s->g, 1, 0, bb_optim_norm(&optim, n->s->g));
        CHECK(ok, "update %u", i);
        bb_student_changed(n->s);
        bb_tape_weights(n->tape);
    }
    if (status == BB_OK) bb_optim_free(&optim);
    free(groups);
    return ok;
}

static void test_network(const student_case *c)
{
    network n;
    batch b = new_batch(c, 5), other = new_batch(c, 6);
    double loss[2] = {0};
    bb_error err = {.text = ""};
    packed_model written = {0};
    if (open_network(&n, c, train_all)) check_parity(&n, c->packed.model, &b, forward(&n, &b), "at the start");
    if (n.tape && train(&n, UPDATES, &b, loss)) {
        printf("%s: loss %.4g, after %u updates %.4g; %.2f %% of weight codes changed\n", c->name, loss[0], UPDATES - 1,
               loss[1], 100 * bb_student_flipped(n.s));
        CHECK(loss[1] < 0.8 * loss[0], "%s: the loss does not fall", c->name);
        const bb_status status = bb_student_write(n.s, "test", 1, &written.blob, &written.bytes, &err);
        CHECK(status == BB_OK, "%s", err.text);
        if (status == BB_OK && read_model(&written))
            check_parity(&n, written.model, &other, forward(&n, &other), "trained and written");
    }
    close_model(&written);
    drop_batch(&b);
    drop_batch(&other);
    close_network(&n);
}

/* Two runs, in memory that held other things: the same bits. */
static void test_repeats(const student_case *c)
{
    float *before = NULL;
    size_t n_before = 0;
    for (int run = 0; run < 2; run++) {
        network n;
        batch b = new_batch(c, 5);
        double loss[2];
        if (open_network(&n, c, train_all) && train(&n, 3, &b, loss)) {
            const bool same = !before || (n_before == n.s->n && !memcmp(before, n.s->w, n_before * sizeof *before));
            CHECK(same, "%s: two runs differ", c->name);
            free(before);
            before = block(n.s->n * sizeof *before);
            n_before = n.s->n;
            fill(before, n.s->w, n.s->n);
        }
        drop_batch(&b);
        close_network(&n);
    }
    free(before);
}

/* ---- oracles of mpq-dm §9 ---- */

static double largest(const float *x, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)x[i]));
    return most;
}

/* 21: the gradient of a loss at one timestep touches only that timestep's entry of a table. */
static void test_one_step(const student_case *c)
{
    network n;
    batch b = new_batch(c, 7);
    uint32_t tables = 0;
    memset(b.target, 0, b.n * sizeof *b.target);
    for (uint32_t i = 0; i < ITEMS; i++) b.timestep[i] = 450;
    if (open_network(&n, c, train_all)) {
        gradients(&n, &b);
        for (uint32_t i = 0; i < n.s->pack->n_quantizers; i++) {
            const bb_student_steps *q = &n.s->steps[i];
            const uint32_t segments = q->from->rec->segments, hit = bb_step_row(q->from, 450);
            for (uint32_t e = 0; e < q->entries; e++) {
                const double g = fabs((double)n.s->g[q->step_at + e]) + fabs((double)n.s->g[q->zero_at + e]);
                CHECK(e / segments == hit || g == 0, "%s: entry %u of quantizer %u", c->name, e, i);
                tables += e / segments == hit && g > 0 && q->from->rec->rows > 1;
            }
        }
        CHECK(tables > 0, "no table of several rows took a gradient");
    }
    drop_batch(&b);
    close_network(&n);
}

/* 17: with B = 0 no gradient reaches A; OOLRI starts with both. What is not to be trained has none. */
static void test_factors(const student_case *c)
{
    static const uint32_t kinds[] = {BB_STUDENT_LORA_ZERO, BB_STUDENT_OOLRI_B, BB_STUDENT_FROZEN};
    for (size_t k = 0; k < BB_COUNT(kinds); k++) {
        network n;
        batch b = new_batch(c, 8);
        bb_student_options opt = {.weights = kinds[k], .rank = 8, .train_scales = kinds[k] == BB_STUDENT_FROZEN};
        double of_a = 0, of_b = 0, of_scales = 0, of_steps = 0, loss[2] = {0};
        memset(b.target, 0, b.n * sizeof *b.target);
        if (open_network(&n, c, opt)) {
            gradients(&n, &b);
            for (uint32_t i = 0; i < n.s->pack->n_layers; i++) {
                const bb_student_matrix *m = &n.s->matrices[i];
                of_a = fmax(of_a, largest(n.s->g + m->at, (size_t)m->k * m->rank));
                of_b = fmax(of_b, largest(n.s->g + m->b_at, (size_t)m->rank * m->n));
                of_scales = fmax(of_scales, largest(n.s->g + m->scale_at, m->n));
            }
            for (uint32_t i = 0; i < n.s->pack->n_quantizers; i++)
                of_steps = fmax(of_steps, largest(n.s->g + n.s->steps[i].step_at, n.s->steps[i].entries));
            CHECK((of_a > 0) == (kinds[k] == BB_STUDENT_OOLRI_B), "%s, %u: gradient of A %g", c->name, kinds[k], of_a);
            CHECK((of_b > 0) == (kinds[k] != BB_STUDENT_FROZEN), "%s, %u: gradient of B %g", c->name, kinds[k], of_b);
            CHECK((of_scales > 0) == (kinds[k] == BB_STUDENT_FROZEN), "%s, %u: Δ %g", c->name, kinds[k], of_scales);
            CHECK(of_steps == 0, "%s, %u: steps %g", c->name, kinds[k], of_steps);
            const bool trained = train(&n, 12, &b, loss);
            CHECK(trained && loss[1] < loss[0], "%s, %u: %g, then %g", c->name, kinds[k], loss[0], loss[1]);
        }
        drop_batch(&b);
        close_network(&n);
    }
}

int main(void)
{
    student_case made, tiny;
    bb_error err = {.text = ""};
    const bb_status status = bb_dnn_open(&dnn, THREADS, 0, &err);
    CHECK(status == BB_OK, "%s", err.text);
    ops = bb_ops_select(0, THREADS);
    if (status == BB_OK && open_made(&made) && open_tiny(&tiny)) {
        const student_case *cases[] = {&made, &tiny};
        for (int i = 0; i < 2; i++) {
            test_network(cases[i]);
            test_repeats(cases[i]);
            test_one_step(cases[i]);
            test_factors(cases[i]);
        }
        close_case(&tiny);
        close_case(&made);
    }
    bb_dnn_close(dnn);
    return check_done();
}
