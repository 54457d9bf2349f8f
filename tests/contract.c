/* The integer contract: random quantized layers (layercase.h) read from their file and run through the public API must
 * equal the naive model of layer.h bit for bit, with every kernel set and two threads, for batch items at different
 * timesteps.
 *   test_contract [SEED [CASES]] */
#include "base/par.h"
#include "layercase.h"


static void set_inputs(const test_case *t, bb_session *s)
{
    static const char *const names[MAX_SEG] = {"sample", "second", "third"};
    const quantizer *q = &t->quantizers[0];
    int pixels = BATCH * t->w * t->h, n = t->concat ? q->segments : 1;
    for (int i = 0, first = 0; i < n; i++) {
        int c = t->concat ? q->seg[i] : q->channels;
        float *part = malloc((size_t)(pixels * c) * sizeof *part);
        for (int p = 0; p < pixels; p++) memcpy(part + p * c, t->x + p * q->channels + first, (size_t)c * sizeof *part);
        bb_status status = bb_input(s, names[i], part, (size_t)(pixels * c));
        CHECK(status == BB_OK, "bb_input %s: %s", names[i], bb_strerror(status));
        free(part);
        first += c;
    }
    bb_status status = bb_input(s, "timestep", t->timestep, BATCH);
    CHECK(status == BB_OK, "bb_input timestep: %s", bb_strerror(status));
}

/* One check per layer: every value of every item, compared as bits. */
static void compare(const test_case *t, const bb_session *s, int i, const char *how)
{
    static const char *const names[LAYERS] = {"a", "b", "c", "d"};
    const layer *l = &t->layers[i];
    const quantizer *q = &t->quantizers[l->quantizer];
    const float *y = NULL;
    uint32_t shape[4] = {0};
    int oh = (t->h + l->top + l->bottom - l->kh) / l->stride + 1;
    int ow = (t->w + l->left + l->right - l->kw) / l->stride + 1;
    bb_status status = bb_output(s, names[i], &y, shape);
    bool fits = status == BB_OK && shape[0] == BATCH && shape[1] == (uint32_t)oh && shape[2] == (uint32_t)ow &&
                shape[3] == (uint32_t)l->n;
    CHECK(fits, "seed %llu layer %d: wrong shape", (unsigned long long)t->seed, i);
    if (!fits) return;
    int wrong = 0, first = -1, at = 0;
    float want = 0, got = 0;
    for (int b = 0; b < BATCH; b++)
        for (int oy = 0; oy < oh; oy++)
            for (int ox = 0; ox < ow; ox++)
                for (int n = 0; n < l->n; n++, at++) {
                    float ref = naive_output(l, q, table_row(q, t->timestep[b]), t->x + b * t->h * t->w * l->c, t->h,
                                             t->w, n, oy, ox);
                    if (bb_f32_bits(ref) == bb_f32_bits(y[at])) continue;
                    if (!wrong++) first = at, want = ref, got = y[at];
                }
    CHECK(wrong == 0, "seed %llu layer %d, %s: %d of %d values differ, first at %d: %.9g, contract says %.9g",
          (unsigned long long)t->seed, i, how, wrong, at, first, got, want);
}

static void run_case(test_case *t, bb_par *par)
{
    bb_error err = {0};
    bb_status status = mm_open(&t->model, &err);
    CHECK(status == BB_OK, "seed %llu: %s", (unsigned long long)t->seed, err.text);
    const uint32_t all = bb_cpu_features(), masks[] = {0, all & ~(uint32_t)BB_CPU_AVX512, all, all};
    static const char *const how[] = {"scalar", "at most AVX2", "best kernels", "best kernels, two threads"};
    for (size_t k = 0; status == BB_OK && k < BB_COUNT(masks); k++) {
        void *ws;
        bb_model_select(t->model.model, masks[k]);
        bb_session *s = mm_session(&t->model, (bb_request){.batch = BATCH, .par = k == 3 ? par : NULL}, &ws);
        if (s) {
            set_inputs(t, s);
            bb_begin(s, NULL, NULL);
            status = bb_step(s, 0);
            CHECK(status == BB_DONE, "bb_step: %s", bb_strerror(status));
            for (int i = 0; i < t->n_layers; i++) compare(t, s, i, how[k]);
            status = BB_OK;
        }
        free(ws);
    }
    close_case(t);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
    int cases = argc > 2 ? atoi(argv[2]) : argc > 1 ? 1 : 300;
    test_case *t = malloc(sizeof *t);
    bb_par *par = bb_par_start(2);
    printf("contract: %d cases from seed %llu\n", cases, (unsigned long long)seed);
    for (int i = 0; i < cases; i++) {
        random_case(t, seed + (uint64_t)i);
        run_case(t, par);
    }
    bb_par_stop(par);
    free(t);
    return check_done();
}
