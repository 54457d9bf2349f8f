/* bitbrush.h — draw pictures with a packed low-bit diffusion model. C11, no allocation, no libc.
 *
 *     bb_info info = {0};
 *     bb_probe(head, n, scratch, BB_PROBE_SCRATCH(n), &info, &err);   // sizes, from the header alone
 *     bb_model *model;   bb_model_init(blob, n, mem, info.model_bytes, &model, &err);
 *     bb_request req = {.size_of = sizeof req, .steps = 20, .guidance = 2};
 *     size_t bytes;      bb_session_size(model, &req, &bytes, &err);
 *     bb_session *s;     bb_session_init(model, &req, workspace, bytes, &s, &err);
 *     bb_condition(s, 0, &(bb_cond){.label = 7});
 *     bb_begin(s, &seed, NULL);
 *     for (bb_status st; (st = bb_step(s, 0)) != BB_DONE;) if (st < 0) return st;
 *     bb_decode(s, 0, &image);
 *
 * The caller owns all memory and lends it: the blob (read-only), the model block and the session's
 * workspace must outlive their user. Nothing is allocated after bb_session_init; nothing needs closing.
 * The same model, request and seed give the same bytes on every CPU, thread count and in WebAssembly.
 * Functions that return bb_status return a negative one on failure; where they take a bb_error (may be
 * NULL) it then says what was wrong, naming the tensor or value. One session is for one thread at a time. */
#ifndef BITBRUSH_H
#define BITBRUSH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BB_VERSION 1u        /* of this interface */
#define BB_FORMAT_VERSION 1u /* newest packed file this code reads, see core/FORMAT.md */

typedef enum bb_status {
#define BB_STATUS(name, value, text) BB_##name = value,
#include "base/status.inc"
#undef BB_STATUS
} bb_status;

typedef struct bb_error {
    bb_status code;
    char text[508]; /* one line, NUL-terminated, names the tensor or value */
} bb_error;

typedef struct bb_model bb_model;
typedef struct bb_session bb_session;
typedef struct bb_par bb_par; /* a thread pool of the host, core/base/par.h; NULL means one thread */

/* What a file holds, known from its header alone. */
typedef struct bb_info {
    uint32_t width, height, channels; /* of the picture, pixels; 1 = grey, 3 = RGB */
    uint32_t classes;      /* rows of the class table, null class included; 0 = unconditional */
    int32_t null_label;    /* the class that means "no class"; -1 = none, then guidance must be 1 */
    uint32_t train_steps;  /* steps must be 1..train_steps, and at most 1000 */
    uint32_t bits_milli;   /* mean stored bits per conv/linear weight × 1000 */
    uint64_t head_bytes;   /* bytes at the file's start that bb_probe has to see */
    uint64_t blob_bytes;   /* the whole file */
    uint64_t model_bytes;  /* memory for bb_model_init */
} bb_info;

typedef enum bb_sampler {
    BB_SAMPLER_DEFAULT, /* the model's own scheduler */
    BB_SAMPLER_DDIM,
    BB_SAMPLER_DDPM,
    BB_SAMPLER_EULER,
    BB_SAMPLER_EULER_KARRAS,
    BB_SAMPLER_EULER_A,     /* ancestral */
    BB_SAMPLER_DPMPP_2M,    /* DPM-Solver++, multistep, second order */
    BB_SAMPLER_DPMPP_2M_KARRAS,
    BB_SAMPLER_DPMPP_2M_SDE,
    BB_SAMPLER_DPMPP_2M_SDE_KARRAS,
    BB_SAMPLER_DPMPP_3M,
    BB_SAMPLER_DPMPP_3M_KARRAS,
    BB_SAMPLER_UNIPC,
    BB_SAMPLER_UNIPC_KARRAS,
    BB_SAMPLER_PNDM,        /* with Runge-Kutta: steps + 9 evaluations, 4 steps at least; below 20 steps these two
                               make the roundings of a quantized model visible */
    BB_SAMPLER_PLMS,        /* steps + 1 evaluations */
    BB_SAMPLER_LCM,         /* at most 50 steps; for models distilled for it */
} bb_sampler;

/* Every field's zero is its default. */
typedef struct bb_request {
    uint32_t size_of;       /* sizeof(bb_request) */
    uint32_t width, height; /* pixels; 0 = the model's own size */
    uint32_t batch;         /* pictures drawn together; 0 = 1 */
    uint32_t steps;         /* 0 = no sampler: bb_input, bb_step once, bb_output */
    uint32_t sampler;       /* bb_sampler */
    float guidance;         /* scale g in ε = ε_null + g (ε_label − ε_null); 0 or 1 = none, one half only */
    float eta;              /* DDIM noise share, 0..1 */
    bb_par *par;            /* threads to use; NULL = the caller's only */
} bb_request;

typedef struct bb_cond {
    int32_t label; /* 0..classes-1 */
} bb_cond;

/* Pixels are RGBA, 8 bits, rows top to bottom. */
typedef struct bb_image {
    uint32_t width, height, stride; /* stride in bytes; 0 = 4*width */
    uint8_t *rgba;                  /* caller's, height*stride bytes */
} bb_image;

/* Counts and bytes, not times: the caller owns the clock. */
typedef struct bb_stats {
    uint32_t step, steps;       /* evaluations of the model finished, and in all: bb_step completes one */
    uint32_t op, ops;           /* position inside the running step */
    uint64_t workspace_bytes;   /* used by this session */
    uint64_t macs_per_step;     /* multiply-adds of one step, both guidance halves, whole batch */
} bb_stats;

uint32_t bb_version(void);
const char *bb_strerror(bb_status status);
const char *bb_sampler_name(uint32_t sampler); /* such as "dpm++-2m-karras"; NULL past the last bb_sampler */

/* Reads the file header from the first n bytes at head (any alignment). BB_ERR_SHORT with out->head_bytes set
 * when more bytes are needed to read it; BB_ERR_MAGIC / _VERSION / _CORRUPT when it is no model of ours.
 * scratch: BB_PROBE_SCRATCH(n) bytes, free again afterwards. */
#define BB_PROBE_SCRATCH(n) ((size_t)10 * (n) + 256) /* JSON tokens: 20 bytes for every 2 of text */
bb_status bb_probe(const void *head, size_t n, void *scratch, size_t size, bb_info *out, bb_error *err);

/* Checks the whole file (every id, shape, attribute and range) and builds an index in mem.
 * blob must be aligned to 64 and stay unchanged and mapped; mem is info.model_bytes, any alignment. */
bb_status bb_model_init(const void *blob, size_t n, void *mem, size_t size, bb_model **out, bb_error *err);
void bb_model_info(const bb_model *model, bb_info *out);
const char *bb_model_kernels(const bb_model *model); /* kernel set in use, such as "x86_avx2" */

/* Dot ways: methods to compute a quantized layer's integer sums, all with the same results. Which is fastest depends on
 * the machine; a host may find out, and sessions then take for each layer the fastest that fits it.
 * bb_way_name: NULL past the last one. bb_way_trial: does `rounds` tiles of its own in scratch (BB_WAY_TRIAL bytes,
 * aligned to 64) and returns how many multiply-adds they are, each for one bit plane if the way goes plane by plane; the
 * caller owns the clock. bb_model_way_times: times of such a multiply-add by each way, positive, all in one unit. To be
 * called before any session of the model starts. */
#define BB_WAY_TRIAL 65536u
const char *bb_way_name(uint32_t way);
double bb_way_trial(uint32_t way, uint32_t rounds, void *scratch);
void bb_model_way_times(bb_model *model, const float *times);

/* Both plan in scratch memory of the model: one call at a time per model. Sessions then run independently. */
bb_status bb_session_size(const bb_model *model, const bb_request *req, size_t *bytes, bb_error *err);
bb_status bb_session_init(const bb_model *model, const bb_request *req, void *ws, size_t size,
                          bb_session **out, bb_error *err);

/* What picture `image` of the batch shows. Needed before bb_begin when the model has classes. */
bb_status bb_condition(bb_session *s, uint32_t image, const bb_cond *cond);

/* Starts a drawing: seeds[batch]; noise NULL (from the seeds) or [batch][height][width][channels] normals. */
bb_status bb_begin(bb_session *s, const uint64_t *seeds, const float *noise);

/* Runs up to max_ops graph ops (0 = to the end of the step, which is one evaluation of the model). BB_AGAIN: inside a
 * step; BB_OK: a step is finished, more follow; BB_DONE: the last one is. Negative: this drawing failed, bb_begin starts
 * anew. */
bb_status bb_step(bb_session *s, uint32_t max_ops);

bb_status bb_preview(const bb_session *s, uint32_t image, bb_image *out); /* the predicted final picture so far */
bb_status bb_decode(const bb_session *s, uint32_t image, bb_image *out);  /* after BB_DONE */

/* Named tensors of a session with steps = 0, f32, NHWC: rows*h*w*c values. bb_output borrows from the workspace. */
bb_status bb_input(bb_session *s, const char *name, const float *data, size_t count);
bb_status bb_output(const bb_session *s, const char *name, const float **data, uint32_t shape[4]);

void bb_stats_get(const bb_session *s, bb_stats *out);
void bb_cancel(bb_session *s); /* from any thread: the running bb_step returns BB_ERR_CANCELLED soon */

/* Observer: called with every value that carries a module path, f32 NHWC of shape. NULL removes it. */
typedef void (*bb_tap_fn)(void *user, const char *path, const float *x, const uint32_t shape[4]);
void bb_tap(bb_session *s, bb_tap_fn fn, void *user);

/* PNG of img with text chunks (pairs key, value; NULL-terminated, may be NULL). Same bytes everywhere.
 * Keys are ASCII, 1 to 79 characters, values UTF-8; all chunks together at most BB_PNG_TEXT bytes, 12 to 17 a chunk
 * and the texts. scratch: bb_png_scratch(img) bytes, any alignment; *png points into it. bb_png_scratch is 0 for a
 * picture without pixels or above 2^28 bytes. */
#define BB_PNG_TEXT 16384u
size_t bb_png_scratch(const bb_image *img);
bb_status bb_png(const bb_image *img, const char *const *text, void *scratch, size_t size,
                 const uint8_t **png, size_t *png_bytes);

#ifdef __cplusplus
}
#endif
#endif
