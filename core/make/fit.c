/* One layer: what is chosen by output error on sampled real inputs with quantized activations: ladder or uniform, and
 * the share of outputs with one bit more and one bit less. Errors of outputs do not depend on each other, so each is
 * fitted once per width (fit_rows.c) and the choices are sums. */
#include "make/fit.h"

#define LADDER_BITS 4u      /* above, free multipliers have too few integers to differ from uniform levels */
#define LADDER_BEST_BITS 3u /* above, the gain (1 to 2 %) is not worth the bytes, and the fit takes longest of all */
#define SHARES 6u           /* 0, 10 … 50 % */

/* rank: outputs by falling key, equal ones by number (shell sort). */
static void sort_rows(uint32_t *rank, const double *key, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) rank[i] = i;
    for (uint32_t gap = n / 2; gap; gap /= 2)
        for (uint32_t i = gap; i < n; i++) {
            uint32_t moved = rank[i], at = i;
            for (; at >= gap; at -= gap) {
                uint32_t other = rank[at - gap];
                if (key[other] > key[moved] || (key[other] == key[moved] && other < moved)) break;
                rank[at] = other;
            }
            rank[at] = moved;
        }
}

/* Outputs that move up, and down, at share number i. Whole tiles where the layer is made of tiles, so that the file
 * does not grow by padding; else whole eights. */
static uint32_t moved_rows(uint32_t outputs, uint32_t i)
{
    uint32_t unit = outputs % BB_TILE ? 8 : BB_TILE, rows = (outputs * i + 5) / 10;
    return (rows + unit / 2) / unit * unit * 2 <= outputs ? (rows + unit / 2) / unit * unit : outputs / 2 / unit * unit;
}

static bool mixes(const bb_fit *f)
{
    return f->m->opt.mixed != BB_MIXED_NEVER && f->job->low && f->wbits > 1 && f->wbits < 8;
}

static bool may_ladder(const bb_fit *f)
{
    uint32_t most = f->m->opt.ladder == BB_LADDER_ALWAYS ? LADDER_BITS : LADDER_BEST_BITS;
    return f->m->opt.ladder != BB_LADDER_NEVER && f->job->low && f->wbits <= most;
}

static bb_status begin(bb_fit *f, bb_make *m, const bb_job *job, const bb_quantizer_rec *q, uint32_t wbits)
{
    const bb_site *site = &m->cal.sites[job->site];
    *f = (bb_fit){.m = m, .job = job, .weight = &m->weights[m->model.pack.graph.ops[job->op].weight[0]], .q = q,
               .inv_s = site->inv_s, .wbits = wbits, .samples = m->cal.samples};
    f->scratch_bytes = bb_fit_scratch_bytes(f);
    for (uint32_t width = 0; width < WIDTHS; width++) {
        bool wanted = width == ASKED || mixes(f);
        f->wants[UNIFORM][width] = wanted && !(may_ladder(f) && m->opt.ladder == BB_LADDER_ALWAYS);
        f->wants[LADDER][width] = wanted && may_ladder(f);
        for (uint32_t form = 0; form < FORMS; form++)
            if (f->wants[form][width]) f->number[form][width] = f->n_wanted++;
    }
    f->quantized = bb_blocks_take(&m->blocks, (size_t)job->k * f->samples, sizeof *f->quantized);
    f->power = bb_blocks_take(&m->blocks, job->k, sizeof *f->power);
    f->scratch = bb_blocks_take(&m->blocks, bb_par_threads(m->opt.par), f->scratch_bytes);
    f->weight_power = bb_blocks_take(&m->blocks, job->outputs, sizeof *f->weight_power);
    f->output_power = bb_blocks_take(&m->blocks, job->outputs, sizeof *f->output_power);
    f->kurtosis = bb_blocks_take(&m->blocks, job->outputs, sizeof *f->kurtosis);
    f->errors = bb_blocks_take(&m->blocks, (size_t)job->outputs * FORMS * WIDTHS, sizeof *f->errors);
    f->grids = bb_blocks_take(&m->blocks, (size_t)job->outputs * FORMS * WIDTHS, sizeof *f->grids);
    f->codes = bb_blocks_take(&m->blocks, (size_t)job->outputs * job->k, f->n_wanted);
    f->place = bb_blocks_take(&m->blocks, job->outputs, sizeof *f->place);
    f->width = bb_blocks_take(&m->blocks, job->outputs, 1);
    if (!f->quantized || !f->power || !f->scratch || !f->weight_power || !f->output_power || !f->kurtosis ||
        !f->errors || !f->grids || !f->codes || !f->place || !f->width)
        return BB_ERR_SPACE;
    return BB_OK;
}

static bb_status failure(const bb_fit *f, bb_error *err, bb_status status)
{
    const bb_graph *g = &f->m->model.pack.graph;
    const char *name = bb_graph_string(g, g->weights[g->ops[f->job->op].weight[0]].name);
    return bb_fail(err, status, status == BB_ERR_SPACE ? "layer %s: out of memory"
                                                       : "layer %s: a weight is infinite or not a number", name);
}

static double share_error(const bb_fit *f, const uint32_t *rank, uint32_t form, uint32_t moved)
{
    double sum = 0;
    for (uint32_t i = 0; i < f->job->outputs; i++) {
        uint32_t width = i < moved ? MORE : i >= f->job->outputs - moved ? FEWER : ASKED;
        sum += f->errors[((size_t)rank[i] * FORMS + form) * WIDTHS + width].output;
    }
    return sum;
}

static void rank_rows(const bb_fit *f, uint32_t form, uint32_t *rank)
{
    double *key = f->kurtosis;
    if (f->m->opt.mixed == BB_MIXED_GAIN)
        for (uint32_t n = 0; n < f->job->outputs; n++) {
            const bb_width_fit *e = &f->errors[((size_t)n * FORMS + form) * WIDTHS];
            key[n] = e[FEWER].weight - e[MORE].weight;
        }
    sort_rows(rank, key, f->job->outputs);
}

/* Packed rows: the classes with more, the asked and fewer planes, each in natural order and padded to whole tiles. */
static void lay_out(const bb_fit *f, bb_fitted *c)
{
    const uint32_t rows[WIDTHS] = {c->share, f->job->outputs - 2 * c->share, c->share};
    uint32_t k_blocks = bb_k_blocks(f->job->taps, f->q->segments, f->q->seg_channels);
    c->rows = c->n_classes = 0;
    c->plane_bytes = 0;
    for (uint32_t i = 0; i < WIDTHS; i++) {
        if (!rows[i]) continue;
        uint32_t padded = (uint32_t)bb_align_up(rows[i], BB_TILE), planes = c->wbits + 1 - i;
        c->class_planes[c->n_classes] = planes;
        c->class_rows[c->n_classes++] = rows[i];
        c->rows += padded;
        c->plane_bytes += bb_plane_bytes(padded, k_blocks, planes);
    }
}

/* A bit per weight is worth a factor of 4 in the squared error, so multipliers have to pay for their bytes. */
static double price(const bb_fit *f, uint32_t form)
{
    if (form == UNIFORM || f->m->opt.ladder == BB_LADDER_ALWAYS) return 1;
    double bits = 16.0 * f->wbits / f->job->k;
    return bb_exp(bits * 1.3862943611198906); /* ln 4 */
}

static void choose(bb_fit *f, bb_fitted *out)
{
    double least = -1, weight = 0, output = 0, wp = 0, yp = 0;
    uint32_t *rank = f->place;
    for (uint32_t form = 0; form < FORMS; form++) {
        if (!f->wants[form][ASKED]) continue;
        rank_rows(f, form, rank);
        for (uint32_t i = 0; i < (mixes(f) ? SHARES : 1); i++) {
            uint32_t moved = moved_rows(f->job->outputs, i);
            double error = share_error(f, rank, form, moved) * price(f, form);
            if (least >= 0 && !(error < least)) continue;
            least = error;
            out->ladder = form == LADDER;
            out->share = moved;
        }
    }
    for (uint32_t n = 0; n < f->job->outputs; n++) {
        wp += f->weight_power[n];
        yp += f->output_power[n];
    }
    if (out->share) rank_rows(f, out->ladder, rank);
    for (uint32_t i = 0; i < f->job->outputs; i++) {
        uint32_t n = out->share ? rank[i] : i;
        uint32_t width = i < out->share ? MORE : i >= f->job->outputs - out->share ? FEWER : ASKED;
        f->width[n] = (uint8_t)width;
        const bb_width_fit *e = &f->errors[((size_t)n * FORMS + out->ladder) * WIDTHS + width];
        weight += e->weight;
        output += e->output;
    }
    out->weight_error = wp > 0 ? weight / wp : 0;
    out->output_error = yp > 0 ? output / yp : 0;
}

static void store_row(void *ctx, size_t n, size_t thread)
{
    bb_fit *f = ctx;
    bb_make *m = f->m;
    const bb_fitted *c = f->choice;
    uint32_t form = c->ladder ? LADDER : UNIFORM;
    bb_row_grid g = f->grids[(n * FORMS + form) * WIDTHS + f->width[n]];
    const uint8_t *codes = f->codes + (n * f->n_wanted + f->number[form][f->width[n]]) * f->job->k;
    uint32_t row = f->place[n], first = 0, k_blocks = bb_k_blocks(f->job->taps, f->q->segments, f->q->seg_channels);
    size_t planes_at = 0, multiplier_at = m->n_multiplier;
    for (uint32_t i = 0; c->class_planes[i] != g.planes; i++) {
        uint32_t padded = (uint32_t)bb_align_up(c->class_rows[i], BB_TILE);
        planes_at += bb_plane_bytes(padded, k_blocks, c->class_planes[i]);
        multiplier_at += (size_t)padded * c->class_planes[i];
        first += padded;
    }
    bb_planes_put(f->planes + planes_at, g.planes, row - first, f->job->taps, f->q->segments, f->q->seg_channels,
                  codes);
    m->delta[m->n_rows + row] = g.delta;
    m->offset[m->n_rows + row] = g.offset;
    multiplier_at += (size_t)((row - first) / BB_TILE) * g.planes * BB_TILE;
    for (uint32_t p = 0; c->ladder && p < g.planes; p++)
        m->multiplier[multiplier_at + p * BB_TILE + row % BB_TILE] = g.multiplier[p];
}

/* Packed rows of all outputs; padding rows keep to the integer bounds, too. */
static void place_rows(bb_fit *f)
{
    bb_make *m = f->m;
    const bb_fitted *c = f->choice;
    uint32_t row = 0;
    for (uint32_t i = 0; i < c->n_classes; i++) {
        uint32_t end = row + (uint32_t)bb_align_up(c->class_rows[i], BB_TILE), planes = c->class_planes[i];
        for (uint32_t k = row; k < end; k++) {
            m->delta[m->n_rows + k] = 0;
            m->offset[m->n_rows + k] = planes == 8 && !c->ladder ? -128 : 0;
            if (c->n_classes > 1) m->perm[m->n_perm + k] = 65535;
        }
        for (uint32_t n = 0; n < f->job->outputs; n++) {
            if (c->wbits + f->width[n] - ASKED != planes) continue;
            if (c->n_classes > 1) m->perm[m->n_perm + row] = (uint16_t)n;
            f->place[n] = row++;
        }
        row = end;
    }
}

bb_status bb_fit_layer(bb_make *m, const bb_job *job, const bb_quantizer_rec *q, uint32_t wbits, bb_fitted *out,
                       uint8_t **planes, bb_error *err)
{
    bb_fit f;
    bb_block *before = m->blocks.last;
    *out = (bb_fitted){.wbits = wbits};
    /* The planes lie below the scratch, so their largest size is taken before it is known. */
    uint32_t k_blocks = bb_k_blocks(job->taps, q->segments, q->seg_channels);
    size_t most = bb_plane_bytes((uint32_t)bb_most_rows(job->outputs), k_blocks,
                                 wbits < 8 && m->opt.mixed != BB_MIXED_NEVER ? wbits + 1 : wbits);
    if (planes) *planes = most <= UINT32_MAX ? bb_blocks_take(&m->blocks, most, 1) : NULL;
    bb_block *scratch = m->blocks.last;
    bb_status status = begin(&f, m, job, q, wbits);
    if (planes && !*planes) status = BB_ERR_SPACE;
    if (status == BB_OK) status = bb_fit_rows(&f);
    if (status != BB_OK) return failure(&f, err, status);
    choose(&f, out);
    lay_out(&f, out);
    if (planes) {
        f.choice = out;
        f.planes = *planes;
        place_rows(&f);
        bb_par_for(m->opt.par, job->outputs, store_row, &f);
        for (uint32_t i = 0; out->ladder && i < out->n_classes; i++)
            m->n_multiplier += (uint32_t)bb_align_up(out->class_rows[i], BB_TILE) * out->class_planes[i];
        m->n_rows += out->rows;
        if (out->n_classes > 1) m->n_perm += out->rows;
    }
    bb_blocks_give(&m->blocks, planes ? scratch : before);
    return BB_OK;
}
