/* Files of torch.save since PyTorch 1.6: a zip archive with a pickle of the structure (data.pkl) and one record per
 * storage (data/KEY). Older files are refused, so is everything but tensors, dictionaries and plain values.
 * Nested dictionaries become names joined by dots: {"ema": {"conv_in.weight": …}} gives "ema.conv_in.weight". */
#ifndef BB_TOOLS_IMPORT_TORCH_FILE_H
#define BB_TOOLS_IMPORT_TORCH_FILE_H

#include "import/tensor.h"

typedef struct bb_torch_file {
    bb_tensor *tensors; /* [n]; data is borrowed from the file */
    size_t n;
} bb_torch_file;

/* The n bytes must stay valid; file: what messages call them. On failure nothing needs freeing. */
bb_status bb_torch_parse(bb_torch_file *t, const uint8_t *data, size_t n, const char *file, bb_error *err);
void bb_torch_free(bb_torch_file *t);

#endif
