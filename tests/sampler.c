/* Schedules and samplers against recorded runs of diffusers 0.27.2 (golden/schedulers, see its README): the model is
 * the function 0.1·x + sin(t/100), the noise is the recorded one, and the whole trajectory is our own. */
#include "base/mathf.h"
#include "check.h"
#include "import/config.h"
#include "import/safetensors.h"
#include "import/scheduler.h"
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

static bb_status make_plan(bb_sampler_plan *plan, const golden *g, bb_error *err)
{
    const bb_json *j = &g->call.json;
    uint32_t custom = bb_json_member(j, 0, "timesteps");
    bb_status status;
    if (custom == BB_JSON_NONE) {
        uint32_t steps = (uint32_t)call_number(g, "num_inference_steps");
        status = bb_sampler_plan_init(plan, &g->sched, BB_SAMPLER_DEFAULT, steps, (float)call_number(g, "eta"), err);
    } else {
        int32_t t[64];
        uint32_t n = bb_json_size(j, custom);
        for (uint32_t i = 0; i < n; i++) {
            int64_t v = 0;
            bb_json_i64(j, bb_json_element(j, custom, i), &v);
            t[i] = (int32_t)v;
        }
        status = bb_sampler_plan_custom(plan, &g->sched, BB_SAMPLER_DEFAULT, t, n, err);
    }
    plan->use_clipped_model_output = call_flag(g, "use_clipped_model_output");
    return status;
}

static void model(float *out, uint32_t out_channels, const float *x, int32_t t)
{
    float shift = sinf((float)t / 100.0f);
    for (size_t p = 0; p < PIXELS; p++) {
        for (uint32_t c = 0; c < out_channels; c++) {
            float v = x[p * C + c % C];
            out[p * out_channels + c] = c < C ? 0.1f * v + shift : 0.5f * tanhf(v);
        }
    }
}

static void run(const char *name, const golden *g, const bb_sampler_plan *plan)
{
    size_t n_x, n_x0, n_noise, n_steps, noise_used = 0;
    float *x_ref = tensor(g, "x", &n_x), *x0_ref = tensor(g, "pred_x0", &n_x0);
    float *noises = tensor(g, "noise", &n_noise), *noise_step = tensor(g, "noise_step", &n_steps);
    CHECK(n_x == (plan->steps + 1) * D && n_x0 == plan->steps * D, "%s: %zu values of x", name, n_x);
    uint32_t out_channels = call_flag(g, "learned_range") ? 2 * C : C;
    float x[D], x0[D], noise[D], scratch[D], out[2 * D];
    float *all = calloc(n_x, sizeof *all), *all_x0 = calloc(n_x0, sizeof *all_x0);
    to_nhwc(x, x_ref, C);
    memcpy(all, x_ref, D * sizeof *all);
    for (uint32_t i = 0; i < plan->steps; i++) {
        bool noisy = bb_sampler_needs_noise(plan, i);
        if (noisy) {
            bool drawn = noise_used < n_steps && noise_step[noise_used] == (float)i;
            CHECK(drawn, "%s: no noise was drawn in step %u", name, i);
            if (noise_used < n_steps) to_nhwc(noise, noises + noise_used++ * D, C);
        }
        model(out, out_channels, x, plan->timesteps[i]);
        const bb_sampler_io io = {.x = x, .model_output = out, .noise = noisy ? noise : NULL, .pred_x0 = x0,
                                  .scratch = g->sched.thresholding ? scratch : NULL, .pixels = PIXELS, .channels = C,
                                  .out_channels = out_channels};
        bb_sampler_step(plan, &g->sched, i, &io);
        to_nchw(all + (i + 1) * D, x, C);
        to_nchw(all_x0 + i * D, x0, C);
    }
    CHECK(noise_used == n_steps, "%s: %zu of %zu recorded noises used", name, noise_used, n_steps);
    double e = check_error(all, x_ref, n_x), e0 = check_error(all_x0, x0_ref, n_x0);
    CHECK(e <= BOUND, "%s: x is off by %g", name, e);
    /* x̂0 from ε divides by √ᾱ, and with it the last bit of the model's output (another libm's sine) and of x. */
    float alpha = g->sched.alphas_cumprod[plan->timesteps[0]];
    double amplified = g->sched.prediction == BB_PREDICT_EPSILON ? 0x1p-23 / sqrt(alpha) : 0;
    CHECK(e0 <= BOUND + amplified, "%s: pred_x0 is off by %g", name, e0);
    if (getenv("BB_VERBOSE")) printf("%-20s x %.1e  pred_x0 %.1e\n", name, e, e0);
    free(all), free(all_x0), free(x_ref), free(x0_ref), free(noises), free(noise_step);
}

static void test_golden(const char *name)
{
    golden g;
    if (open_golden(&g, name)) {
        size_t n, n_t;
        float *ref = tensor(&g, "alphas_cumprod", &n), *timesteps = tensor(&g, "timesteps", &n_t);
        CHECK(n == g.sched.train_steps, "%s: %u training steps", name, g.sched.train_steps);
        size_t differ = 0;
        for (size_t i = 0; i < n; i++) differ += bb_f32_bits(ref[i]) != bb_f32_bits(g.sched.alphas_cumprod[i]);
        CHECK(differ == 0, "%s: %zu of %zu alphas_cumprod have other bits", name, differ, n);

        bb_sampler_plan plan;
        bb_error err = {0};
        bb_status status = make_plan(&plan, &g, &err);
        CHECK(status == BB_OK && plan.steps == n_t, "%s: %u steps: %s", name, plan.steps, err.text);
        bool same = status == BB_OK && plan.steps == n_t;
        for (size_t i = 0; same && i < n_t; i++) same = timesteps[i] == (float)plan.timesteps[i];
        CHECK(same, "%s: timesteps", name);
        if (same) run(name, &g, &plan);
        free(ref), free(timesteps);
    }
    close_golden(&g);
}

/* ---- plans ---- */

static void test_plans(void)
{
    bb_schedule s;
    bb_error err = {0};
    CHECK(bb_scheduler_read(&s, NULL, BB_JSON_NONE, "none", &err) == BB_OK, "%s", err.text);
    CHECK(s.train_steps == 1000 && s.sampler == BB_SAMPLER_DDPM && s.clip_sample, "DDPM's defaults");
    CHECK(s.prediction == BB_PREDICT_EPSILON && s.spacing == BB_SPACING_LEADING &&
          s.variance == BB_VARIANCE_FIXED_SMALL, "DDPM's defaults");
    static bb_sampler_plan p;
    CHECK(bb_sampler_plan_init(&p, &s, 0, 0, 0, &err) == BB_ERR_STEPS, "no steps");
    CHECK(bb_sampler_plan_init(&p, &s, 0, 1001, 0, &err) == BB_ERR_STEPS, "too many steps");
    CHECK(!strcmp(err.text, "steps is 1001; this model takes 1 to 1000"), "%s", err.text);
    CHECK(bb_sampler_plan_init(&p, &s, 9, 10, 0, &err) == BB_ERR_ARGUMENT, "no such sampler");
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
    bb_schedule s = {.alphas_cumprod = half, .train_steps = 1, .sampler = BB_SAMPLER_DDIM,
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
    test_config("{}", no, "s.json: \"_class_name\" is missing; supported: DDPMScheduler, DDIMScheduler");
    test_config("{\"_class_name\": \"PNDMScheduler\"}", no,
                "s.json: \"_class_name\" is PNDMScheduler; supported: DDPMScheduler, DDIMScheduler");
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
        "ddim-eta0", "ddim-eta1", "ddim-sd", "ddim-v-trailing", "ddim-v-zsnr-eta05", "ddim-linspace", "ddim-cosine",
        "ddim-sample-pred", "ddim-threshold", "ddim-use-clipped", "ddim-t100", "ddpm-small", "ddpm-large-trailing",
        "ddpm-learned-range", "ddpm-v-linspace", "ddpm-custom", "ddpm-cosine-t50",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) test_golden(cases[i]);
    test_plans();
    test_threshold();
    test_guide();
    test_configs();
    return check_done();
}
