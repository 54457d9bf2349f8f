/* Philox4x32-10 (Salmon et al., SC'11): counter-based, so any element of any stream can be drawn alone,
 * in any order, on any thread, with the same result. */
#ifndef BB_BASE_RNG_H
#define BB_BASE_RNG_H

#include "base/compiler.h"

/* out = philox4x32-10(counter, key). */
void bb_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Standard normals number first..first+n-1 of the given stream of a seed: out[i] depends on (seed, stream,
 * first+i) only. Key = seed (low word first), counter = {index low, index high, stream, 0} with index =
 * number/4; the 4 words give 2 Box-Muller pairs in f64, rounded once to f32.
 * Streams: 0 initial noise, 1+i noise of sampler step i, BB_STREAM_TOOLS and up for tools. */
#define BB_STREAM_TOOLS 0x10000u
void bb_normals(float *out, size_t n, uint64_t seed, uint32_t stream, uint64_t first);

/* Uniform in [0, 1) with 32 bits, f64; same addressing. For tools. */
double bb_uniform(uint64_t seed, uint32_t stream, uint64_t number);

#endif
