/* bitbrush eval: how far a packed model's pictures are from the float model's, drawn from the same seeds. */
#include "host.h"
#include "progress.h"
#include "sample/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct job {
    const char *against;
    uint32_t images, steps, sampler, evaluations;
    float guidance;
    uint64_t seed;
    bool guidance_given, json, quiet;
    bb_host_options host_options;
    bb_host reference, free, forced; /* forced sees the reference's x at every step */
    double squares;                  /* of pixel differences, over RGB */
    uint64_t values;
    double error[BB_MAX_EVALUATIONS], power[BB_MAX_EVALUATIONS]; /* of ε, per evaluation of the model */
} job;

static bb_status open_all(job *j, const char *model, bb_error *err)
{
    BB_TRY(bb_host_open(&j->reference, j->against, &j->host_options, err));
    j->host_options.lora.n = 0; /* the packed model was made with them */
    BB_TRY(bb_host_open(&j->free, model, &j->host_options, err));
    BB_TRY(bb_host_open(&j->forced, model, &j->host_options, err));
    const bb_info *a = &j->reference.model->pack.info, *b = &j->free.model->pack.info;
    if (a->width != b->width || a->height != b->height || a->channels != b->channels || a->classes != b->classes ||
        a->null_label != b->null_label)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s and %s are not of one kind: size, classes or null class differ",
                       model, j->against);
    if (!j->steps) j->steps = bb_host_steps(&j->reference);
    if (!j->guidance_given) j->guidance = bb_host_guidance(&j->reference);
    bb_request req = {.size_of = sizeof req, .steps = j->steps, .guidance = j->guidance, .sampler = j->sampler};
    BB_TRY(bb_host_session(&j->reference, &req, err));
    bb_stats stats;
    bb_stats_get(j->reference.session, &stats);
    j->evaluations = stats.steps;
    BB_TRY(bb_host_session(&j->free, &req, err));
    return bb_host_session(&j->forced, &req, err);
}

static bb_status begin(job *j, bb_host *h, uint32_t i)
{
    uint64_t seed = j->seed + i;
    const bb_info *info = &h->model->pack.info;
    if (info->classes) BB_TRY(bb_condition(h->session, 0, &(bb_cond){bb_nth_label(info, i)}));
    return bb_begin(h->session, &seed, NULL);
}

static bb_status draw_pair(job *j, uint32_t i)
{
    size_t n, outputs;
    BB_TRY(begin(j, &j->reference, i));
    BB_TRY(begin(j, &j->free, i));
    BB_TRY(begin(j, &j->forced, i));
    const float *x = bb_session_x(j->reference.session, &n);
    float *forced_x = bb_session_x(j->forced.session, &n);
    for (uint32_t step = 0; step < j->evaluations; step++) {
        for (size_t k = 0; k < n; k++) forced_x[k] = x[k];
        BB_TRY(bb_step(j->reference.session, 0));
        BB_TRY(bb_step(j->free.session, 0));
        BB_TRY(bb_step(j->forced.session, 0));
        const float *a = bb_session_prediction(j->reference.session, &outputs);
        const float *b = bb_session_prediction(j->forced.session, &outputs);
        for (size_t k = 0; k < outputs; k++) {
            double d = (double)a[k] - b[k];
            j->error[step] += d * d;
            j->power[step] += (double)a[k] * a[k];
        }
    }
    return BB_OK;
}

static bb_status compare(job *j, uint32_t i, uint8_t *a, uint8_t *b, bb_error *err)
{
    const bb_info *info = &j->reference.model->pack.info;
    size_t bytes = (size_t)info->width * info->height * 4;
    bb_image image = {.width = info->width, .height = info->height, .rgba = a};
    bb_status status = draw_pair(j, i);
    if (status >= 0) status = bb_decode(j->reference.session, 0, &image);
    image.rgba = b;
    if (status >= 0) status = bb_decode(j->free.session, 0, &image);
    if (status < 0) return bb_fail(err, status, "%s", bb_strerror(status));
    for (size_t k = 0; k < bytes; k++) {
        if (k % 4 == 3) continue; /* alpha is the same everywhere and would flatter the figure */
        double d = (double)a[k] - b[k];
        j->squares += d * d;
        j->values++;
    }
    return BB_OK;
}

static bb_status evaluate(job *j, const char *model, bb_error *err)
{
    BB_TRY(open_all(j, model, err));
    const bb_info *info = &j->reference.model->pack.info;
    size_t bytes = (size_t)info->width * info->height * 4;
    uint8_t *a = malloc(bytes), *b = malloc(bytes);
    bb_status status = a && b ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory");
    bb_progress progress = bb_progress_start("comparing (pictures)", j->images, j->quiet);
    for (uint32_t i = 0; status == BB_OK && i < j->images; i++) {
        status = compare(j, i, a, b, err);
        bb_progress_step(&progress, i + 1);
    }
    free(a);
    free(b);
    return status;
}

/* JSON knows no infinities and no NaN. */
static void print_number(double x)
{
    if (isfinite(x)) printf("%.6g", x);
    else printf("null");
}

static void report(const job *j, const char *model)
{
    double mse = j->squares / (double)j->values, psnr = mse > 0 ? 10 * log10(255.0 * 255.0 / mse) : INFINITY;
    if (!j->json) {
        printf("%s against %s, pictures: %u, steps: %u, guidance: %g\nPSNR %.2f dB\nrelative epsilon error by step:",
               model, j->against, j->images, j->steps, (double)j->guidance, psnr);
        for (uint32_t i = 0; i < j->evaluations; i++) printf(" %.2e", j->error[i] / j->power[i]);
        printf("\n");
        return;
    }
    printf("{\"model\":");
    bb_cli_print_json(model);
    printf(",\"against\":");
    bb_cli_print_json(j->against);
    printf(",\"images\":%u,\"steps\":%u,\"guidance\":%g,\"psnr\":", j->images, j->steps, (double)j->guidance);
    print_number(psnr); /* null for identical pictures */
    printf(",\"eps_error\":[");
    for (uint32_t i = 0; i < j->evaluations; i++) {
        if (i) putchar(',');
        print_number(j->error[i] / j->power[i]);
    }
    printf("]}\n");
}

static int run(const bb_command *c, int argc, char **argv)
{
    const char *model;
    static job j = {.images = 64};
    const bb_option options[] = {
        {"--against", BB_OPTION_STRING, &j.against, "FLOAT", "checkpoint folder or unquantized file", 0, 0, NULL},
        {"--images", BB_OPTION_U32, &j.images, "N", "pictures: seed i, label i in turn (default 64)", 1, 100000, NULL},
        {"--steps", BB_OPTION_U32, &j.steps, "N", "steps (default 20, or all there are)", 1, BB_MAX_STEPS, NULL},
        BB_SAMPLER_OPTION(j),
        {"--guidance", BB_OPTION_FLOAT, &j.guidance, "G", "guidance (default 2 with a null class, else 1)", 0.001, 1000,
         &j.guidance_given},
        {"--seed", BB_OPTION_U64, &j.seed, "N", "seed of the first picture (default 0)", 0, 0, NULL},
        BB_REPORT_OPTIONS(j),
        BB_LORA_OPTION(j.host_options.lora),
        BB_CHECKPOINT_OPTIONS(j.host_options),
        BB_HOST_OPTIONS(j.host_options),
    };
    int code;
    bb_error err = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &model, 1, &code)) return code;
    if (!j.against) return bb_cli_usage_error(c, "--against FLOAT is missing");
    bb_status status = evaluate(&j, model, &err);
    if (status >= 0) report(&j, model);
    bb_host_close(&j.reference);
    bb_host_close(&j.free);
    bb_host_close(&j.forced);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_eval = {"eval", "MODEL --against FLOAT",
                                      "distance of a packed model from its float one", run};
