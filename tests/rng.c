/* core/base/rng: Random123's known answers, addressing, distribution. */
#include "base/rng.h"
#include "check.h"

enum { N = 1000000 };

/* kat_vectors of the Random123 distribution, "philox4x32 10". */
static void test_known_answers(void)
{
    static const struct { uint32_t counter[4], key[2], want[4]; } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < BB_COUNT(kat); i++) {
        uint32_t out[4];
        bb_philox(kat[i].counter, kat[i].key, out);
        CHECK(memcmp(out, kat[i].want, sizeof out) == 0, "vector %zu: %08x %08x %08x %08x", i, out[0], out[1], out[2],
              out[3]);
    }
}

/* Number by number from the definition in rng.h with libm's functions. */
static void test_definition(void)
{
    const uint64_t seed = 0x123456789abcdef0u, first = 0x3ffffffffu - 2; /* the index runs over 32 bits */
    const uint32_t stream = 7;
    float out[64];
    bb_normals(out, BB_COUNT(out), seed, stream, first);
    for (size_t i = 0; i < BB_COUNT(out); i++) {
        uint64_t number = first + i, index = number / 4;
        const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), stream, 0};
        const uint32_t key[2] = {0x9abcdef0u, 0x12345678u};
        uint32_t w[4];
        bb_philox(counter, key, w);
        const uint32_t *p = w + (number % 4) / 2 * 2;
        double r = sqrt(-2 * log((p[0] + 0.5) / 4294967296.0));
        double angle = 2 * 3.14159265358979323846 * (p[1] / 4294967296.0);
        double want = r * (number % 2 ? sin(angle) : cos(angle));
        /* both are one rounding to f32 of f64 values some 1e-15 apart; the angle's own rounding is 5e-16 absolute */
        double bound = 0x1p-24 * fabs(want) * 1.001 + 1e-14;
        CHECK(fabs(out[i] - want) <= bound, "number %zu: %.9g, not %.9g", i, out[i], want);
        CHECK(bb_uniform(seed, stream, number) == w[number % 4] / 4294967296.0, "uniform %zu", i);
    }
}

static void test_splits(const float *all)
{
    float part[257];
    for (size_t first = 0; first < 40; first++) {
        for (size_t n = 0; n <= 9; n++) {
            bb_normals(part, n, 42, 3, first);
            CHECK(memcmp(part, all + first, n * sizeof *part) == 0, "%zu numbers from %zu", n, first);
        }
    }
    for (size_t first = 0, n = 1; first + n < N; first += n, n = n * 7 % 257) {
        bb_normals(part, n, 42, 3, first);
        CHECK(memcmp(part, all + first, n * sizeof *part) == 0, "%zu numbers from %zu", n, first);
    }
    bb_normals(part, 1, 43, 3, 0);
    CHECK(part[0] != all[0], "another seed");
    bb_normals(part, 1, 42 + ((uint64_t)1 << 32), 3, 0);
    CHECK(part[0] != all[0], "a seed that differs in its high word");
    bb_normals(part, 1, 42, 4, 0);
    CHECK(part[0] != all[0], "another stream");
}

/* Every bound is five standard deviations of the statistic over N independent normals. */
static void test_distribution(const float *x)
{
    double m[5] = {0}, neighbours[3] = {0}, largest = 0;
    size_t beyond3 = 0, beyond4 = 0;
    for (size_t i = 0; i < N; i++) {
        double v = x[i], p = v;
        for (int k = 1; k <= 4; k++, p *= v) m[k] += p / N;
        for (size_t lag = 1; lag <= 3 && i + lag < N; lag++) neighbours[lag - 1] += v * x[i + lag] / N;
        beyond3 += fabs(v) > 3;
        beyond4 += fabs(v) > 4;
        largest = fmax(largest, fabs(v));
    }
    const double root = sqrt(N);
    CHECK(fabs(m[1]) < 5 / root, "mean %g", m[1]);                      /* var x = 1 */
    CHECK(fabs(m[2] - 1) < 5 * sqrt(2) / root, "variance %g", m[2]);    /* var x² = 3 − 1 */
    CHECK(fabs(m[3]) < 5 * sqrt(15) / root, "third moment %g", m[3]);   /* var x³ = 15 */
    CHECK(fabs(m[4] - 3) < 5 * sqrt(96) / root, "fourth moment %g", m[4]); /* var x⁴ = 105 − 9 */
    for (int k = 0; k < 3; k++) CHECK(fabs(neighbours[k]) < 5 / root, "lag %d: %g", k + 1, neighbours[k]);
    double p3 = erfc(3 / sqrt(2)), p4 = erfc(4 / sqrt(2));
    CHECK(fabs((double)beyond3 - N * p3) < 5 * sqrt(N * p3), "%zu beyond 3, %g expected", beyond3, N * p3);
    CHECK(fabs((double)beyond4 - N * p4) < 5 * sqrt(N * p4), "%zu beyond 4, %g expected", beyond4, N * p4);
    CHECK(largest > 4.3 && largest < 6.764, "largest %g", largest); /* √(66·ln 2) = 6.7637 is the method's own end */
}

static void test_golden(const float *x)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a over the bytes */
    for (size_t i = 0; i < N; i++) {
        uint32_t bits = bb_f32_bits(x[i]);
        for (int k = 0; k < 4; k++) hash = (hash ^ (bits >> 8 * k & 255)) * 0x100000001b3u;
    }
    CHECK(hash == 0x26e3f593adadb6ebu, "hash of the normals is 0x%016llx", (unsigned long long)hash);
}

int main(void)
{
    float *x = malloc(N * sizeof *x);
    bb_normals(x, N, 42, 3, 0);
    test_known_answers();
    test_definition();
    test_splits(x);
    test_distribution(x);
    test_golden(x);
    free(x);
    return check_done();
}
