/* Strict reader of safetensors files in memory: 8-byte header length, JSON header, data. For files of others: gaps
 * between tensors are allowed, as published files have them; overlaps, duplicate names and ranges outside the file
 * are not. (Our own packed file obeys narrower rules: pack/index.c.) Method: the format text of the safetensors
 * project. */
#ifndef BB_BASE_SAFETENSORS_H
#define BB_BASE_SAFETENSORS_H

#include "base/json.h"

#define BB_ST_MAX_RANK 8u

typedef enum bb_st_dtype { BB_ST_F32, BB_ST_F16, BB_ST_BF16, BB_ST_I64, BB_ST_I32, BB_ST_U8 } bb_st_dtype;

typedef struct bb_st_tensor {
    const char *name;    /* NUL-terminated */
    uint32_t dtype;      /* bb_st_dtype */
    uint32_t rank;
    uint64_t shape[BB_ST_MAX_RANK];
    size_t count;        /* product of shape */
    size_t begin, bytes; /* range inside the data part */
    const uint8_t *data; /* any alignment */
} bb_st_tensor;

typedef struct bb_safetensors {
    const bb_st_tensor *tensors; /* [n], sorted by name */
    size_t n;
    bb_json header;
    uint32_t metadata;           /* token of __metadata__ in the header, or BB_JSON_NONE */
} bb_safetensors;

/* Bytes of memory that bb_safetensors_parse needs for the file's n bytes (about 14 for each byte of its header);
 * checks the header's length. name: what messages call the file. */
bb_status bb_safetensors_memory(const uint8_t *data, size_t n, const char *name, size_t *bytes, bb_error *err);

/* Checks everything. The result borrows data and mem (any alignment). */
bb_status bb_safetensors_parse(bb_safetensors *st, const uint8_t *data, size_t n, const char *name, void *mem,
                               size_t size, bb_error *err);

const bb_st_tensor *bb_safetensors_find(const bb_safetensors *st, const char *name); /* NULL if there is none */
const char *bb_st_dtype_name(uint32_t dtype);

/* The tensor's numbers as f32 (integers are converted, exactly up to 2^24), out[count]. */
void bb_st_to_f32(const bb_st_tensor *t, float *out);

/* "[2, 3, 16]" */
void bb_st_shape_text(char *out, size_t size, const uint64_t *shape, uint32_t rank);

#endif
