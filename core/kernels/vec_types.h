/* Vectors of BB_LANES floats in GCC/clang vector extensions, for vec.h. What these extensions lack, an ISA file
 * defines between the two headers. */
#ifndef BB_KERNELS_VEC_TYPES_H
#define BB_KERNELS_VEC_TYPES_H

#include "kernels/set.h"

typedef float vf __attribute__((vector_size(4 * BB_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * BB_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * BB_LANES)));
typedef float vf_memory __attribute__((vector_size(4 * BB_LANES), aligned(4), may_alias));
typedef int32_t vi_memory __attribute__((vector_size(4 * BB_LANES), aligned(4), may_alias));
typedef uint16_t vh_memory __attribute__((vector_size(2 * BB_LANES), aligned(2), may_alias));

#define VECTORS (BB_TILE / BB_LANES) /* in a row of 16 */

BB_INLINE vf load(const float *x) { return *(const vf_memory *)x; }
BB_INLINE void store(float *y, vf v) { *(vf_memory *)y = v; }

/* The first n floats of a vector, zeros behind them; all of it if n is larger. */
BB_INLINE vf load_some(const float *x, size_t n)
{
    float some[BB_LANES] = {0};
    if (n >= BB_LANES) return load(x);
    memcpy(some, x, n * sizeof *x);
    return load(some);
}

BB_INLINE void store_some(float *y, vf v, size_t n)
{
    float some[BB_LANES];
    if (n >= BB_LANES) {
        store(y, v);
        return;
    }
    store(some, v);
    memcpy(y, some, n * sizeof *y);
}

BB_INLINE vf splat(float x) { return x - (vf){0}; } /* exact, and compilers know it */
BB_INLINE vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* The ISA's own: lesser(a, b) = a < b ? a : b and greater(a, b) = a > b ? a : b, so b where one of them is NaN;
 * store_codes writes 16 integers in 0..255 as bytes. */
BB_INLINE vf lesser(vf a, vf b);
BB_INLINE vf greater(vf a, vf b);
BB_INLINE void store_codes(uint8_t *code, const vi n[VECTORS]);

#endif
