/* Bits per layer for a file of a given size: all layers at the fewest bits, then again and again the step up that
 * lowers the summed relative output error most per byte, as long as the file stays within the budget. */
#include "make/make.h"

enum { LOWEST = BB_BUDGET_LOWEST, HIGHEST = BB_BUDGET_HIGHEST };

struct bb_choices { bb_fitted of[HIGHEST + 1]; };

bb_status bb_budget_begin(bb_make *m, bb_error *err)
{
    m->choices = bb_blocks_take(&m->blocks, m->model.pack.graph.n_weights, sizeof *m->choices);
    return m->choices ? BB_OK : bb_out_of_memory(err, "choosing bits");
}

static bool is_layer(const bb_make *m, uint32_t slot)
{
    return m->jobs[slot].op != BB_NONE && !m->jobs[slot].kept_float;
}

/* One slot: its error and bytes at every width. */
static bb_status look(bb_make *m, uint32_t slot, bb_error *err)
{
    const bb_job *job = &m->jobs[slot];
    if (!is_layer(m, slot)) return BB_OK;
    const bb_quantizer_rec *q = &m->quantizers[bb_quantizer_for(m, &m->cal.sites[job->site], job->abits)];
    for (uint32_t bits = job->low ? LOWEST : job->wbits; bits <= HIGHEST; bits++)
        BB_TRY(bb_fit_layer(m, job, q, bits, &m->choices[slot].of[bits], NULL, err));
    return BB_OK;
}

/* The file's exact size with the bits that the jobs have now. */
static uint64_t file_size(bb_make *m)
{
    const bb_graph *g = &m->model.pack.graph;
    bb_pack_out out = bb_file_out(m);
    uint64_t weights = 0, bits = 0;
    out.n_tensors = out.n_layers = out.n_rows = out.n_multiplier = out.n_perm = out.n_f32 = 0;
    for (uint32_t slot = 0; slot < g->n_weights; slot++) {
        const bb_job *job = &m->jobs[slot];
        if (!is_layer(m, slot)) {
            if (g->weights[slot].rank == 1) out.n_f32 += g->weights[slot].dim[0];
            else m->tensors[out.n_tensors++] = bb_kept_tensor(m, slot);
            if (job->op == BB_NONE) continue;
            weights += (uint64_t)job->outputs * job->k;
            bits += (uint64_t)job->outputs * job->k * (m->weights[slot].f32 ? 32 : 16);
            continue;
        }
        const bb_fitted *f = &m->choices[slot].of[job->wbits];
        out.n_layers++;
        out.n_rows += f->rows;
        out.n_perm += f->n_classes > 1 ? f->rows : 0;
        weights += (uint64_t)job->outputs * job->k;
        for (uint32_t i = 0; i < f->n_classes; i++) bits += (uint64_t)f->class_rows[i] * f->class_planes[i] * job->k;
        for (uint32_t i = 0; f->ladder && i < f->n_classes; i++)
            out.n_multiplier += (uint32_t)bb_align_up(f->class_rows[i], BB_TILE) * f->class_planes[i];
        /* Only measured, never read: any address will do. */
        m->tensors[out.n_tensors++] = (bb_tensor_out){bb_graph_string(g, g->weights[slot].name), BB_U8, 1,
                                                      {(uint32_t)f->plane_bytes}, m->choices};
    }
    out.tensors = m->tensors;
    out.info.bits_milli = bb_bits_milli(weights, bits);
    return bb_pack_write_size(&out);
}

/* The best step up that fits; false if there is none. */
static bool step_up(bb_make *m)
{
    uint32_t best = BB_NONE, best_bits = 0;
    double most = 0;
    uint64_t spare = m->opt.budget - file_size(m);
    for (uint32_t slot = 0; slot < m->model.pack.graph.n_weights; slot++) {
        bb_job *job = &m->jobs[slot];
        if (!is_layer(m, slot) || !job->low) continue;
        const bb_fitted *now = &m->choices[slot].of[job->wbits];
        for (uint32_t bits = job->wbits + 1; bits <= HIGHEST; bits++) {
            const bb_fitted *next = &m->choices[slot].of[bits];
            uint64_t a = bb_fitted_bytes(now), b = bb_fitted_bytes(next), more = b > a ? b - a : 1;
            double gain = (now->output_error - next->output_error) / (double)more;
            if (more > spare || !(gain > most)) continue;
            uint32_t kept = job->wbits;
            job->wbits = bits;
            bool fits = file_size(m) <= m->opt.budget; /* padding and digits of the header, too */
            job->wbits = kept;
            if (!fits) continue;
            most = gain;
            best = slot;
            best_bits = bits;
        }
    }
    if (best == BB_NONE) return false;
    m->jobs[best].wbits = best_bits;
    return true;
}

bb_status bb_budget_step(bb_make *m, bb_error *err)
{
    uint32_t n = m->model.pack.graph.n_weights;
    BB_TRY(look(m, m->looked, err));
    if (++m->looked < n) return BB_AGAIN;
    for (uint32_t slot = 0; slot < n; slot++)
        if (is_layer(m, slot) && m->jobs[slot].low) m->jobs[slot].wbits = LOWEST;
    uint64_t least = file_size(m);
    if (least > m->opt.budget)
        return bb_fail(err, BB_ERR_OPTION, "budget: %l bytes are too few: at %u bits a weight the file has %l",
                       m->opt.budget, (uint32_t)LOWEST, least);
    while (step_up(m)) {}
    return BB_AGAIN;
}
