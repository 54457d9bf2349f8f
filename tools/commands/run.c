/* bitbrush run: the denoiser once, on named tensors in the checkpoint's NCHW, for anyone who wants to check parity. */
#include "host.h"
#include "import/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS 512

typedef struct job {
    bb_host host;
    const char *in_path, *out_path;
    bb_list taps;
    bool tapped[BB_COUNT(((bb_list *)0)->item)];
    bb_st_out out[MAX_TENSORS];
    char *names[MAX_TENSORS];
    uint32_t n_out;
    bool out_of_memory, json;
} job;

/* NHWC → NCHW (or [n, c] where there is one pixel); the result is malloc'd. */
static float *to_nchw(const float *x, const uint32_t s[4])
{
    size_t pixels = (size_t)s[1] * s[2], per_item = pixels * s[3];
    float *y = malloc(s[0] * per_item * sizeof *y);
    for (size_t n = 0; y && n < s[0]; n++)
        for (size_t p = 0; p < pixels; p++)
            for (size_t c = 0; c < s[3]; c++) y[n * per_item + c * pixels + p] = x[n * per_item + p * s[3] + c];
    return y;
}

static void add_output(job *j, const char *prefix, const char *name, const float *x, const uint32_t s[4])
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    float *data = to_nchw(x, s);
    char *copy = strdup(full);
    if (!data || !copy || j->n_out == MAX_TENSORS) {
        free(data);
        free(copy);
        j->out_of_memory = true;
        return;
    }
    bb_st_out o = {.name = copy, .rank = s[1] == 1 && s[2] == 1 ? 2 : 4, .shape = {s[0], s[3], s[1], s[2]},
                   .data = data};
    j->names[j->n_out] = copy;
    j->out[j->n_out++] = o;
}

/* A path may hold several names, one a line. */
static void tap(void *user, const char *path, const float *x, const uint32_t shape[4])
{
    job *j = user;
    for (const char *line = path; *line;) {
        size_t n = strcspn(line, "\n");
        for (uint32_t i = 0; i < j->taps.n; i++)
            if (strlen(j->taps.item[i]) == n && memcmp(j->taps.item[i], line, n) == 0 && !j->tapped[i]) {
                j->tapped[i] = true;
                add_output(j, "act.", j->taps.item[i], x, shape);
            }
        line += n + (line[n] == '\n');
    }
}

/* The batch and picture size come from in.sample. */
static bb_status open_session(job *j, const bb_safetensors *in, bb_error *err)
{
    const bb_st_tensor *x = bb_safetensors_find(in, "in.sample");
    if (!x || x->rank != 4)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: no tensor in.sample of shape [batch, channels, height, width]",
                       j->in_path);
    if (!x->count || x->count > (1u << 28))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: in.sample is empty or too large", j->in_path);
    if (x->shape[1] != j->host.model->pack.info.channels)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: in.sample must have %u channels", j->in_path,
                       j->host.model->pack.info.channels);
    bb_request req = {.size_of = sizeof req, .batch = (uint32_t)x->shape[0], .height = (uint32_t)x->shape[2],
                      .width = (uint32_t)x->shape[3]};
    BB_TRY(bb_host_session(&j->host, &req, err));
    bb_tap(j->host.session, tap, j);
    return BB_OK;
}

static bb_status give_input(job *j, const bb_safetensors *in, const char *name, uint32_t value, bb_error *err)
{
    char full[128];
    snprintf(full, sizeof full, "in.%s", name);
    const bb_st_tensor *t = bb_safetensors_find(in, full);
    if (!t) return bb_fail(err, BB_ERR_ARGUMENT, "%s: no tensor %s, which this model needs", j->in_path, full);
    float *raw = malloc(t->count * sizeof *raw + 1), *x = NULL;
    if (!raw) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    bb_st_to_f32(t, raw);
    size_t count = t->count;
    const bb_shape *shapes = j->host.model->scratch.shapes; /* of the session just made */
    size_t items = shapes[value].n;
    if (t->rank == 4) {
        /* NCHW → NHWC is the inverse transposition: swap pixels and channels. */
        x = to_nchw(raw, (const uint32_t[]){(uint32_t)t->shape[0], 1, (uint32_t)t->shape[1],
                                            (uint32_t)(t->shape[2] * t->shape[3])});
    } else if (count == 1 && items > 1) {
        x = malloc(items * sizeof *x); /* one timestep or label for all */
        for (size_t i = 0; x && i < items; i++) x[i] = raw[0];
        count = items;
    } else {
        x = raw;
        raw = NULL;
    }
    bb_status status = x ? bb_input(j->host.session, name, x, count) : BB_ERR_SPACE;
    free(raw);
    free(x);
    if (status == BB_ERR_LABEL)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: %s: classes are whole numbers from 0 to %u", j->in_path, full,
                       j->host.model->pack.info.classes - 1);
    if (status < 0)
        return bb_fail(err, status, "%s: %s: expected %z values, found %z", j->in_path, full,
                       bb_shape_size(shapes[value]), t->count);
    return BB_OK;
}

static void drop_repeated_taps(bb_list *taps)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < taps->n; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < kept; k++) seen = seen || strcmp(taps->item[k], taps->item[i]) == 0;
        if (!seen) taps->item[kept++] = taps->item[i];
    }
    taps->n = kept;
}

/* A misspelt input would otherwise be ignored in silence. */
static bb_status check_names(const job *j, const bb_safetensors *in, bb_error *err)
{
    const bb_graph *g = &j->host.model->pack.graph;
    for (size_t i = 0; i < in->n; i++) {
        const char *name = in->tensors[i].name;
        if (strncmp(name, "in.", 3) == 0 && bb_graph_find_input(g, name + 3) == BB_NONE)
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: the model has no input for tensor %s", j->in_path, name);
    }
    return BB_OK;
}

static bb_status compute(job *j, const bb_safetensors *in, bb_error *err)
{
    const bb_graph *g = &j->host.model->pack.graph;
    drop_repeated_taps(&j->taps);
    BB_TRY(check_names(j, in, err));
    BB_TRY(open_session(j, in, err));
    BB_TRY(bb_begin(j->host.session, NULL, NULL));
    for (uint32_t i = 0; i < g->n_inputs; i++)
        BB_TRY(give_input(j, in, bb_graph_string(g, g->inputs[i].name), i, err));
    bb_status status = bb_step(j->host.session, 0);
    if (status < 0) return bb_fail(err, status, "%s", bb_strerror(status));
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        const char *name = bb_graph_string(g, g->outputs[i].name);
        const float *x;
        uint32_t shape[4];
        BB_TRY(bb_output(j->host.session, name, &x, shape));
        add_output(j, "out.", name, x, shape);
    }
    for (uint32_t i = 0; i < j->taps.n; i++)
        if (!j->tapped[i])
            return bb_fail(err, BB_ERR_OPTION, "--tap %s: the model has no such module (bitbrush info --json lists "
                           "them)", j->taps.item[i]);
    return j->out_of_memory ? bb_fail(err, BB_ERR_SPACE, "out of memory for the outputs") : BB_OK;
}

static bb_status run_job(job *j, const char *model, const bb_host_options *opt, bb_error *err)
{
    bb_st_file in;
    uint8_t *bytes = NULL;
    size_t size = 0;
    BB_TRY(bb_file_check_writable(j->out_path, err));
    BB_TRY(bb_host_open(&j->host, model, opt, err));
    BB_TRY(bb_st_file_open(&in, j->in_path, err));
    bb_status status = compute(j, &in.st, err);
    bb_st_file_close(&in);
    if (status == BB_OK) status = bb_safetensors_write(j->out, j->n_out, &bytes, &size, err);
    if (status == BB_OK) status = bb_file_write(j->out_path, bytes, size, err);
    free(bytes);
    return status;
}

static void report(const job *j)
{
    const char *kernels = bb_model_kernels(j->host.model);
    if (!j->json) {
        printf("%s: %u tensors, kernels %s\n", j->out_path, j->n_out, kernels);
        return;
    }
    printf("{\"out\":");
    bb_cli_print_json(j->out_path);
    printf(",\"tensors\":[");
    for (uint32_t i = 0; i < j->n_out; i++) {
        if (i) putchar(',');
        bb_cli_print_json(j->names[i]);
    }
    printf("],\"kernels\":\"%s\"}\n", kernels);
}

static int run(const bb_command *c, int argc, char **argv)
{
    static job j;
    const char *model;
    bb_host_options host = {0};
    const bb_option options[] = {
        {"--in", BB_OPTION_STRING, &j.in_path, "FILE", "safetensors with in.sample, in.timestep, in.class_labels", 0, 0,
         NULL},
        {"--out", BB_OPTION_STRING, &j.out_path, "FILE", "safetensors to write: out.sample, act.PATH", 0, 0, NULL},
        {"--tap", BB_OPTION_LIST, &j.taps, "PATH", "also write this module's output (may be repeated)", 0, 0, NULL},
        {"--json", BB_OPTION_FLAG, &j.json, NULL, "print one JSON object", 0, 0, NULL},
        BB_LORA_OPTION(host.lora),
        BB_CHECKPOINT_OPTIONS(host),
        BB_HOST_OPTIONS(host),
    };
    int code;
    bb_error err = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &model, 1, &code)) return code;
    if (!j.in_path || !j.out_path) return bb_cli_usage_error(c, "--in FILE and --out FILE are needed");
    bb_status status = run_job(&j, model, &host, &err);
    if (status == BB_OK) report(&j);
    for (uint32_t i = 0; i < j.n_out; i++) {
        free(j.names[i]);
        free((void *)(uintptr_t)j.out[i].data);
    }
    bb_host_close(&j.host);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_run = {"run", "MODEL --in FILE --out FILE", "the denoiser once, on given tensors", run};
