/* See tensor.h. */
#include "import/tensor.h"

#include "base/mathf.h"

#include <string.h>

const char *bb_tensor_dtype_name(uint32_t dtype)
{
    return dtype == BB_TENSOR_F64 ? "F64" : bb_st_dtype_name(dtype);
}

uint32_t bb_tensor_dtype_bytes(uint32_t dtype)
{
    static const uint32_t bytes[] = {[BB_ST_F32] = 4, [BB_ST_F16] = 2, [BB_ST_BF16] = 2, [BB_ST_I64] = 8,
                                     [BB_ST_I32] = 4, [BB_ST_U8] = 1, [BB_TENSOR_F64] = 8};
    return bytes[dtype];
}

void bb_tensor_pack_strides(bb_tensor *t)
{
    uint64_t stride = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        t->stride[i] = stride;
        stride *= t->shape[i];
    }
}

bool bb_tensor_is_packed(const bb_tensor *t)
{
    bb_tensor packed = *t;
    bb_tensor_pack_strides(&packed);
    return !memcmp(packed.stride, t->stride, t->rank * sizeof *t->stride);
}

static float element(const bb_tensor *t, uint64_t at)
{
    const uint8_t *p = t->data + at * bb_tensor_dtype_bytes(t->dtype);
    float f32;
    double f64;
    uint16_t half;
    int64_t i64;
    int32_t i32;
    switch (t->dtype) {
    case BB_ST_F32: memcpy(&f32, p, 4); return f32;
    case BB_ST_F16: memcpy(&half, p, 2); return bb_f16_to_f32(half);
    case BB_ST_BF16: memcpy(&half, p, 2); return bb_bf16_to_f32(half);
    case BB_ST_I64: memcpy(&i64, p, 8); return (float)i64;
    case BB_ST_I32: memcpy(&i32, p, 4); return (float)i32;
    case BB_TENSOR_F64: memcpy(&f64, p, 8); return (float)f64;
    default: return *p;
    }
}

void bb_tensor_to_f32(const bb_tensor *t, float *out)
{
    uint64_t index[BB_ST_MAX_RANK] = {0}, at = 0;
    for (size_t i = 0; i < t->count; i++) {
        out[i] = element(t, at);
        for (uint32_t d = t->rank; d-- > 0;) { /* the next index, and its place */
            at += t->stride[d];
            if (++index[d] < t->shape[d]) break;
            at -= index[d] * t->stride[d];
            index[d] = 0;
        }
    }
}
