/* Strict reader and small writer of safetensors files: 8-byte header length, JSON header, data.
 * Method: the format text of the safetensors project. Gaps between tensors are allowed, as published files have
 * them; overlaps, duplicate names and ranges outside the file are not. */
#ifndef BB_TOOLS_IMPORT_SAFETENSORS_H
#define BB_TOOLS_IMPORT_SAFETENSORS_H

#include "base/status.h"
#include "io.h"

#define BB_ST_MAX_RANK 8u

typedef enum bb_st_dtype { BB_ST_F32, BB_ST_F16, BB_ST_BF16, BB_ST_I64, BB_ST_I32, BB_ST_U8 } bb_st_dtype;

typedef struct bb_st_tensor {
    char *name;
    uint32_t dtype; /* bb_st_dtype */
    uint32_t rank;
    uint64_t shape[BB_ST_MAX_RANK];
    size_t count;        /* product of shape */
    size_t begin, bytes; /* range inside the data part */
    const uint8_t *data; /* any alignment */
} bb_st_tensor;

typedef struct bb_safetensors {
    bb_file file;          /* empty if parsed from memory */
    bb_st_tensor *tensors; /* sorted by name */
    size_t n;
} bb_safetensors;

/* Maps and checks a file; or checks n bytes that must stay valid (name: what messages call them). On failure nothing
 * needs closing. */
bb_status bb_safetensors_open(bb_safetensors *st, const char *path, bb_error *err);
bb_status bb_safetensors_parse(bb_safetensors *st, const uint8_t *data, size_t n, const char *name, bb_error *err);
void bb_safetensors_close(bb_safetensors *st);

const bb_st_tensor *bb_safetensors_find(const bb_safetensors *st, const char *name);
const char *bb_st_dtype_name(uint32_t dtype);

/* The tensor's numbers as f32 (integers are converted, exactly up to 2^24), out[count]. */
void bb_st_to_f32(const bb_st_tensor *t, float *out);

/* "[2, 3, 16]" */
void bb_st_shape_text(char *out, size_t size, const uint64_t *shape, uint32_t rank);

/* ---- writing ---- */

typedef struct bb_st_out {
    const char *name;
    uint32_t rank, shape[4];
    const float *data; /* F32, row-major */
} bb_st_out;

/* The file's bytes, malloc'd; the caller frees. */
bb_status bb_safetensors_write(const bb_st_out *list, size_t n, uint8_t **out, size_t *out_size, bb_error *err);

#endif
