/* Distillation of a small checkpoint: it learns, what it learnt is what the integer kernels compute, a broken run goes
 * on bit-equal, ingredients reach the parameters that they are about, and presets make the files that they say. */
#include "studentcase.h"

#include "train/distill/distill.h"

static const bb_ranks alone = {0, 1};

static bb_distill_options small_options(uint64_t updates)
{
    bb_distill_options o;
    bb_make_options make;
    bb_distill_defaults(&o);
    bb_method_apply(0, &make, &o);
    o.updates = updates, o.trajectories = 8, o.held_out = 4, o.steps = 5, o.batch = 2, o.guidance = 2, o.patience = 0;
    o.anchors = 64, o.pixels = 32, o.slot = 16, o.push = 16;
    return o;
}

static bool open_run(bb_distill *d, const student_case *c, const bb_distill_options *o)
{
    static const char digest[] = "0123456789012345678901234567890123456789012345678901234567890123";
    bb_error err = {.text = ""};
    const bb_distill_setup setup = {.opt = o, .teacher = &c->teacher, .start = c->packed.model, .blob = c->packed.blob,
                                    .blob_bytes = c->packed.bytes, .ranks = &alone, .threads = 1, .digest = digest};
    bb_status status = bb_distill_open(d, &setup, &err);
    CHECK(status >= 0, "%s", err.text);
    return status >= 0;
}

static void draw(bb_distill *d)
{
    bb_error err = {.text = ""};
    bb_status status = BB_AGAIN;
    while (status == BB_AGAIN) status = bb_distill_draw(d, &err);
    CHECK(status == BB_DONE, "%s", err.text);
}

static bool begin_run(bb_distill *d, const student_case *c, const bb_distill_options *o)
{
    bb_error err = {.text = ""};
    if (!open_run(d, c, o)) return false;
    draw(d);
    bb_status status = bb_distill_begin(d, 1, &err);
    while (status >= 0 && status != BB_DONE) status = bb_distill_try(d, &err);
    CHECK(status >= 0, "%s", err.text);
    return status >= 0;
}

/* Up to `until` updates. */
static void go_on(bb_distill *d, uint64_t until)
{
    bb_error err = {.text = ""};
    bb_status status = BB_AGAIN;
    for (bool checked; status == BB_AGAIN && d->update < until;) status = bb_distill_update(d, &checked, &err);
    CHECK(status >= 0 && d->update == until, "%s, update %d", err.text, (int)d->update);
}

static packed_model result(bb_distill *d)
{
    bb_error err = {.text = ""};
    packed_model m = {0};
    bb_status status = bb_distill_result(d, "test", &m.blob, &m.bytes, &err);
    CHECK(status >= 0 && read_model(&m), "%s", err.text);
    return m;
}

/* The held-out error falls by a fifth and more in 100 updates; and what the training believes to have reached is what
 * the written file's integer kernels reach: in training float layers have operands in bf16, which pushes some
 * activations over the edge of a code. With random weights and 4 bits such flips are some hundredths of the error; a
 * kernel that computed something else would make an error as large as the start's. */
static void test_learns(const student_case *c)
{
    bb_distill d;
    bb_distill_options o = small_options(100);
    bb_eps_error errors[64] = {{0}};
    bb_error err = {.text = ""};
    if (!begin_run(&d, c, &o)) return;
    go_on(&d, o.updates);
    packed_model m = result(&d);
    const bb_distill_check *best = &d.checks[d.best_check];
    CHECK(d.n_checks == o.checks + 1, "%u checks", d.n_checks);
    CHECK(best->score < 0.8 && best->error < 0.9 * d.checks[0].error, "score %g, error %g from %g", best->score,
          best->error, d.checks[0].error);
    CHECK(d.loss < 0.9, "loss %g", d.loss);
    bb_status status = bb_trajectories_measure(&d.teacher, m.model, errors, &err);
    bb_distill_check kernels = bb_distill_summary(errors, d.start, o.steps);
    CHECK(status >= 0 && fabs(kernels.score / best->score - 1) < 0.1, "kernels %g, training %g", kernels.score,
          best->score);
    CHECK(bb_student_flipped(d.student) > 0, "no code has changed");
    close_model(&m);
    bb_distill_close(&d);
}

/* Saved after some updates and loaded into another run: the same file, bit for bit. */
static void test_resumes(const student_case *c, bb_distill_options o, uint64_t at, const char *what)
{
    bb_distill whole, broken;
    bb_error err = {.text = ""};
    uint8_t *state = NULL;
    size_t n = 0;
    if (!begin_run(&whole, c, &o)) return;
    go_on(&whole, at);
    bb_status status = bb_distill_save(&whole, &state, &n, &err);
    CHECK(status >= 0, "%s", err.text);
    go_on(&whole, o.updates);
    packed_model a = result(&whole);
    if (open_run(&broken, c, &o)) {
        status = bb_distill_load(&broken, "state", state, n, &err);
        CHECK(status >= 0 && broken.update == at, "%s: %s", what, err.text);
        if (broken.drawn < broken.teacher.total) draw(&broken);
        go_on(&broken, o.updates);
        packed_model b = result(&broken);
        CHECK(a.bytes == b.bytes && !memcmp(a.blob, b.blob, a.bytes), "%s: another file", what);
        CHECK(!memcmp(bb_student_w(whole.student), bb_student_w(broken.student), whole.n * sizeof(float)), "%s", what);
        close_model(&b);
        bb_distill_close(&broken);
    }
    free(state);
    close_model(&a);
    bb_distill_close(&whole);
}

/* States that do not fit are refused and change nothing. */
static void test_states(const student_case *c)
{
    bb_distill d;
    bb_distill_options o = small_options(10);
    bb_error err = {.text = ""};
    uint8_t *state = NULL;
    size_t n = 0;
    if (!begin_run(&d, c, &o)) return;
    go_on(&d, 3);
    CHECK(bb_distill_save(&d, &state, &n, &err) >= 0, "%s", err.text);
    const double before = bb_student_w(d.student)[0];
    d.in.digest = "another one has 64 digits, too, but is another all the same....";
    bb_status status = bb_distill_load(&d, "FILE", state, n, &err);
    CHECK(status == BB_ERR_CORRUPT && strstr(err.text, "FILE: the state of another"), "%s", err.text);
    CHECK(bb_distill_load(&d, "FILE", state, n / 2, &err) < 0 && strstr(err.text, "FILE"), "%s", err.text);
    CHECK(bb_student_w(d.student)[0] == before && d.update == 3, "something has changed");
    free(state);
    bb_distill_close(&d);
}

/* Gradients of the first update, as a copy. */
static float *first_gradient(const student_case *c, const bb_distill_options *o, bb_distill *d)
{
    bb_error err = {.text = ""};
    if (!begin_run(d, c, o)) return NULL;
    CHECK(bb_distill_step(d, 0, true, &err) >= 0, "%s", err.text);
    float *g = malloc(d->n * sizeof *g);
    memcpy(g, bb_student_g(d->student), d->n * sizeof *g);
    return g;
}

/* Oracle 26 of the relation losses: their gradient reaches the low-rank factors and the latent weights. */
static void test_relation_reaches(const student_case *c, uint32_t relation, uint32_t weights)
{
    bb_distill with, without;
    bb_distill_options o = small_options(5);
    o.weights = weights, o.rank = 4, o.relation = relation, o.lambda = 1;
    float *g = first_gradient(c, &o, &with);
    o.lambda = 0;
    float *plain = first_gradient(c, &o, &without);
    double difference = 0, size = 0;
    for (size_t i = 0; g && plain && i < with.n; i++) {
        difference += fabs((double)g[i] - plain[i]);
        size += fabs((double)plain[i]);
    }
    CHECK(difference > 1e-3 * size && size > 0, "relation %u: %g of %g", relation, difference, size);
    free(g);
    free(plain);
    bb_distill_close(&with);
    bb_distill_close(&without);
}

/* Oracle 21: a step's loss touches the row of its step in every table, and no other. */
static void test_own_row(const student_case *c)
{
    bb_distill d;
    bb_distill_options o = small_options(5);
    o.mix_steps = 0; /* one step in the update */
    float *g = first_gradient(c, &o, &d);
    uint32_t tables = 0, touched = 0;
    for (uint32_t i = 0; g && i < c->packed.model->pack.n_quantizers; i++) {
        const bb_student_steps *t = &d.student->steps[i];
        const uint32_t rows = t->from->rec->rows, segments = t->from->rec->segments;
        uint32_t moved = 0;
        for (uint32_t row = 0; rows > 1 && row < rows; row++) {
            bool any = false;
            for (uint32_t k = 0; k < segments; k++) any = any || g[t->step_at + row * segments + k] != 0;
            moved += any;
        }
        tables += rows > 1, touched += moved == 1;
        CHECK(moved <= 1, "table %u: %u rows", i, moved);
    }
    CHECK(tables > 5 && touched > tables / 2, "%u of %u tables", touched, tables);
    free(g);
    bb_distill_close(&d);
}

typedef struct features { bool steps, smoothed, mixed, ladder; } features;

static features features_of(const bb_pack *p)
{
    features f = {0};
    for (uint32_t i = 0; i < p->n_layers; i++) {
        f.mixed = f.mixed || p->layers[i].rec->n_classes > 1;
        f.ladder = f.ladder || p->layers[i].multiplier;
    }
    for (uint32_t i = 0; i < p->n_quantizers; i++) {
        f.steps = f.steps || p->quantizers[i].rec->rows > 1;
        f.smoothed = f.smoothed || p->quantizers[i].inv_s;
    }
    return f;
}

/* Trying the speed changes nothing, so that --updates with the number found repeats the run. */
static void test_budget(const student_case *c)
{
    bb_distill tried, told;
    bb_distill_options o = small_options(0);
    o.relation = BB_RELATION_MTRD;
    if (!begin_run(&tried, c, &o)) return;
    CHECK(tried.updates && tried.updates % o.steps == 0, "%d updates", (int)tried.updates);
    o.updates = tried.updates;
    if (begin_run(&told, c, &o)) {
        go_on(&tried, o.steps);
        go_on(&told, o.steps);
        CHECK(memcmp(bb_student_w(tried.student), bb_student_w(told.student), told.n * sizeof(float)) == 0,
              "other weights after %d updates", (int)o.steps);
        bb_distill_close(&told);
    }
    bb_distill_close(&tried);
}

/* In the order of BB_METHOD_WORDS; at two bits, where ladders pay. */
static void test_presets(student_case *c)
{
    static const struct { features file; bool train; uint32_t weights, relation; } says[] = {
        {{true, true, true, true}, true, BB_STUDENT_OOLRI_B, BB_RELATION_MTRD},
        {{false, false, false, false}, false, BB_STUDENT_FROZEN, BB_RELATION_NONE},
        {{true, false, false, false}, false, BB_STUDENT_FROZEN, BB_RELATION_NONE},
        {{true, false, false, false}, true, BB_STUDENT_LORA_ZERO, BB_RELATION_NONE},
        {{true, true, true, false}, true, BB_STUDENT_LORA_ZERO, BB_RELATION_TRD},
    };
    for (uint32_t method = 0; method < BB_COUNT(says); method++) {
        bb_make_options make;
        bb_distill_options o;
        bb_make_defaults(&make);
        bb_distill_defaults(&o);
        bb_method_apply(method, &make, &o);
        make.wbits = 2, make.abits = 4, make.images = 1, make.steps = 3;
        CHECK(o.train == says[method].train && o.weights == says[method].weights &&
              o.relation == says[method].relation, "method %u", method);
        close_model(&c->packed);
        c->packed = (packed_model){0};
        if (!quantize_case(c, &make)) return;
        const features f = features_of(&c->packed.model->pack), want = says[method].file;
        CHECK(f.steps == want.steps && f.smoothed == want.smoothed && f.ladder == want.ladder,
              "method %u: steps %d, smoothed %d, ladder %d", method, f.steps, f.smoothed, f.ladder);
        CHECK(f.mixed <= want.mixed, "method %u mixes widths", method); /* the search may find that none should be */
    }
}

int main(void)
{
    student_case c;
    if (!open_made(&c)) return check_done();
    test_learns(&c);
    bb_distill_options plain = small_options(12), rich = small_options(12);
    plain.relation = BB_RELATION_NONE;
    rich.relation = BB_RELATION_MTRD, rich.weights = BB_STUDENT_OOLRI_B, rich.rank = 4, rich.ema = 0.9f;
    rich.mix_steps = 0, rich.rate[BB_STUDENT_KIND_FLOATS] = 1e-3f;
    test_resumes(&c, plain, 5, "plain");
    test_resumes(&c, rich, 7, "everything");
    test_states(&c);
    test_own_row(&c);
    test_relation_reaches(&c, BB_RELATION_TRD, BB_STUDENT_FULL);
    test_relation_reaches(&c, BB_RELATION_MTRD, BB_STUDENT_OOLRI_B);
    test_budget(&c);
    test_presets(&c);
    close_case(&c);
    return check_done();
}
