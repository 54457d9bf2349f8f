/* One layer: levels of every output, and what is chosen by output error on sampled real inputs with quantized
 * activations: ladder or uniform, and the share of outputs with one bit more and one bit less. Errors of outputs do not
 * depend on each other, so each output is fitted once per width and the choices are sums. */
#include "make/make.h"

enum { FEWER, ASKED, MORE, WIDTHS }; /* planes − wbits + 1 */
enum { UNIFORM, LADDER, FORMS };
#define LADDER_BITS 4u      /* above, free multipliers have too few integers to differ from uniform levels */
#define LADDER_BEST_BITS 3u /* above, the gain (1 to 2 %) is not worth the bytes, and the fit takes longest of all */
#define SWEEPS 4u      /* of compensated rounding */
#define SHARES 6u      /* 0, 10 … 50 % */

typedef struct width_fit { double weight, output; } width_fit; /* squared errors */

typedef struct fit {
    bb_make *m;
    const bb_job *job;
    const bb_weight *weight;
    const bb_quantizer_rec *q;
    const float *inv_s;      /* [channels] or NULL */
    uint32_t wbits, samples;
    float *quantized;        /* [k][samples] inputs as the layer sees them, in the smoothed scale */
    float *power;            /* [k] their sums of squares */
    uint8_t *scratch; size_t scratch_bytes; /* per thread */
    bool wants[FORMS][WIDTHS];
    width_fit *errors;       /* [outputs][FORMS][WIDTHS] */
    bb_row_grid *grids;      /* the same */
    uint8_t *codes;          /* [outputs][wanted ones of FORMS × WIDTHS][k], to be stored once the choice is made */
    uint32_t n_wanted, number[FORMS][WIDTHS];
    double *weight_power, *output_power, *kurtosis; /* [outputs] */
    bb_status status;
    /* storing */
    const bb_fitted *choice;
    uint8_t *width;          /* [outputs] */
    uint32_t *place;         /* [outputs] packed row */
    uint8_t *planes;
} fit;

typedef struct row_scratch { float *w, *raw, *y, *z; uint8_t *codes; } row_scratch;

static size_t row_scratch_bytes(const fit *f)
{
    return bb_align_up((2 * (size_t)f->job->k + 2 * f->samples) * sizeof(float), BB_ALIGNMENT);
}

static row_scratch scratch_of(const fit *f, size_t thread)
{
    float *at = (float *)(void *)(f->scratch + thread * f->scratch_bytes);
    size_t k = f->job->k;
    return (row_scratch){at, at + k, at + 2 * k, at + 2 * k + f->samples, NULL};
}

/* Σ a·b in eight lanes, which are then added in order. */
static float dot(const float *a, const float *b, uint32_t n)
{
    float lane[8] = {0}, sum = 0;
    for (uint32_t i = 0; i < n; i += 8)
        for (uint32_t k = 0; k < 8; k++) lane[k] += a[i + k] * b[i + k];
    for (uint32_t k = 0; k < 8; k++) sum += lane[k];
    return sum;
}

/* Inputs 8 at a time: one work item. The codes as in core/kernels: round half even, clamped. */
static void quantize_inputs(void *ctx, size_t work, size_t thread)
{
    const fit *f = ctx;
    size_t end = (work + 1) * 8 < f->job->k ? (work + 1) * 8 : f->job->k;
    for (size_t k = work * 8; k < end; k++) {
        uint32_t c = (uint32_t)(k % f->job->channels), g = 0, first = 0;
        for (; c >= first + f->q->seg_channels[g]; g++) first += f->q->seg_channels[g];
        for (uint32_t s = 0; s < f->samples; s++) {
            uint32_t row = f->q->rows > 1 ? f->job->row[s] : 0, at = f->q->step_at + row * f->q->segments + g;
            float delta = f->m->step_delta[at], zero = (float)f->m->step_zero[at];
            float v = f->job->x[k * f->samples + s] * ((f->inv_s ? f->inv_s[c] : 1.0f) / delta);
            float top = (float)((1u << f->q->bits) - 1) - zero;
            v = v > -zero ? v : -zero;
            v = v < top ? v : top;
            f->quantized[k * f->samples + s] = bb_round_even(v) * delta;
        }
        const float *x = f->quantized + k * f->samples;
        f->power[k] = dot(x, x, f->samples);
    }
}

/* out[s] = Σ_k x[k][s]·w[k]: lanes over samples, k ascends. */
static void multiply(float *out, const float *x, const float *w, size_t k, uint32_t samples)
{
    for (uint32_t s = 0; s < samples; s++) out[s] = 0;
    for (size_t i = 0; i < k; i++, x += samples)
        for (uint32_t s = 0; s < samples; s++) out[s] += x[s] * w[i];
}

/* An output's weights in the smoothed scale; false if one is not finite. */
static bool load_row(const fit *f, uint32_t n, const row_scratch *r)
{
    float not_finite = 0;
    for (size_t i = 0; i < f->job->k; i++) {
        r->raw[i] = bb_weight_at(f->weight, n, i);
        r->w[i] = f->inv_s ? r->raw[i] / f->inv_s[i % f->job->channels] : r->raw[i];
        not_finite += r->w[i] - r->w[i];
    }
    return not_finite == 0;
}

static double kurtosis(const float *w, size_t n)
{
    double mean = 0, m2 = 0, m4 = 0;
    for (size_t i = 0; i < n; i++) mean += (double)w[i];
    mean /= (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = (double)w[i] - mean;
        m2 += d * d;
        m4 += d * d * d * d;
    }
    return m2 > 0 ? m4 * (double)n / (m2 * m2) : 0;
}

/* Rounding that makes up for itself: code by code, the neighbouring level is taken where that lowers the output error
 * on the sampled inputs; shrinkage of their covariance towards its diagonal keeps it from fitting the samples. */
static void compensate(const fit *f, const row_scratch *r, const bb_row_grid *g)
{
    bb_row_levels levels;
    uint8_t at[256];
    float *w = r->raw, *left = r->z, shrink = f->m->opt.compensation;
    const uint32_t n = f->samples;
    bb_row_levels_of(g, &levels);
    for (uint32_t i = 0; i < levels.n; i++) at[levels.code[i]] = (uint8_t)i;
    for (size_t k = 0; k < f->job->k; k++) w[k] = g->delta * (float)bb_row_level(g, r->codes[k]);
    multiply(left, f->quantized, w, f->job->k, n);
    for (uint32_t s = 0; s < n; s++) left[s] = r->y[s] - left[s];
    for (uint32_t sweep = 0; sweep < SWEEPS; sweep++) {
        uint32_t moved = 0;
        for (size_t k = 0; k < f->job->k; k++) {
            const float *x = f->quantized + k * n;
            if (f->power[k] == 0) continue;
            float inner = dot(left, x, n), e = r->w[k] - w[k], full = (1 + shrink) * f->power[k];
            float wanted = (inner + shrink * f->power[k] * e) / full; /* the best change */
            uint32_t i = at[r->codes[k]];
            bool up = wanted > 0;
            if (up ? i + 1 == levels.n : i == 0) continue;
            float step = g->delta * (float)(levels.level[up ? i + 1 : i - 1] - levels.level[i]);
            if (!((up ? wanted : -wanted) > 0.5f * (up ? step : -step)) || step == 0) continue;
            r->codes[k] = levels.code[up ? i + 1 : i - 1];
            w[k] += step;
            for (uint32_t s = 0; s < n; s++) left[s] -= step * x[s];
            moved++;
        }
        if (!moved) break;
    }
}

static bb_row_grid fit_row(const fit *f, const row_scratch *r, uint32_t form, uint32_t width)
{
    bb_row_grid g = bb_row_fit(&(bb_row_args){.w = r->w, .n = f->job->k, .planes = f->wbits + width - ASKED,
                                     .range = f->m->opt.range, .refit = f->m->opt.refit, .ladder = form == LADDER,
                                     .residuals = width, .codes = r->codes});
    if (f->m->opt.compensation > 0) compensate(f, r, &g);
    return g;
}

static width_fit errors_of(const fit *f, const row_scratch *r, const bb_row_grid *g)
{
    width_fit e = {.weight = bb_row_error(g, r->w, f->job->k, r->codes)};
    float *w = r->raw; /* no longer needed: y is there */
    for (size_t i = 0; i < f->job->k; i++) w[i] = g->delta * (float)bb_row_level(g, r->codes[i]);
    multiply(r->z, f->quantized, w, f->job->k, f->samples);
    for (uint32_t s = 0; s < f->samples; s++) {
        double d = (double)r->y[s] - (double)r->z[s];
        e.output += d * d;
    }
    return e;
}

static bool prepare_row(fit *f, uint32_t n, const row_scratch *r)
{
    if (!load_row(f, n, r)) {
        __atomic_store_n(&f->status, BB_ERR_ARGUMENT, __ATOMIC_RELAXED);
        return false;
    }
    multiply(r->y, f->job->x, r->raw, f->job->k, f->samples);
    f->weight_power[n] = f->output_power[n] = 0;
    for (size_t i = 0; i < f->job->k; i++) f->weight_power[n] += (double)r->w[i] * (double)r->w[i];
    for (uint32_t s = 0; s < f->samples; s++) f->output_power[n] += (double)r->y[s] * (double)r->y[s];
    return true;
}

static void measure_row(void *ctx, size_t n, size_t thread)
{
    fit *f = ctx;
    row_scratch r = scratch_of(f, thread);
    if (!prepare_row(f, (uint32_t)n, &r)) return;
    f->kurtosis[n] = kurtosis(r.w, f->job->k);
    for (uint32_t form = 0; form < FORMS; form++)
        for (uint32_t width = 0; width < WIDTHS; width++) {
            if (!f->wants[form][width]) continue;
            size_t at = (n * FORMS + form) * WIDTHS + width;
            r.codes = f->codes + (n * f->n_wanted + f->number[form][width]) * f->job->k;
            f->grids[at] = fit_row(f, &r, form, width);
            f->errors[at] = errors_of(f, &r, &f->grids[at]);
        }
}

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

static bool mixes(const fit *f)
{
    return f->m->opt.mixed != BB_MIXED_NEVER && f->job->low && f->wbits > 1 && f->wbits < 8;
}

static bool may_ladder(const fit *f)
{
    uint32_t most = f->m->opt.ladder == BB_LADDER_ALWAYS ? LADDER_BITS : LADDER_BEST_BITS;
    return f->m->opt.ladder != BB_LADDER_NEVER && f->job->low && f->wbits <= most;
}

static bb_status begin(fit *f, bb_make *m, const bb_job *job, const bb_quantizer_rec *q, uint32_t wbits)
{
    const bb_site *site = &m->cal.sites[job->site];
    *f = (fit){.m = m, .job = job, .weight = &m->weights[m->model.pack.graph.ops[job->op].weight[0]], .q = q,
               .inv_s = site->inv_s, .wbits = wbits, .samples = m->cal.samples};
    f->scratch_bytes = row_scratch_bytes(f);
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
    bb_par_for(m->opt.par, (job->k + 7) / 8, quantize_inputs, f);
    return BB_OK;
}

static bb_status failure(const fit *f, bb_error *err, bb_status status)
{
    const bb_graph *g = &f->m->model.pack.graph;
    const char *name = bb_graph_string(g, g->weights[g->ops[f->job->op].weight[0]].name);
    return bb_fail(err, status, status == BB_ERR_SPACE ? "layer %s: out of memory"
                                                       : "layer %s: a weight is infinite or not a number", name);
}

static double share_error(const fit *f, const uint32_t *rank, uint32_t form, uint32_t moved)
{
    double sum = 0;
    for (uint32_t i = 0; i < f->job->outputs; i++) {
        uint32_t width = i < moved ? MORE : i >= f->job->outputs - moved ? FEWER : ASKED;
        sum += f->errors[((size_t)rank[i] * FORMS + form) * WIDTHS + width].output;
    }
    return sum;
}

static void rank_rows(const fit *f, uint32_t form, uint32_t *rank)
{
    double *key = f->kurtosis;
    if (f->m->opt.mixed == BB_MIXED_GAIN)
        for (uint32_t n = 0; n < f->job->outputs; n++) {
            const width_fit *e = &f->errors[((size_t)n * FORMS + form) * WIDTHS];
            key[n] = e[FEWER].weight - e[MORE].weight;
        }
    sort_rows(rank, key, f->job->outputs);
}

/* Packed rows: the classes with more, the asked and fewer planes, each in natural order and padded to whole tiles. */
static void lay_out(const fit *f, bb_fitted *c)
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
static double price(const fit *f, uint32_t form)
{
    if (form == UNIFORM || f->m->opt.ladder == BB_LADDER_ALWAYS) return 1;
    double bits = 16.0 * f->wbits / f->job->k;
    return bb_exp(bits * 1.3862943611198906); /* ln 4 */
}

static void choose(fit *f, bb_fitted *out)
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
        const width_fit *e = &f->errors[((size_t)n * FORMS + out->ladder) * WIDTHS + width];
        weight += e->weight;
        output += e->output;
    }
    out->weight_error = wp > 0 ? weight / wp : 0;
    out->output_error = yp > 0 ? output / yp : 0;
}

static void store_row(void *ctx, size_t n, size_t thread)
{
    fit *f = ctx;
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
static void place_rows(fit *f)
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
    fit f;
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
    if (status == BB_OK) {
        bb_par_for(m->opt.par, job->outputs, measure_row, &f);
        status = f.status;
    }
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
