/* Memory by liveness: a value occupies the workspace from the op that makes it to the last op that reads it; first
 * fit among the values alive at that moment. */
#include "run/conv.h"
#include "run/fuse.h"

#define FOREVER 0xffffffffu

/* Step-rate values are laid out for the whole schedule if that takes no more than this. */
#define WINDOW_BYTES ((size_t)4 << 20)

static uint32_t op_rate(const bb_graph *g, uint32_t op) { return g->values[bb_op_value(g, op)].rate; }

/* Value number k that op i reads, or BB_NONE. */
#define READS 5
static uint32_t read_by(const bb_graph *g, const bb_plan *plan, uint32_t layout, uint32_t i, uint32_t k)
{
    if (layout == BB_PLAIN) return k < 4 ? g->ops[i].in[k] : BB_NONE;
    return k == 0 ? plan->fusion[i].x : k < 4 ? g->ops[i].in[k] : plan->fusion[i].add;
}

static bool is_skipped(const bb_plan *plan, uint32_t layout, uint32_t i)
{
    return layout == BB_FUSED && plan->fusion[i].skipped;
}

/* FOREVER for values that later steps, or ops in another order, read: inputs, outputs, and all below sample rate. */
static void find_last_uses(const bb_graph *g, bb_plan *plan, uint32_t layout)
{
    for (uint32_t v = 0; v < g->n_values; v++) {
        bool kept = v < g->n_inputs || g->values[v].rate < BB_RATE_SAMPLE;
        plan->last[v] = kept ? FOREVER : v - g->n_inputs;
    }
    for (uint32_t i = 0; i < g->n_ops; i++)
        for (uint32_t k = 0; k < READS && !is_skipped(plan, layout, i); k++) {
            uint32_t v = read_by(g, plan, layout, i, k);
            if (v != BB_NONE && plan->last[v] != FOREVER && plan->last[v] < i) plan->last[v] = i;
        }
    for (uint32_t i = 0; i < g->n_outputs; i++) plan->last[g->outputs[i].value] = FOREVER;
}

static size_t value_size(const bb_plan *plan, const bb_graph *g, uint32_t v)
{
    uint32_t windows = g->values[v].rate == BB_RATE_STEP ? plan->windows : 1;
    return bb_align_up(windows * bb_shape_size(plan->shapes[v]) * sizeof(float), BB_ALIGNMENT);
}

/* All evaluations at once, if that is little memory, if the timestep is all that changes with the step, and if a slower
 * rate only meets step rate in ops that take the items of their operands in turn. */
static uint32_t choose_windows(const bb_graph *g, const bb_plan *plan, uint32_t evaluations)
{
    uint64_t bytes = 0;
    for (uint32_t v = 0; v < g->n_values; v++) {
        bool is_step = g->values[v].rate == BB_RATE_STEP, slower = false;
        if (v < g->n_inputs) {
            if (is_step != (v == bb_graph_find_input(g, "timestep"))) return 1;
            continue;
        }
        if (!is_step) continue;
        const bb_op *op = &g->ops[v - g->n_inputs];
        for (uint32_t k = 0; k < 4; k++) slower |= op->in[k] != BB_NONE && g->values[op->in[k]].rate < BB_RATE_STEP;
        if (slower && op->kind != BB_OP_ADD && op->kind != BB_OP_MODULATE) return 1;
        bytes += (uint64_t)evaluations * bb_shape_size(plan->shapes[v]) * sizeof(float);
    }
    return bytes <= WINDOW_BYTES ? evaluations : 1;
}

/* The planner at work on a layout: how many values are in plan->live. */
typedef struct planner { bb_plan *plan; const bb_pack *pack; const bb_graph *g; uint32_t layout, n_live; bool fits; } planner;

/* Inserts value v into the first gap of the live list, which is sorted by offset. */
static void place(planner *p, uint32_t v)
{
    bb_plan *plan = p->plan;
    size_t *offset = plan->offset[p->layout], size = value_size(plan, p->g, v), at = 0;
    uint32_t i = 0;
    for (; i < p->n_live; i++) {
        uint32_t other = plan->live[i];
        if (offset[other] - at >= size) break;
        at = offset[other] + value_size(plan, p->g, other);
    }
    p->fits = p->fits && size <= SIZE_MAX / 2 - at;
    if (!p->fits) return;
    for (uint32_t k = p->n_live; k > i; k--) plan->live[k] = plan->live[k - 1];
    plan->live[i] = v;
    p->n_live++;
    offset[v] = at;
    if (at + size > plan->value_bytes) plan->value_bytes = at + size;
}

static void drop_dead(planner *p, uint32_t op)
{
    uint32_t kept = 0, *live = p->plan->live;
    for (uint32_t i = 0; i < p->n_live; i++)
        if (p->plan->last[live[i]] > op) live[kept++] = live[i];
    p->n_live = kept;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static void plan_op(bb_plan *plan, const bb_pack *pack, const bb_kernels *kernels, uint32_t i)
{
    const bb_graph *g = &pack->graph;
    const bb_op *op = &g->ops[i];
    bb_shape x = plan->shapes[op->in[0]], y = plan->shapes[bb_op_value(g, i)];
    size_t thread = 0, codes = 0;
    if (op_rate(g, i) == BB_RATE_STEP) x.n *= plan->windows;
    if (op->kind == BB_OP_CONV2D || op->kind == BB_OP_LINEAR) {
        const bb_weight *w = &pack->weights[op->weight[0]];
        uint32_t taps = op->kind == BB_OP_CONV2D ? op->conv.kh * op->conv.kw : 1;
        plan->macs += (uint64_t)bb_shape_size(y) * taps * x.c;
        thread = w->layer ? bb_conv_quantized_thread_bytes(kernels, op, w->layer)
                          : bb_conv_f32_thread_bytes(w, taps, x.c);
        codes = w->layer ? bb_conv_quantized_codes_bytes(kernels, op, w->layer, x) : x.c * sizeof(float);
    } else if (op->kind == BB_OP_ATTENTION) {
        size_t keys = (size_t)plan->shapes[op->in[1]].h * plan->shapes[op->in[1]].w;
        plan->macs += 2 * (uint64_t)bb_shape_size(y) * keys;
        thread = BB_ATTENTION_SCRATCH(x.c / op->attention.heads) * sizeof(float);
    } else if (op->kind == BB_OP_GROUP_NORM) {
        thread = 2 * (size_t)x.c * sizeof(float);
        if (plan->fusion[i].skipped) plan->stats_bytes = larger(plan->stats_bytes, x.n * thread);
    }
    plan->thread_bytes = larger(plan->thread_bytes, bb_align_up(thread, BB_ALIGNMENT));
    plan->codes_bytes = larger(plan->codes_bytes, bb_align_up(codes, BB_ALIGNMENT));
}

/* What outlives a step: the same place in all layouts. It lives before its op, too: at later steps the ops in front of
 * it run and it does not. */
static void place_kept(planner *p)
{
    for (uint32_t v = 0; v < p->g->n_values; v++)
        if (v < p->g->n_inputs || p->g->values[v].rate < BB_RATE_SAMPLE) place(p, v);
    for (uint32_t layout = BB_PLAIN + 1; layout < BB_LAYOUTS; layout++)
        memcpy(p->plan->offset[layout], p->plan->offset[BB_PLAIN], p->g->n_values * sizeof *p->plan->offset[0]);
}

/* Sample rate, on top of that. */
static void place_layout(planner *p, uint32_t layout)
{
    p->layout = layout;
    find_last_uses(p->g, p->plan, layout);
    for (uint32_t i = 0; i < p->g->n_ops; i++) {
        if (op_rate(p->g, i) != BB_RATE_SAMPLE || is_skipped(p->plan, layout, i)) continue;
        place(p, layout == BB_FUSED ? p->plan->fusion[i].y : bb_op_value(p->g, i));
        drop_dead(p, i);
    }
    uint32_t kept = 0, *live = p->plan->live;
    for (uint32_t i = 0; i < p->n_live; i++)
        if (live[i] < p->g->n_inputs || p->g->values[live[i]].rate < BB_RATE_SAMPLE) live[kept++] = live[i];
    p->n_live = kept;
}

bb_status bb_plan_make(bb_plan *plan, const bb_pack *pack, const bb_kernels *kernels, const bb_bindings *bind,
                       uint32_t evaluations, bb_error *err)
{
    const bb_graph *g = &pack->graph;
    planner p = {.plan = plan, .pack = pack, .g = g, .fits = true};
    plan->value_bytes = plan->stats_bytes = plan->codes_bytes = plan->thread_bytes = 0;
    plan->macs = 0;
    BB_TRY(bb_graph_shapes(g, bind, plan->shapes, err));
    bb_fuse(plan->fusion, pack, plan->shapes, plan->last, plan->live);
    plan->windows = choose_windows(g, plan, evaluations);
    place_kept(&p);
    for (uint32_t layout = 0; layout < BB_LAYOUTS; layout++) place_layout(&p, layout);
    for (uint32_t i = 0; i < g->n_ops; i++) plan_op(plan, pack, kernels, i);
    return p.fits ? BB_OK : bb_fail(err, BB_ERR_SIZE, "the picture is too large for this machine's memory");
}

void bb_run_init(bb_run *run, const bb_pack *pack, const bb_kernels *kernels, bb_par *par, const bb_plan *plan,
                 bb_arena *arena)
{
    const bb_graph *g = &pack->graph;
    *run = (bb_run){.pack = pack, .kernels = kernels, .par = par, .macs = plan->macs,
                    .thread_bytes = plan->thread_bytes, .windows = plan->windows, .count = 1,
                    .timestep = bb_graph_find_input(g, "timestep"),
                    .codes_value = BB_NONE, .codes_quantizer = BB_NONE};
    run->shapes = bb_arena_take(arena, g->n_values, sizeof *run->shapes);
    run->at = bb_arena_take(arena, g->n_values, sizeof *run->at);
    run->fusion = bb_arena_take(arena, g->n_ops, sizeof *run->fusion);
    for (uint32_t i = 0; i < BB_LAYOUTS; i++)
        run->offset[i] = bb_arena_take(arena, g->n_values, sizeof *run->offset[i]);
    run->codes = bb_arena_take(arena, plan->codes_bytes, 1);
    run->stats = bb_arena_take(arena, plan->stats_bytes, 1);
    run->thread = bb_arena_take(arena, plan->thread_bytes, bb_par_threads(par));
    run->values = bb_arena_take(arena, plan->value_bytes, 1);
    if (!arena->base || arena->overflow) return;
    memcpy(run->shapes, plan->shapes, g->n_values * sizeof *run->shapes);
    memcpy(run->fusion, plan->fusion, g->n_ops * sizeof *run->fusion);
    for (uint32_t i = 0; i < BB_LAYOUTS; i++)
        memcpy(run->offset[i], plan->offset[i], g->n_values * sizeof *run->offset[i]);
    for (uint32_t v = 0; v < g->n_values; v++) run->at[v] = (float *)(void *)(run->values + plan->offset[BB_PLAIN][v]);
}
