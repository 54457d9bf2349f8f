/* Every output of a layer: its levels, and codes by output error on sampled real inputs with quantized activations.
 * Outputs do not depend on each other, so they are shared out among threads. */
#include "make/fit.h"

#define SWEEPS 4u /* of compensated rounding */

typedef struct row_scratch { float *w, *raw, *y, *z; uint8_t *codes; } row_scratch;

size_t bb_fit_scratch_bytes(const bb_fit *f)
{
    return bb_align_up((2 * (size_t)f->job->k + 2 * f->samples) * sizeof(float), BB_ALIGNMENT);
}

static row_scratch scratch_of(const bb_fit *f, size_t thread)
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
    const bb_fit *f = ctx;
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
static bool load_row(const bb_fit *f, uint32_t n, const row_scratch *r)
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
static void compensate(const bb_fit *f, const row_scratch *r, const bb_row_grid *g)
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

static bb_row_grid fit_row(const bb_fit *f, const row_scratch *r, uint32_t form, uint32_t width)
{
    bb_row_grid g = bb_row_fit(&(bb_row_args){.w = r->w, .n = f->job->k, .planes = f->wbits + width - ASKED,
                                     .range = f->m->opt.range, .refit = f->m->opt.refit, .ladder = form == LADDER,
                                     .residuals = width, .codes = r->codes});
    if (f->m->opt.compensation > 0) compensate(f, r, &g);
    return g;
}

static bb_width_fit errors_of(const bb_fit *f, const row_scratch *r, const bb_row_grid *g)
{
    bb_width_fit e = {.weight = bb_row_error(g, r->w, f->job->k, r->codes)};
    float *w = r->raw; /* no longer needed: y is there */
    for (size_t i = 0; i < f->job->k; i++) w[i] = g->delta * (float)bb_row_level(g, r->codes[i]);
    multiply(r->z, f->quantized, w, f->job->k, f->samples);
    for (uint32_t s = 0; s < f->samples; s++) {
        double d = (double)r->y[s] - (double)r->z[s];
        e.output += d * d;
    }
    return e;
}

static bool prepare_row(bb_fit *f, uint32_t n, const row_scratch *r)
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
    bb_fit *f = ctx;
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

bb_status bb_fit_rows(bb_fit *f)
{
    bb_par_for(f->m->opt.par, (f->job->k + 7) / 8, quantize_inputs, f);
    bb_par_for(f->m->opt.par, f->job->outputs, measure_row, f);
    return f->status;
}
