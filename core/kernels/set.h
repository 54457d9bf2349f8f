/* Names of one set's functions, bb_<op>__<isa>, and its table. A kernel file defines BB_ISA, includes this, defines
 * its ops as BB_FN(op); the set's last file ends with BB_SET(needs bits). */
#ifndef BB_KERNELS_SET_H
#define BB_KERNELS_SET_H

#include "kernels/kernels.h"

#define BB_SET_JOIN_(a, b) a##b
#define BB_SET_JOIN(a, b) BB_SET_JOIN_(a, b)
#define BB_SET_TEXT_(a) #a
#define BB_SET_TEXT(a) BB_SET_TEXT_(a)
#define BB_FN(op) BB_SET_JOIN(bb_##op##__, BB_ISA)

#define BB_OP(name, args) bb_##name##_fn BB_FN(name);
#include "kernels/ops.inc"
#undef BB_OP

extern const bb_kernels BB_SET_JOIN(bb_kernels_, BB_ISA);

/* What vec.h defines, for a table. */
#define BB_VEC_OPS                                                                                     \
    .dequantize_tile = BB_FN(dequantize_tile),                                                         \
    .quantize = BB_FN(quantize), .widen = BB_FN(widen), .conv_tile_f32 = BB_FN(conv_tile_f32),         \
    .f16_to_f32 = BB_FN(f16_to_f32), .norm_stats = BB_FN(norm_stats), .group_norm = BB_FN(group_norm), \
    .attention = BB_FN(attention), .avg_pool2d = BB_FN(avg_pool2d), .silu = BB_FN(silu),               \
    .gelu = BB_FN(gelu), .mish = BB_FN(mish), .add = BB_FN(add), .add_channels = BB_FN(add_channels),  \
    .modulate = BB_FN(modulate), .affine = BB_FN(affine)

/* And all others. */
#define BB_ALL_OPS BB_VEC_OPS, .tables = BB_FN(tables), .expand_tile = BB_FN(expand_tile)

/* A set that has every op; its dot ways follow the needs. */
#define BB_SET(cpu_bits, ...)                                                                          \
    const bb_kernels BB_SET_JOIN(bb_kernels_, BB_ISA) = {                                              \
        .isa = BB_SET_TEXT(BB_ISA), .needs = (cpu_bits), .dots = {__VA_ARGS__}, BB_ALL_OPS}

#endif
