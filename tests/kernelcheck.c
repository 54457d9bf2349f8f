/* Kernels: every set this CPU can run against scalar, bit for bit, in buffers that end at guard pages; and scalar
 * itself against naive double-precision code.
 *   kernelcheck [--seed=N] [--rounds=N] [--cpu=scalar|avx2|avx512] [--bench] */
#define _DEFAULT_SOURCE
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kernelcheck_bench.h"
#include "kernelcheck_model.h"

static const bb_kernels *current;

static void report(const char *op, uint64_t seed, size_t at)
{
    printf("FAIL %s: %s differs from scalar at element %zu (--seed=%llu --rounds=1)\n", current->isa, op, at,
           (unsigned long long)seed);
}

/* Each slot is followed by a page that may not be touched. */
static void map_slots(kc *k)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = bb_align_up(KC_SLOT_BYTES, page);
    for (int i = 0; i < KC_SLOTS; i++) {
        uint8_t *slot = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (slot == MAP_FAILED || mprotect(slot + bytes, page, PROT_NONE)) {
            perror("kernelcheck: mmap");
            exit(1);
        }
        k->slot_end[i] = slot + bytes;
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* 10^9 units of work per second, the best of five runs of 50 ms or more: of op number `op`, or of way op − KC_WAYS. */
enum { KC_WAYS = 1000 };
static double throughput(kc *k, const bb_kernels *set, size_t op)
{
    static _Alignas(BB_ALIGNMENT) uint8_t scratch[BB_DOT_TRIAL_BYTES];
    double best = 0;
    size_t times = 1;
    for (int run = 0; run < 5; run++) {
        const double start = now();
        const double work = op < KC_WAYS ? kc_bench(k, set, op, times) * (double)times
                                         : bb_dot_trial(set, (uint32_t)(op - KC_WAYS), (uint32_t)times, scratch);
        const double seconds = now() - start;
        if (seconds < 0.05) {
            times *= 2;
            run = -1;
            continue;
        }
        if (work / seconds > best) best = work / seconds;
    }
    return best * 1e-9;
}

static void bench(kc *k, const bb_kernels *set, const bb_kernels *scalar)
{
    for (uint32_t i = 0; i < BB_DOTS && set->dots[i]; i++)
        printf("%-28s %8.2f GMAC/s%s, cost %.2f\n", set->dots[i]->name, throughput(k, set, KC_WAYS + i),
               set->dots[i]->per_plane ? " a plane" : "", set->cost[i]);
    printf("%-16s %12s %12s %8s\n", "", set->isa, "scalar", "ratio");
    for (size_t op = 0; op < BB_COUNT(kc_bench_names); op++) {
        const double fast = throughput(k, set, op), slow = throughput(k, scalar, op);
        printf("%-16s %12.2f %12.2f %8.1f %s\n", kc_bench_names[op], fast, slow, fast / slow,
               op < KC_BENCH_MACS ? "GMAC/s" : "G values/s");
    }
}

static void check_set(kc *k, uint32_t mask, uint64_t seed, uint32_t rounds)
{
    bb_kernels set;
    bb_kernels_select(&set, mask);
    k->set = current = &set;
    k->passed = k->failed = 0;
    kc_run(k, seed, rounds);
    printf("%s against scalar: %u same, %u different\n", set.isa, k->passed, k->failed);
    check_passed += (int)k->passed;
    check_failed += (int)k->failed;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    uint32_t rounds = 600, mask = bb_cpu_features(), wanted = 0;
    bool benching = false;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--seed=", 7)) seed = strtoull(argv[i] + 7, NULL, 0);
        else if (!strncmp(argv[i], "--rounds=", 9)) rounds = (uint32_t)strtoul(argv[i] + 9, NULL, 0);
        else if (!strcmp(argv[i], "--cpu=scalar")) mask = 0;
        else if (!strcmp(argv[i], "--cpu=avx2")) wanted = BB_CPU_AVX2;
        else if (!strcmp(argv[i], "--cpu=avx512")) wanted = BB_CPU_AVX2 | BB_CPU_AVX512;
        else if (!strcmp(argv[i], "--bench")) benching = true;
        else {
            fprintf(stderr, "kernelcheck: unknown option %s\n", argv[i]);
            return 2;
        }
    }
    if (wanted & ~mask) {
        fprintf(stderr, "kernelcheck: this CPU lacks the instructions that --cpu asks for\n");
        return 2;
    }
    if (wanted) mask = wanted;
    kc k = {.report = report};
    bb_kernels scalar, best;
    bb_kernels_select(&scalar, 0);
    bb_kernels_select(&best, mask);
    k.ref = &scalar;
    map_slots(&k);
    if (benching) {
        bench(&k, &best, &scalar);
        return 0;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    model_run(&k, &scalar, seed, rounds / 4 + 1);
    printf("scalar against double precision: %d within bounds, %d not\n", check_passed, check_failed);
    /* each level that has kernels of its own, and what a run would pick (scalar with itself: guard pages only) */
    for (uint32_t bit = 1; bit && bit <= mask; bit <<= 1) {
        bb_kernels_select(&best, mask & bit);
        if (best.isa != scalar.isa) check_set(&k, bit, seed, rounds);
    }
    check_set(&k, mask, seed, rounds);
    return check_done();
}
