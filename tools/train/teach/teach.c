/* See teach.h. */
#include "train/teach/teach.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NOT_FINITE = 20 };

static bb_status no_memory(bb_error *err)
{
    return bb_fail(err, BB_ERR_SPACE, "out of memory for training; a smaller --batch with --accumulate needs less");
}

/* Memory in units that every instruction set and oneDNN like. */
static float *floats(size_t n)
{
    size_t bytes = (n * sizeof(float) + 63) / 64 * 64;
    float *p = aligned_alloc(64, bytes ? bytes : 64);
    if (p) memset(p, 0, bytes);
    return p;
}

static bb_tape_options tape_options(bb_teach *t)
{
    bb_tape_options o = {.graph = t->pipe->graph, .params = &t->params, .dnn = t->dnn, .ops = t->ops,
                         .bf16 = t->opt.bf16, .last_f32 = true, .backward = true};
    o.bind.of[BB_DIM_B] = t->opt.batch;
    o.bind.of[BB_DIM_H] = t->pipe->facts.height;
    o.bind.of[BB_DIM_W] = t->pipe->facts.width;
    return o;
}

/* Weights decay, but not biases, norms and tables. */
static bool decays(const bb_graph *g, uint32_t slot)
{
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const bb_op *op = &g->ops[i];
        if ((op->kind == BB_OP_CONV2D || op->kind == BB_OP_LINEAR) && op->weight[0] == slot) return true;
    }
    return false;
}

static bb_status open_optim(bb_teach *t, bb_error *err)
{
    const bb_params *p = &t->params;
    const uint32_t slots = p->graph->n_weights;
    bb_optim_group *groups = calloc(slots + 1, sizeof *groups);
    uint32_t n = 0;
    if (!groups) return no_memory(err);
    for (uint32_t s = 0; s < slots; s++)
        if (!p->fixed[s])
            groups[n++] = (bb_optim_group){p->at[s], p->count[s], 1, decays(p->graph, s) ? t->opt.weight_decay : 0};
    bb_status status = bb_optim_new(&t->optim, t->ops, p->n, groups, n, err);
    free(groups);
    return status;
}

static bb_status open_buffers(bb_teach *t, bb_error *err)
{
    const size_t values = bb_noise_values(&t->noise) * t->opt.batch;
    t->part = (bb_noised){.n = t->opt.batch, .sample = bb_tape_input(t->tape, "sample"),
                          .timestep = bb_tape_input(t->tape, "timestep"),
                          .label = bb_tape_input(t->tape, "class_labels"),
                          .target = floats(values), .weight = floats(t->opt.batch)};
    t->losses = malloc(t->opt.batch * sizeof *t->losses);
    t->ema = floats(t->params.n);
    if (!t->part.target || !t->part.weight || !t->losses || !t->ema) return no_memory(err);
    BB_ASSERT(t->part.sample && t->part.timestep); /* bb_unet2d_build's inputs */
    memcpy(t->ema, t->params.w, t->params.n * sizeof *t->ema);
    return BB_OK;
}

bb_status bb_teach_open(bb_teach *t, const bb_teach_options *opt, const bb_pipeline *pipe, bb_params *params,
                        const bb_data *data, const bb_data *held_out, const bb_ranks *ranks, bb_error *err)
{
    *t = (bb_teach){.opt = *opt, .ranks = *ranks, .pipe = pipe, .held_out = held_out, .params = *params};
    *params = (bb_params){0};
    BB_TRY(bb_noise_open(&t->noise, &opt->noise, pipe, data, err));
    BB_TRY(bb_dnn_open(&t->dnn, opt->threads, opt->cpu, err));
    t->ops = bb_ops_select(opt->cpu, opt->threads);
    bb_tape_options o = tape_options(t);
    BB_TRY(bb_tape_bytes(&o, &t->bytes, err));
    t->bytes += t->params.n * sizeof(float) * 5; /* weights, gradients, moments, average */
    return BB_OK;
}

bb_status bb_teach_begin(bb_teach *t, bb_error *err)
{
    bb_tape_options o = tape_options(t);
    BB_TRY(bb_tape_new(&t->tape, &o, err));
    t->output = bb_graph_find_output(t->pipe->graph, "sample");
    bb_tape_weights(t->tape);
    BB_TRY(open_optim(t, err));
    return open_buffers(t, err);
}

void bb_teach_close(bb_teach *t)
{
    bb_noise_close(&t->noise);
    if (t->tape) bb_tape_free(t->tape);
    if (t->dnn) bb_dnn_close(t->dnn);
    bb_optim_free(&t->optim);
    bb_params_free(&t->params);
    free(t->part.target);
    free(t->part.weight);
    free(t->losses);
    free(t->ema);
    *t = (bb_teach){0};
}

uint32_t bb_teach_whole(const bb_teach *t) { return t->opt.batch * t->opt.accumulate * t->ranks.count; }

/* Gradients of the whole batch's mean loss, summed over its parts and ranks. */
static double gradients(bb_teach *t)
{
    const uint32_t whole = bb_teach_whole(t), mine = t->opt.batch * t->opt.accumulate;
    double loss = 0;
    memset(t->params.g, 0, t->params.n * sizeof *t->params.g);
    for (uint32_t a = 0; a < t->opt.accumulate; a++) {
        bb_noise_fill(&t->noise, t->optim.step, whole, t->ranks.rank * mine + a * t->opt.batch, &t->part);
        bb_tape_forward(t->tape);
        loss += bb_noise_loss(&t->noise, &t->part, bb_tape_value(t->tape, t->output), 1.0 / whole, t->losses,
                              bb_tape_grad(t->tape, t->output));
        bb_tape_backward(t->tape);
    }
    bb_ranks_sum(&t->ranks, t->params.g, t->params.n);
    bb_ranks_sum_f64(&t->ranks, &loss, 1);
    return loss;
}

bb_status bb_teach_update(bb_teach *t, bb_update *out, bb_error *err)
{
    const bb_teach_options *o = &t->opt;
    const uint64_t n = t->optim.step;
    out->loss = gradients(t);
    out->norm = bb_optim_norm(&t->optim, t->params.g);
    out->rate = (double)(o->lr * bb_rate_at(o->decay, n, o->updates, o->warmup, o->last));
    if (bb_optim_update(&t->optim, t->params.w, t->params.g, (float)out->rate, o->clip, out->norm)) {
        const double warm = (1 + (double)n) / (10 + (double)n);
        const double decay = o->ema_warm ? (double)o->ema : fmin((double)o->ema, warm);
        t->ops->ema(t->params.n, (float)decay, t->params.w, t->ema);
        bb_tape_weights(t->tape);
        t->not_finite = 0;
    } else {
        t->optim.step = n + 1; /* the next pictures */
        if (++t->not_finite == MOST_NOT_FINITE)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "training has diverged (gradients are not finite); lower --lr, and "
                           "begin anew with --restart");
    }
    return BB_OK;
}

static void exchange(bb_teach *t)
{
    for (size_t i = 0; i < t->params.n; i++) {
        float w = t->params.w[i];
        t->params.w[i] = t->ema[i];
        t->ema[i] = w;
    }
    bb_tape_weights(t->tape);
}

double bb_teach_held_out(bb_teach *t)
{
    if (!t->held_out || !t->opt.held_out) return NAN;
    const uint32_t each = t->opt.batch * t->ranks.count;
    const uint32_t rounds = (t->opt.held_out + each - 1) / each, whole = rounds * each;
    double loss = 0;
    exchange(t);
    for (uint32_t r = 0; r < rounds; r++) {
        bb_noise_fill_held_out(&t->noise, t->held_out, whole, r * each + t->ranks.rank * t->opt.batch, &t->part);
        bb_tape_forward(t->tape);
        loss += bb_noise_loss(&t->noise, &t->part, bb_tape_value(t->tape, t->output), 1.0 / whole, t->losses, NULL);
    }
    exchange(t);
    bb_ranks_sum_f64(&t->ranks, &loss, 1);
    return loss;
}

void bb_teach_restart(bb_teach *t)
{
    memset(t->optim.m, 0, t->params.n * sizeof *t->optim.m);
    memset(t->optim.v, 0, t->params.n * sizeof *t->optim.v);
    memcpy(t->ema, t->params.w, t->params.n * sizeof *t->ema);
    t->optim.step = 0;
    t->not_finite = 0;
}

void bb_teach_changed(bb_teach *t) { bb_tape_weights(t->tape); }
