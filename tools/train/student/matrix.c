/* Weights: from the packed planes and the teacher's floats to latent weights, and from those to levels. */
#include "train/student/layer.h"

#include "make/make.h"

#define LEAST_SCALE 1e-3f /* of what Δ was */

bb_student_place bb_student_place_of(const bb_layer *l, uint32_t row)
{
    bb_student_place at = {0};
    for (uint32_t i = 0, first = 0;; i++) {
        const uint32_t planes = l->rec->class_planes[i];
        const uint32_t padded = (uint32_t)bb_align_up(l->rec->class_rows[i], BB_TILE);
        if (row < first + padded) {
            at.planes = planes;
            at.row = row - first;
            at.multiplier_at += (size_t)(at.row / BB_TILE) * planes * BB_TILE + at.row % BB_TILE;
            return at;
        }
        at.plane_at += bb_plane_bytes(padded, l->k_blocks, planes);
        at.multiplier_at += (size_t)padded * planes;
        first += padded;
    }
}

static bb_row_grid grid_of(const bb_layer *l, uint32_t row)
{
    const bb_student_place at = bb_student_place_of(l, row);
    bb_row_grid g = {.delta = l->delta[row], .offset = l->offset[row], .planes = at.planes, .plain = !l->multiplier};
    for (uint32_t p = 0; p < at.planes; p++)
        g.multiplier[p] = l->multiplier ? l->multiplier[at.multiplier_at + p * BB_TILE] : (int16_t)(1 << p);
    return g;
}

bb_row_grid bb_student_grid(const bb_student_matrix *m, uint32_t n)
{
    bb_row_grid g = m->grid[n];
    g.delta = m->delta[n];
    return g;
}

/* The packed codes of output n as levels, in natural order (core/FORMAT.md §7). */
static void unpack(const bb_student_matrix *m, uint32_t n)
{
    const bb_quantizer_rec *q = m->from->quantizer->rec;
    const bb_student_place at = bb_student_place_of(m->from, m->row[n]);
    const size_t tile = bb_plane_bytes(BB_TILE, m->from->k_blocks, at.planes);
    const uint8_t *block = m->from->planes + at.plane_at + at.row / BB_TILE * tile + at.row % BB_TILE;
    int8_t *level = m->start + n;
    for (uint32_t tap = 0; tap < m->from->rec->taps; tap++)
        for (uint32_t g = 0; g < q->segments; g++)
            for (uint32_t c = 0; c < q->seg_channels[g]; c += BB_K_BLOCK, block += at.planes * BB_TILE)
                for (uint32_t bit = 0; bit < BB_K_BLOCK && c + bit < q->seg_channels[g]; bit++, level += m->n) {
                    uint8_t code = 0;
                    for (uint32_t p = 0; p < at.planes; p++)
                        code = (uint8_t)(code | (block[p * BB_TILE] >> bit & 1) << p);
                    *level = (int8_t)bb_row_level(&m->grid[n], code);
                }
}

/* Levels and the half-way points between them, of all outputs. */
static void make_bounds(bb_student_matrix *m)
{
    double gaps = 0;
    for (uint32_t n = 0; n < m->n; n++) {
        bb_row_levels l;
        bb_row_levels_of(&m->grid[n], &l);
        m->low[n] = l.level[0];
        m->high[n] = l.level[l.n - 1];
        gaps += (double)((m->high[n] - m->low[n]) / (float)(l.n - 1) * m->grid[n].delta);
        for (uint32_t i = 0; i < m->bounds; i++) {
            const bool is = i + 1 < l.n;
            m->bound[(size_t)i * m->n + n] = is ? 0.5f * (float)(l.level[i] + l.level[i + 1]) : BB_INFINITY;
            m->gap[(size_t)i * m->n + n] = is ? (float)(l.level[i + 1] - l.level[i]) : 0;
        }
    }
    m->mean_gap = (float)(gaps / m->n);
}

static bb_status check(const bb_student *s, const bb_student_matrix *m, bb_error *err)
{
    const bb_graph *g = &s->pack->graph, *from = &s->opt.teacher->pack.graph;
    const char *name = bb_graph_string(g, g->weights[m->slot].name);
    const bb_weight *w = m->slot < from->n_weights ? &s->opt.teacher->pack.weights[m->slot] : NULL;
    if (!w || memcmp(from->weights[m->slot].dim, g->weights[m->slot].dim, sizeof from->weights[m->slot].dim))
        return bb_fail(err, BB_ERR_ARGUMENT, "layer %s: the float model has no such weight: give the model that the "
                                             "quantized one was made from", name);
    if (w->layer)
        return bb_fail(err, BB_ERR_ARGUMENT, "layer %s: the teacher is quantized itself: give the float model", name);
    for (uint32_t n = 0; n < m->n; n++)
        if (!(m->grid[n].delta > 0))
            return bb_fail(err, BB_ERR_UNSUPPORTED, "layer %s: the scale of output %u is not above 0; quantize the "
                                                    "model again", name, n);
    for (size_t i = 0; i < m->k; i++)
        for (uint32_t n = 0; n < m->n; n++) {
            const float x = bb_weight_at(w, n, i);
            if (x - x != 0)
                return bb_fail(err, BB_ERR_ARGUMENT, "layer %s: a weight of the float model is infinite or not a "
                                                     "number", name);
        }
    return BB_OK;
}

/* Where the matrix lies in w. */
static void place(bb_student *s, bb_student_matrix *m)
{
    size_t weights = 0;
    if (s->opt.weights == BB_STUDENT_FULL) weights = (size_t)m->k * m->n;
    else if (s->opt.weights != BB_STUDENT_FROZEN) {
        m->rank = s->opt.rank < m->n ? s->opt.rank : m->n;
        if (m->rank > m->k) m->rank = m->k;
        weights = bb_align_up((size_t)m->k * m->rank, 16);
    }
    m->at = s->n;
    m->b_at = m->at + weights;
    m->scale_at = bb_align_up(m->b_at + (size_t)m->rank * m->n, 16);
    s->n = bb_align_up(m->scale_at + m->n, 16);
}

bb_status bb_student_matrix_new(bb_student *s, bb_student_matrix *m, const bb_layer *layer, bb_error *err)
{
    const bb_layer_rec *rec = layer->rec;
    const size_t weights = (size_t)rec->outputs * rec->taps * rec->channels;
    bb_blocks *b = &s->blocks;
    *m = (bb_student_matrix){.from = layer, .slot = rec->weight, .n = rec->outputs, .k = rec->taps * rec->channels};
    for (uint32_t i = 0; layer->multiplier && i < rec->n_classes; i++)
        if ((1u << rec->class_planes[i]) - 1 > m->bounds) m->bounds = (1u << rec->class_planes[i]) - 1;
    const bool full = s->opt.weights == BB_STUDENT_FULL;
    m->row = bb_blocks_take(b, m->n, sizeof *m->row);
    m->grid = bb_blocks_take(b, m->n, sizeof *m->grid);
    m->delta = bb_blocks_take(b, m->n, sizeof *m->delta);
    m->low = bb_blocks_take(b, m->n, sizeof *m->low);
    m->high = bb_blocks_take(b, m->n, sizeof *m->high);
    m->bound = bb_blocks_take(b, (size_t)m->bounds * m->n, sizeof *m->bound);
    m->gap = bb_blocks_take(b, (size_t)m->bounds * m->n, sizeof *m->gap);
    m->code = bb_blocks_take(b, weights, sizeof *m->code);
    m->start = bb_blocks_take(b, weights, sizeof *m->start);
    m->latent = bb_blocks_take(b, full ? 0 : weights, sizeof *m->latent);
    m->base = bb_blocks_take(b, full || s->opt.weights == BB_STUDENT_FROZEN ? 0 : weights, sizeof *m->base);
    if (!m->row || !m->grid || !m->delta || !m->low || !m->high || !m->bound || !m->gap || !m->code || !m->start ||
        !m->latent || !m->base)
        return bb_fail(err, BB_ERR_SPACE, "out of memory for the weights in training");
    for (uint32_t row = 0; row < layer->rows; row++) {
        const uint32_t n = layer->perm ? layer->perm[row] : row;
        if (n < m->n) m->row[n] = row;
    }
    for (uint32_t n = 0; n < m->n; n++) m->grid[n] = grid_of(layer, m->row[n]);
    BB_TRY(check(s, m, err));
    make_bounds(m);
    place(s, m);
    return BB_OK;
}

/* The teacher's weight of every place, in the smoothed scale: as core/make divides it. */
static void smoothed_weights(const bb_student *s, const bb_student_matrix *m, float *w)
{
    const bb_weight *from = &s->opt.teacher->pack.weights[m->slot];
    const float *inv_s = m->from->quantizer->inv_s;
    const uint32_t channels = m->from->rec->channels;
#pragma omp parallel for schedule(static)
    for (size_t k = 0; k < m->k; k++)
        for (uint32_t n = 0; n < m->n; n++) {
            const float x = bb_weight_at(from, n, k);
            w[k * m->n + n] = inv_s ? x / inv_s[k % channels] : x;
        }
}

static int32_t nearest(const bb_row_levels *l, float w, float delta)
{
    const uint8_t code = bb_row_code(l, w, delta);
    uint32_t i = 0;
    while (l->code[i] != code) i++;
    return l->level[i];
}

/* The weight if the packed level is the nearest one, else the nearest weight for which it is, a little inside. */
static float into_cell(const bb_row_levels *l, int32_t level, float w, float delta, float inside)
{
    uint32_t below = 0, above = l->n - 1;
    if (nearest(l, w, delta) == level) return w;
    while (below < l->n && l->level[below] < level) below++; /* the first of this level */
    while (above > 0 && l->level[above] > level) above--;    /* the last one */
    if (below > 0 && w / delta < (float)level) {
        const float gap = (float)(level - l->level[below - 1]);
        return ((float)level - gap * (0.5f - inside)) * delta;
    }
    const float gap = (float)(l->level[above + 1] - level);
    return ((float)level + gap * (0.5f - inside)) * delta;
}

static void into_cells(const bb_student_matrix *m, float *w, float inside)
{
#pragma omp parallel for schedule(static)
    for (uint32_t n = 0; n < m->n; n++) {
        bb_row_levels l;
        bb_row_levels_of(&m->grid[n], &l);
        for (size_t at = n; at < (size_t)m->k * m->n; at += m->n)
            w[at] = into_cell(&l, m->start[at], w[at], m->grid[n].delta, inside);
    }
}

bb_status bb_student_matrix_start(bb_student *s, bb_student_matrix *m, bb_error *err)
{
    const size_t weights = (size_t)m->k * m->n;
#pragma omp parallel for schedule(static)
    for (uint32_t n = 0; n < m->n; n++) unpack(m, n);
    for (uint32_t n = 0; n < m->n; n++) s->w[m->scale_at + n] = 1;
    memcpy(m->code, m->start, weights);
    m->pace = 1;
    if (s->opt.weights == BB_STUDENT_FROZEN) return BB_OK;
    float *smoothed = s->level; /* free for the moment */
    smoothed_weights(s, m, smoothed);
    into_cells(m, smoothed, s->opt.inside);
    if (s->opt.weights != BB_STUDENT_FULL) return bb_student_factors_start(s, m, smoothed, err);
    memcpy(s->w + m->at, smoothed, weights * sizeof *smoothed);
    return BB_OK;
}

const float *bb_student_latent(const bb_student *s, const bb_student_matrix *m)
{
    return s->opt.weights == BB_STUDENT_FULL ? s->w + m->at : m->latent;
}

static void levels_of_codes(const bb_student *s, const bb_student_matrix *m)
{
    for (size_t i = 0; i < (size_t)m->k * m->n; i++) s->level[i] = m->code[i];
}

void bb_student_matrix_changed(bb_student *s, bb_student_matrix *m)
{
    for (uint32_t n = 0; n < m->n; n++) {
        float *factor = &s->w[m->scale_at + n];
        if (!(*factor > LEAST_SCALE)) *factor = LEAST_SCALE;
        m->delta[n] = m->grid[n].delta * *factor;
    }
    if (s->opt.weights == BB_STUDENT_FROZEN) {
        levels_of_codes(s, m);
        return;
    }
    if (m->rank) bb_student_factors_add(s, m);
    const float *w = bb_student_latent(s, m);
    const uint32_t blocks = (m->k + BB_STUDENT_BLOCK - 1) / BB_STUDENT_BLOCK;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < blocks; i++) {
        const size_t first = (size_t)i * BB_STUDENT_BLOCK, at = first * m->n;
        s->loops->levels(&(bb_levels_args){
            .w = w + at, .rows = m->k - first < BB_STUDENT_BLOCK ? m->k - first : BB_STUDENT_BLOCK, .n = m->n,
            .delta = m->delta, .low = m->low, .high = m->high, .bounds = m->bounds, .bound = m->bound, .gap = m->gap,
            .level = s->level + at, .code = m->code + at});
    }
}
