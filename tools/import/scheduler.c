/* Noise schedules of DDIMScheduler and DDPMScheduler as diffusers 0.27.2 on PyTorch 1.13 makes them: betas and
 * 1 − betas are f32, the running product is kept in double and each entry rounded to f32. */
#include "import/scheduler.h"

#include "base/mathf.h"
#include "bitbrush.h"
#include "import/config.h"

#include <math.h>
#include <stdlib.h>

#define MAX_TRAIN_STEPS 65536u /* the packed file's limit (core/FORMAT.md) */
#define MAX_STEPS_OFFSET 1000u

enum { BETA_LINEAR, BETA_SCALED_LINEAR, BETA_COSINE, BETA_SIGMOID };

/* torch.linspace in f32. Its CPU code works in two vectors of 8 at a time: the first element of each is
 * start + step·i, from the half on end − step·(n−1−i), fused; the others add a multiple of the step. What is
 * left over goes one by one. The last bits depend on it, and with them every ᾱ. */
static void linspace(float *out, uint32_t n, float start, float end)
{
    float step = n > 1 ? (end - start) / (float)(n - 1) : 0.0f;
    uint32_t vectors = n / 16 * 16;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t lane = i < vectors ? i % 8 : 0, first = i - lane;
        float base = first < n / 2 ? fmaf(step, (float)first, start) : fmaf(-step, (float)(n - 1 - first), end);
        out[i] = fmaf(step, (float)lane, base);
    }
    if (n == 1) out[0] = start;
}

/* A. Nichol, P. Dhariwal (2021), formula (17): ᾱ as a squared cosine, betas at most 0.999. */
static double cosine_alpha_bar(double t)
{
    double c = bb_cos((t + 0.008) / 1.008 * 3.141592653589793 / 2);
    return c * c;
}

static void make_betas(float *betas, uint32_t n, uint32_t kind, double start, double end)
{
    switch (kind) {
    case BETA_LINEAR: linspace(betas, n, (float)start, (float)end); break;
    case BETA_SCALED_LINEAR:
        linspace(betas, n, (float)sqrt(start), (float)sqrt(end));
        for (uint32_t i = 0; i < n; i++) betas[i] = betas[i] * betas[i];
        break;
    case BETA_COSINE:
        for (uint32_t i = 0; i < n; i++) {
            double beta = 1 - cosine_alpha_bar((i + 1.0) / n) / cosine_alpha_bar((double)i / n);
            betas[i] = (float)(beta < 0.999 ? beta : 0.999);
        }
        break;
    case BETA_SIGMOID:
        linspace(betas, n, -6, 6);
        for (uint32_t i = 0; i < n; i++) {
            betas[i] = (float)(1 / (1 + bb_exp(-betas[i]))) * (float)(end - start) + (float)start;
        }
        break;
    }
}

static void cumulate(float *alphas_cumprod, const float *betas, uint32_t n)
{
    double product = 1;
    for (uint32_t i = 0; i < n; i++) {
        product *= 1.0f - betas[i];
        alphas_cumprod[i] = (float)product;
    }
}

/* S. Lin et al., "Common diffusion noise schedules and sample steps are flawed" (2023), algorithm 1.
 * bars[n]: work space. */
static void rescale_zero_snr(float *betas, float *bars, uint32_t n)
{
    cumulate(bars, betas, n);
    for (uint32_t i = 0; i < n; i++) bars[i] = bb_sqrtf(bars[i]);
    float first = bars[0], last = bars[n - 1], scale = first / (first - last);
    for (uint32_t i = 0; i < n; i++) {
        float root = (bars[i] - last) * scale;
        bars[i] = root * root;
    }
    for (uint32_t i = n - 1; i > 0; i--) betas[i] = 1.0f - bars[i] / bars[i - 1];
    betas[0] = 1.0f - bars[0];
}

/* ---- the configuration ---- */

typedef struct beta_config {
    uint32_t trained; /* token of trained_betas */
    uint32_t kind;
    double start, end;
    bool zero_snr;
} beta_config;

static void read_fields(bb_config *c, bb_schedule *s, beta_config *b)
{
    static const char *const kinds[] = {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", NULL};
    static const char *const kinds_ddim[] = {"linear", "scaled_linear", "squaredcos_cap_v2", NULL};
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample", NULL};
    static const char *const spacings[] = {"leading", "trailing", "linspace", NULL};
    static const char *const variances[] = {"fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log",
                                            "learned", "learned_range", NULL};
    bool ddim = s->sampler == BB_SAMPLER_DDIM;
    s->train_steps = bb_config_u32(c, "num_train_timesteps", 1000, 1, MAX_TRAIN_STEPS);
    b->start = bb_config_number(c, "beta_start", 0.0001);
    b->end = bb_config_number(c, "beta_end", 0.02);
    b->kind = bb_config_choice(c, "beta_schedule", ddim ? kinds_ddim : kinds);
    b->trained = bb_config_token(c, "trained_betas");
    b->zero_snr = bb_config_bool(c, "rescale_betas_zero_snr", false);
    s->prediction = bb_config_choice(c, "prediction_type", predictions);
    s->spacing = bb_config_choice(c, "timestep_spacing", spacings);
    s->variance = bb_config_choice(c, "variance_type", variances);
    uint32_t offset_limit = s->train_steps - 1 < MAX_STEPS_OFFSET ? s->train_steps - 1 : MAX_STEPS_OFFSET;
    s->steps_offset = (int32_t)bb_config_u32(c, "steps_offset", 0, 0, offset_limit);
    s->set_alpha_to_one = bb_config_bool(c, "set_alpha_to_one", true);
    s->clip_sample = bb_config_bool(c, "clip_sample", true);
    s->clip_sample_range = (float)bb_config_number(c, "clip_sample_range", 1);
    s->thresholding = bb_config_bool(c, "thresholding", false);
    s->dynamic_thresholding_ratio = (float)bb_config_number(c, "dynamic_thresholding_ratio", 0.995);
    s->sample_max_value = (float)bb_config_number(c, "sample_max_value", 1);
    if (!(b->start >= 0 && b->start < 1)) bb_config_refuse(c, "beta_start", "must be from 0 to below 1");
    if (!(b->end >= 0 && b->end < 1)) bb_config_refuse(c, "beta_end", "must be from 0 to below 1");
    if (!(s->clip_sample_range > 0)) bb_config_refuse(c, "clip_sample_range", "must be above 0");
    if (!(s->sample_max_value > 0)) bb_config_refuse(c, "sample_max_value", "must be above 0");
    if (!(s->dynamic_thresholding_ratio >= 0 && s->dynamic_thresholding_ratio <= 1)) {
        bb_config_refuse(c, "dynamic_thresholding_ratio", "must be from 0 to 1");
    }
}

/* trained_betas: their number is the number of training steps. */
static void read_trained_betas(bb_config *c, uint32_t array, float *betas, uint32_t n)
{
    if (!bb_json_is_array(c->json, array) || bb_json_size(c->json, array) != n) {
        bb_config_refuse(c, "trained_betas", "must be a list of num_train_timesteps numbers");
        return;
    }
    uint32_t e = bb_json_first(c->json, array);
    for (uint32_t i = 0; i < n; i++, e = bb_json_next(c->json, e)) {
        size_t len = 0;
        const char *raw = bb_json_raw(c->json, e, &len);
        char text[64];
        bool scalar = raw && len < sizeof text && !bb_json_is_array(c->json, e) && !bb_json_is_object(c->json, e);
        for (size_t k = 0; k < len && scalar; k++) text[k] = raw[k];
        text[scalar ? len : 0] = 0;
        char *end = text;
        double beta = strtod(text, &end);
        if (end == text || *end || !(beta >= 0 && beta < 1)) {
            bb_config_refuse(c, "trained_betas", "must list numbers from 0 to below 1");
            return;
        }
        betas[i] = (float)beta;
    }
}

static uint32_t read_class(bb_config *c)
{
    static const char *const classes[] = {"DDPMScheduler", "DDIMScheduler", NULL};
    if (c->object == BB_JSON_NONE) return BB_SAMPLER_DDPM;
    if (bb_json_member(c->json, c->object, "_class_name") == BB_JSON_NONE) {
        bb_config_refuse(c, "_class_name", "is missing; supported: DDPMScheduler, DDIMScheduler");
    }
    return bb_config_choice(c, "_class_name", classes) ? BB_SAMPLER_DDIM : BB_SAMPLER_DDPM;
}

bb_status bb_scheduler_read(bb_schedule *out, const bb_json *j, uint32_t tok, const char *file, bb_error *err)
{
    static const bb_json nothing;
    *out = (bb_schedule){0};
    bb_config c = bb_config_init(tok == BB_JSON_NONE ? &nothing : j, tok, file, "the scheduler", err);
    beta_config b;
    out->sampler = read_class(&c);
    read_fields(&c, out, &b);
    BB_TRY(bb_config_finish(&c));

    uint32_t n = out->train_steps;
    float *betas = malloc(n * sizeof *betas), *alphas_cumprod = malloc(n * sizeof *alphas_cumprod);
    if (!betas || !alphas_cumprod) {
        c.status = bb_fail(err, BB_ERR_SPACE, "%s: no memory for %u training steps", file, n);
    } else {
        if (b.trained == BB_JSON_NONE) make_betas(betas, n, b.kind, b.start, b.end);
        else read_trained_betas(&c, b.trained, betas, n);
    }
    if (c.status >= 0) {
        if (b.zero_snr) rescale_zero_snr(betas, alphas_cumprod, n);
        cumulate(alphas_cumprod, betas, n);
        for (uint32_t i = 0; i < n; i++) { /* one step or constant betas cannot be rescaled to zero SNR */
            bool sound = alphas_cumprod[i] >= 0 && alphas_cumprod[i] <= 1;
            if (!sound) bb_config_refuse(&c, "rescale_betas_zero_snr", "does not fit the betas");
        }
    }
    free(betas);
    if (c.status >= 0) out->alphas_cumprod = alphas_cumprod;
    else free(alphas_cumprod);
    return c.status;
}

void bb_scheduler_free(bb_schedule *s)
{
    free((void *)(uintptr_t)s->alphas_cumprod);
    *s = (bb_schedule){0};
}
