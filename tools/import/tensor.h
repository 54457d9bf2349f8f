/* A named tensor of a checkpoint as its file holds it, whatever kind of file that is. */
#ifndef BB_TOOLS_IMPORT_TENSOR_H
#define BB_TOOLS_IMPORT_TENSOR_H

#include "base/safetensors.h"

#define BB_TENSOR_F64 (BB_ST_U8 + 1u) /* further to bb_st_dtype */

typedef struct bb_tensor {
    char *name;     /* malloc'd */
    uint32_t dtype; /* bb_st_dtype or BB_TENSOR_F64 */
    uint32_t rank;
    uint64_t shape[BB_ST_MAX_RANK], stride[BB_ST_MAX_RANK]; /* strides in elements */
    size_t count;        /* product of shape, at most the elements that the file holds */
    const uint8_t *data; /* the first element, any alignment; every element lies inside the file */
    uint32_t file;       /* bb_weights: which one */
    bool used;
} bb_tensor;

const char *bb_tensor_dtype_name(uint32_t dtype);
uint32_t bb_tensor_dtype_bytes(uint32_t dtype);

/* Strides of a tensor without gaps, last dimension fastest. */
void bb_tensor_pack_strides(bb_tensor *t);
bool bb_tensor_is_packed(const bb_tensor *t);

/* The numbers as f32 in row-major order, out[count]. F64 is rounded, and may become infinite. */
void bb_tensor_to_f32(const bb_tensor *t, float *out);

#endif
