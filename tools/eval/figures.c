#include "eval/figures.h"

#include "eval/classifier.h"
#include "eval/distance.h"
#include "eval/linear.h"
#include "eval/ssim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = BB_CLASSIFIER_FEATURES };

const char *const bb_figure_key[BB_FIGURES] = {"psnr", "ssim", "eps", "eps_first5", "distance_teacher", "distance",
                                               "kid", "precision", "recall", "accuracy"};
const char *const bb_figure_text[BB_FIGURES] = {
    "PSNR to the float model's pictures, dB", "SSIM to them", "relative epsilon error", "the same, first 5 steps",
    "Fréchet distance to the float model's", "Fréchet distance to real ones", "kernel distance to real ones × 1000",
    "precision", "recall", "class accuracy"};

void bb_column_free(bb_column *c)
{
    void *all[] = {c->shown.features, c->shown.right, c->shown.squares, c->shown.ssim, c->shown.inside, c->shown.covers,
                   c->shown.kernel, c->shown.kernel_real, c->draws};
    for (size_t i = 0; i < BB_COUNT(all); i++) free(all[i]);
    *c = (bb_column){0};
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Numbers of pictures of each kind that precision, recall and the kernel distance are over. */
static uint32_t manifold_n(const bb_figures *f) { return least(f->n, f->real_n); }
static uint32_t kid_n(const bb_figures *f) { return least(f->n, BB_KID_MOST); }
static uint32_t kid_real_n(const bb_figures *f) { return least(f->real_n, BB_KID_MOST); }

/* ---- what does not change from resample to resample ---- */

typedef struct paired { const bb_figures *f; bb_shown *s; } paired;

static void pair_one(void *ctx, size_t i, size_t thread)
{
    const paired *p = ctx;
    const bb_figures *f = p->f;
    const size_t bytes = (size_t)f->height * f->width * f->channels;
    const uint8_t *a = p->s->pictures + i * bytes, *b = f->teacher + i * bytes;
    double sum = 0;
    for (size_t k = 0; k < bytes; k++) sum += (double)(a[k] - b[k]) * (a[k] - b[k]);
    p->s->squares[i] = sum / (double)bytes;
    p->s->ssim[i] = bb_ssim(a, b, f->height, f->width, f->channels);
}

static bb_status prepare_real(bb_figures *f, bb_error *err)
{
    const size_t kid = kid_real_n(f);
    if (!f->real || manifold_n(f) <= BB_NEIGHBOURS) return BB_OK;
    f->real_radius2 = malloc(manifold_n(f) * sizeof *f->real_radius2);
    f->real_kernel = malloc(kid * kid * sizeof *f->real_kernel);
    if (!f->real_radius2 || !f->real_kernel) return bb_fail(err, BB_ERR_SPACE, "out of memory for the figures");
    bb_radii(f->par, f->real, manifold_n(f), D, BB_NEIGHBOURS, f->real_radius2);
    bb_kernel(f->par, f->real, kid, f->real, kid, D, f->real_kernel);
    return BB_OK;
}

/* Against the real pictures. */
static bb_status prepare_manifold(const bb_figures *f, bb_shown *s, bb_error *err)
{
    const uint32_t n = manifold_n(f);
    const size_t kid = kid_n(f), kid_real = kid_real_n(f);
    float *radius2 = malloc(n * sizeof *radius2);
    s->inside = malloc(n);
    s->covers = malloc(n);
    s->kernel = malloc(kid * kid * sizeof *s->kernel);
    s->kernel_real = malloc(kid * kid_real * sizeof *s->kernel_real);
    bool ok = radius2 && s->inside && s->covers && s->kernel && s->kernel_real;
    if (ok) {
        bb_radii(f->par, s->features, n, D, BB_NEIGHBOURS, radius2);
        bb_inside(f->par, f->real, f->real_radius2, n, s->features, n, D, s->inside);
        bb_inside(f->par, s->features, radius2, n, f->real, n, D, s->covers);
        bb_kernel(f->par, s->features, kid, s->features, kid, D, s->kernel);
        bb_kernel(f->par, s->features, kid, f->real, kid_real, D, s->kernel_real);
    }
    free(radius2);
    return ok ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory for the figures");
}

static bb_status prepare(bb_figures *f, bb_column *c, bb_error *err)
{
    bb_shown *s = &c->shown;
    c->draws = malloc((f->resamples + 1) * BB_FIGURES * sizeof *c->draws);
    if (!c->draws) return bb_fail(err, BB_ERR_SPACE, "out of memory for the figures");
    if (s->pictures != f->teacher) {
        s->squares = malloc(f->n * sizeof *s->squares);
        s->ssim = malloc(f->n * sizeof *s->ssim);
        if (!s->squares || !s->ssim) return bb_fail(err, BB_ERR_SPACE, "out of memory for the figures");
        bb_par_for(f->par, f->n, pair_one, &(paired){f, s});
    }
    return s->features && f->real_radius2 ? prepare_manifold(f, s, err) : BB_OK;
}

/* ---- one resample ---- */

/* Multiplicities of pictures, real ones and traces; NULL: the sample itself. Moments of what all columns share. */
typedef struct sample {
    const uint32_t *drawn, *real, *traced;
    double *mean[3], *cov[3]; /* of the column, the teacher, the real */
    double *scratch;
} sample;
enum { OWN, TEACHER, REAL };

static double times(const uint32_t *weight, size_t i) { return weight ? weight[i] : 1; }

static double mean_of(const double *x, const uint32_t *weight, uint32_t n)
{
    double sum = 0, total = 0;
    for (uint32_t i = 0; i < n; i++) sum += times(weight, i) * x[i], total += times(weight, i);
    return sum / total;
}

static double share_of(const uint8_t *yes, const uint32_t *weight, uint32_t n)
{
    double sum = 0, total = 0;
    for (uint32_t i = 0; i < n; i++) sum += times(weight, i) * yes[i], total += times(weight, i);
    return sum / total;
}

/* Mean over steps first..end−1 of Σ error / Σ power. */
static double trace_error(const bb_figures *f, const bb_shown *s, const uint32_t *weight, uint32_t end)
{
    const uint32_t n = f->evaluations;
    double sum = 0;
    for (uint32_t step = 0; step < end; step++) {
        double error = 0, power = 0;
        for (uint32_t i = 0; i < f->traced; i++) {
            const double *at = s->traces + (size_t)i * 2 * n;
            error += times(weight, i) * at[step];
            power += times(weight, i) * at[n + step];
        }
        sum += error / power;
    }
    return sum / end;
}

static double distance(const sample *w, int a, int b)
{
    return bb_frechet(D, w->mean[a], w->cov[a], w->mean[b], w->cov[b], w->scratch);
}

static void measure(const bb_figures *f, const bb_shown *s, const sample *w, double out[BB_FIGURES])
{
    for (int i = 0; i < BB_FIGURES; i++) out[i] = NAN;
    if (s->squares) {
        const double mse = mean_of(s->squares, w->drawn, f->n);
        out[BB_FIGURE_PSNR] = mse > 0 ? 10 * log10(255.0 * 255.0 / mse) : INFINITY;
        out[BB_FIGURE_SSIM] = mean_of(s->ssim, w->drawn, f->n);
    }
    if (s->traces) {
        const uint32_t steps = f->evaluations > 1 ? f->evaluations - 1 : 1;
        out[BB_FIGURE_EPS] = trace_error(f, s, w->traced, steps);
        out[BB_FIGURE_FIRST5] = trace_error(f, s, w->traced, least(steps, 5));
    }
    if (!s->features) return;
    if (s->right) out[BB_FIGURE_ACCURACY] = share_of(s->right, w->drawn, f->n);
    if (f->n < 2) return;
    bb_moments(s->features, w->drawn, f->n, D, w->mean[OWN], w->cov[OWN]);
    if (f->teacher_features && s->squares) out[BB_FIGURE_DISTANCE_TEACHER] = distance(w, OWN, TEACHER);
    if (!f->real) return;
    out[BB_FIGURE_DISTANCE] = distance(w, OWN, REAL);
    if (!s->inside) return;
    out[BB_FIGURE_KID] = 1000 * bb_mmd(s->kernel, f->real_kernel, s->kernel_real, w->drawn, kid_n(f), w->real,
                                       kid_real_n(f));
    out[BB_FIGURE_PRECISION] = share_of(s->inside, w->drawn, manifold_n(f));
    out[BB_FIGURE_RECALL] = share_of(s->covers, w->real, manifold_n(f));
}

/* ---- all of them, over threads ---- */

typedef struct work {
    const bb_figures *f;
    bb_column *columns;
    uint32_t n_columns;
    double *moments;  /* [threads][THREAD] */
    uint32_t *weight; /* [threads][n + real_n + traced] */
} work;
enum { MOMENTS = D + D * D, THREAD = 3 * MOMENTS + 4 * D * D + D };

/* Item 0: the sample itself; others: resamples. */
static void one_sample(void *ctx, size_t item, size_t thread)
{
    work *w = ctx;
    const bb_figures *f = w->f;
    double *moments = w->moments + thread * THREAD;
    uint32_t *drawn = w->weight + thread * ((size_t)f->n + f->real_n + f->traced);
    uint32_t *real = drawn + f->n, *traced = real + f->real_n;
    sample s = {.scratch = moments + 3 * MOMENTS};
    for (int k = 0; k < 3; k++) s.mean[k] = moments + k * MOMENTS, s.cov[k] = s.mean[k] + D;
    if (item) {
        bb_resample(BB_RESAMPLE_DRAWN, (uint32_t)item, f->n, drawn);
        bb_resample(BB_RESAMPLE_REAL, (uint32_t)item, f->real_n, real);
        bb_resample(BB_RESAMPLE_TRACED, (uint32_t)item, f->traced, traced);
        s.drawn = drawn, s.real = real, s.traced = traced;
    }
    if (f->real) bb_moments(f->real, s.real, f->real_n, D, s.mean[REAL], s.cov[REAL]);
    if (f->teacher_features && f->n > 1)
        bb_moments(f->teacher_features, s.drawn, f->n, D, s.mean[TEACHER], s.cov[TEACHER]);
    for (uint32_t c = 0; c < w->n_columns; c++)
        measure(f, &w->columns[c].shown, &s, w->columns[c].draws + item * BB_FIGURES);
}

static bb_status draw_all(const bb_figures *f, bb_column *columns, uint32_t n_columns, bb_error *err)
{
    const size_t threads = bb_par_threads(f->par);
    work w = {.f = f, .columns = columns, .n_columns = n_columns};
    w.moments = malloc(threads * THREAD * sizeof *w.moments);
    w.weight = malloc(threads * ((size_t)f->n + f->real_n + f->traced) * sizeof *w.weight);
    const bool ok = w.moments && w.weight;
    if (ok) bb_par_for(f->par, 1 + (size_t)f->resamples, one_sample, &w);
    free(w.moments);
    free(w.weight);
    return ok ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory for the figures");
}

static bb_status make_intervals(const bb_figures *f, bb_column *c, bb_error *err)
{
    double *draws = malloc((f->resamples + 1) * sizeof *draws);
    if (!draws) return bb_fail(err, BB_ERR_SPACE, "out of memory for the figures");
    for (uint32_t k = 0; k < BB_FIGURES; k++) {
        for (uint32_t r = 0; r < f->resamples; r++) draws[r] = c->draws[(r + 1) * BB_FIGURES + k];
        c->of[k] = bb_interval_of(c->draws[k], draws, f->resamples);
        if (k >= BB_FIGURE_PRECISION && c->of[k].high > 1) c->of[k].high = 1; /* shares; the draws' move went too far */
    }
    free(draws);
    memmove(c->draws, c->draws + BB_FIGURES, f->resamples * BB_FIGURES * sizeof *c->draws);
    return BB_OK;
}

bb_status bb_figures_measure(bb_figures *f, bb_column *columns, uint32_t n_columns, bb_error *err)
{
    bb_status status = prepare_real(f, err);
    for (uint32_t c = 0; c < n_columns && status == BB_OK; c++) status = prepare(f, &columns[c], err);
    if (status == BB_OK) status = draw_all(f, columns, n_columns, err);
    for (uint32_t c = 0; c < n_columns && status == BB_OK; c++) status = make_intervals(f, &columns[c], err);
    free(f->real_radius2);
    free(f->real_kernel);
    f->real_radius2 = f->real_kernel = NULL;
    return status;
}
