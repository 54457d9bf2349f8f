/* The float run against PyTorch: every recorded activation and output of tests/golden, through import and the public
 * API; for the shipped teacher also a whole guided DDIM run.
 *
 * Tolerance, as max|a−ref| / max|ref| per tensor: 2e-5. The references are f32 themselves and lie up to 3e-6 from f64
 * (tests/fixtures/README.md). Our sums run in one fixed order, theirs in blocks: k terms in a row cost at most about
 * √k/2 roundings of 6e-8 where blocks cost a few, and k is 9·192 at most here: 1.2e-6 per layer, some ten of which add
 * up before a norm scales them back. A wrong eps, padding or head order costs 1e-3 and more. */
#include "check.h"

#include "base/par.h"
#include "bitbrush.h"
#include "import/import.h"
#include "import/safetensors.h"

#define TOLERANCE 2e-5

typedef struct model {
    uint8_t *blob;
    void *memory, *workspace;
    bb_info info;
    bb_model *model;
    bb_session *session;
} model;

static void *block(size_t bytes)
{
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static bool open_model(model *m, const char *folder, uint32_t dtype)
{
    *m = (model){0};
    size_t size = 0;
    bb_error err = {.text = ""};
    bb_import_options opt = {.path = folder, .dtype = dtype};
    bb_status st = bb_import(&opt, &m->blob, &size, &err);
    CHECK(st == BB_OK, "import %s: %s", folder, err.text);
    if (st < 0) return false;
    void *scratch = block(BB_PROBE_SCRATCH(size));
    st = bb_probe(m->blob, size, scratch, BB_PROBE_SCRATCH(size), &m->info, &err);
    CHECK(st == BB_OK, "probe %s: %s", folder, err.text);
    free(scratch);
    if (st < 0) return false;
    m->memory = block(m->info.model_bytes);
    st = bb_model_init(m->blob, size, m->memory, m->info.model_bytes, &m->model, &err);
    CHECK(st == BB_OK, "model %s: %s", folder, err.text);
    return st == BB_OK;
}

static bool open_session(model *m, const bb_request *req)
{
    size_t bytes = 0;
    bb_error err = {.text = ""};
    bb_status st = bb_session_size(m->model, req, &bytes, &err);
    if (st == BB_OK) {
        m->workspace = block(bytes);
        st = bb_session_init(m->model, req, m->workspace, bytes, &m->session, &err);
    }
    CHECK(st == BB_OK, "session: %s", err.text);
    return st == BB_OK;
}

static void close_model(model *m)
{
    free(m->workspace);
    free(m->memory);
    free(m->blob);
}

/* The tensor as f32, rank 4 turned from NCHW to NHWC; malloc'd. */
static float *channels_last(const bb_st_tensor *t)
{
    float *x = malloc((t->count + 1) * sizeof *x), *y = malloc((t->count + 1) * sizeof *y);
    bb_st_to_f32(t, x);
    if (t->rank == 4) {
        size_t n = (size_t)t->shape[0], c = (size_t)t->shape[1], pixels = (size_t)(t->shape[2] * t->shape[3]);
        for (size_t i = 0; i < n; i++) {
            for (size_t k = 0; k < c; k++) {
                for (size_t p = 0; p < pixels; p++) y[(i * pixels + p) * c + k] = x[(i * c + k) * pixels + p];
            }
        }
    } else {
        memcpy(y, x, t->count * sizeof *y);
    }
    free(x);
    return y;
}

/* ---- one pass ---- */

typedef struct comparison {
    const char *name;
    bb_st_file golden;
    size_t compared;
    double worst;
    char worst_name[96];
} comparison;

static void compare(comparison *c, const char *name, const float *x, size_t count)
{
    const bb_st_tensor *t = bb_safetensors_find(&c->golden.st, name);
    if (!t) return;
    CHECK(count == t->count, "%s: %s has %zu values, not %zu", c->name, name, count, t->count);
    if (count != t->count) return;
    float *ref = channels_last(t);
    double e = check_error(x, ref, count);
    free(ref);
    CHECK(e <= TOLERANCE, "%s: %s differs by %.2e", c->name, name, e);
    c->compared++;
    if (e < c->worst) return;
    c->worst = e;
    snprintf(c->worst_name, sizeof c->worst_name, "%s", name);
}

/* A value that is the output of several modules carries all their names, one a line. */
static void tap(void *user, const char *path, const float *x, const uint32_t shape[4])
{
    for (const char *line = path; *line;) {
        char name[128];
        size_t n = strcspn(line, "\n");
        snprintf(name, sizeof name, "act.%.*s", (int)n, line);
        compare(user, name, x, (size_t)shape[0] * shape[1] * shape[2] * shape[3]);
        line += n + (line[n] == '\n');
    }
}

static bool give_inputs(model *m, const comparison *c)
{
    for (size_t i = 0; i < c->golden.st.n; i++) {
        const bb_st_tensor *t = &c->golden.st.tensors[i];
        if (strncmp(t->name, "in.", 3) != 0) continue;
        float *x = channels_last(t);
        bb_status st = bb_input(m->session, t->name + 3, x, t->count);
        free(x);
        CHECK(st == BB_OK, "%s: input %s: %s", c->name, t->name, bb_strerror(st));
        if (st < 0) return false;
    }
    return true;
}

static void run_once(model *m, comparison *c)
{
    bb_tap(m->session, tap, c);
    CHECK(bb_begin(m->session, NULL, NULL) == BB_OK, "%s", c->name);
    if (!give_inputs(m, c)) return;
    CHECK(bb_step(m->session, 0) == BB_DONE, "%s", c->name);
    const float *y;
    uint32_t s[4];
    size_t expected = 0;
    CHECK(bb_output(m->session, "sample", &y, s) == BB_OK, "%s", c->name);
    compare(c, "out.sample", y, (size_t)s[0] * s[1] * s[2] * s[3]);
    for (size_t i = 0; i < c->golden.st.n; i++) expected += strncmp(c->golden.st.tensors[i].name, "in.", 3) != 0;
    CHECK(c->compared == expected, "%s: compared %zu of %zu tensors", c->name, c->compared, expected);
    printf("%-20s %2zu tensors, worst %.1e (%s)\n", c->name, c->compared, c->worst, c->worst_name);
}

static void check_pass(const char *name, const char *folder, uint32_t dtype)
{
    comparison c = {.name = name};
    bb_error err = {.text = ""};
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s/golden.safetensors", BB_TESTS_DIR, name);
    bb_status st = bb_st_file_open(&c.golden, path, &err);
    CHECK(st == BB_OK, "%s", err.text);
    if (st < 0) return;
    const bb_st_tensor *x = bb_safetensors_find(&c.golden.st, "in.sample");
    bb_request req = {.size_of = sizeof req, .batch = (uint32_t)x->shape[0], .height = (uint32_t)x->shape[2],
                      .width = (uint32_t)x->shape[3]};
    model m;
    if (open_model(&m, folder, dtype) && open_session(&m, &req)) run_once(&m, &c);
    close_model(&m);
    bb_st_file_close(&c.golden);
}

/* ---- a whole drawing of the teacher ---- */

enum { STEPS = 20, PICTURES = 4, PIXELS = 32 * 32, PASS = PICTURES * PIXELS };

typedef struct drawing {
    float *x, *uncond, *cond; /* [STEPS+1], [STEPS], [STEPS] of [PICTURES][PIXELS]; one channel: NCHW = NHWC */
    uint32_t step;
    double worst;
} drawing;

/* The output of the network: the rows without class come first. The reference itself is up to 1.6e-6 from f64 on its
 * way, and 9e-6 at the last step, where t = 0 and errors of x weigh most against the little noise that is left. */
static void watch(void *user, const char *path, const float *y, const uint32_t shape[4])
{
    drawing *d = user;
    if (strcmp(path, "conv_out") != 0 || d->step >= STEPS) return;
    CHECK(shape[0] == 2 * PICTURES, "%u rows", shape[0]);
    size_t at = d->step * PASS;
    double e = check_error(y, d->uncond + at, PASS), f = check_error(y + PASS, d->cond + at, PASS);
    CHECK(e <= TOLERANCE && f <= TOLERANCE, "step %u: without class %.2e, with class %.2e", d->step, e, f);
    if (e > d->worst) d->worst = e;
    if (f > d->worst) d->worst = f;
    d->step++;
}

/* Errors of 2e-5 are a four-hundredth of a grey level, so rounding to bytes differs by one level at most. */
static void check_pictures(const model *m, const float *x)
{
    static uint8_t rgba[PIXELS * 4];
    for (uint32_t i = 0; i < PICTURES; i++) {
        bb_image image = {.width = 32, .height = 32, .rgba = rgba};
        CHECK(bb_decode(m->session, i, &image) == BB_OK, "picture %u", i);
        int worst = 0;
        for (size_t p = 0; p < PIXELS; p++) {
            float v = x[i * PIXELS + p], level = (fminf(fmaxf(v, -1), 1) + 1) * 127.5f;
            int off = abs((int)rgba[4 * p] - (int)lrintf(level));
            if (off > worst) worst = off;
        }
        CHECK(worst <= 1, "picture %u: a pixel is %d levels off", i, worst);
    }
}

static void draw(model *m, const bb_safetensors *golden, bb_par *par)
{
    static const uint64_t seeds[PICTURES] = {0};
    drawing d = {.x = channels_last(bb_safetensors_find(golden, "x")),
                 .uncond = channels_last(bb_safetensors_find(golden, "out_uncond")),
                 .cond = channels_last(bb_safetensors_find(golden, "out_cond"))};
    float labels[PICTURES];
    bb_st_to_f32(bb_safetensors_find(golden, "class_labels"), labels);
    bb_request req = {.size_of = sizeof req, .steps = STEPS, .batch = PICTURES, .guidance = 2, .par = par};
    if (open_session(m, &req)) {
        for (uint32_t i = 0; i < PICTURES; i++) {
            CHECK(bb_condition(m->session, i, &(bb_cond){.label = (int32_t)labels[i]}) == BB_OK, "label %u", i);
        }
        bb_tap(m->session, watch, &d);
        bb_status st = bb_begin(m->session, seeds, d.x);
        while (st >= 0 && st != BB_DONE) st = bb_step(m->session, 0);
        CHECK(st == BB_DONE && d.step == STEPS, "%s after %u steps", bb_strerror(st), d.step);
        check_pictures(m, d.x + STEPS * PASS);
        printf("%-20s %2u steps, worst %.1e\n", "teacher-ddim20", d.step, d.worst);
    }
    free(d.x);
    free(d.uncond);
    free(d.cond);
}

static void check_drawing(void)
{
    bb_st_file golden;
    bb_error err = {.text = ""};
    bb_status st = bb_st_file_open(&golden, BB_TESTS_DIR "/golden/teacher-ddim20/golden.safetensors", &err);
    CHECK(st == BB_OK, "%s", err.text);
    if (st < 0) return;
    bb_par *par = bb_par_start(2);
    model m;
    if (open_model(&m, BB_MODELS_DIR "/fashion", BB_F16)) draw(&m, &golden.st, par);
    close_model(&m);
    bb_par_stop(par);
    bb_st_file_close(&golden);
}

int main(void)
{
    check_pass("unet2d-ddpm", BB_TESTS_DIR "/golden/unet2d-ddpm", BB_F32);
    check_pass("unet2d-class", BB_TESTS_DIR "/golden/unet2d-class", BB_F32);
    check_pass("unet2d-scaleshift", BB_TESTS_DIR "/golden/unet2d-scaleshift", BB_F32);
    check_pass("unet2d-f16-oldnames", BB_TESTS_DIR "/golden/unet2d-f16-oldnames", BB_F16); /* weights are f16: exact */
    check_pass("unet2d-variants", BB_TESTS_DIR "/golden/unet2d-variants", BB_F32);
    check_pass("unet2d-adm", BB_TESTS_DIR "/golden/unet2d-adm", BB_F32);
    check_pass("unet2d-gelu-noattn", BB_TESTS_DIR "/golden/unet2d-gelu-noattn", BB_F32);
    check_pass("unet2d-mish", BB_TESTS_DIR "/golden/unet2d-mish", BB_F32);
    check_pass("unet2d-noattn", BB_TESTS_DIR "/golden/unet2d-noattn", BB_F32);
    check_pass("teacher-forward", BB_MODELS_DIR "/fashion", BB_F16);
    check_drawing();
    return check_done();
}
