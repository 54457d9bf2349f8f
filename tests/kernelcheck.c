/* Kernels: every set this CPU can run against scalar, bit for bit, in buffers that end at guard pages; and scalar
 * itself against naive double-precision code.
 *   kernelcheck [--seed=N] [--rounds=N] [--cpu=scalar|avx2|avx512]
 * How fast they are: bitbrush bench. */
#define _DEFAULT_SOURCE
#include <sys/mman.h>
#include <unistd.h>

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
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--seed=", 7)) seed = strtoull(argv[i] + 7, NULL, 0);
        else if (!strncmp(argv[i], "--rounds=", 9)) rounds = (uint32_t)strtoul(argv[i] + 9, NULL, 0);
        else if (!strcmp(argv[i], "--cpu=scalar")) mask = 0;
        else if (!strcmp(argv[i], "--cpu=avx2")) wanted = BB_CPU_AVX2;
        else if (!strcmp(argv[i], "--cpu=avx512")) wanted = BB_CPU_AVX2 | BB_CPU_AVX512;
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
