/* What every command needs around core: a model in memory, threads, the choice of kernels, a session. */
#ifndef BB_TOOLS_HOST_H
#define BB_TOOLS_HOST_H

#include "api/model.h"
#include "cli.h"
#include "io.h"
#include "lora.h"
#include "progress.h"

typedef struct bb_host {
    bb_model *model;
    bb_par *par;
    bb_file file;       /* of a packed file */
    uint8_t *imported;  /* of a checkpoint folder, imported as f32 in memory */
    void *mem;
    bb_blocks folded;   /* weights with LoRAs in them */
    char *label_text; void *label_tokens;
    bb_json labels;     /* array of class names; empty if the file has none */
    bb_session *session;
    void *workspace;
} bb_host;

/* Options shared by the commands that compute. */
typedef struct bb_host_options {
    uint32_t threads;   /* 0: all cores */
    uint32_t cpu;       /* choice number of BB_CPU_WORDS */
    const char *labels, *null_label; /* for checkpoint folders */
    bb_list lora;       /* FILE[:SCALE], folded into the model */
} bb_host_options;
#define BB_CPU_WORDS "auto|scalar|avx2|avx512"
#define BB_HOST_OPTIONS(o)                                                                                     \
    {"--threads", BB_OPTION_U32, &(o).threads, "N", "threads (default: all cores)", 1, 64, NULL},              \
    {"--cpu", BB_OPTION_CHOICE, &(o).cpu, BB_CPU_WORDS, "highest instruction set to use", 0, 0, NULL}
#define BB_SAMPLER_OPTION(o) \
    {"--sampler", BB_OPTION_CHOICE, &(o).sampler, bb_host_samplers(), "default: the model's own scheduler", 0, 0, NULL}
#define BB_REPORT_OPTIONS(o) /* of the commands that work for long */                                            \
    {"--json", BB_OPTION_FLAG, &(o).json, NULL, "print one JSON object", 0, 0, NULL},                            \
    {"--quiet", BB_OPTION_FLAG, &(o).quiet, NULL, "no progress lines", 0, 0, NULL}
#define BB_CHECKPOINT_OPTIONS(o)                                                                               \
    {"--labels", BB_OPTION_STRING, &(o).labels, "FILE", "class names (default: the checkpoint's labels.json)", \
     0, 0, NULL},                                                                                            \
    {"--null-label", BB_OPTION_STRING, &(o).null_label, "N|none", "class that means no class, for guidance", 0, 0, NULL}

/* Opens a packed file, or a checkpoint folder as f32, and folds the LoRAs in. Starts the threads. bb_host_close works
 * after failures too. */
bb_status bb_host_open(bb_host *h, const char *path, const bb_host_options *opt, bb_error *err);
/* The same for a packed file in memory, aligned to 64 bytes, which stays the caller's; name: what messages call it. */
bb_status bb_host_open_bytes(bb_host *h, const char *name, const uint8_t *bytes, size_t n, const bb_host_options *opt,
                             bb_error *err);
/* The kernels that --cpu asks for; a usage error if this CPU cannot run them. */
bb_status bb_host_kernels(bb_kernels *out, uint32_t cpu, bb_error *err);
/* The word of --cpu: a level without kernels of its own runs on a lower one, which bb_model_kernels names. */
const char *bb_host_cpu_word(uint32_t cpu);
/* Replaces the session. */
bb_status bb_host_session(bb_host *h, const bb_request *req, bb_error *err);
/* One picture by the session, into image->rgba; label counts for models with classes only. progress: of whose steps
 * `done` were made before; all of this picture are, afterwards. */
bb_status bb_host_draw(bb_host *h, uint64_t seed, int32_t label, bb_image *image, bb_progress *progress, size_t done,
                       bb_error *err);
/* Replaces the threads: 0 means one for each core. */
void bb_host_threads(bb_host *h, uint32_t threads);
void bb_host_close(bb_host *h);

/* "7" or "Sneaker" to a class; the message lists what there is. */
bb_status bb_host_label(const bb_host *h, const char *text, int32_t *label, bb_error *err);
/* Name of a class; its number as text if it has none. */
void bb_host_label_name(const bb_host *h, int32_t label, char *out, size_t size);
/* Names of the samplers in the order of bb_sampler, with | between. */
const char *bb_host_samplers(void);
/* Steps when none are asked for: 20, or all that the model was trained with. */
uint32_t bb_host_steps(const bb_host *h);
/* Guidance when none is asked for: 2 with a null class, else 1. */
float bb_host_guidance(const bb_host *h);

#endif
