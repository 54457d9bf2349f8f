/* Noise schedules and solver settings of the diffusers 0.27.2 scheduler classes. Betas are as PyTorch 1.13 makes them:
 * betas and 1 − betas are f32, the running product is kept in double and each entry rounded to f32. */
#include "import/scheduler.h"

#include "base/mathf.h"
#include "bitbrush.h"
#include "import/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static const char *const classes[] = {"DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler", NULL};
static const uint32_t families[] = {BB_FAMILY_DDPM, BB_FAMILY_DDIM, BB_FAMILY_PNDM, BB_FAMILY_EULER,
    BB_FAMILY_EULER_A, BB_FAMILY_DPM, BB_FAMILY_UNIPC, BB_FAMILY_LCM};

static bool is(const bb_schedule *s, uint32_t family) { return s->solver.family == family; }

/* bb_config_choice with another fallback than the first. */
static uint32_t choice(bb_config *c, const char *name, const char *const *choices, uint32_t fallback)
{
    uint32_t tok = bb_json_member(c->json, c->object, name), chosen = bb_config_choice(c, name, choices);
    return tok == BB_JSON_NONE || bb_json_is_null(c->json, tok) ? fallback : chosen;
}

static uint32_t option(bb_config *c, const char *name, bool fallback, uint32_t flag)
{
    return bb_config_bool(c, name, fallback) ? flag : 0;
}

static void read_betas(bb_config *c, bb_schedule *s, beta_config *b)
{
    static const char *const kinds[] = {"linear", "scaled_linear", "squaredcos_cap_v2", NULL};
    static const char *const kinds_ddpm[] = {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", NULL};
    bool lcm = is(s, BB_FAMILY_LCM);
    s->train_steps = bb_config_u32(c, "num_train_timesteps", 1000, 1, MAX_TRAIN_STEPS);
    b->start = bb_config_number(c, "beta_start", lcm ? 0.00085 : 0.0001);
    b->end = bb_config_number(c, "beta_end", lcm ? 0.012 : 0.02);
    b->kind = choice(c, "beta_schedule", is(s, BB_FAMILY_DDPM) ? kinds_ddpm : kinds,
                     lcm ? BETA_SCALED_LINEAR : BETA_LINEAR);
    b->trained = bb_config_token(c, "trained_betas");
    b->zero_snr = !is(s, BB_FAMILY_PNDM) && bb_config_bool(c, "rescale_betas_zero_snr", false);
    if (!(b->start >= 0 && b->start < 1)) bb_config_refuse(c, "beta_start", "must be from 0 to below 1");
    if (!(b->end >= 0 && b->end < 1)) bb_config_refuse(c, "beta_end", "must be from 0 to below 1");
}

/* Bounds of x̂0 and the end of the schedule. What a class does not know, diffusers ignores in its configuration. */
static void read_bounds(bb_config *c, bb_schedule *s)
{
    bool clips = is(s, BB_FAMILY_DDIM) || is(s, BB_FAMILY_DDPM), lcm = is(s, BB_FAMILY_LCM);
    bool thresholds = clips || lcm || is(s, BB_FAMILY_DPM) || is(s, BB_FAMILY_UNIPC), pndm = is(s, BB_FAMILY_PNDM);
    s->set_alpha_to_one = clips || lcm || pndm ? bb_config_bool(c, "set_alpha_to_one", !pndm) : true;
    s->clip_sample = (clips || lcm) && bb_config_bool(c, "clip_sample", clips);
    s->clip_sample_range = clips || lcm ? (float)bb_config_number(c, "clip_sample_range", 1) : 1;
    s->thresholding = thresholds && bb_config_bool(c, "thresholding", false);
    s->dynamic_thresholding_ratio = (float)bb_config_number(c, "dynamic_thresholding_ratio", 0.995);
    s->sample_max_value = (float)bb_config_number(c, "sample_max_value", 1);
    if (!(s->clip_sample_range > 0)) bb_config_refuse(c, "clip_sample_range", "must be above 0");
    if (!(s->sample_max_value > 0)) bb_config_refuse(c, "sample_max_value", "must be above 0");
    if (!(s->dynamic_thresholding_ratio >= 0 && s->dynamic_thresholding_ratio <= 1)) {
        bb_config_refuse(c, "dynamic_thresholding_ratio", "must be from 0 to 1");
    }
}

static void read_euler(bb_config *c, bb_schedule *s)
{
    static const char *const interpolations[] = {"linear", "log_linear", NULL}, *const ends[] = {"zero", NULL};
    static const char *const types[] = {"discrete", "continuous", NULL};
    s->solver.flags |= option(c, "use_karras_sigmas", false, BB_SOLVER_KARRAS);
    if (bb_config_choice(c, "interpolation_type", interpolations)) s->solver.flags |= BB_SOLVER_LOG_LINEAR;
    bb_config_choice(c, "final_sigmas_type", ends);
    if (bb_config_choice(c, "timestep_type", types) && s->prediction == BB_PREDICT_V)
        bb_config_refuse(c, "timestep_type", "is continuous, which is not supported; only \"discrete\" is");
    static const char *const range[] = {"sigma_min", "sigma_max"};
    for (size_t i = 0; i < BB_COUNT(range); i++)
        if (bb_config_token(c, range[i]) != BB_JSON_NONE)
            bb_config_refuse(c, range[i], "is not supported; set it to null for the range of the noise schedule");
}

static void read_dpm(bb_config *c, bb_schedule *s)
{
    static const char *const algorithms[] = {"dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis",
                                             NULL};
    static const uint32_t algorithm_flags[] = {0, BB_SOLVER_EPSILON, BB_SOLVER_SDE, BB_SOLVER_EPSILON | BB_SOLVER_SDE,
                                               0}; /* diffusers takes deis for dpmsolver++ */
    static const char *const types[] = {"midpoint", "heun", "logrho", "bh1", "bh2", NULL}; /* the rest as midpoint */
    static const char *const ends[] = {"zero", "sigma_min", NULL};
    bb_solver *v = &s->solver;
    v->order = bb_config_u32(c, "solver_order", 2, 1, 3);
    v->flags = algorithm_flags[bb_config_choice(c, "algorithm_type", algorithms)] |
               (bb_config_choice(c, "solver_type", types) == 1 ? BB_SOLVER_HEUN : 0u) |
               option(c, "lower_order_final", true, BB_SOLVER_LOWER_FINAL) |
               option(c, "euler_at_final", false, BB_SOLVER_EULER_FINAL) |
               option(c, "use_karras_sigmas", false, BB_SOLVER_KARRAS) |
               option(c, "use_lu_lambdas", false, BB_SOLVER_LU) |
               (bb_config_choice(c, "final_sigmas_type", ends) ? BB_SOLVER_SIGMA_MIN : 0u);
    uint32_t lambda = bb_json_member(c->json, c->object, "lambda_min_clipped"); /* -Infinity was read as null */
    v->lambda_min = (float)bb_config_number(c, "lambda_min_clipped", 0);
    if (lambda != BB_JSON_NONE && !bb_json_is_null(c->json, lambda)) v->flags |= BB_SOLVER_CLIP_LAMBDA;
    if (!(v->lambda_min - v->lambda_min == 0)) bb_config_refuse(c, "lambda_min_clipped", "is too large");
    if (v->flags & BB_SOLVER_EPSILON && !(v->flags & BB_SOLVER_SIGMA_MIN))
        bb_config_refuse(c, "final_sigmas_type", "is zero, which algorithm_type dpmsolver cannot reach; set it to "
                                                 "\"sigma_min\"");
    if (v->flags & BB_SOLVER_SDE && v->order > 2)
        bb_config_refuse(c, "solver_order", "is 3, which the sde algorithms do not have; set it to 1 or 2");
    if (v->flags & BB_SOLVER_KARRAS && v->flags & BB_SOLVER_LU)
        bb_config_refuse(c, "use_lu_lambdas", "and use_karras_sigmas exclude each other; set one of them to false");
}

static void read_unipc(bb_config *c, bb_schedule *s)
{
    static const char *const types[] = {"bh2", "bh1", "midpoint", "heun", "logrho", NULL}; /* the rest as bh2 */
    static const char *const ends[] = {"sigma_min", "zero", NULL};
    bb_solver *v = &s->solver;
    v->order = bb_config_u32(c, "solver_order", 2, 1, 3);
    v->flags = (bb_config_choice(c, "solver_type", types) == 1 ? BB_SOLVER_BH1 : 0u) |
               (bb_config_bool(c, "predict_x0", true) ? 0u : BB_SOLVER_EPSILON) |
               option(c, "lower_order_final", true, BB_SOLVER_LOWER_FINAL) |
               option(c, "use_karras_sigmas", false, BB_SOLVER_KARRAS) |
               (bb_config_choice(c, "final_sigmas_type", ends) ? 0u : BB_SOLVER_SIGMA_MIN);
    if (v->flags & BB_SOLVER_EPSILON) s->thresholding = false; /* as in diffusers */
    uint32_t list = bb_config_token(c, "disable_corrector");
    bool ok = list == BB_JSON_NONE || bb_json_is_array(c->json, list);
    for (uint32_t e = ok ? bb_json_first(c->json, list) : BB_JSON_NONE; e != BB_JSON_NONE && ok;
         e = bb_json_next(c->json, e)) {
        uint64_t step = 32;
        ok = bb_json_u64(c->json, e, &step) && step < 32;
        if (ok) v->no_corrector |= 1u << step;
    }
    if (!ok) bb_config_refuse(c, "disable_corrector", "must be a list of step numbers from 0 to 31");
    if (bb_config_token(c, "solver_p") != BB_JSON_NONE)
        bb_config_refuse(c, "solver_p", "is not supported; set it to null");
}

static void read_lcm(bb_config *c, bb_schedule *s)
{
    uint32_t fallback = s->train_steps < 50 ? s->train_steps : 50;
    s->solver.lcm_steps = bb_config_u32(c, "original_inference_steps", fallback, 1, s->train_steps);
    s->solver.lcm_scaling = (float)bb_config_number(c, "timestep_scaling", 10);
    if (!(s->solver.lcm_scaling > 0 && s->solver.lcm_scaling <= 1e6f))
        bb_config_refuse(c, "timestep_scaling", "must be above 0 and at most 1000000");
}

/* Fields of other classes, which diffusers carries along from one configuration to the next and ignores. */
static void ignore_foreign(bb_config *c)
{
    static const char *const names[] = {
        "algorithm_type", "clip_sample", "clip_sample_range", "disable_corrector", "euler_at_final",
        "final_sigmas_type", "flow_shift", "interpolation_type", "lambda_min_clipped", "lower_order_final",
        "original_inference_steps", "predict_x0", "rescale_betas_zero_snr", "set_alpha_to_one", "sigma_max",
        "sigma_min", "skip_prk_steps", "solver_order", "solver_p", "solver_type", "tensor_format", "thresholding",
        "time_shift_type", "timestep_scaling", "timestep_type", "use_karras_sigmas", "use_lu_lambdas",
        "variance_type"};
    for (size_t i = 0; i < BB_COUNT(names); i++) {
        bool seen = false;
        for (uint32_t k = 0; k < c->n_seen; k++) seen = seen || !strcmp(names[i], c->seen[k]);
        if (!seen) bb_config_ignore(c, names[i]);
    }
}

static void read_fields(bb_config *c, bb_schedule *s, beta_config *b)
{
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample", NULL};
    static const char *const spacings[] = {"leading", "trailing", "linspace", NULL};
    static const char *const variances[] = {"fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log",
                                            "learned", "learned_range", NULL};
    read_betas(c, s, b);
    bool levels = s->solver.family >= BB_FAMILY_EULER && s->solver.family <= BB_FAMILY_UNIPC;
    bool epsilon = bb_config_bool(c, "predict_epsilon", true); /* before prediction_type there was this */
    s->prediction = choice(c, "prediction_type", predictions, epsilon ? BB_PREDICT_EPSILON : BB_PREDICT_SAMPLE);
    s->spacing = choice(c, "timestep_spacing", spacings, levels ? BB_SPACING_LINSPACE : BB_SPACING_LEADING);
    uint32_t offset_limit = s->train_steps - 1 < MAX_STEPS_OFFSET ? s->train_steps - 1 : MAX_STEPS_OFFSET;
    s->steps_offset = (int32_t)bb_config_u32(c, "steps_offset", 0, 0, offset_limit);
    if (is(s, BB_FAMILY_DDIM) || is(s, BB_FAMILY_DDPM) || is(s, BB_FAMILY_DPM))
        s->variance = bb_config_choice(c, "variance_type", variances);
    read_bounds(c, s);
    switch (s->solver.family) {
    case BB_FAMILY_EULER: read_euler(c, s); break;
    case BB_FAMILY_DPM: read_dpm(c, s); break;
    case BB_FAMILY_UNIPC: read_unipc(c, s); break;
    case BB_FAMILY_PNDM: s->solver.flags = option(c, "skip_prk_steps", false, BB_SOLVER_SKIP_PRK); break;
    case BB_FAMILY_LCM: read_lcm(c, s); break;
    default: break;
    }
    ignore_foreign(c);
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

static uint32_t read_family(bb_config *c)
{
    if (c->object == BB_JSON_NONE) return BB_FAMILY_DDPM;
    if (bb_json_member(c->json, c->object, "_class_name") == BB_JSON_NONE)
        bb_config_refuse(c, "_class_name", "is missing; it names the scheduler, such as DDPMScheduler");
    return families[bb_config_choice(c, "_class_name", classes)];
}

bb_status bb_scheduler_read(bb_schedule *out, const bb_json *j, uint32_t tok, const char *file, bb_error *err)
{
    static const bb_json nothing;
    static const char *const old_fields[][2] = {{"num_train_timesteps", "timesteps"}, {NULL, NULL}}; /* before 0.1 */
    *out = (bb_schedule){0};
    bb_config c = bb_config_init(tok == BB_JSON_NONE ? &nothing : j, tok, file, "the scheduler", err);
    c.aliases = old_fields;
    beta_config b;
    out->solver.family = read_family(&c);
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
        bool levels = out->solver.family >= BB_FAMILY_EULER && out->solver.family <= BB_FAMILY_UNIPC;
        if (b.zero_snr && levels) alphas_cumprod[n - 1] = 0x1p-24f; /* as the reference, so that σ is finite */
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
