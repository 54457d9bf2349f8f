#include "make.h"

#include "make/make.h"

#include <stdlib.h>

static void *take(void *user, size_t bytes) { return malloc(bytes); }
static void give(void *user, void *block, size_t bytes) { free(block); }

const bb_make_memory bb_tools_memory = {NULL, take, give};

bb_status bb_make_file(const bb_pack_out *p, uint8_t **out, size_t *out_size, bb_error *err)
{
    uint64_t size = bb_pack_write_size(p);
    *out = size < SIZE_MAX / 2 ? aligned_alloc(BB_ALIGNMENT, bb_align_up((size_t)size, BB_ALIGNMENT)) : NULL;
    if (!*out) return bb_fail(err, BB_ERR_SPACE, "out of memory for the model file");
    bb_pack_write(p, *out);
    *out_size = (size_t)size;
    bb_status status = bb_file_prove(*out, *out_size, &bb_tools_memory, err);
    if (status >= 0) return BB_OK;
    free(*out);
    *out = NULL;
    return status;
}
