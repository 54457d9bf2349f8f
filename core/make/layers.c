/* One weight slot after the other: which bits, the input's quantizer, the codes; and the rest as it was. */
#include "make/make.h"

static bool begins_with(const char *text, const char *start)
{
    while (*start)
        if (*text++ != *start++) return false;
    return true;
}

/* The network's first and last layers, by place in the graph. */
static bool is_outer(const bb_graph *g, const bb_op *op, uint32_t value)
{
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i].value == value) return true;
    return op->in[0] < g->n_inputs;
}

static bool is_time(const bb_graph *g, const bb_op *op)
{
    return begins_with(bb_graph_string(g, g->weights[op->weight[0]].name), "time_embedding.");
}

static bool is_shortcut(const bb_op *op) { return op->kind == BB_OP_CONV2D && op->conv.kh == 1 && op->conv.kw == 1; }

/* A convolution that halves the size, or comes right after the size was multiplied. */
static bool is_resampler(const bb_graph *g, const bb_op *op)
{
    if (op->kind != BB_OP_CONV2D) return false;
    return op->conv.stride > 1 || (op->in[0] >= g->n_inputs &&
                                   g->ops[op->in[0] - g->n_inputs].kind == BB_OP_UPSAMPLE_NEAREST);
}

static bb_job job_of(const bb_make *m, uint32_t number)
{
    const bb_graph *g = &m->model.pack.graph;
    const bb_op *op = &g->ops[number];
    const bb_weight_slot *s = &g->weights[op->weight[0]];
    bb_job job = {.op = number, .taps = s->rank == 4 ? s->dim[2] * s->dim[3] : 1, .channels = s->dim[1],
                  .outputs = s->dim[0]};
    bool outer = is_outer(g, op, bb_op_value(g, number)), special = outer || is_time(g, op);
    job.k = job.taps * job.channels;
    switch (m->opt.layers) {
    case BB_LAYERS_DEFAULT: /* 8 bits for the picture itself are the largest error of all at W8A8; see models/README */
        job.kept_float = outer;
        job.low = !special && !is_shortcut(op);
        break;
    case BB_LAYERS_ALL_LOW: job.low = !special; break;
    default:
        job.kept_float = !special && (is_shortcut(op) || is_resampler(g, op));
        job.low = !special && !job.kept_float;
    }
    job.wbits = job.low ? m->opt.wbits : 8;
    job.abits = job.low ? m->opt.abits : 8;
    return job;
}

bb_status bb_jobs_begin(bb_make *m, bb_error *err)
{
    const bb_graph *g = &m->model.pack.graph;
    m->jobs = bb_blocks_take(&m->blocks, g->n_weights, sizeof *m->jobs);
    if (!m->jobs) return bb_out_of_memory(err, "quantizing");
    for (uint32_t i = 0; i < g->n_weights; i++) m->jobs[i].op = BB_NONE;
    for (uint32_t i = g->n_ops; i--;) { /* the first op that uses a slot decides */
        if (!bb_is_matrix_op(&g->ops[i])) continue;
        const bb_weight_slot *s = &g->weights[g->ops[i].weight[0]];
        if ((uint64_t)s->dim[1] * (s->rank == 4 ? s->dim[2] * s->dim[3] : 1) > BB_MAX_K || s->dim[0] >= BB_MAX_K)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "layer %s: more than %u inputs or outputs do not fit the exact "
                                                    "sums", bb_graph_string(g, s->name), BB_MAX_K);
        m->jobs[g->ops[i].weight[0]] = job_of(m, i);
    }
    return BB_OK;
}

/* The graph's own input is noise at first: other seeds go further out than the ones calibrated with, and a pixel cut
 * off there stays in the picture as a dot. So its range is the extremes seen and a tenth more. */
static void widen(bb_activation_stats *s)
{
    s->low *= 1.1f;
    s->high *= 1.1f;
}

static void put_factors(bb_make *m, bb_site *site)
{
    if (!site->inv_s || site->inv_s_at != BB_NONE) return;
    uint32_t channels = 0;
    for (uint32_t g = 0; g < site->segments; g++) channels += site->seg_channels[g];
    site->inv_s_at = m->n_inv_s;
    memcpy(m->inv_s + m->n_inv_s, site->inv_s, channels * sizeof *site->inv_s);
    m->n_inv_s += channels;
}

/* One table per (value, bits): layers that read the same value share it. */
uint32_t bb_quantizer_for(bb_make *m, bb_site *site, uint32_t bits)
{
    for (uint32_t i = 0; i < m->n_quantizers; i++)
        if (m->quantizer_value[i] == site->value && m->quantizers[i].bits == bits) return i;
    put_factors(m, site);
    bb_quantizer_rec *q = &m->quantizers[m->n_quantizers];
    *q = (bb_quantizer_rec){.kind = BB_QUANTIZER_STATIC, .bits = bits, .segments = site->segments, .rows = site->rows,
                            .key_at = m->n_key, .step_at = m->n_step, .inv_s_at = site->inv_s_at};
    bool from_outside = site->value < m->model.pack.graph.n_inputs;
    memcpy(q->seg_channels, site->seg_channels, site->segments * sizeof *q->seg_channels);
    for (uint32_t r = 0; r < site->rows; r++) {
        m->step_key[m->n_key++] = m->cal.timesteps[r];
        for (uint32_t g = 0; g < site->segments; g++) {
            float tail[2 * BB_CALIBRATION_TAIL];
            bb_activation_stats stats = bb_calibration_stats(&site->stats[r * site->segments + g], tail);
            if (from_outside) widen(&stats);
            bb_activation_grid grid =
                bb_activation_grid_fit(&stats, bits, from_outside ? BB_RANGE_MINMAX : m->opt.range);
            m->step_delta[m->n_step] = grid.delta;
            m->step_zero[m->n_step++] = grid.zero;
        }
    }
    m->quantizer_value[m->n_quantizers] = site->value;
    return m->n_quantizers++;
}

static void report(bb_make *m, uint32_t slot, const bb_fitted *f, uint64_t bytes)
{
    const bb_graph *g = &m->model.pack.graph;
    const bb_job *job = &m->jobs[slot];
    m->reports[m->n_reports++] = (bb_make_layer){
        .name = bb_graph_string(g, g->weights[slot].name), .outputs = job->outputs, .inputs = job->k,
        .wbits = f ? f->wbits : 0, .abits = f ? job->abits : 0, .ladder = f ? f->ladder : 0,
        .fewer = f ? f->share : 0, .more = f ? f->share : 0, .bytes = bytes,
        .weight_error = f ? f->weight_error : 0, .output_error = f ? f->output_error : 0};
}

static bb_status add_layer(bb_make *m, uint32_t slot, bb_error *err)
{
    const bb_graph *g = &m->model.pack.graph;
    const bb_job *job = &m->jobs[slot];
    bb_fitted f;
    uint8_t *planes;
    uint32_t q = bb_quantizer_for(m, &m->cal.sites[job->site], job->abits);
    bb_layer_rec *l = &m->layers[m->n_layers];
    *l = (bb_layer_rec){.weight = slot, .quantizer = q, .outputs = job->outputs, .taps = job->taps,
                        .channels = job->channels, .row_at = m->n_rows, .multiplier_at = m->n_multiplier,
                        .perm_at = m->n_perm};
    BB_TRY(bb_fit_layer(m, job, &m->quantizers[q], job->wbits, &f, &planes, err));
    if (!f.ladder) l->multiplier_at = BB_NONE;
    if (f.n_classes == 1) l->perm_at = BB_NONE;
    l->n_classes = f.n_classes;
    memcpy(l->class_planes, f.class_planes, sizeof f.class_planes);
    memcpy(l->class_rows, f.class_rows, sizeof f.class_rows);
    m->tensors[m->n_tensors++] = (bb_tensor_out){bb_graph_string(g, g->weights[slot].name), BB_U8, 1,
                                                 {(uint32_t)f.plane_bytes}, planes};
    m->refs[slot] = (bb_weight_ref){BB_STORE_LAYER, m->n_layers++};
    m->weights_in_all += (uint64_t)job->outputs * job->k;
    for (uint32_t i = 0; i < f.n_classes; i++)
        m->weight_bits += (uint64_t)f.class_rows[i] * f.class_planes[i] * job->k;
    report(m, slot, &f, bb_fitted_bytes(&f));
    return BB_OK;
}

bb_tensor_out bb_kept_tensor(const bb_make *m, uint32_t slot)
{
    const bb_weight_slot *s = &m->model.pack.graph.weights[slot];
    const bb_weight *w = &m->weights[slot];
    bb_tensor_out t = {.name = bb_graph_string(&m->model.pack.graph, s->name), .dtype = w->f32 ? BB_F32 : BB_F16,
                       .rank = 2, .shape = {s->dim[0], w->stride}, .data = w->f32 ? (const void *)w->f32 : w->f16};
    if (m->jobs[slot].op != BB_NONE) t.shape[0] = s->dim[1];
    if (s->rank == 4) {
        t.rank = 4;
        memcpy(t.shape, (const uint32_t[]){s->dim[2], s->dim[3], s->dim[1], w->stride}, sizeof t.shape);
    }
    return t;
}

/* What stays as it is: vectors go to the pool, tables and unquantized matrices keep their tensor. */
static void keep_weight(bb_make *m, uint32_t slot)
{
    const bb_weight_slot *s = &m->model.pack.graph.weights[slot];
    if (s->rank == 1) {
        m->refs[slot] = (bb_weight_ref){BB_STORE_POOL, m->n_f32};
        memcpy(m->f32 + m->n_f32, m->weights[slot].f32, s->dim[0] * sizeof(float));
        m->n_f32 += s->dim[0];
        return;
    }
    const bb_weight *w = &m->weights[slot];
    bb_tensor_out t = bb_kept_tensor(m, slot);
    m->refs[slot] = (bb_weight_ref){BB_STORE_TENSOR, 0};
    m->tensors[m->n_tensors++] = t;
    if (m->jobs[slot].op == BB_NONE) return;
    uint32_t size = t.dtype == BB_F32 ? 4 : 2;
    m->weights_in_all += (uint64_t)s->dim[0] * m->jobs[slot].k;
    m->weight_bits += (uint64_t)s->dim[0] * m->jobs[slot].k * size * 8;
    report(m, slot, NULL, (uint64_t)m->jobs[slot].k * w->stride * size);
}

static bool allocate(bb_make *m)
{
    const bb_graph *g = &m->model.pack.graph;
    size_t vectors = 0, rows = 0, steps = 0, keys = 0, channels = 0;
    for (uint32_t i = 0; i < g->n_weights; i++) {
        if (g->weights[i].rank == 1) vectors += g->weights[i].dim[0];
        else rows += bb_most_rows(g->weights[i].dim[0]);
    }
    for (uint32_t i = 0; i < m->cal.n_sites; i++) {
        const bb_site *site = &m->cal.sites[i];
        keys += 2 * (size_t)site->rows; /* at two bit widths at most */
        steps += 2 * (size_t)site->rows * site->segments;
        for (uint32_t k = 0; site->inv_s && k < site->segments; k++) channels += site->seg_channels[k];
    }
    size_t sites = 2 * (size_t)m->cal.n_sites;
    m->refs = bb_blocks_take(&m->blocks, g->n_weights, sizeof *m->refs);
    m->tensors = bb_blocks_take(&m->blocks, g->n_weights, sizeof *m->tensors);
    m->reports = bb_blocks_take(&m->blocks, g->n_weights, sizeof *m->reports);
    m->f32 = bb_blocks_take(&m->blocks, vectors, sizeof *m->f32);
    m->layers = bb_blocks_take(&m->blocks, g->n_weights, sizeof *m->layers);
    m->quantizers = bb_blocks_take(&m->blocks, sites, sizeof *m->quantizers);
    m->quantizer_value = bb_blocks_take(&m->blocks, sites, sizeof *m->quantizer_value);
    m->delta = bb_blocks_take(&m->blocks, rows, sizeof *m->delta);
    m->offset = bb_blocks_take(&m->blocks, rows, sizeof *m->offset);
    m->perm = bb_blocks_take(&m->blocks, rows, sizeof *m->perm);
    m->multiplier = bb_blocks_take(&m->blocks, rows * BB_PLANES, sizeof *m->multiplier);
    m->inv_s = bb_blocks_take(&m->blocks, channels, sizeof *m->inv_s);
    m->step_key = bb_blocks_take(&m->blocks, keys, sizeof *m->step_key);
    m->step_delta = bb_blocks_take(&m->blocks, steps, sizeof *m->step_delta);
    m->step_zero = bb_blocks_take(&m->blocks, steps, 1);
    return m->refs && m->tensors && m->reports && m->f32 && m->layers && m->quantizers && m->quantizer_value &&
           m->delta && m->offset && m->perm && m->multiplier && m->inv_s && m->step_key && m->step_delta &&
           m->step_zero;
}

bb_status bb_layers_begin(bb_make *m, bb_error *err)
{
    if (!allocate(m)) return bb_out_of_memory(err, "quantizing");
    BB_TRY(bb_file_metadata(m, err));
    return m->opt.budget ? bb_budget_begin(m, err) : BB_OK;
}

bb_status bb_layers_step(bb_make *m, bb_error *err)
{
    const bb_job *job = &m->jobs[m->slot];
    if (m->opt.budget && m->looked < m->model.pack.graph.n_weights) return bb_budget_step(m, err);
    if (job->op == BB_NONE || job->kept_float) keep_weight(m, m->slot);
    else BB_TRY(add_layer(m, m->slot, err));
    return ++m->slot < m->model.pack.graph.n_weights ? BB_AGAIN : BB_DONE;
}
