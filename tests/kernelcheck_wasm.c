/* bitbrush-kernelcheck.wasm: the simd128 set against scalar inside WebAssembly, on the very objects that make the
 * shipped module. Node runs it (js/kernelcheck.test.mjs); how fast the kernels are, tools/bench-wasm says. */
#include "kernelcheck_dot.h"

static uint8_t slots[KC_SLOTS][KC_SLOT_BYTES + KC_MARGIN]; /* memory has no guard pages: margins are compared */
static kc state;
static bb_kernels scalar, best;
static struct { const char *op; size_t at; uint64_t seed; } first_failure;

uint32_t kernelcheck(uint32_t seed, uint32_t rounds);
uint32_t kernelcheck_count(void);
const char *kernelcheck_set(void);
const char *kernelcheck_first(void);
uint32_t kernelcheck_first_at(void);

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
