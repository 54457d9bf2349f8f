#include "door.h"

#include "base/par.h"
#include "bitbrush.h"

static bb_info info;
static bb_error error;
static bb_model *model;
static bb_session *session;
static bb_request request;
static bb_par *par;
static size_t session_bytes;
static const uint8_t *png_at;
static size_t png_bytes;
static const float *output_at;
static uint32_t output_shape[4];

static bb_error *fresh(void)
{
    error.code = BB_OK;
    error.text[0] = 0;
    return &error;
}

/* Functions without a bb_error of their own get the status's text. */
static int32_t report(bb_status status)
{
    if (status < 0 && !error.text[0]) {
        const char *text = bb_strerror(status);
        for (size_t i = 0; i + 1 < sizeof error.text; i++) {
            error.text[i] = text[i];
            error.text[i + 1] = 0;
            if (!text[i]) break;
        }
    }
    return status;
}

const char *bbw_error(void) { return error.text; }
bb_error *bbw_fresh(void) { return fresh(); }
int32_t bbw_report(bb_status status) { return report(status); }
const bb_model *bbw_loaded(void) { return model; }

/* ---- model ---- */

size_t bbw_probe_scratch(size_t n) { return BB_PROBE_SCRATCH(n); }

int32_t bbw_probe(const void *head, size_t n, void *scratch, size_t size)
{
    return report(bb_probe(head, n, scratch, size, &info, fresh()));
}

int32_t bbw_model(const void *blob, size_t n, void *mem, size_t size)
{
    model = NULL;
    session = NULL;
    bb_status status = bb_model_init(blob, n, mem, size, &model, fresh());
    if (status != BB_OK) model = NULL; /* info stays the probe's: the same file, and with its sizes */
    return report(status);
}

const char *bbw_kernels(void) { return model ? bb_model_kernels(model) : ""; }

const char *bbw_way_name(uint32_t way) { return bb_way_name(way); }

double bbw_trial(uint32_t way, uint32_t rounds)
{
    static _Alignas(64) uint8_t scratch[BB_WAY_TRIAL];
    return bb_way_trial(way, rounds, scratch);
}

int32_t bbw_way_times(const float *times)
{
    fresh();
    if (!model) return report(BB_ERR_ORDER);
    session = NULL; /* it was laid out for other ways */
    bb_model_way_times(model, times);
    return BB_OK;
}

double bbw_info(uint32_t field)
{
    switch (field) {
    case 0: return info.width;
    case 1: return info.height;
    case 2: return info.channels;
    case 3: return info.classes;
    case 4: return info.null_label;
    case 5: return info.train_steps;
    case 6: return info.bits_milli;
    case 7: return (double)info.head_bytes;
    case 8: return (double)info.blob_bytes;
    case 9: return (double)info.model_bytes;
    case 10: return BBW_BUILD;
    default: return -1;
    }
}

/* ---- session ---- */

void bbw_threads(uint32_t count)
{
    session = NULL;
    bb_par_stop(par);
    par = bb_par_start(count);
}

int32_t bbw_session_size(uint32_t width, uint32_t height, uint32_t batch, uint32_t steps, uint32_t sampler,
                         float guidance, float eta)
{
    fresh();
    session = NULL;
    session_bytes = 0;
    if (!model) return report(BB_ERR_ORDER);
    request = (bb_request){.size_of = sizeof request, .width = width, .height = height, .batch = batch,
                           .steps = steps, .sampler = sampler, .guidance = guidance, .eta = eta, .par = par};
    return report(bb_session_size(model, &request, &session_bytes, &error));
}

size_t bbw_session_bytes(void) { return session_bytes; }

const char *bbw_sampler_name(uint32_t sampler) { return bb_sampler_name(sampler); }

int32_t bbw_session(void *workspace, size_t size)
{
    fresh();
    session = NULL;
    if (!model || !session_bytes) return report(BB_ERR_ORDER);
    bb_status status = bb_session_init(model, &request, workspace, size, &session, &error);
    if (status != BB_OK) session = NULL;
    return report(status);
}

int32_t bbw_condition(uint32_t image, int32_t label)
{
    fresh();
    return report(session ? bb_condition(session, image, &(bb_cond){.label = label}) : BB_ERR_ORDER);
}

int32_t bbw_begin(const uint64_t *seeds, const float *noise)
{
    fresh();
    return report(session ? bb_begin(session, seeds, noise) : BB_ERR_ORDER);
}

int32_t bbw_step(uint32_t max_ops)
{
    fresh();
    return report(session ? bb_step(session, max_ops) : BB_ERR_ORDER);
}

static bb_image picture(uint8_t *rgba)
{
    return (bb_image){.width = request.width ? request.width : info.width,
                      .height = request.height ? request.height : info.height, .rgba = rgba};
}

int32_t bbw_preview(uint32_t image, uint8_t *rgba)
{
    fresh();
    bb_image out = picture(rgba);
    return report(session ? bb_preview(session, image, &out) : BB_ERR_ORDER);
}

int32_t bbw_decode(uint32_t image, uint8_t *rgba)
{
    fresh();
    bb_image out = picture(rgba);
    return report(session ? bb_decode(session, image, &out) : BB_ERR_ORDER);
}

double bbw_stat(uint32_t field)
{
    bb_stats s = {0};
    if (!session) return 0;
    bb_stats_get(session, &s);
    switch (field) {
    case 0: return s.step;
    case 1: return s.steps;
    case 2: return s.op;
    case 3: return s.ops;
    case 4: return (double)s.workspace_bytes;
    case 5: return (double)s.macs_per_step;
    default: return -1;
    }
}

/* ---- PNG ---- */

size_t bbw_png_scratch(uint32_t width, uint32_t height)
{
    bb_image image = {.width = width, .height = height};
    return bb_png_scratch(&image);
}

int32_t bbw_png(const uint8_t *rgba, uint32_t width, uint32_t height, const char *text, size_t text_bytes,
                void *scratch, size_t size)
{
    const char *strings[2 * BBW_TEXT_PAIRS + 1] = {0};
    size_t count = 0;
    fresh();
    png_bytes = 0;
    for (size_t i = 0, start = 0; i < text_bytes; i++) {
        if (text[i]) continue;
        if (count == 2 * BBW_TEXT_PAIRS) return report(BB_ERR_ARGUMENT);
        strings[count++] = text + start;
        start = i + 1;
    }
    if (count % 2 || (text_bytes && text[text_bytes - 1])) return report(BB_ERR_ARGUMENT);
    /* bb_png only reads the pixels; bb_image has no const form. */
    bb_image image = {.width = width, .height = height, .rgba = (uint8_t *)(uintptr_t)rgba};
    return report(bb_png(&image, strings, scratch, size, &png_at, &png_bytes));
}

const uint8_t *bbw_png_at(void) { return png_at; }
size_t bbw_png_bytes(void) { return png_bytes; }

/* ---- named tensors ---- */

int32_t bbw_input(const char *name, const float *data, size_t count)
{
    fresh();
    return report(session ? bb_input(session, name, data, count) : BB_ERR_ORDER);
}

int32_t bbw_output(const char *name)
{
    fresh();
    return report(session ? bb_output(session, name, &output_at, output_shape) : BB_ERR_ORDER);
}

const float *bbw_output_at(void) { return output_at; }
uint32_t bbw_output_dim(uint32_t axis) { return axis < 4 ? output_shape[axis] : 0; }
