/* bitbrush-kernelcheck.wasm: the simd128 set against scalar inside WebAssembly, on the very objects that make the
 * shipped module. Node runs it (js/kernelcheck.test.mjs) and also measures through it. */
#include "kernelcheck_bench.h"

static uint8_t slots[KC_SLOTS][KC_SLOT_BYTES + KC_MARGIN]; /* memory has no guard pages: margins are compared */
static kc state;
static bb_kernels scalar, best;
static struct { const char *op; size_t at; uint64_t seed; } first_failure;

uint32_t kernelcheck(uint32_t seed, uint32_t rounds);
uint32_t kernelcheck_count(void);
const char *kernelcheck_set(void);
const char *kernelcheck_first(void);
uint32_t kernelcheck_first_at(void);
double kernelcheck_bench(uint32_t op, uint32_t times, uint32_t use_scalar);
const char *kernelcheck_bench_name(uint32_t op);
double kernelcheck_trial(uint32_t way, uint32_t rounds);
const char *kernelcheck_way(uint32_t way);

static void report(const char *op, uint64_t seed, size_t at)
{
    if (first_failure.op) return;
    first_failure.op = op;
    first_failure.at = at;
    first_failure.seed = seed;
}

static void prepare(void)
{
    bb_kernels_select(&scalar, 0);
    bb_kernels_select(&best, bb_cpu_features());
    state = (kc){.ref = &scalar, .set = &best, .tail = KC_MARGIN, .report = report};
    for (int i = 0; i < KC_SLOTS; i++) state.slot_end[i] = slots[i] + KC_SLOT_BYTES;
}

/* Number of failures; of all comparisons afterwards by kernelcheck_count. */
uint32_t kernelcheck(uint32_t seed, uint32_t rounds)
{
    prepare();
    first_failure.op = NULL;
    kc_run(&state, seed, rounds);
    return state.failed;
}

uint32_t kernelcheck_count(void) { return state.passed + state.failed; }
const char *kernelcheck_set(void) { return best.isa; }
const char *kernelcheck_first(void) { return first_failure.op; }
uint32_t kernelcheck_first_at(void) { return (uint32_t)first_failure.at; }

double kernelcheck_bench(uint32_t op, uint32_t times, uint32_t use_scalar)
{
    prepare();
    return kc_bench(&state, use_scalar ? &scalar : &best, op, times);
}

/* NULL after the last one. */
const char *kernelcheck_bench_name(uint32_t op)
{
    return op < BB_COUNT(kc_bench_names) ? kc_bench_names[op] : NULL;
}

/* Multiply-adds done by dot way number `way`, of one plane. */
double kernelcheck_trial(uint32_t way, uint32_t rounds)
{
    static _Alignas(BB_ALIGNMENT) uint8_t scratch[BB_DOT_TRIAL_BYTES];
    prepare();
    return bb_dot_trial(&best, way, rounds, scratch);
}

/* NULL after the last one. */
const char *kernelcheck_way(uint32_t way)
{
    prepare();
    return way < BB_DOTS && best.dots[way] ? best.dots[way]->name : NULL;
}
