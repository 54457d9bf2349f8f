/* Walks the graph over the kernels. plan.c lays all values out in one workspace by liveness; exec.c runs ops one at
 * a time, so a caller can stop between any two. Nothing is allocated once bb_run_init is done.
 *
 * Values below BB_RATE_SAMPLE are kept apart, so their ops may run in graph order or all in front of the others.
 * Values of step rate may be laid out once for each evaluation of a schedule: then their ops can run once for all of
 * them, as items of one batch (which changes no bit), and later steps only move the window. */
#ifndef BB_RUN_RUN_H
#define BB_RUN_RUN_H

#include "base/par.h"
#include "pack/pack.h"

/* What an op does beside its own work; fuse.h. */
typedef struct bb_fusion {
    uint32_t x;    /* value that a layer's input is made from: in[0], or what is in front of the ops below */
    uint32_t norm; /* op: the group norm between x and the layer, or BB_NONE */
    uint32_t y;    /* value that is written: the op's own, or that of the sum behind it */
    uint32_t add;  /* the sum's other addend, or BB_NONE */
    bool silu;     /* a SiLU between x (after the norm) and the layer */
    bool skipped;  /* the op itself is done inside others */
} bb_fusion;
_Static_assert(sizeof(bb_fusion) == 20, "core/pack/read.c counts it in model_bytes");

/* Two layouts that share the place of everything that outlives a step. */
enum { BB_PLAIN, BB_FUSED, BB_LAYOUTS };

/* Where everything lives for one choice of sizes. The arrays are the caller's, [graph.n_values] each, fusion
 * [graph.n_ops]. */
typedef struct bb_plan {
    bb_shape *shapes;
    bb_fusion *fusion;
    size_t *offset[BB_LAYOUTS]; /* of each value in the value block, bytes; where it is made at all */
    uint32_t *last, *live; /* scratch of the planner: last reader of a value; values in memory, by offset */
    uint32_t windows;     /* evaluations that step-rate values are laid out for; 1: they are made at each step */
    size_t value_bytes;   /* the value block */
    size_t stats_bytes;   /* scratch of the op: means and reciprocal deviations of a fused norm */
    size_t codes_bytes;   /* scratch of the op: codes of a quantized input, or a row of zeros */
    size_t thread_bytes;  /* scratch of a work item, per thread */
    uint64_t macs;        /* multiply-adds of one pass */
} bb_plan;

/* Lays out for these kernels and a schedule of that many evaluations (at least 1). BB_ERR_SIZE if the sizes do not fit
 * the graph, or would need more than size_t. */
bb_status bb_plan_make(bb_plan *plan, const bb_pack *pack, const bb_kernels *kernels, const bb_bindings *bind,
                       uint32_t evaluations, bb_error *err);

struct bb_run;
/* Called after each op with the value it made, before its memory can be reused; in the plain layout only. */
typedef void (*bb_observe_fn)(void *user, const struct bb_run *run, uint32_t value);

typedef struct bb_run {
    const bb_pack *pack;
    const bb_kernels *kernels;
    bb_par *par;
    bb_shape *shapes; /* [n_values] */
    float **at;       /* [n_values]: where each is now, by layout and window */
    bb_fusion *fusion;/* [n_ops] */
    size_t *offset[BB_LAYOUTS]; /* [n_values] */
    uint32_t layout;
    uint8_t *values, *codes;
    float *stats;     /* [items][mean [c], rstd [c]] of a fused norm */
    uint8_t *thread; size_t thread_bytes;
    uint64_t macs;
    uint32_t windows, first, count; /* as planned; what at[] of step-rate values stands for: bb_run_window */
    uint32_t timestep; /* value id of the input "timestep", or BB_NONE: then step tables use row 0 */
    /* What codes holds, so that q, k and v quantize their common input once; BB_NONE = nothing. */
    uint32_t codes_value, codes_quantizer, codes_forms;
    bb_observe_fn observe; void *user; /* may be NULL */
} bb_run;

/* Takes its memory from the arena (or only measures). The plan may be forgotten afterwards. */
void bb_run_init(bb_run *run, const bb_pack *pack, const bb_kernels *kernels, bb_par *par, const bb_plan *plan,
                 bb_arena *arena);

/* Runs op number `op`, which must not be one that bb_run_skips; its inputs must have been made. */
void bb_run_op(bb_run *run, uint32_t op);

/* Chooses the layout; at the start it is plain. Fused, some values are never made, and run.observe is not called. What
 * was at sample rate, but for inputs, is lost. */
void bb_run_layout(bb_run *run, uint32_t layout);

/* True for an op that the layout does inside others. */
bool bb_run_skips(const bb_run *run, uint32_t op);

/* To be called when inputs have changed. */
void bb_run_inputs_changed(bb_run *run);

/* Makes at[] and shapes[] of step-rate values stand for evaluations first .. first+count−1 of plan.windows, as count
 * times the items: the input "timestep", too. (0, 1) at the start. Counts as a change of inputs. */
void bb_run_window(bb_run *run, uint32_t first, uint32_t count);

/* How often the op's value changes. */
bb_rate bb_run_rate(const bb_run *run, uint32_t op);

#endif
