/* Philox4x32-10: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC'11).
 * Normals: G. Box, M. Muller (1958), in f64. */
#include "base/rng.h"

#include "base/mathf.h"

void bb_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The four words that numbers 4·index … 4·index+3 come from. */
static void words(uint64_t seed, uint32_t stream, uint64_t index, uint32_t out[4])
{
    const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), stream, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    bb_philox(counter, key, out);
}

/* u in (0, 1) from the first word, its half step away from 0 and 1; the angle from the second. */
static void pair(const uint32_t w[2], float out[2])
{
    double u = (w[0] + 0.5) * 0x1p-32, angle = w[1] * (0x1.921fb54442d18p+2 * 0x1p-32); /* 2π/2^32 */
    double radius = bb_sqrt(-2.0 * bb_log(u));
    out[0] = (float)(radius * bb_cos(angle));
    out[1] = (float)(radius * bb_sin(angle));
}

void bb_normals(float *out, size_t n, uint64_t seed, uint32_t stream, uint64_t first)
{
    uint32_t w[4];
    float four[4];
    for (size_t i = 0; i < n; i++) {
        uint64_t number = first + i;
        if (i == 0 || number % 4 == 0) {
            words(seed, stream, number / 4, w);
            pair(w, four);
            pair(w + 2, four + 2);
        }
        out[i] = four[number % 4];
    }
}

double bb_uniform(uint64_t seed, uint32_t stream, uint64_t number)
{
    uint32_t w[4];
    words(seed, stream, number / 4, w);
    return w[number % 4] * 0x1p-32;
}
