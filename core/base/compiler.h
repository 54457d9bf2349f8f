/* What the compilers and targets differ in, and nothing else: the only conditional code in core.
 *
 * core is freestanding C11: of the standard headers it uses float, stddef, stdint, stdbool and stdarg only
 * (par_pthread.c, which wasm does not link, the atomics of par_pool.h, and the wrappers of jsmn and stb apart).
 * memcpy, memset and memmove are declared here because compilers emit calls to them anyway;
 * native builds take libc's, the wasm module brings its own (wasm/libc.c). */
#ifndef BB_BASE_COMPILER_H
#define BB_BASE_COMPILER_H

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bitbrush borrows little-endian model files in place; big-endian targets are not supported"
#endif
#if FLT_EVAL_METHOD != 0
#error "bitbrush needs float sums rounded to float, or results differ: on 32-bit x86 add -msse2 -mfpmath=sse"
#endif

void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memset(void *dst, int byte, size_t n);
void *memmove(void *dst, const void *src, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#define BB_COUNT(array) (sizeof(array) / sizeof *(array))
#define BB_INLINE static inline __attribute__((always_inline, unused))
#define BB_LIKELY(x) __builtin_expect(!!(x), 1)
#define BB_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* For what only our own bug can cause. Traps (no stdio); on in every build but NDEBUG ones. */
#ifdef NDEBUG
#define BB_ASSERT(x) ((void)0)
#else
#define BB_ASSERT(x) (BB_LIKELY(x) ? (void)0 : __builtin_trap())
#endif

#define BB_ALIGNMENT 64 /* bytes; every arena block and every tensor in a packed file */

BB_INLINE size_t bb_align_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
BB_INLINE uint32_t bb_f32_bits(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
BB_INLINE float bb_f32_from_bits(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }
BB_INLINE uint64_t bb_f64_bits(double x) { uint64_t u; memcpy(&u, &x, 8); return u; }
BB_INLINE double bb_f64_from_bits(uint64_t u) { double x; memcpy(&x, &u, 8); return x; }
#define BB_INFINITY __builtin_inff()
BB_INLINE float bb_sqrtf(float x) { return __builtin_sqrtf(x); } /* one exact instruction everywhere */
BB_INLINE double bb_sqrt(double x) { return __builtin_sqrt(x); }

#endif
