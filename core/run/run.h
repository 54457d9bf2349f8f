/* Walks the graph over the kernels. plan.c lays all values out in one workspace by liveness; exec.c runs ops one at
 * a time, so a caller can stop between any two. */
#ifndef BB_RUN_RUN_H
#define BB_RUN_RUN_H

#include "pack/pack.h"

/* Called after each value is made (op = BB_NONE for inputs), before its memory can be reused. */
struct bb_run;
typedef void (*bb_observe_fn)(void *user, const struct bb_run *run, uint32_t value, const float *x, bb_shape shape);

typedef struct bb_run {
    const bb_pack *pack;
    const bb_kernels *kernels;
    bb_par *par;
    bb_shape *shapes;      /* [n_values] */
    float **at;            /* [n_values] where each value lives */
    uint8_t *scratch;      /* shared: codes of the current quantized input */
    uint8_t *thread_scratch; size_t thread_scratch_bytes; /* per thread: expanded tile, scales, attention tile */
    bool keep_all;         /* no memory reuse: every value stays readable (taps, run --tap) */
    uint32_t codes_value, codes_quantizer; /* what scratch holds, so q, k, v quantize once */
    float codes_step;
    bb_observe_fn observe; void *user;
    uint64_t macs;         /* of one pass */
} bb_run;

/* Measures (arena without base) or builds. rows: items B; h, w: picture size. */
bb_status bb_run_init(bb_run *run, const bb_pack *pack, const bb_kernels *kernels, bb_par *par,
                      const bb_bindings *bind, bool keep_all, bb_arena *arena, bb_error *err);

float *bb_run_value(const bb_run *run, uint32_t value);

/* Runs op number `op`. Inputs must have been filled (bb_run_value). */
void bb_run_op(bb_run *run, uint32_t op);

/* Runs all ops whose value's rate is ≤ PROMPT (once per prompt), or all others (every step). */
bool bb_run_is_prompt_rate(const bb_run *run, uint32_t op);

#endif
