/* SHA-256 as FIPS 180-4 describes it. The round constants are the first 32 bits of the fractional parts of the cube
 * roots of the first 64 primes, and are computed as such: exact in double, and no table to mistype. */
#include "base/sha256.h"

static uint32_t rotate(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

static uint32_t fraction_bits(double root) { return (uint32_t)((root - (uint32_t)root) * 4294967296.0); }

/* Newton's method from above, which converges without swinging over. */
static double cube_root(double x)
{
    double y = 8;
    for (int i = 0; i < 12; i++) y -= (y - x / (y * y)) / 3;
    return y;
}

static void constants(uint32_t k[64], uint32_t h[8])
{
    unsigned n = 0;
    for (unsigned p = 2; n < 64; p++) {
        bool prime = true;
        for (unsigned d = 2; d * d <= p; d++) prime = prime && p % d;
        if (!prime) continue;
        if (n < 8) h[n] = fraction_bits(bb_sqrt(p));
        k[n++] = fraction_bits(cube_root(p));
    }
}

static void block(uint32_t h[8], const uint32_t k[64], const uint8_t *p)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        uint32_t s0 = rotate(a, 7) ^ rotate(a, 18) ^ a >> 3, s1 = rotate(b, 17) ^ rotate(b, 19) ^ b >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t a = s[0], e = s[4];
        uint32_t t = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
        uint32_t u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t;
        s[0] = t + u;
    }
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

void bb_sha256(const uint8_t *data, size_t n, char out[65])
{
    uint32_t k[64], h[8];
    uint8_t tail[128] = {0};
    constants(k, h);
    size_t whole = n / 64 * 64, rest = n - whole, padded = rest < 56 ? 64 : 128;
    for (size_t i = 0; i < whole; i += 64) block(h, k, data + i);
    if (rest) memcpy(tail, data + whole, rest);
    tail[rest] = 0x80;
    for (int i = 0; i < 8; i++) tail[padded - 1 - (size_t)i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
    for (size_t i = 0; i < padded; i += 64) block(h, k, tail + i);
    for (int i = 0; i < 64; i++) out[i] = "0123456789abcdef"[h[i / 8] >> (28 - 4 * (i % 8)) & 15];
    out[64] = 0;
}
