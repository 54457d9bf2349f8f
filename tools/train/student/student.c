/* The student's life, its flat array of parameters and their rates. */
#include "train/student/layer.h"

#include "make.h"

#include <stdlib.h>

#define LEAST_STEP 1e-2f /* of what δ was */
#define MOST_STEP 1e2f
#define LEAST_RMS 1e-2   /* rate of a float tensor that is (nearly) all zero */

/* ---- parameters ---- */

/* Slots that are not quantized: at the beginning of w, as a tape wants them. */
static bb_status place_floats(bb_student *s, bb_error *err)
{
    const bb_graph *g = &s->pack->graph;
    bb_params *p = &s->params;
    *p = (bb_params){.graph = g};
    p->at = bb_blocks_take(&s->blocks, g->n_weights, sizeof *p->at);
    p->count = bb_blocks_take(&s->blocks, g->n_weights, sizeof *p->count);
    p->fixed = bb_blocks_take(&s->blocks, g->n_weights, sizeof *p->fixed);
    if (!p->at || !p->count || !p->fixed) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    for (uint32_t i = 0; i < g->n_weights; i++) {
        p->at[i] = p->n;
        p->fixed[i] = !s->opt.train_float || s->pack->weights[i].layer;
        if (s->pack->weights[i].layer) continue;
        p->count[i] = 1;
        for (uint32_t k = 0; k < g->weights[i].rank; k++) p->count[i] *= g->weights[i].dim[k];
        p->n += bb_align_up(p->count[i], 16);
    }
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (g->ops[i].kind == BB_OP_TIMESTEP_EMBEDDING) p->fixed[g->ops[i].weight[0]] = true;
    s->n = p->n;
    return BB_OK;
}

size_t bb_student_float_row(const bb_student *s, uint32_t slot)
{
    const bb_graph *g = &s->pack->graph;
    const bb_weight_slot *w = &g->weights[slot];
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (g->ops[i].kind == BB_OP_EMBEDDING && g->ops[i].weight[0] == slot) return w->dim[1];
    return w->dim[0]; /* a vector, or a matrix's outputs */
}

static void read_floats(bb_student *s)
{
    for (uint32_t i = 0; i < s->pack->graph.n_weights; i++) {
        const bb_weight *from = &s->pack->weights[i];
        if (from->layer) continue;
        const size_t row = bb_student_float_row(s, i), stride = from->stride > row ? from->stride : row;
        for (size_t k = 0; k < s->params.count[i]; k++) {
            const size_t at = k / row * stride + k % row;
            s->w[s->params.at[i] + k] = from->f32 ? from->f32[at] : bb_f16_to_f32(from->f16[at]);
        }
    }
}

static bb_status steps_new(bb_student *s, bb_student_steps *q, const bb_quantizer *from, bb_error *err)
{
    *q = (bb_student_steps){.from = from, .entries = from->rec->rows * from->rec->segments};
    q->delta = bb_blocks_take(&s->blocks, q->entries, sizeof *q->delta);
    q->zero = bb_blocks_take(&s->blocks, q->entries, sizeof *q->zero);
    q->m = bb_blocks_take(&s->blocks, (size_t)from->rec->rows * from->channels, sizeof *q->m);
    if (!q->delta || !q->zero || !q->m) return bb_fail(err, BB_ERR_SPACE, "out of memory for the step tables");
    q->step_at = s->n;
    q->zero_at = bb_align_up(q->step_at + q->entries, 16);
    s->n = bb_align_up(q->zero_at + q->entries, 16);
    return BB_OK;
}

static void steps_changed(bb_student *s, bb_student_steps *q)
{
    const bb_quantizer_rec *rec = q->from->rec;
    const float top = (float)((1u << rec->bits) - 1);
    for (uint32_t i = 0; i < q->entries; i++) {
        float *step = &s->w[q->step_at + i], *zero = &s->w[q->zero_at + i];
        *step = *step > LEAST_STEP ? *step < MOST_STEP ? *step : MOST_STEP : LEAST_STEP;
        *zero = *zero > 0 ? *zero < top ? *zero : top : 0;
        q->delta[i] = q->from->delta[i] * *step;
        q->zero[i] = (uint8_t)bb_round_even(*zero);
    }
    for (uint32_t row = 0; row < rec->rows; row++)
        for (uint32_t g = 0, c = 0; g < rec->segments; g++)
            for (uint32_t k = 0; k < rec->seg_channels[g]; k++, c++)
                q->m[row * q->from->channels + c] =
                    (q->from->inv_s ? q->from->inv_s[c] : 1.0f) / q->delta[row * rec->segments + g];
}

static bb_status start(bb_student *s, bb_error *err)
{
    size_t most = 0;
    for (uint32_t i = 0; i < s->pack->n_layers; i++) {
        const size_t weights = (size_t)s->matrices[i].k * s->matrices[i].n;
        most = weights > most ? weights : most;
    }
    s->w = bb_blocks_take(&s->blocks, s->n, sizeof *s->w);
    s->g = bb_blocks_take(&s->blocks, s->n, sizeof *s->g);
    s->level = bb_blocks_take(&s->blocks, most, sizeof *s->level);
    if (!s->w || !s->g || !s->level) return bb_fail(err, BB_ERR_SPACE, "out of memory for %z parameters", s->n);
    s->params.w = s->w;
    s->params.g = s->g;
    read_floats(s);
    for (uint32_t i = 0; i < s->pack->n_quantizers; i++)
        for (uint32_t k = 0; k < s->steps[i].entries; k++) {
            s->w[s->steps[i].step_at + k] = 1;
            s->w[s->steps[i].zero_at + k] = s->steps[i].from->zero[k];
        }
    for (uint32_t i = 0; i < s->pack->n_layers; i++) BB_TRY(bb_student_matrix_start(s, &s->matrices[i], err));
    bb_student_changed(s);
    return BB_OK;
}

static bb_status build(bb_student *s, bb_error *err)
{
    s->steps = bb_blocks_take(&s->blocks, s->pack->n_quantizers, sizeof *s->steps);
    s->matrices = bb_blocks_take(&s->blocks, s->pack->n_layers, sizeof *s->matrices);
    if (!s->steps || !s->matrices) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    BB_TRY(place_floats(s, err));
    for (uint32_t i = 0; i < s->pack->n_layers; i++)
        BB_TRY(bb_student_matrix_new(s, &s->matrices[i], &s->pack->layers[i], err));
    for (uint32_t i = 0; i < s->pack->n_quantizers; i++)
        BB_TRY(steps_new(s, &s->steps[i], &s->pack->quantizers[i], err));
    return start(s, err);
}

bb_status bb_student_new(bb_student **out, const bb_student_options *opt, bb_error *err)
{
    *out = NULL;
    if (!opt->packed->pack.n_layers)
        return bb_fail(err, BB_ERR_ARGUMENT, "the model has no quantized layers: quantize it first");
    if (opt->weights > BB_STUDENT_FROZEN ||
        (opt->weights != BB_STUDENT_FULL && opt->weights != BB_STUDENT_FROZEN && !opt->rank))
        return bb_fail(err, BB_ERR_OPTION, "low rank: the rank must be at least 1");
    bb_student *s = calloc(1, sizeof *s);
    if (!s) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    *s = (bb_student){.blocks = {.memory = bb_tools_memory}, .bound = {.memory = bb_tools_memory}, .opt = *opt,
                      .pack = &opt->packed->pack, .loops = &bb_student_loops_base, .filled = BB_NONE};
    if (!(s->opt.inside > 0)) s->opt.inside = BB_STUDENT_INSIDE;
    if (s->opt.inside > 0.5f) s->opt.inside = 0.5f;
    bb_status status = build(s, err);
    if (status < 0) bb_student_free(s);
    else *out = s;
    return status;
}

void bb_student_free(bb_student *s)
{
    if (!s) return;
    bb_student_unbind(s);
    bb_blocks_give(&s->blocks, NULL);
    free(s);
}

size_t bb_student_size(const bb_student *s) { return s->n; }
float *bb_student_w(bb_student *s) { return s->w; }
float *bb_student_g(bb_student *s) { return s->g; }

/* ---- rates ---- */

typedef struct group_list { bb_optim_group *out; uint32_t n; } group_list;

static void add_group(group_list *l, size_t first, size_t count, float rate)
{
    if (!count || !(rate > 0)) return;
    if (l->out) l->out[l->n] = (bb_optim_group){.first = first, .count = count, .rate = rate};
    l->n++;
}

double bb_student_mean_square(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sum / (double)n;
}

static float float_rate(const bb_student *s, uint32_t slot)
{
    const double rms = bb_sqrt(bb_student_mean_square(s->w + s->params.at[slot], s->params.count[slot]));
    return (float)(rms > LEAST_RMS ? rms : LEAST_RMS);
}

uint32_t bb_student_groups(const bb_student *s, const float factor[BB_STUDENT_KINDS], bb_optim_group *groups)
{
    group_list l = {groups, 0};
    for (uint32_t i = 0; i < s->pack->graph.n_weights; i++)
        if (!s->params.fixed[i])
            add_group(&l, s->params.at[i], s->params.count[i], factor[BB_STUDENT_KIND_FLOATS] * float_rate(s, i));
    for (uint32_t i = 0; i < s->pack->n_layers; i++) {
        const bb_student_matrix *m = &s->matrices[i];
        const size_t end = m->rank ? m->b_at + (size_t)m->rank * m->n : m->b_at;
        add_group(&l, m->at, end - m->at, factor[BB_STUDENT_KIND_WEIGHTS] * m->mean_gap * m->pace);
        if (s->opt.train_scales) add_group(&l, m->scale_at, m->n, factor[BB_STUDENT_KIND_SCALES]);
    }
    for (uint32_t i = 0; i < s->pack->n_quantizers && s->opt.train_activations; i++) {
        add_group(&l, s->steps[i].step_at, s->steps[i].entries, factor[BB_STUDENT_KIND_STEPS]);
        add_group(&l, s->steps[i].zero_at, s->steps[i].entries, factor[BB_STUDENT_KIND_ZEROS]);
    }
    return l.n;
}

/* ---- changes ---- */

void bb_student_changed(bb_student *s)
{
    for (uint32_t i = 0; i < s->pack->n_quantizers; i++) steps_changed(s, &s->steps[i]);
    for (uint32_t i = 0; i < s->pack->n_layers; i++) {
        bb_student_matrix_changed(s, &s->matrices[i]);
        bb_student_pack(s, i);
    }
}

double bb_student_flipped(const bb_student *s)
{
    uint64_t flipped = 0, all = 0;
    for (uint32_t i = 0; i < s->pack->n_layers; i++) {
        const bb_student_matrix *m = &s->matrices[i];
        const size_t weights = (size_t)m->k * m->n;
        for (size_t k = 0; k < weights; k++) flipped += m->code[k] != m->start[k];
        all += weights;
    }
    return (double)flipped / (double)all;
}
