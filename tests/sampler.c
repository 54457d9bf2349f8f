/* Schedules and samplers against recorded runs of diffusers 0.27.2 (golden/schedulers, see its README): the model is
 * the function 0.1·u + sin(t/100) of its scaled input u, the noise is the recorded one, and the whole trajectory is our
 * own. */
#include "base/mathf.h"
#include "check.h"
#include "import/config.h"
#include "import/safetensors.h"
#include "import/scheduler.h"
#include "bitbrush.h"
#include "pack/layout.h"
#include "sample/sampler.h"

/* The recorded shape is 1×2×3×4, NCHW. */
enum { C = 2, PIXELS = 12, D = C * PIXELS };

/* The README's advice; the reference with its products in double differs from itself by up to 7e-6. */
#define BOUND 1e-5

typedef struct golden {
    bb_json_file config, call;
    bb_st_file st;
    bb_schedule sched;
} golden;

static bool open_golden(golden *g, const char *name)
{
    char path[512];
    bb_error err = {0};
    *g = (golden){0};
    snprintf(path, sizeof path, BB_TESTS_DIR "/golden/schedulers/%s/scheduler_config.json", name);
    bool ok = bb_json_file_open(&g->config, path, &err) >= 0 &&
              bb_scheduler_read(&g->sched, &g->config.json, 0, path, &err) >= 0;
    snprintf(path, sizeof path, BB_TESTS_DIR "/golden/schedulers/%s/call.json", name);
    ok = ok && bb_json_file_open(&g->call, path, &err) >= 0;
    snprintf(path, sizeof path, BB_TESTS_DIR "/golden/schedulers/%s/golden.safetensors", name);
    ok = ok && bb_st_file_open(&g->st, path, &err) >= 0;
    CHECK(ok, "%s: %s", name, err.text);
    return ok;
}

static void close_golden(golden *g)
{
    bb_scheduler_free(&g->sched);
    bb_json_file_close(&g->config);
    bb_json_file_close(&g->call);
    bb_st_file_close(&g->st);
}

/* A tensor as f32; the caller frees. */
static float *tensor(const golden *g, const char *name, size_t *count)
{
    const bb_st_tensor *t = bb_safetensors_find(&g->st.st, name);
    *count = t ? t->count : 0;
    if (!t) return NULL;
    float *v = malloc(t->count * sizeof *v + 1);
    bb_st_to_f32(t, v);
    return v;
}

static void to_nhwc(float *out, const float *nchw, uint32_t channels)
{
    for (size_t p = 0; p < PIXELS; p++) {
        for (uint32_t c = 0; c < channels; c++) out[p * channels + c] = nchw[c * PIXELS + p];
    }
}

static void to_nchw(float *out, const float *nhwc, uint32_t channels)
{
    for (size_t p = 0; p < PIXELS; p++) {
        for (uint32_t c = 0; c < channels; c++) out[c * PIXELS + p] = nhwc[p * channels + c];
    }
}

static double call_number(const golden *g, const char *name)
{
    size_t n = 0;
    const char *raw = bb_json_raw(&g->call.json, bb_json_member(&g->call.json, 0, name), &n);
    return raw ? strtod(raw, NULL) : 0;
}

static bool call_flag(const golden *g, const char *name)
{
    bool yes = false;
    return bb_json_bool(&g->call.json, bb_json_member(&g->call.json, 0, name), &yes) && yes;
}

static bb_status make_plan(bb_sampler_plan *plan, golden *g, uint32_t sampler, bb_error *err)
{
    const bb_json *j = &g->call.json;
    uint32_t custom = bb_json_member(j, 0, "timesteps");
    bb_status status;
    if (call_number(g, "original_inference_steps") > 0)
        g->sched.solver.lcm_steps = (uint32_t)call_number(g, "original_inference_steps");
    if (custom == BB_JSON_NONE) {
        uint32_t steps = (uint32_t)call_number(g, "num_inference_steps");
        status = bb_sampler_plan_init(plan, &g->sched, sampler, steps, (float)call_number(g, "eta"), err);
    } else {
        int32_t t[64];
        uint32_t n = bb_json_size(j, custom);
        for (uint32_t i = 0; i < n; i++) {
            int64_t v = 0;
            bb_json_i64(j, bb_json_element(j, custom, i), &v);
            t[i] = (int32_t)v;
        }
        status = bb_sampler_plan_custom(plan, &g->sched, sampler, t, n, err);
    }
    plan->use_clipped_model_output = call_flag(g, "use_clipped_model_output");
    plan->s_churn = (float)call_number(g, "s_churn");
    plan->s_tmin = (float)call_number(g, "s_tmin");
    if (plan->s_churn > 0) plan->s_noise = (float)call_number(g, "s_noise");
    return status;
}

static void model(float *out, uint32_t out_channels, const float *u, float t)
{
    float shift = sinf(t / 100.0f);
    for (size_t p = 0; p < PIXELS; p++) {
        for (uint32_t c = 0; c < out_channels; c++) {
            float v = u[p * C + c % C];
            out[p * out_channels + c] = c < C ? 0.1f * v + shift : 0.5f * tanhf(v);
        }
    }
}

/* The draw that the reference made in this step. It also draws where the factor is 0. */
static void recorded_noise(float *noise, const char *name, const golden *g, uint32_t step)
{
    size_t n = 0, n_steps = 0;
    float *all = tensor(g, "noise", &n), *at = tensor(g, "noise_step", &n_steps);
    bool found = false;
    for (size_t k = 0; k < n_steps; k++) {
        if (at[k] != (float)step) continue;
        to_nhwc(noise, all + k * D, C);
        found = true;
    }
    CHECK(found, "%s: the reference drew no noise in step %u", name, step);
    free(all), free(at);
}

typedef struct trajectory { float *x, *x0, *input; } trajectory; /* NCHW; [evaluations (+ 1)][D] */

static trajectory run(const char *name, const golden *g, const bb_sampler_plan *plan, const float *first)
{
    uint32_t out_channels = call_flag(g, "learned_range") ? 2 * C : C, n = plan->evaluations;
    float x[D], u[D], x0[D], noise[D], scratch[D], out[2 * D];
    float *history = malloc((plan->buffers * D + 1) * sizeof *history);
    trajectory all = {calloc(n + 1, sizeof x), calloc(n, sizeof x), calloc(n, sizeof x)};
    for (size_t i = 0; i < plan->buffers * D; i++) history[i] = NAN; /* nothing may be read before it is written */
    to_nhwc(x, first, C);
    for (size_t i = 0; i < D; i++) x[i] *= plan->first_sigma;
    to_nchw(all.x, x, C);
    for (uint32_t i = 0; i < n; i++) {
        bool noisy = bb_sampler_needs_noise(plan, i);
        if (noisy) recorded_noise(noise, name, g, i);
        for (size_t k = 0; k < D; k++) u[k] = x[k] / bb_sampler_input_divisor(plan, i);
        model(out, out_channels, u, plan->timesteps[i]);
        const bb_sampler_io io = {.x = x, .model_output = out, .noise = noisy ? noise : NULL, .pred_x0 = x0,
                                  .scratch = g->sched.thresholding ? scratch : NULL, .history = history,
                                  .pixels = PIXELS, .channels = C, .out_channels = out_channels};
        bb_sampler_step(plan, &g->sched, i, &io);
        to_nchw(all.x + (i + 1) * D, x, C);
        to_nchw(all.x0 + i * D, x0, C);
        to_nchw(all.input + i * D, u, C);
    }
    free(history);
    return all;
}

/* The worst x[i], each relative to its own largest value. */
static double worst_step(const float *x, const float *ref, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i += D) worst = fmax(worst, check_error(x + i, ref + i, D));
    return worst;
}

static void test_run(const char *name, const golden *g, const bb_sampler_plan *plan)
{
    size_t n_x, n_x0, n_u, n_noise;
    float *x = tensor(g, "x", &n_x), *x0 = tensor(g, "pred_x0", &n_x0), *u = tensor(g, "model_input", &n_u);
    float *noise = tensor(g, "init_noise", &n_noise);
    bool counts = n_x == (plan->evaluations + 1) * D && n_u == plan->evaluations * D && n_noise == D;
    CHECK(counts && (!x0 || n_x0 == n_u), "%s: %zu values of x", name, n_x);
    if (counts) {
        trajectory mine = run(name, g, plan, noise);
        double e = check_error(mine.x, x, n_x), e_step = worst_step(mine.x, x, n_x);
        double e0 = x0 ? check_error(mine.x0, x0, n_x0) : 0, e_u = check_error(mine.input, u, n_u);
        CHECK(e <= BOUND, "%s: x is off by %g", name, e);
        CHECK(e_step <= BOUND, "%s: one x is off by %g", name, e_step);
        CHECK(e_u <= BOUND, "%s: the model's input is off by %g", name, e_u);
        /* x̂0 from ε divides by √ᾱ, and with it the last bit of the model's output (another libm's sine) and of x. */
        float alpha = g->sched.alphas_cumprod[(int32_t)plan->timesteps[0]];
        double amplified = g->sched.prediction == BB_PREDICT_EPSILON ? 0x1p-23 / sqrt(alpha) : 0;
        CHECK(e0 <= BOUND + amplified, "%s: pred_x0 is off by %g", name, e0);
        if (getenv("BB_VERBOSE"))
            printf("%-20s x %.1e, alone %.1e  pred_x0 %.1e\n", name, e, e_step, e0);
        free(mine.x), free(mine.x0), free(mine.input);
    }
    free(x), free(x0), free(u), free(noise);
}

/* Noise levels to a few roundings; how many there are differs by class. */
static void test_levels(const char *name, const golden *g, const bb_sampler_plan *plan)
{
    size_t n = 0, n_first = 0;
    float *ref = tensor(g, "sigmas", &n), *first = tensor(g, "init_noise_sigma", &n_first);
    size_t wrong = 0;
    for (size_t i = 0; i < n && i <= plan->evaluations; i++)
        wrong += !(fabsf(plan->sigmas[i] - ref[i]) <= 0x1p-22f * ref[i]);
    CHECK(wrong == 0, "%s: %zu of %zu noise levels", name, wrong, n);
    if (n_first) CHECK(fabsf(plan->first_sigma - first[0]) <= 0x1p-22f * first[0], "%s: first sigma", name);
    free(ref), free(first);
}

static void test_golden(const char *name)
{
    golden g;
    static bb_sampler_plan plan;
    if (open_golden(&g, name)) {
        size_t n, n_t;
        float *ref = tensor(&g, "alphas_cumprod", &n), *timesteps = tensor(&g, "timesteps", &n_t);
        CHECK(n == g.sched.train_steps, "%s: %u training steps", name, g.sched.train_steps);
        size_t differ = 0;
        for (size_t i = 0; i < n; i++) differ += bb_f32_bits(ref[i]) != bb_f32_bits(g.sched.alphas_cumprod[i]);
        CHECK(differ == 0, "%s: %zu of %zu alphas_cumprod have other bits", name, differ, n);

        bb_error err = {0};
        bb_status status = make_plan(&plan, &g, BB_SAMPLER_DEFAULT, &err);
        bool same = status == BB_OK && plan.evaluations == n_t;
        CHECK(same, "%s: %u evaluations: %s", name, plan.evaluations, err.text);
        /* Euler's Karras timesteps have fractions: w = (log σ_low − log σ)/gap, where an ulp of an f32 logarithm up to
         * 2.7 is 2.4e-7 and gaps are above 5.9e-3: 4e-5 for one ulp, and numpy's logarithm is not correctly rounded. */
        float slack = strcmp(name, "euler-karras") ? 0 : 1e-4f;
        size_t wrong = 0;
        for (size_t i = 0; same && i < n_t; i++) wrong += !(fabsf(timesteps[i] - plan.timesteps[i]) <= slack);
        CHECK(wrong == 0, "%s: %zu timesteps", name, wrong);
        test_levels(name, &g, &plan);
        if (same) test_run(name, &g, &plan);
        free(ref), free(timesteps);
    }
    close_golden(&g);
}

/* The words of the packed file hold all of a configuration, and no word may be other than the reader knows it. */
static void test_words(const char *name)
{
    golden g;
    bb_schedule again;
    uint32_t words[BB_SCHEDULE_WORDS], second[BB_SCHEDULE_WORDS];
    if (!open_golden(&g, name)) return;
    bb_schedule_to_words(&g.sched, words);
    CHECK(bb_schedule_from_words(&again, words), "%s: the words are refused", name);
    bb_schedule_to_words(&again, second);
    again.alphas_cumprod = g.sched.alphas_cumprod;
    CHECK(!memcmp(words, second, sizeof words) && !memcmp(&again.solver, &g.sched.solver, sizeof again.solver),
          "%s: other words after a round trip", name);
    for (uint32_t i = 10; i < BB_SCHEDULE_WORDS; i++) {
        memcpy(second, words, sizeof words);
        second[i] = 0xffffffffu; /* also a NaN */
        bool any = i == 12 && g.sched.solver.family == BB_FAMILY_UNIPC; /* every set of steps is one */
        CHECK(bb_schedule_from_words(&again, second) == any, "%s: word %u", name, i);
    }
    if (g.sched.solver.family <= BB_FAMILY_DDPM)
        for (uint32_t i = 10; i < BB_SCHEDULE_WORDS; i++) CHECK(words[i] == 0, "%s: word %u is not 0", name, i);
    close_golden(&g);
}

/* A sampler chosen by name on another model does what its class does with that model's betas. */
static void test_name(uint32_t sampler, const char *name)
{
    golden g;
    static bb_sampler_plan plan;
    bb_error err = {0};
    if (!open_golden(&g, name)) return;
    g.sched.solver = (bb_solver){.family = BB_FAMILY_DDIM};
    bb_status status = make_plan(&plan, &g, sampler, &err);
    CHECK(status == BB_OK, "%s as %s: %s", name, bb_sampler_name(sampler), err.text);
    if (status == BB_OK) test_run(name, &g, &plan);
    close_golden(&g);
}

static void test_names(void)
{
    test_name(BB_SAMPLER_DDIM, "ddim-sd"), test_name(BB_SAMPLER_DDPM, "ddpm-small");
    test_name(BB_SAMPLER_EULER, "euler"), test_name(BB_SAMPLER_EULER_KARRAS, "euler-karras");
    test_name(BB_SAMPLER_EULER_A, "eulera-v-leading");
    test_name(BB_SAMPLER_DPMPP_2M, "dpmpp-2m"), test_name(BB_SAMPLER_DPMPP_2M_KARRAS, "dpmpp-2m-karras");
    test_name(BB_SAMPLER_DPMPP_2M_SDE, "sde-dpmpp-2m"), test_name(BB_SAMPLER_DPMPP_3M, "dpmpp-3m");
    test_name(BB_SAMPLER_PNDM, "pndm-prk"), test_name(BB_SAMPLER_PLMS, "plms-sd"), test_name(BB_SAMPLER_LCM, "lcm-4");
    for (uint32_t i = 0; bb_sampler_name(i); i++)
        for (uint32_t k = 0; k < i; k++) CHECK(strcmp(bb_sampler_name(i), bb_sampler_name(k)), "%u and %u", i, k);
    CHECK(!strcmp(bb_sampler_name(0), "default") && !bb_sampler_name(BB_SAMPLER_LCM + 1), "names");
}

/* ---- plans ---- */

static void test_plans(void)
{
    bb_schedule s;
    bb_error err = {0};
    CHECK(bb_scheduler_read(&s, NULL, BB_JSON_NONE, "none", &err) == BB_OK, "%s", err.text);
    CHECK(s.train_steps == 1000 && s.solver.family == BB_FAMILY_DDPM && s.clip_sample, "DDPM's defaults");
    CHECK(s.prediction == BB_PREDICT_EPSILON && s.spacing == BB_SPACING_LEADING &&
          s.variance == BB_VARIANCE_FIXED_SMALL, "DDPM's defaults");
    static bb_sampler_plan p;
    CHECK(bb_sampler_plan_init(&p, &s, 0, 0, 0, &err) == BB_ERR_STEPS, "no steps");
    CHECK(bb_sampler_plan_init(&p, &s, 0, 1001, 0, &err) == BB_ERR_STEPS, "too many steps");
    CHECK(!strcmp(err.text, "steps is 1001; this model takes 1 to 1000"), "%s", err.text);
    CHECK(bb_sampler_plan_init(&p, &s, 99, 10, 0, &err) == BB_ERR_ARGUMENT, "no such sampler");
    CHECK(bb_sampler_plan_init(&p, &s, BB_SAMPLER_DDIM, 10, 1.5f, &err) == BB_ERR_ARGUMENT, "eta too large");
    CHECK(bb_sampler_plan_init(&p, &s, BB_SAMPLER_DDIM, 10, NAN, &err) == BB_ERR_ARGUMENT, "eta no number");
    s.steps_offset = 1;
    CHECK(bb_sampler_plan_init(&p, &s, BB_SAMPLER_DDIM, 1000, 0, &err) == BB_ERR_STEPS, "the offset leads out");
    CHECK(bb_sampler_plan_init(&p, &s, BB_SAMPLER_DDIM, 999, 0, &err) == BB_OK && p.timesteps[0] == 999, "just inside");
    s.steps_offset = -1;
    CHECK(bb_sampler_plan_init(&p, &s, BB_SAMPLER_DDIM, 10, 0, &err) == BB_ERR_STEPS, "below 0");
    s.steps_offset = 0;
    for (s.spacing = 0; s.spacing <= BB_SPACING_LINSPACE; s.spacing++) { /* every step count: inside and falling */
        for (uint32_t steps = 1; steps <= 1000; steps++) {
            bool ok = bb_sampler_plan_init(&p, &s, BB_SAMPLER_DDIM, steps, 0, &err) == BB_OK;
            for (uint32_t i = 1; ok && i < steps; i++) ok = p.timesteps[i] < p.timesteps[i - 1];
            ok = ok && (s.spacing != BB_SPACING_TRAILING || p.timesteps[0] == 999);
            CHECK(ok, "spacing %u, %u steps", s.spacing, steps);
        }
    }
    const int32_t rising[] = {5, 7}, high[] = {1000, 3}, low[] = {3, -1};
    CHECK(bb_sampler_plan_custom(&p, &s, BB_SAMPLER_DDPM, rising, 2, &err) == BB_ERR_STEPS, "rising");
    CHECK(bb_sampler_plan_custom(&p, &s, BB_SAMPLER_DDPM, high, 2, &err) == BB_ERR_STEPS, "too high");
    CHECK(bb_sampler_plan_custom(&p, &s, BB_SAMPLER_DDPM, low, 2, &err) == BB_ERR_STEPS, "negative");
    CHECK(bb_sampler_plan_custom(&p, &s, BB_SAMPLER_DDIM, low, 1, &err) == BB_ERR_UNSUPPORTED, "DDIM has none");
    bb_scheduler_free(&s);
}

/* A run of the toy model with noise of our own; false if a value is not finite. */
static bool finite_run(const bb_sampler_plan *plan, const bb_schedule *s)
{
    float x[D], u[D], noise[D], scratch[D], out[D], x0[D];
    float *history = calloc(plan->buffers * D + 1, sizeof *history);
    for (size_t k = 0; k < D; k++) x[k] = sinf((float)k * 3) * plan->first_sigma;
    bool finite = true;
    for (uint32_t i = 0; i < plan->evaluations; i++) {
        for (size_t k = 0; k < D; k++) {
            u[k] = x[k] / bb_sampler_input_divisor(plan, i);
            noise[k] = cosf((float)(k + i * D) * 5);
        }
        model(out, C, u, plan->timesteps[i]);
        bb_sampler_step(plan, s, i, &(bb_sampler_io){
            .x = x, .model_output = out, .noise = noise, .pred_x0 = x0, .scratch = scratch, .history = history,
            .pixels = PIXELS, .channels = C, .out_channels = C});
        for (size_t k = 0; k < D; k++) finite = finite && isfinite(x[k]);
    }
    free(history);
    return finite;
}

/* Every sampler on schedules with zero terminal SNR, with cosine betas, without noise at the end, with few timesteps,
 * and on nonsense that a file might hold: inside the arrays always, and finite where the schedule makes sense. */
static void test_schedules(void)
{
    static float alphas[1000];
    static const uint32_t steps[] = {1, 2, 3, 4, 5, 14, 15, 20, 49, 50, 333, 999, 1000};
    enum { ZERO_SNR, COSINE, CLEAN_END, FLAT, UP_AND_DOWN, TINY, KINDS };
    static bb_sampler_plan p;
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        for (uint32_t i = 0; i < 1000; i++) {
            float t = (float)i / 999, c = cosf(1.5707963f * t);
            alphas[i] = kind == ZERO_SNR ? c * c * 0.999f : kind == COSINE ? c * c * 0.999f + 2e-9f
                      : kind == CLEAN_END ? (1 - t) * (1 - t) + 1e-4f * t : kind == FLAT ? 1
                      : kind == UP_AND_DOWN ? (float)(i * 7 % 10) / 9 : 1e-45f;
        }
        if (kind == ZERO_SNR) alphas[999] = 0;
        bb_schedule s = {.alphas_cumprod = alphas, .solver = {.family = BB_FAMILY_DDIM}, .set_alpha_to_one = true,
                         .prediction = BB_PREDICT_V, .clip_sample_range = 1, .sample_max_value = 1};
        for (uint32_t i = 0; i < 3 * BB_COUNT(steps) * 2; i++) {
            uint32_t n = steps[i / 6];
            s.spacing = i % 3;
            s.train_steps = i / 3 % 2 ? 1000 : 37;
            for (uint32_t sampler = 1; bb_sampler_name(sampler); sampler++) {
                if (bb_sampler_plan_init(&p, &s, sampler, n, 1, NULL) != BB_OK) continue;
                bool inside = p.evaluations <= BB_MAX_EVALUATIONS;
                for (uint32_t k = 0; k < p.evaluations; k++)
                    inside = inside && p.timesteps[k] >= 0 && p.timesteps[k] <= (float)(s.train_steps - 1);
                CHECK(inside, "%s, schedule %u, %u steps: a timestep outside", bb_sampler_name(sampler), kind, n);
                bool finite = finite_run(&p, &s);
                bool defined = kind < CLEAN_END || (kind == CLEAN_END && sampler > BB_SAMPLER_DDPM); /* those: 0/0 */
                CHECK(finite || !defined, "%s, schedule %u, spacing %u, %u of %u steps: not finite",
                      bb_sampler_name(sampler), kind, s.spacing, n, s.train_steps);
            }
        }
    }
}

static void test_limits(void)
{
    bb_schedule s;
    bb_error err = {0};
    static bb_sampler_plan p;
    CHECK(bb_scheduler_read(&s, NULL, BB_JSON_NONE, "none", &err) == BB_OK, "%s", err.text);
    static const struct { uint32_t sampler, steps, evaluations; } counts[] = {
        {BB_SAMPLER_EULER, 1000, 1000}, {BB_SAMPLER_EULER, 1, 1}, {BB_SAMPLER_PNDM, 4, 13},
        {BB_SAMPLER_PNDM, 1000, 1009}, {BB_SAMPLER_PLMS, 1, 1}, {BB_SAMPLER_PLMS, 2, 3},
        {BB_SAMPLER_LCM, 50, 50}, {BB_SAMPLER_DPMPP_2M, 999, 999},
    };
    for (size_t k = 0; k < BB_COUNT(counts); k++) {
        bb_status status = bb_sampler_plan_init(&p, &s, counts[k].sampler, counts[k].steps, 0, &err);
        CHECK(status == BB_OK && p.evaluations == counts[k].evaluations, "%s, %u steps: %u evaluations",
              bb_sampler_name(counts[k].sampler), counts[k].steps, p.evaluations);
    }
    CHECK(bb_sampler_plan_init(&p, &s, BB_SAMPLER_PNDM, 3, 0, &err) == BB_ERR_STEPS &&
          !strcmp(err.text, "steps is 3; this model takes 4 to 1000 with this sampler"), "%s", err.text);
    CHECK(bb_sampler_plan_init(&p, &s, BB_SAMPLER_LCM, 51, 0, &err) == BB_ERR_STEPS &&
          !strcmp(err.text, "steps is 51; this model takes 1 to 50 with this sampler"), "%s", err.text);
    CHECK(bb_sampler_plan_init(&p, &s, BB_SAMPLER_UNIPC, 1000, 0, &err) == BB_ERR_STEPS, "a stride of 0");
    bb_scheduler_free(&s);
}

/* Thresholding by a quantile against sorting, on magnitudes of all sizes, with channels of another stride; NaN sorts
 * as the largest and breaks nothing. */
static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void test_threshold(void)
{
    enum { N = 1001 };
    static float x[N], out[2 * N], x0[N], scratch[N], sorted[N];
    const float half[] = {0.25f};
    bb_schedule s = {.alphas_cumprod = half, .train_steps = 1, .solver = {.family = BB_FAMILY_DDIM},
                     .prediction = BB_PREDICT_SAMPLE, .set_alpha_to_one = true, .thresholding = true,
                     .sample_max_value = 1000};
    static bb_sampler_plan p;
    CHECK(bb_sampler_plan_init(&p, &s, 0, 1, 0, NULL) == BB_OK, "plan");
    for (int k = 0; k < N; k++) {
        out[2 * k] = sorted[k] = (float)exp(6 * sin(k * 12.9898)) * (k % 2 ? 1 : -1);
        sorted[k] = fabsf(sorted[k]);
    }
    qsort(sorted, N, sizeof *sorted, by_size);
    const bb_sampler_io io = {.x = x, .model_output = out, .pred_x0 = x0, .scratch = scratch, .pixels = N,
                              .channels = 1, .out_channels = 2};
    for (int percent = 50; percent <= 100; percent += 5) {
        s.dynamic_thresholding_ratio = (float)percent / 100; /* rank = 10·percent: an element itself, or next to it */
        bb_sampler_step(&p, &s, 0, &io);
        float limit = fmaxf(1, sorted[10 * percent]);
        size_t wrong = 0;
        for (int k = 0; k < N; k++) {
            float want = fmaxf(-limit, fminf(limit, out[2 * k])) / limit;
            wrong += !(fabsf(x0[k] - want) <= 1e-4f); /* f32 ranks are right to 6e-5 of a gap */
        }
        CHECK(wrong == 0, "ratio %d %%: %zu pixels", percent, wrong);
    }
    for (int k = 0; k < 5; k++) out[2 * k] = (float)(1 << k); /* 1 2 4 8 16 */
    bb_sampler_io five = io;
    five.pixels = 5;
    static const struct { float ratio, limit; } between[] = {{0.5f, 4}, {0.53125f, 4.5f}, {0.71875f, 7.5f}, {1, 16}};
    for (size_t k = 0; k < BB_COUNT(between); k++) { /* 0.53125·4 = 2.125, an eighth of the way from 4 to 8 */
        s.dynamic_thresholding_ratio = between[k].ratio;
        bb_sampler_step(&p, &s, 0, &five);
        CHECK(x0[0] == 1 / between[k].limit && x0[4] == 1, "limit %g, not %g", 1 / x0[0], between[k].limit);
    }
    out[2 * 77] = NAN;
    s.dynamic_thresholding_ratio = 1;
    bb_sampler_step(&p, &s, 0, &io);
    CHECK(isnan(x0[0]) && isnan(x0[77]), "NaN is the largest");
    s.dynamic_thresholding_ratio = 0.5f;
    bb_sampler_step(&p, &s, 0, &io);
    CHECK(!isnan(x0[0]) && isnan(x0[77]), "the median does not see it");
}

static void test_guide(void)
{
    const float a[] = {1, -2, 0.1f}, b[] = {3, -2, 0.7f};
    float out[3];
    bb_guide(out, a, b, 2.0f, 3);
    CHECK(out[0] == 5 && out[1] == -2 && out[2] == 0.1f + 2.0f * (0.7f - 0.1f), "%g %g %g", out[0], out[1], out[2]);
    memcpy(out, a, sizeof out);
    bb_guide(out, out, b, 0.0f, 3);
    CHECK(out[0] == 1 && out[1] == -2 && out[2] == 0.1f, "in place, g = 0");
}

/* ---- configurations ---- */

static void test_config(const char *text, bb_status want, const char *message)
{
    char scratch[8192];
    bb_json j;
    bb_schedule s;
    bb_error err = {0};
    CHECK(bb_json_parse(&j, text, strlen(text), scratch, sizeof scratch), "%s", text);
    bb_status status = bb_scheduler_read(&s, &j, 0, "s.json", &err);
    CHECK(status == want && !strcmp(err.text, message), "%s: %d %s", text, status, err.text);
    if (status == BB_OK) bb_scheduler_free(&s);
}

static void test_configs(void)
{
    const bb_status no = BB_ERR_UNSUPPORTED;
    test_config("{\"_class_name\": \"DDIMScheduler\"}", BB_OK, "");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"_new\": 3, \"flag\": false, \"none\": null}", BB_OK, "");
    test_config("{\"_class_name\": \"DDPMScheduler\", \"beta_schedule\": \"sigmoid\"}", BB_OK, "");
    test_config("{\"_class_name\": \"DDPMScheduler\", \"num_train_timesteps\": 2, \"trained_betas\": [0.1, 2e-1]}",
                BB_OK, "");
    test_config("{}", no, "s.json: \"_class_name\" is missing; it names the scheduler, such as DDPMScheduler");
    test_config("{\"_class_name\": \"HeunDiscreteScheduler\"}", no,
                "s.json: \"_class_name\" is HeunDiscreteScheduler; supported: DDPMScheduler, DDIMScheduler, "
                "PNDMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, "
                "DPMSolverMultistepScheduler, UniPCMultistepScheduler, LCMScheduler");
    /* diffusers passes fields on from class to class and ignores the foreign ones */
    test_config("{\"_class_name\": \"EulerDiscreteScheduler\", \"skip_prk_steps\": true, \"clip_sample\": true}", BB_OK,
                "");
    test_config("{\"_class_name\": \"DDPMScheduler\", \"predict_epsilon\": false, \"tensor_format\": \"pt\"}", BB_OK,
                "");
    test_config("{\"_class_name\": \"EulerDiscreteScheduler\", \"odd\": 1}", no,
                "s.json: \"odd\" is not a known field of the scheduler; it might change the result");
    test_config("{\"_class_name\": \"EulerDiscreteScheduler\", \"sigma_min\": 0.1}", no,
                "s.json: \"sigma_min\" is not supported; set it to null for the range of the noise schedule");
    test_config("{\"_class_name\": \"EulerDiscreteScheduler\", \"timestep_type\": \"continuous\", \"prediction_type\": "
                "\"v_prediction\"}", no,
                "s.json: \"timestep_type\" is continuous, which is not supported; only \"discrete\" is");
    test_config("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"dpmsolver\"}", no,
                "s.json: \"final_sigmas_type\" is zero, which algorithm_type dpmsolver cannot reach; set it to "
                "\"sigma_min\"");
    test_config("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"sde-dpmsolver++\", "
                "\"solver_order\": 3}", no,
                "s.json: \"solver_order\" is 3, which the sde algorithms do not have; set it to 1 or 2");
    test_config("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"use_lu_lambdas\": true, \"use_karras_sigmas\": "
                "true}", no,
                "s.json: \"use_lu_lambdas\" and use_karras_sigmas exclude each other; set one of them to false");
    test_config("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"use_exponential_sigmas\": true}", no,
                "s.json: \"use_exponential_sigmas\" is not a known field of the scheduler; it might change the result");
    test_config("{\"_class_name\": \"UniPCMultistepScheduler\", \"solver_order\": 4}", no,
                "s.json: \"solver_order\" must be a whole number from 1 to 3");
    test_config("{\"_class_name\": \"UniPCMultistepScheduler\", \"disable_corrector\": [0, 32]}", no,
                "s.json: \"disable_corrector\" must be a list of step numbers from 0 to 31");
    test_config("{\"_class_name\": \"UniPCMultistepScheduler\", \"solver_p\": {}}", no,
                "s.json: \"solver_p\" is not supported; set it to null");
    test_config("{\"_class_name\": \"LCMScheduler\", \"original_inference_steps\": 1001}", no,
                "s.json: \"original_inference_steps\" must be a whole number from 1 to 1000");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"sigmoid\"}", no,
                "s.json: \"beta_schedule\" is sigmoid; supported: linear, scaled_linear, squaredcos_cap_v2");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"odd\": true}", no,
                "s.json: \"odd\" is not a known field of the scheduler; it might change the result");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 0}", no,
                "s.json: \"num_train_timesteps\" must be a whole number from 1 to 65536");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"beta_end\": \"0.02\"}", no,
                "s.json: \"beta_end\" must be a number");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"beta_end\": 1.5}", no,
                "s.json: \"beta_end\" must be from 0 to below 1");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"trained_betas\": [0.1]}", no,
                "s.json: \"trained_betas\" must be a list of num_train_timesteps numbers");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 1, \"trained_betas\": [[0.1]]}", no,
                "s.json: \"trained_betas\" must list numbers from 0 to below 1");
    test_config("{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 1, \"rescale_betas_zero_snr\": true}",
                no, "s.json: \"rescale_betas_zero_snr\" does not fit the betas");
}

int main(void)
{
    static const char *const cases[] = {
        "ddim-cosine", "ddim-eta0", "ddim-eta1", "ddim-linspace", "ddim-sample-pred", "ddim-sd", "ddim-t100",
        "ddim-threshold", "ddim-use-clipped", "ddim-v-trailing", "ddim-v-zsnr-eta05", "ddpm-cosine-t50",
        "ddpm-custom", "ddpm-large-trailing", "ddpm-learned-range", "ddpm-small", "ddpm-v-linspace", "dpmpp-1",
        "dpmpp-2m", "dpmpp-2m-cosine", "dpmpp-2m-euler-final", "dpmpp-2m-heun", "dpmpp-2m-karras", "dpmpp-2m-leading",
        "dpmpp-2m-lu", "dpmpp-2m-nolof", "dpmpp-2m-sigma-min", "dpmpp-2m-threshold", "dpmpp-2m-v-trailing",
        "dpmpp-3m", "dpmsolver-2", "dpmsolver-3", "euler", "euler-churn", "euler-karras", "euler-loglinear",
        "euler-sample", "euler-sd", "euler-turbo1", "euler-turbo4", "euler-v-zsnr", "eulera", "eulera-turbo2",
        "eulera-v-leading", "lcm-1", "lcm-4", "lcm-8-v", "plms-linspace", "plms-sd", "plms-v-trailing", "pndm-prk",
        "sde-dpmpp-2m", "sde-dpmpp-2m-karras", "unipc-3", "unipc-bh1", "unipc-bh2", "unipc-eps", "unipc-karras",
        "unipc-nocorr", "unipc-v-trailing",
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        test_golden(cases[i]);
        test_words(cases[i]);
    }
    test_names();
    test_plans();
    test_schedules();
    test_limits();
    test_threshold();
    test_guide();
    test_configs();
    return check_done();
}
