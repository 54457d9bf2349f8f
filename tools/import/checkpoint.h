/* A checkpoint folder as diffusers writes it: a pipeline (model_index.json, unet/, scheduler/) or one bare component
 * (config.json, diffusion_pytorch_model.*). Finds the files, opens them, hands out tensors by name. */
#ifndef BB_TOOLS_IMPORT_CHECKPOINT_H
#define BB_TOOLS_IMPORT_CHECKPOINT_H

#include "import/config.h"
#include "import/weights.h"

#define BB_PATH_MAX 4096

typedef struct bb_checkpoint {
    char source[256];                  /* the folder's own name */
    char config_path[BB_PATH_MAX];
    char scheduler_path[BB_PATH_MAX];  /* "" if there is none */
    char labels_path[BB_PATH_MAX];     /* "" if there is none */
    char licence[96];                  /* from the front matter of README.md; "" if there is none */
    char class_name[96];               /* _class_name of the component */
    bb_json_file config;
    bb_weights weights;
} bb_checkpoint;

/* Refuses components and pipelines of other classes than are supported. On failure nothing needs closing. */
bb_status bb_checkpoint_open(bb_checkpoint *ck, const char *path, bb_error *err);
void bb_checkpoint_close(bb_checkpoint *ck);

/* The tensor `name`, under an old name of its module too (query for to_q, mid for mid_block, …), if it is a float
 * tensor of that shape; marks it used. Errors name file, tensor, found and expected shape. */
bb_status bb_checkpoint_tensor(bb_checkpoint *ck, const char *name, const uint32_t *shape, uint32_t rank,
                               const bb_tensor **out, bb_error *err);

/* Refuses tensors that were never asked for: the network would not be the one that was trained. */
bb_status bb_checkpoint_finish(const bb_checkpoint *ck, bb_error *err);

#endif
