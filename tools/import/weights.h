/* The weights of one component, in whichever of these files is found first:
 *     STEM.safetensors, STEM.safetensors.index.json with its shards, STEM.bin, STEM.bin.index.json with its shards,
 *     STEM.pth, STEM.pt, STEM.ckpt
 * with STEM diffusion_pytorch_model, pytorch_model or model, then with the variants .fp16, .bf16 and .ema of these. All
 * but safetensors are files of torch.save (torch_file.h).
 *
 * Names: where training put a network inside something else ("module.conv_in.weight", "ema.conv_in.weight"), the
 * tensors under the prefix of conv_in.weight are the network's and the others are left out; an "ema" prefix goes
 * first. */
#ifndef BB_TOOLS_IMPORT_WEIGHTS_H
#define BB_TOOLS_IMPORT_WEIGHTS_H

#include "import/tensor.h"
#include "io.h"

typedef struct bb_weights {
    bb_tensor *tensors; /* [n], sorted by name; data is borrowed from the files */
    size_t n;
    struct bb_weight_file { bb_file file; char *path; } *files; /* [n_files], sorted by name */
    size_t n_files;
    char *path;   /* the file that was found first: the only one, or the index */
    char *unused; /* the next that is there too, but not read; NULL if none is */
} bb_weights;

/* folder: of the component. On failure nothing needs closing. */
bb_status bb_weights_open(bb_weights *w, const char *folder, bb_error *err);
void bb_weights_close(bb_weights *w);

bb_tensor *bb_weights_find(const bb_weights *w, const char *name); /* NULL if there is none */
const char *bb_weights_path(const bb_weights *w, const bb_tensor *t);

/* 64 hexadecimal digits and a NUL: the file's SHA-256, or that of the shards' digests (as text, one after another). */
bb_status bb_weights_sha256(const bb_weights *w, char out[65], bb_error *err);

#endif
