/* The student's layers on the very tensors that core's own layers read: codes and integer sums equal, outputs too; and
 * their gradients against the formulas of student.h, summed naively in double. In f32, and in bf16 where the CPU
 * multiplies it. */
#include "studentcase.h"

enum { ITEMS = 3, MAX_ONES = 1024 };

typedef struct bench {
    const student_case *c;
    const char *mode;
    bb_student *s;
    bb_kernels kernels;
    const bb_tape_layer *layers;
    float timestep[ITEMS];
    double worst; /* output against core's */
    uint64_t codes, codes_wrong, sums, sums_wrong, gradients;
} bench;

/* A layer with what it reads; x, y and the rest are aligned. */
typedef struct layer_case {
    bench *b;
    uint32_t op;
    bb_op without_bias;
    const bb_layer *layer;
    const bb_student_matrix *m;
    const bb_student_steps *q;
    bb_shape in, out;
    size_t inputs, outputs;
    float *x, *y, *dy, *dx;
    uint8_t *kept, *code; /* core's codes [items][pixels][channels] */
    bb_layer_pass pass;
} layer_case;

static float *floats(size_t n) { return block(n * sizeof(float)); }

static uint32_t row_of(const layer_case *l, uint32_t item)
{
    return l->layer->quantizer->rec->rows == 1 ? 0 : bb_step_row(l->layer->quantizer, l->b->timestep[item]);
}

/* Segment of channel c. */
static uint32_t segment_of(const layer_case *l, uint32_t c)
{
    uint32_t g = 0;
    for (; c >= l->layer->quantizer->rec->seg_channels[g]; g++) c -= l->layer->quantizer->rec->seg_channels[g];
    return g;
}

/* By core's kernels, segment by segment as core/run/codes.c calls them. */
static void core_codes(layer_case *l)
{
    const bb_quantizer *q = l->layer->quantizer;
    const size_t pixels = (size_t)l->in.h * l->in.w;
    uint8_t *padded = block(pixels * 256);
    for (uint32_t item = 0; item < l->in.n; item++)
        for (uint32_t g = 0, first = 0; g < q->rec->segments; first += q->rec->seg_channels[g++]) {
            const uint32_t entry = row_of(l, item) * q->rec->segments + g, channels = q->rec->seg_channels[g];
            float m[256];
            for (uint32_t c = 0; c < channels; c++)
                m[c] = (q->inv_s ? q->inv_s[first + c] : 1.0f) / l->q->delta[entry];
            l->b->kernels.quantize(&(bb_quantize_args){
                .a = padded, .x = l->x + item * pixels * l->in.c + first, .m = m, .pixels = pixels,
                .channels = channels, .a_stride = 256, .x_stride = l->in.c, .zero = l->q->zero[entry],
                .levels = (1u << q->rec->bits) - 1});
            for (size_t p = 0; p < pixels; p++)
                memcpy(l->code + (item * pixels + p) * l->in.c + first, padded + p * 256, channels);
        }
    free(padded);
}

/* Visits the products of an output: its taps inside the picture. */
typedef struct geometry { uint32_t kh, kw, stride, top, left; } geometry;

static geometry geometry_of(const bb_op *op)
{
    if (op->kind == BB_OP_LINEAR) return (geometry){1, 1, 1, 0, 0};
    return (geometry){op->conv.kh, op->conv.kw, op->conv.stride, op->conv.top, op->conv.left};
}

/* Input pixel (of all items) of a tap of an output pixel, or SIZE_MAX. */
static size_t input_pixel(const layer_case *l, geometry k, uint32_t item, uint32_t oy, uint32_t ox, uint32_t tap)
{
    const uint32_t iy = oy * k.stride + tap / k.kw - k.top, ix = ox * k.stride + tap % k.kw - k.left;
    if (iy >= l->in.h || ix >= l->in.w) return SIZE_MAX;
    return ((size_t)item * l->in.h + iy) * l->in.w + ix;
}

/* Outputs with Δ = δ = 1 and no bias are the integer sums: against sums over core's codes and the packed levels. */
static void check_sums(layer_case *l)
{
    const geometry k = geometry_of(l->pass.op);
    bb_student *s = l->b->s;
    bb_student_matrix *m = &s->matrices[l->m - s->matrices];
    bb_student_steps *q = &s->steps[l->q - s->steps];
    float *delta = m->delta, *step = q->delta, ones[MAX_ONES];
    bb_layer_pass pass = l->pass;
    for (uint32_t i = 0; i < MAX_ONES; i++) ones[i] = 1;
    pass.op = &l->without_bias;
    m->delta = q->delta = ones;
    s->filled = BB_NONE;
    l->b->layers[l->op].forward(l->b->layers[l->op].self, &pass);
    m->delta = delta;
    q->delta = step;
    for (size_t p = 0; p < (size_t)l->out.n * l->out.h * l->out.w; p += 3) {
        const uint32_t item = (uint32_t)(p / (l->out.h * l->out.w)), at = (uint32_t)(p % (l->out.h * l->out.w));
        for (uint32_t n = 0; n < l->out.c; n++) {
            int64_t sum = 0;
            for (uint32_t tap = 0; tap < k.kh * k.kw; tap++) {
                const size_t from = input_pixel(l, k, item, at / l->out.w, at % l->out.w, tap);
                for (uint32_t c = 0; from != SIZE_MAX && c < l->in.c; c++) {
                    const uint32_t entry = row_of(l, item) * q->from->rec->segments + segment_of(l, c);
                    sum += m->start[((size_t)tap * l->in.c + c) * m->n + n] *
                           (l->code[from * l->in.c + c] - q->zero[entry]);
                }
            }
            l->b->sums++;
            l->b->sums_wrong += (double)sum != (double)l->y[p * l->out.c + n];
        }
    }
}

/* ---- gradients ---- */

/* A sum and the sum of the magnitudes in it. */
typedef struct pair { double sum, size; } pair;

static void put(pair *p, double term)
{
    p->sum += term;
    p->size += fabs(term);
}

/* Errors of a sum are bounded by a share of the sum of magnitudes: in f32 some roundings, in bf16 2^-8 for each of the
 * two operands, whose significands have 8 bits. */
static void compare(layer_case *l, const char *what, const float *got, const pair *want, size_t n)
{
    const double share = l->b->s->bf16 ? 2.1 / 256 : 2e-5;
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double e = fabs((double)got[i] - want[i].sum) / (want[i].size * share + 1e-30);
        if (!(e <= worst)) worst = want[i].size == 0 && got[i] == 0 ? worst : e;
    }
    l->b->gradients += n;
    CHECK(worst <= 1, "%s, %s, op %u: gradient of %s is off by %g times what rounding explains", l->b->c->name,
          l->b->mode, l->op, what, worst);
}

/* ∂L/∂x̂ and ∂L/∂ŵ. */
static void naive_products(const layer_case *l, pair *gx, pair *gw)
{
    const geometry k = geometry_of(l->pass.op);
    const uint32_t pixels = l->out.h * l->out.w;
    for (size_t p = 0; p < (size_t)l->out.n * pixels; p++)
        for (uint32_t tap = 0; tap < k.kh * k.kw; tap++) {
            const uint32_t item = (uint32_t)(p / pixels), at = (uint32_t)(p % pixels);
            const size_t from = input_pixel(l, k, item, at / l->out.w, at % l->out.w, tap);
            for (uint32_t c = 0; from != SIZE_MAX && c < l->in.c; c++) {
                const uint32_t entry = row_of(l, item) * l->q->from->rec->segments + segment_of(l, c);
                const double x = (double)l->q->delta[entry] * (l->code[from * l->in.c + c] - l->q->zero[entry]);
                for (uint32_t n = 0; n < l->out.c; n++) {
                    const size_t w = ((size_t)tap * l->in.c + c) * l->out.c + n;
                    const double dy = (double)l->dy[p * l->out.c + n];
                    put(&gx[from * l->in.c + c], dy * (double)l->m->delta[n] * l->m->code[w]);
                    put(&gw[w], dy * x);
                }
            }
        }
}

static void check_weight_grads(layer_case *l, pair *gw)
{
    const bb_student_matrix *m = l->m;
    const bb_student *s = l->b->s;
    const float *w = bb_student_latent(s, m);
    pair *scale = calloc(m->n, sizeof *scale);
    for (size_t i = 0; i < (size_t)m->k * m->n; i++) {
        const uint32_t n = (uint32_t)(i % m->n);
        scale[n].sum += gw[i].sum * m->code[i] * (double)m->grid[n].delta; /* the parameter is Δ/Δ₀ */
        scale[n].size += gw[i].size * abs(m->code[i]) * (double)m->grid[n].delta;
        const double v = (double)w[i] / (double)m->delta[n];
        if (v < (double)m->low[n] || v > (double)m->high[n]) gw[i] = (pair){0, 0};
    }
    compare(l, "the latent weights", s->g + m->at, gw, (size_t)m->k * m->n);
    compare(l, "the scales", s->g + m->scale_at, scale, m->n);
    free(scale);
}

/* Residuals are kept in steps of 1/254: another 1/508 of ∂L/∂x̂ for δ, as a multiple of the share above. */
static void check_input_grads(layer_case *l, const pair *gx)
{
    const bb_quantizer *q = l->layer->quantizer;
    const uint32_t entries = l->q->entries, segments = q->rec->segments, top = (1u << q->rec->bits) - 1;
    pair *dx = calloc(l->inputs, sizeof *dx);
    pair *step = calloc(entries, sizeof *step), *zero = calloc(entries, sizeof *zero);
    for (size_t i = 0; i < l->inputs; i++) {
        const uint32_t c = (uint32_t)(i % l->in.c), item = (uint32_t)(i / ((size_t)l->in.h * l->in.w * l->in.c));
        const uint32_t entry = row_of(l, item) * segments + segment_of(l, c);
        const float inv_s = q->inv_s ? q->inv_s[c] : 1.0f, v = l->x[i] * (inv_s / l->q->delta[entry]);
        const double above = (double)l->code[i] - l->q->zero[entry], start = (double)q->delta[entry];
        const bool inside = v >= -(float)l->q->zero[entry] && v <= (float)top - (float)l->q->zero[entry];
        const double of_step = inside ? above - (double)v : above;
        dx[i] = inside ? (pair){gx[i].sum * (double)inv_s, gx[i].size * (double)inv_s} : (pair){0, 0};
        step[entry].sum += gx[i].sum * of_step * start;
        step[entry].size += gx[i].size * (fabs(of_step) + (l->b->s->bf16 ? 0.25 : 100)) * start;
        if (!inside) {
            zero[entry].sum -= gx[i].sum * (double)l->q->delta[entry];
            zero[entry].size += gx[i].size * (double)l->q->delta[entry];
        }
    }
    compare(l, "x", l->dx, dx, l->inputs);
    compare(l, "δ", l->b->s->g + l->q->step_at, step, entries);
    compare(l, "z", l->b->s->g + l->q->zero_at, zero, entries);
    free(dx);
    free(step);
    free(zero);
}

static void check_gradients(layer_case *l)
{
    bb_student *s = l->b->s;
    pair *gx = calloc(l->inputs, sizeof *gx), *gw = calloc((size_t)l->m->k * l->m->n, sizeof *gw);
    const uint32_t bias = l->pass.op->weight[1];
    memset(s->g, 0, s->n * sizeof *s->g);
    memset(l->dx, 0, l->inputs * sizeof *l->dx);
    s->filled = BB_NONE;
    l->b->layers[l->op].forward(l->b->layers[l->op].self, &l->pass);
    l->b->layers[l->op].backward(l->b->layers[l->op].self, &l->pass);
    naive_products(l, gx, gw);
    check_input_grads(l, gx);
    check_weight_grads(l, gw);
    if (bias != BB_NONE) {
        pair *sums = calloc(l->out.c, sizeof *sums);
        for (size_t i = 0; i < l->outputs; i++) put(&sums[i % l->out.c], (double)l->dy[i]);
        compare(l, "the bias", s->g + s->params.at[bias], sums, l->out.c);
        free(sums);
    }
    free(gx);
    free(gw);
}

/* ---- one layer after the other ---- */

static void check_layer(layer_case *l, const float *core)
{
    bench *b = l->b;
    const bb_student_op *keeper = &b->s->at_op[b->s->at_op[l->op].leader];
    core_codes(l);
    l->pass.kept = l->kept;
    b->layers[l->op].forward(b->layers[l->op].self, &l->pass);
    for (size_t i = 0; i < l->inputs; i++) b->codes_wrong += keeper->code[i] != l->code[i];
    b->codes += l->inputs;
    const double error = check_error(l->y, core, l->outputs);
    CHECK(error <= 1e-6, "%s, %s, op %u: outputs differ from core's by %g", b->c->name, b->mode, l->op, error);
    if (error > b->worst) b->worst = error;
    check_sums(l);
    check_gradients(l);
}

/* Called by core after each op: its input is still there. */
static void observe(void *user, const bb_run *run, uint32_t value)
{
    bench *b = user;
    const bb_graph *g = &run->pack->graph;
    if (value < g->n_inputs || !b->layers[value - g->n_inputs].forward) return;
    const uint32_t op = value - g->n_inputs;
    const bb_student_op *o = &b->s->at_op[op];
    if (o->matrix == BB_NONE) return;
    layer_case l = {.b = b, .op = op, .without_bias = g->ops[op],
                    .layer = run->pack->weights[g->ops[op].weight[0]].layer, .m = &b->s->matrices[o->matrix], .in = run->shapes[g->ops[op].in[0]], .out = run->shapes[value]};
    l.without_bias.weight[1] = BB_NONE;
    l.q = &b->s->steps[l.layer->rec->quantizer];
    l.inputs = bb_shape_size(l.in), l.outputs = bb_shape_size(l.out);
    l.x = floats(l.inputs), l.dx = floats(l.inputs), l.y = floats(l.outputs), l.dy = floats(l.outputs);
    l.code = block(l.inputs), l.kept = block(2 * l.inputs);
    memcpy(l.x, run->at[g->ops[op].in[0]], l.inputs * sizeof *l.x);
    bb_normals(l.dy, l.outputs, 8, 0x10000 + op, 0);
    l.pass = (bb_layer_pass){.op = &g->ops[op], .in = l.in, .out = l.out, .x = l.x, .dy = l.dy, .y = l.y, .dx = l.dx,
                             .timestep = b->timestep};
    if (o->leader == op) {
        check_layer(&l, run->at[value]);
    } else { /* alone, it would not have its leader's codes: it leads for once */
        const bb_student_op *leader = &b->s->at_op[o->leader];
        bb_student_op *self = &b->s->at_op[op];
        CHECK(leader->s && run->pack->graph.ops[leader->op].in[0] == g->ops[op].in[0], "op %u", op);
        self->leader = op;
        check_layer(&l, run->at[value]);
        self->leader = leader->op;
    }
    free(l.x), free(l.dx), free(l.y), free(l.dy), free(l.code), free(l.kept);
}

static void run_core(bench *b)
{
    bb_error err = {.text = ""};
    const bb_info info = b->c->packed.model->pack.info;
    const size_t values = (size_t)ITEMS * info.width * info.height * info.channels;
    const bb_request req = {.size_of = sizeof req, .batch = ITEMS};
    size_t bytes = 0;
    bb_session *session = NULL;
    float *x = floats(values), labels[ITEMS];
    bb_normals(x, values, 2, 0, 0);
    for (uint32_t i = 0; i < ITEMS; i++) labels[i] = (float)(i % info.classes);
    bb_status status = bb_session_size(b->c->packed.model, &req, &bytes, &err);
    void *ws = block(bytes);
    if (status >= 0) status = bb_session_init(b->c->packed.model, &req, ws, bytes, &session, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status == BB_OK) {
        bb_begin(session, NULL, NULL);
        CHECK(bb_input(session, "sample", x, values) == BB_OK &&
              bb_input(session, "timestep", b->timestep, ITEMS) == BB_OK &&
              bb_input(session, "class_labels", labels, ITEMS) == BB_OK, "inputs");
        bb_session_observe(session, observe, b);
        while ((status = bb_step(session, 0)) == BB_AGAIN) {}
        CHECK(status == BB_DONE, "status %d", status);
    }
    free(ws);
    free(x);
}

static void test_layers(const student_case *c, bb_dnn *dnn, bool f32)
{
    bench b = {.c = c, .mode = f32 ? "f32" : "bf16", .timestep = {999, 431, 7}};
    bb_student_options opt = train_all;
    bb_params *params;
    bb_error err = {.text = ""};
    const bb_info info = c->packed.model->pack.info;
    const bb_bindings bind = {{1, ITEMS, info.height, info.width, 1, 1}};
    opt.f32 = f32;
    b.s = new_student(c, opt);
    if (!b.s) return;
    bb_kernels_select(&b.kernels, bb_cpu_features());
    bb_status status = bb_student_bind(b.s, &bind, dnn, bb_ops_select(0, 2), &params, &b.layers, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status == BB_OK) run_core(&b);
    CHECK(b.codes_wrong == 0, "%u codes differ", (unsigned)b.codes_wrong);
    CHECK(b.sums_wrong == 0, "%u sums differ", (unsigned)b.sums_wrong);
    CHECK(b.codes > 0 && b.sums > 0, "nothing was compared");
    printf("%s, %s: %u codes and %u sums equal core's, outputs within %.1g; %u gradients\n", c->name, b.mode,
           (unsigned)b.codes, (unsigned)b.sums, b.worst, (unsigned)b.gradients);
    bb_student_free(b.s);
}

int main(void)
{
    student_case made, tiny;
    bb_error err = {.text = ""};
    bb_dnn *dnn = NULL;
    const bb_status status = bb_dnn_open(&dnn, 2, 0, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status == BB_OK && open_made(&made) && open_tiny(&tiny)) {
        for (int f32 = 0; f32 < 2; f32++) {
            if (!f32 && !bb_dnn_bf16(dnn)) continue;
            test_layers(&made, dnn, f32);
            test_layers(&tiny, dnn, f32);
        }
        close_case(&tiny);
        close_case(&made);
    }
    bb_dnn_close(dnn);
    return check_done();
}
