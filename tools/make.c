#include "make.h"

#include <stdlib.h>

static bb_status read_back(const uint8_t *bytes, size_t n, bb_error *err)
{
    bb_info info;
    bb_pack pack;
    uint64_t head_bytes;
    BB_TRY(bb_pack_head_bytes(bytes, n, &head_bytes, err));
    size_t scratch_bytes = BB_PROBE_SCRATCH((size_t)head_bytes);
    void *scratch = malloc(scratch_bytes), *memory = NULL;
    bb_status status = scratch ? bb_pack_probe(bytes, n, scratch, scratch_bytes, &info, err)
                               : bb_fail(err, BB_ERR_SPACE, "out of memory");
    free(scratch);
    if (status < 0) return status;
    memory = malloc((size_t)info.model_bytes);
    bb_arena arena = bb_arena_init(memory, (size_t)info.model_bytes);
    status = memory ? bb_pack_read(&pack, bytes, n, &arena, err) : bb_fail(err, BB_ERR_SPACE, "out of memory");
    free(memory);
    return status;
}

bb_status bb_make_file(const bb_pack_out *p, uint8_t **out, size_t *out_size, bb_error *err)
{
    uint64_t size = bb_pack_write_size(p);
    *out = size < SIZE_MAX / 2 ? aligned_alloc(BB_ALIGNMENT, bb_align_up((size_t)size, BB_ALIGNMENT)) : NULL;
    if (!*out) return bb_fail(err, BB_ERR_SPACE, "out of memory for the model file");
    bb_pack_write(p, *out);
    *out_size = (size_t)size;
    bb_error inner = {0};
    bb_status status = read_back(*out, *out_size, &inner);
    if (status >= 0) return BB_OK;
    free(*out);
    *out = NULL;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "the model cannot be stored: %s", inner.text);
}
