/* From a diffusers checkpoint to a packed, unquantized model in memory.
 * Reads a pipeline folder (model_index.json, unet/, scheduler/) or a bare component folder (config.json +
 * diffusion_pytorch_model.*, weights.h says which; then the scheduler has diffusers' DDPM defaults unless a
 * scheduler_config.json lies beside it). */
#ifndef BB_TOOLS_IMPORT_IMPORT_H
#define BB_TOOLS_IMPORT_IMPORT_H

#include "lora.h"
#include "pack/pack.h"

typedef struct bb_import_options {
    const char *path;          /* checkpoint folder */
    uint32_t dtype;            /* BB_F32 or BB_F16: storage of conv, linear and embedding weights; vectors stay f32 */
    const char *labels;        /* labels.json; NULL = the one beside model_index.json, if any */
    const char *null_label;    /* "none", a number, or NULL = as labels.json says, else none */
    const char *command;       /* stored in the metadata */
    bb_list lora;              /* FILE[:SCALE], folded in before the weights get their storage type */
} bb_import_options;

/* out/out_size: the file's bytes, 64-aligned, from aligned_alloc; the caller frees. Errors name the file, the tensor or
 * config field, and what is supported. */
bb_status bb_import(const bb_import_options *opt, uint8_t **out, size_t *out_size, bb_error *err);

#endif
