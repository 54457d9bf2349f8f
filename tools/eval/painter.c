#include "eval/painter.h"

#include "base/mathf.h"
#include "base/sha256.h"
#include "sample/predict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bb_painter_model_sha256(const bb_host *h, char out[65])
{
    const uint8_t *blob = h->imported ? h->imported : h->file.data;
    bb_sha256(blob, (size_t)h->model->pack.info.blob_bytes, out);
}

/* Adds the LoRAs to the hash in key. */
static bb_status key_loras(const bb_list *lora, char key[65], bb_error *err)
{
    for (uint32_t i = 0; lora && i < lora->n; i++) {
        bb_lora_input in;
        char text[256], weights[65], config[65];
        BB_TRY(bb_lora_input_open(&in, lora->item[i], err));
        bb_sha256(in.file.data, in.file.size, weights);
        bb_sha256(in.config.data, in.config.size, config);
        snprintf(text, sizeof text, "%s %s %s %a", key, weights, config, (double)in.lora.scale);
        bb_sha256((const uint8_t *)text, strlen(text), key);
        bb_lora_input_close(&in);
    }
    return BB_OK;
}

static bb_status make_key(bb_painter *p, const bb_list *lora, bb_error *err)
{
    char text[256];
    bb_painter_model_sha256(p->host, p->key);
    BB_TRY(key_loras(lora, p->key, err));
    snprintf(text, sizeof text, "%s %u %u %a %llu", p->key, p->req.steps, p->req.sampler, (double)p->req.guidance,
             (unsigned long long)p->seed);
    bb_sha256((const uint8_t *)text, strlen(text), p->key);
    return BB_OK;
}

static bb_status open_sessions(bb_painter *p, bb_error *err)
{
    size_t bytes;
    bb_stats stats;
    BB_TRY(bb_session_size(p->host->model, &p->req, &bytes, err));
    for (uint32_t t = 0; t < p->threads; t++) {
        p->workspace[t] = malloc(bytes);
        if (!p->workspace[t])
            return bb_fail(err, BB_ERR_SPACE, "out of memory: the drawing needs %z bytes a thread", bytes);
        BB_TRY(bb_session_init(p->host->model, &p->req, p->workspace[t], bytes, &p->session[t], err));
    }
    bb_stats_get(p->session[0], &stats);
    p->evaluations = stats.steps;
    return BB_OK;
}

bb_status bb_painter_open(bb_painter *p, const bb_host *h, const bb_list *lora, const bb_request *req, uint64_t seed,
                          uint32_t threads, bb_error *err)
{
    *p = (bb_painter){.host = h, .req = *req, .seed = seed, .threads = threads};
    p->req.par = NULL; /* each session has a thread of its own */
    BB_TRY(make_key(p, lora, err));
    return open_sessions(p, err);
}

void bb_painter_close(bb_painter *p)
{
    for (uint32_t t = 0; t < BB_PAR_MAX; t++) free(p->workspace[t]);
    *p = (bb_painter){0};
}

static bb_status begin(bb_painter *p, uint32_t i, uint32_t thread)
{
    const uint64_t seed = p->seed + i;
    const bb_info *info = &p->host->model->pack.info;
    if (info->classes) BB_TRY(bb_condition(p->session[thread], 0, &(bb_cond){bb_nth_label(info, i)}));
    return bb_begin(p->session[thread], &seed, NULL);
}

static bb_status failed(bb_status status, bb_error *err) { return bb_fail(err, status, "%s", bb_strerror(status)); }

/* The finished picture without alpha; grey ones without copies of their channel. */
static bb_status decode(bb_painter *p, uint32_t thread, uint8_t *record, bb_error *err)
{
    const bb_info *info = &p->host->model->pack.info;
    const uint32_t channels = bb_painter_channels(info);
    const size_t pixels = (size_t)info->width * info->height;
    bb_image image = {.width = info->width, .height = info->height, .rgba = malloc(4 * pixels)};
    if (!image.rgba) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    bb_status status = bb_decode(p->session[thread], 0, &image);
    for (size_t i = 0; status == BB_OK && i < pixels; i++)
        for (uint32_t c = 0; c < channels; c++) record[i * channels + c] = image.rgba[4 * i + c];
    free(image.rgba);
    return status < 0 ? failed(status, err) : BB_OK;
}

bb_status bb_paint(void *user, uint32_t i, uint32_t thread, uint8_t *record, bb_error *err)
{
    bb_painter *p = user;
    bb_status status = begin(p, i, thread);
    while (status == BB_OK) {
        if (bb_cli_interrupted()) return BB_ERR_CANCELLED;
        status = bb_step(p->session[thread], 0);
    }
    return status < 0 ? failed(status, err) : decode(p, thread, record, err);
}

/* ---- both models along the reference's trajectory ---- */

typedef struct moment { bb_predictor predictor; float divisor; } moment;

/* Where step number `step` is on the reference's schedule. */
static moment moment_at(const bb_sampler_plan *plan, const bb_schedule *s, uint32_t step)
{
    const float t = bb_round_even(plan->timesteps[step]);
    const float alpha = s->alphas_cumprod[t > 0 ? (uint32_t)t : 0];
    return (moment){{.prediction = s->prediction, .sqrt_alpha = bb_sqrtf(alpha), .sqrt_beta = bb_sqrtf(1.0f - alpha)},
                    bb_sampler_input_divisor(plan, step)};
}

/* Adds Σ (ε_b − ε_a)² and Σ ε_a² over the picture's values; a learned variance behind them is passed over. */
static void compare(const moment *at, const float *x, size_t n, uint32_t channels, const float *a, const float *b,
                    size_t outputs, double *error, double *power)
{
    const size_t out_channels = outputs / (n / channels);
    for (size_t k = 0; k < n; k++) {
        const size_t from = k / channels * out_channels + k % channels;
        const float seen = x[k] / at->divisor;
        const float ea = bb_predict_eps(&at->predictor, seen, a[from]);
        const float eb = bb_predict_eps(&at->predictor, seen, b[from]);
        const double d = (double)ea - eb;
        *error += d * d;
        *power += (double)ea * ea;
    }
}

static bb_status trace_steps(bb_trace *t, const bb_sampler_plan *plan, uint32_t thread, float *before, double *error,
                             double *power)
{
    bb_session *reference = t->reference->session[thread], *model = t->model->session[thread];
    const bb_schedule *schedule = &t->reference->host->model->pack.schedule;
    const uint32_t channels = t->reference->host->model->pack.info.channels;
    size_t n, outputs;
    const float *x = bb_session_x(reference, &n);
    for (uint32_t step = 0; step < t->reference->evaluations; step++) {
        if (bb_cli_interrupted()) return BB_ERR_CANCELLED;
        memcpy(before, x, n * sizeof *x);
        memcpy(bb_session_x(model, &n), x, n * sizeof *x);
        BB_TRY(bb_step(reference, 0));
        BB_TRY(bb_step(model, 0));
        const float *a = bb_session_prediction(reference, &outputs), *b = bb_session_prediction(model, &outputs);
        const moment at = moment_at(plan, schedule, step);
        compare(&at, before, n, channels, a, b, outputs, &error[step], &power[step]);
    }
    return BB_OK;
}

bb_status bb_trace_paint(void *user, uint32_t i, uint32_t thread, uint8_t *record, bb_error *err)
{
    bb_trace *t = user;
    const uint32_t n = t->reference->evaluations;
    const bb_request *req = &t->reference->req;
    size_t floats;
    bb_session_x(t->reference->session[thread], &floats);
    bb_sampler_plan *plan = malloc(sizeof *plan);
    float *before = malloc(floats * sizeof *before);
    double *sums = calloc(2 * (size_t)n, sizeof *sums);
    bb_status status = plan && before && sums ? BB_OK : BB_ERR_SPACE;
    if (status == BB_OK)
        status = bb_sampler_plan_init(plan, &t->reference->host->model->pack.schedule, req->sampler, req->steps,
                                      req->eta, err);
    if (status >= 0) status = begin(t->reference, i, thread);
    if (status >= 0) status = begin(t->model, i, thread);
    if (status >= 0) status = trace_steps(t, plan, thread, before, sums, sums + n);
    if (status >= 0) memcpy(record, sums, 2 * (size_t)n * sizeof *sums);
    free(plan);
    free(before);
    free(sums);
    if (status < 0) return status == BB_ERR_CANCELLED ? status : failed(status, err);
    return decode(t->reference, thread, record + 2 * (size_t)n * sizeof *sums, err);
}
