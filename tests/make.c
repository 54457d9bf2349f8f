/* The quantizer on layers of odd shapes: fewer outputs than a tile, one output, 37 of them in mixed widths, inputs in
 * up to three segments that are no multiple of 8. What the file holds is read back by the formulas of core/FORMAT.md §7
 * and compared with the float weights; then both networks run. */
#include "memmodel.h"

#include "base/rng.h"
#include "bitbrush_make.h"

enum { WIDTH = 7, HEIGHT = 5, CHANNELS = 2, LAYERS = 6, MOST_OUTPUTS = 37, MOST_WEIGHTS = 8192 };

typedef struct source {
    memmodel m;
    const float *w[LAYERS]; /* [kh·kw·in][out] */
    float numbers[MOST_WEIGHTS];
    uint32_t used;
} source;

/* A convolution (kernel 0: linear) with padding that keeps the size. */
static uint32_t layer(source *s, const char *name, uint32_t x, uint32_t in, uint32_t out, uint32_t kernel)
{
    uint32_t slot = s->m.graph.n_weights, taps = kernel ? kernel * kernel : 1, n = taps * in * out, y;
    const uint32_t dim[4] = {out, in, kernel, kernel}, shape[4] = {kernel, kernel, in, out};
    float *w = s->numbers + s->used;
    s->used += n;
    bb_normals(w, n, 100 + slot, 0, 0);
    for (uint32_t i = 0; i < n; i++) w[i] *= 1 / sqrtf((float)(taps * in));
    bb_op *op = mm_op(&s->m, kernel ? BB_OP_CONV2D : BB_OP_LINEAR, x, BB_NONE, BB_NONE, &y);
    if (kernel) {
        op->conv.kh = op->conv.kw = kernel, op->conv.stride = 1;
        op->conv.top = op->conv.left = op->conv.bottom = op->conv.right = kernel / 2;
    }
    op->weight[0] = mm_slot(&s->m, name, kernel ? 4 : 2, dim, BB_STORE_TENSOR, 0);
    mm_tensor(&s->m, name, BB_F32, kernel ? 4 : 2, kernel ? shape : shape + 2, w);
    s->w[slot] = w;
    return y;
}

static uint32_t silu(source *s, uint32_t x)
{
    uint32_t y;
    mm_op(&s->m, BB_OP_SILU, x, BB_NONE, BB_NONE, &y);
    return y;
}

static void open_source(source *s)
{
    memmodel *m = &s->m;
    bb_error err = {0};
    s->used = 0;
    mm_start(m, WIDTH, HEIGHT, CHANNELS, 0, -1);
    m->schedule.prediction = BB_PREDICT_V; /* keeps an untrained network in range */
    uint32_t x = mm_input(m, "sample", true, CHANNELS, BB_RATE_SAMPLE), two, three;
    mm_input(m, "timestep", false, 1, BB_RATE_STEP);
    uint32_t first = layer(s, "in.weight", x, CHANNELS, 5, 3);
    uint32_t few = layer(s, "few.weight", silu(s, first), 5, 11, 3); /* k = 45 */
    mm_op(m, BB_OP_CONCAT, first, few, BB_NONE, &two);
    uint32_t joined = silu(s, two);
    uint32_t many = layer(s, "many.weight", joined, 16, 37, 3); /* segments of 5 and 11 */
    uint32_t single = layer(s, "single.weight", joined, 16, 1, 1);
    uint32_t line = layer(s, "line.weight", silu(s, many), 37, 24, 0);
    mm_op(m, BB_OP_CONCAT, single, line, first, &three);
    mm_output(m, "sample", layer(s, "out.weight", silu(s, three), 30, CHANNELS, 3));
    bb_status status = mm_open(m, &err);
    CHECK(status == BB_OK, "%s", err.text);
}

static void *take(void *user, size_t bytes) { return (void)user, malloc(bytes); }
static void give(void *user, void *block, size_t bytes) { (void)user, (void)bytes, free(block); }

/* The maker after its last slice; NULL with a failed check. */
static bb_make *made(const source *s, const bb_make_options *opt, const char *what)
{
    const bb_make_memory memory = {NULL, take, give};
    bb_make *make = NULL;
    bb_error err = {0};
    bb_status status = bb_make_begin(s->m.model, opt, &memory, &make, &err);
    while (status >= 0 && (status = bb_make_step(make, NULL, &err)) == BB_AGAIN) {}
    CHECK(status == BB_DONE, "%s: %s", what, err.text);
    if (status == BB_DONE) return make;
    bb_make_end(make);
    return NULL;
}

/* What bb_make_result gives, read as any file. */
static bool open_result(memmodel *out, const bb_make *make, const char *what)
{
    const uint8_t *bytes;
    size_t n;
    bb_error err = {0};
    *out = (memmodel){0};
    bb_make_result(make, &bytes, &n);
    out->blob = aligned_alloc(BB_ALIGNMENT, bb_align_up(n, BB_ALIGNMENT));
    memcpy(out->blob, bytes, n);
    bb_status status = mm_read(out, n, &err);
    CHECK(status >= 0, "%s: %s", what, err.text);
    return status >= 0;
}

/* Where a row and its class's planes begin, and how many planes those are (§7). */
static uint32_t planes_of_row(const bb_layer *l, uint32_t row, size_t *tile_at, size_t *multiplier_at)
{
    uint32_t first = 0;
    *tile_at = *multiplier_at = 0;
    for (uint32_t i = 0;; i++) {
        uint32_t planes = l->rec->class_planes[i], rows = (l->rec->class_rows[i] + 15) / 16 * 16;
        uint32_t tiles = (row < first + rows ? row - first : rows) / 16;
        *tile_at += (size_t)tiles * l->k_blocks * planes * 16;
        *multiplier_at += (size_t)tiles * planes * 16;
        if (row < first + rows) return planes;
        first += rows;
    }
}

/* Squared error of a packed row against output n of the float layer, in the scale of smoothed weights, and their
 * power: padding rows have none. */
static double row_error(const bb_layer *l, uint32_t row, const float *w, uint32_t n, double *power)
{
    const bb_quantizer *q = l->quantizer;
    size_t at, multiplier_at;
    uint32_t planes = planes_of_row(l, row, &at, &multiplier_at), block = 0, k = 0;
    double error = 0;
    for (uint32_t tap = 0; tap < l->rec->taps; tap++)
        for (uint32_t g = 0, channel = 0; g < q->rec->segments; g++, block = (block + 7) / 8 * 8)
            for (uint32_t c = 0; c < q->rec->seg_channels[g]; c++, block++, k++, channel++) {
                int level = l->offset[row];
                for (uint32_t p = 0; p < planes; p++) {
                    uint8_t byte = l->planes[at + (block / 8 * planes + p) * 16 + row % 16];
                    int m = l->multiplier ? l->multiplier[multiplier_at + p * 16 + row % 16] : 1 << p;
                    level += byte >> block % 8 & 1 ? m : 0;
                }
                double real = w[(size_t)k * l->rec->outputs + n] / (q->inv_s ? (double)q->inv_s[channel] : 1);
                *power += real * real;
                error += pow(real - (double)l->delta[row] * level, 2);
            }
    return error;
}

/* Every output once, with the weights the report says, and as many of each width. */
static void check_layer(const bb_layer *l, const float *w, const bb_make_layer *report, const char *what)
{
    bool seen[MOST_OUTPUTS] = {false};
    uint32_t wider = 0, narrower = 0, wrong = 0;
    double error = 0, power = 0;
    for (uint32_t row = 0; row < l->rows; row++) {
        uint32_t n = l->perm ? l->perm[row] : row;
        size_t unused;
        if (n >= l->rec->outputs) continue;
        wrong += seen[n];
        seen[n] = true;
        uint32_t planes = planes_of_row(l, row, &unused, &unused);
        wider += planes == report->wbits + 1;
        narrower += planes + 1 == report->wbits;
        error += row_error(l, row, w, n, &power);
    }
    for (uint32_t n = 0; n < l->rec->outputs; n++) wrong += !seen[n];
    CHECK(!wrong, "%s, %s: %u outputs are missing or twice there", what, report->name, wrong);
    CHECK(wider == report->more && narrower == report->fewer, "%s, %s: %u and %u outputs of other widths", what,
          report->name, wider, narrower);
    CHECK((report->ladder != 0) == (l->multiplier != NULL), "%s, %s: ladder", what, report->name);
    /* Weights of the report are rounded to f32 twice (w/inv_s and Δ·level), and their difference is 1/100 of them at
     * 8 bits: 2·2^-24·100 of each difference. */
    CHECK(fabs(error / power - report->weight_error) <= 2e-5 * report->weight_error, "%s, %s: weight error %g, not %g",
          what, report->name, error / power, report->weight_error);
}

static void check_layers(const source *s, const memmodel *out, const bb_make *make, const char *what)
{
    const bb_pack *pack = &out->model->pack;
    CHECK(bb_make_layer_count(make) == LAYERS, "%s: %u layers", what, bb_make_layer_count(make));
    for (uint32_t i = 0; i < LAYERS; i++) {
        bb_make_layer report;
        bb_make_layer_get(make, i, &report);
        const bb_layer *l = pack->weights[i].layer;
        CHECK((l != NULL) == (report.wbits != 0), "%s, %s: float or not", what, report.name);
        if (l) check_layer(l, s->w[i], &report, what);
    }
    bb_make_layer many;
    bb_make_layer_get(make, 2, &many);
    const bb_quantizer_rec *q = pack->weights[2].layer->quantizer->rec;
    CHECK(q->segments == 2 && q->seg_channels[0] == 5 && q->seg_channels[1] == 11, "%s: segments of many", what);
}

static void run(const memmodel *m, float *y)
{
    void *ws;
    float x[HEIGHT * WIDTH * CHANNELS], t = 750;
    const float *out;
    uint32_t shape[4];
    bb_session *s = mm_session(m, (bb_request){.steps = 0}, &ws);
    bb_normals(x, BB_COUNT(x), 5, 0, 0);
    bool done = s && bb_input(s, "sample", x, BB_COUNT(x)) == BB_OK && bb_input(s, "timestep", &t, 1) == BB_OK &&
                bb_begin(s, NULL, NULL) == BB_OK && bb_step(s, 0) == BB_DONE && !bb_output(s, "sample", &out, shape);
    CHECK(done, "a run");
    for (size_t i = 0; i < BB_COUNT(x); i++) y[i] = done ? out[i] : NAN;
    free(ws);
}

/* Relative squared error of the network's output. */
static double output_error(const memmodel *quantized, const memmodel *real)
{
    float y[HEIGHT * WIDTH * CHANNELS], ref[HEIGHT * WIDTH * CHANNELS];
    double error = 0, power = 0;
    run(quantized, y), run(real, ref);
    for (size_t i = 0; i < BB_COUNT(y); i++) error += pow((double)y[i] - ref[i], 2), power += pow(ref[i], 2);
    return error / power;
}

static bb_make_options quick(void)
{
    bb_make_options opt;
    bb_make_defaults(&opt);
    opt.images = 4, opt.steps = 4, opt.refit = 5, opt.range = BB_RANGE_MINMAX;
    return opt;
}

static void test_shapes(const source *s)
{
    for (uint32_t wbits = 1; wbits <= 8; wbits++)
        for (uint32_t way = 0; way < 6; way++) {
            char what[64];
            bb_make_options opt = quick();
            memmodel out;
            opt.wbits = wbits;
            if (wbits == 8) opt.images = 16; /* ranges of 35 pixels a picture */
            if (way == 1) opt.range = BB_RANGE_P24;
            opt.abits = wbits == 8 ? 8 : 4 + way % 5;
            opt.layers = way % 2 ? BB_LAYERS_ALL_LOW : BB_LAYERS_DEFAULT;
            opt.mixed = way % 3, opt.ladder = way / 2, opt.smoothing = (float)(way % 3) / 2;
            if (way > 1) opt.compensation = 0;
            snprintf(what, sizeof what, "%u bits, way %u", wbits, way);
            bb_make *make = made(s, &opt, what);
            if (make && open_result(&out, make, what)) {
                check_layers(s, &out, make, what);
                /* At 8 bits a step is 1/128 of the range, ±3 to 5 sigma: 1/25 sigma, squared 1/12 of that, for weights
                 * and for inputs of five layers in a row; something in the wrong place is off by 1. */
                double error = wbits == 8 ? output_error(&out, &s->m) : 0;
                CHECK(error < 5 * 2 / 12.0 / (25 * 25) * 2, "%s: the output is off by %g", what, error);
            }
            if (make) mm_close(&out);
            bb_make_end(make);
        }
}

/* Bits chosen by bytes: the file keeps to them, and what was only measured is what is then stored. */
static void test_budget(const source *s)
{
    for (uint64_t budget = 32000; budget <= 36000; budget += 2000)
        for (uint32_t mixed = 0; mixed < 3; mixed++) {
            char what[64];
            const uint8_t *bytes;
            size_t n;
            bb_make_options opt = quick();
            memmodel out;
            opt.budget = budget, opt.mixed = mixed, opt.compensation = 0;
            snprintf(what, sizeof what, "%u bytes, mixed %u", (uint32_t)budget, mixed);
            bb_make *make = made(s, &opt, what);
            if (make && open_result(&out, make, what)) {
                bb_make_result(make, &bytes, &n);
                CHECK(n <= budget, "%s: %zu", what, n);
                check_layers(s, &out, make, what);
            }
            if (make) mm_close(&out);
            bb_make_end(make);
        }
}

int main(void)
{
    source *s = malloc(sizeof *s);
    open_source(s);
    test_shapes(s);
    test_budget(s);
    mm_close(&s->m);
    free(s);
    return check_done();
}
