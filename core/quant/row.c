/* One output's weights as levels o + Σ multiplier·bit, times Δ: uniform ones, and the residual ladder (a uniform base
 * and binary residual planes with free multipliers; MPQ-DMv2, arXiv 2507.04290). All levels are found together: nearest
 * level, then least squares, in turns; the greedy ladder (each plane on what the last ones left) is only a start. */
#include "quant/quant.h"

#define MAX_LEVELS 256u
#define MAX_PARTS 4u    /* offset, base step, two residual planes */
#define ENOUGH 0.9999   /* rounds that gain less end the refit */
#define SCALES 24u      /* tries of Δ when levels become integers */

/* Parameters before they are integers: level = part[0] + part[1]·k ± part[2] ± part[3]. */
typedef struct ladder { double part[MAX_PARTS]; uint32_t base, residuals; } ladder;

void bb_row_levels_of(const bb_row_grid *g, bb_row_levels *out)
{
    out->n = 1u << g->planes;
    for (uint32_t code = 0; code < out->n; code++) {
        int32_t level = g->offset;
        for (uint32_t p = 0; p < g->planes; p++) level += code >> p & 1 ? g->multiplier[p] : 0;
        uint32_t at = code; /* insertion: levels ascend, equal ones by code */
        for (; at && out->level[at - 1] > level; at--) {
            out->level[at] = out->level[at - 1];
            out->code[at] = out->code[at - 1];
        }
        out->level[at] = (int16_t)level;
        out->code[at] = (uint8_t)code;
    }
}

uint8_t bb_row_code(const bb_row_levels *l, float w, float delta)
{
    float v = w / delta;
    uint32_t low = 0, high = l->n - 1; /* the first level whose upper half-way point is not below v */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (v <= 0.5f * (float)(l->level[middle] + l->level[middle + 1])) high = middle;
        else low = middle + 1;
    }
    return l->code[low];
}

int32_t bb_row_level(const bb_row_grid *g, uint8_t code)
{
    int32_t level = g->offset;
    for (uint32_t p = 0; p < g->planes; p++) level += code >> p & 1 ? g->multiplier[p] : 0;
    return level;
}

void bb_row_codes(const bb_row_grid *g, const float *w, size_t n, uint8_t *codes)
{
    if (g->plain) {
        const bb_weight_grid grid = {g->delta, g->offset};
        for (size_t i = 0; i < n; i++) codes[i] = bb_weight_code(w[i], grid, g->planes);
        return;
    }
    bb_row_levels levels;
    bb_row_levels_of(g, &levels);
    for (size_t i = 0; i < n; i++) codes[i] = bb_row_code(&levels, w[i], g->delta);
}

double bb_row_error(const bb_row_grid *g, const float *w, size_t n, const uint8_t *codes)
{
    float value[MAX_LEVELS];
    double error = 0;
    for (uint32_t c = 0; c < 1u << g->planes; c++) value[c] = g->delta * (float)bb_row_level(g, (uint8_t)c);
    for (size_t i = 0; i < n; i++) {
        double e = (double)w[i] - (double)value[codes[i]];
        error += e * e;
    }
    return error;
}

/* ---- uniform ---- */

bb_row_grid bb_row_plain(bb_weight_grid grid, uint32_t bits)
{
    bb_row_grid g = {.delta = grid.delta, .offset = grid.offset, .planes = bits, .plain = true};
    for (uint32_t p = 0; p < bits; p++) g.multiplier[p] = (int16_t)(1 << p);
    return g;
}

/* Sums over the codes of w and of 1, all that least squares needs. */
typedef struct sums { double count[MAX_LEVELS], w[MAX_LEVELS]; } sums;

static void sum_codes(sums *s, const float *w, size_t n, const uint8_t *codes, uint32_t levels)
{
    for (uint32_t c = 0; c < levels; c++) s->count[c] = s->w[c] = 0;
    for (size_t i = 0; i < n; i++) {
        s->count[codes[i]] += 1;
        s->w[codes[i]] += (double)w[i];
    }
}

/* The step that fits the levels of given codes best; 0 if there is none. */
static float best_delta(const sums *s, const bb_row_grid *g)
{
    double wq = 0, qq = 0;
    for (uint32_t c = 0; c < 1u << g->planes; c++) {
        double q = bb_row_level(g, (uint8_t)c);
        wq += s->w[c] * q;
        qq += s->count[c] * q * q;
    }
    float delta = qq > 0 ? (float)(wq / qq) : 0;
    return delta > 1e-30f ? delta : 0;
}

/* Offset and step of w ≈ a + b·code; false if all codes are alike. */
static bool fit_line(const sums *s, uint32_t levels, double *a, double *b)
{
    double n = 0, x = 0, xx = 0, y = 0, xy = 0;
    for (uint32_t c = 0; c < levels; c++) {
        n += s->count[c];
        x += s->count[c] * c;
        xx += s->count[c] * c * c;
        y += s->w[c];
        xy += s->w[c] * c;
    }
    double d = n * xx - x * x;
    if (!(d > 0)) return false;
    *b = (n * xy - x * y) / d;
    *a = (y - *b * x) / n;
    return *b > 1e-30;
}

static int32_t nearest(double x) { return (int32_t)(x < 0 ? x - 0.5 : x + 0.5); }

static bb_row_grid refit_plain(bb_row_grid best, const float *w, size_t n, uint32_t rounds, uint8_t *codes)
{
    sums s;
    uint32_t bits = best.planes, levels = 1u << bits;
    bb_row_codes(&best, w, n, codes);
    double least = bb_row_error(&best, w, n, codes), a, b;
    bb_row_grid g = best;
    for (uint32_t round = 0; round < rounds; round++) {
        sum_codes(&s, w, n, codes, levels);
        if (bits < 8 && fit_line(&s, levels, &a, &b) && a / b > -128 && a / b < (double)(128 - (int32_t)levels))
            g.offset = (int16_t)nearest(a / b);
        g.delta = best_delta(&s, &g);
        if (g.delta == 0) break;
        bb_row_codes(&g, w, n, codes);
        double error = bb_row_error(&g, w, n, codes);
        if (!(error < least)) break;
        least = error;
        best = g;
    }
    return best;
}

/* ---- ladder ---- */

static double ladder_value(const ladder *l, uint32_t code)
{
    uint32_t k = code & ((1u << l->base) - 1);
    double v = l->part[0] + l->part[1] * k;
    for (uint32_t j = 0; j < l->residuals; j++) v += code >> (l->base + j) & 1 ? l->part[2 + j] : -l->part[2 + j];
    return v;
}

/* Codes of the nearest ladder levels; returns the squared error. */
static double assign(const ladder *l, const float *w, size_t n, uint8_t *codes)
{
    float value[MAX_LEVELS];
    uint8_t code[MAX_LEVELS];
    uint32_t levels = 1u << (l->base + l->residuals);
    double error = 0;
    for (uint32_t c = 0; c < levels; c++) {
        float v = (float)ladder_value(l, c);
        uint32_t at = c;
        for (; at && value[at - 1] > v; at--) value[at] = value[at - 1], code[at] = code[at - 1];
        value[at] = v;
        code[at] = (uint8_t)c;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t low = 0, high = levels - 1;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (w[i] <= 0.5f * (value[middle] + value[middle + 1])) high = middle;
            else low = middle + 1;
        }
        codes[i] = code[low];
        double e = (double)w[i] - (double)value[low];
        error += e * e;
    }
    return error;
}

/* Gaussian elimination with pivots, in place; x stays as it is where the sums do not determine it. */
static void solve(double m[MAX_PARTS][MAX_PARTS + 1], uint32_t n, double *x)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pivot = i;
        for (uint32_t r = i; r < n; r++) {
            double a = m[r][i] < 0 ? -m[r][i] : m[r][i], b = m[pivot][i] < 0 ? -m[pivot][i] : m[pivot][i];
            if (a > b) pivot = r;
        }
        for (uint32_t c = 0; c <= n; c++) {
            double t = m[i][c];
            m[i][c] = m[pivot][c];
            m[pivot][c] = t;
        }
        if (!(m[i][i] > 1e-9 || m[i][i] < -1e-9)) return; /* sums of counts: whole numbers */
        for (uint32_t r = 0; r < n; r++) {
            if (r == i) continue;
            double f = m[r][i] / m[i][i];
            for (uint32_t c = i; c <= n; c++) m[r][c] -= f * m[i][c];
        }
    }
    for (uint32_t i = 0; i < n; i++) x[i] = m[i][n] / m[i][i];
}

/* Least squares of all parts for given codes. */
static void fit_parts(ladder *l, const sums *s)
{
    double m[MAX_PARTS][MAX_PARTS + 1] = {{0}};
    const uint32_t n = 2 + l->residuals;
    for (uint32_t c = 0; c < 1u << (l->base + l->residuals); c++) {
        if (s->count[c] == 0) continue;
        double x[MAX_PARTS] = {1, c & ((1u << l->base) - 1)};
        for (uint32_t j = 0; j < l->residuals; j++) x[2 + j] = c >> (l->base + j) & 1 ? 1 : -1;
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t k = 0; k < n; k++) m[i][k] += s->count[c] * x[i] * x[k];
            m[i][n] += s->w[c] * x[i];
        }
    }
    if (l->base) {
        solve(m, n, l->part);
        return;
    }
    double without[MAX_PARTS][MAX_PARTS + 1] = {{0}}, x[MAX_PARTS] = {l->part[0], l->part[2], l->part[3]};
    for (uint32_t i = 0; i < n; i++) /* no base plane: its column is empty */
        for (uint32_t k = 0; k <= n; k++)
            if (i != 1 && k != 1) without[i - (i > 1)][k - (k > 1)] = m[i][k];
    solve(without, n - 1, x);
    l->part[0] = x[0], l->part[2] = x[1], l->part[3] = x[2];
}

static double refit_ladder(ladder *l, const float *w, size_t n, uint32_t rounds, uint8_t *codes)
{
    sums s;
    double least = assign(l, w, n, codes);
    for (uint32_t round = 0; round < rounds; round++) {
        ladder next = *l;
        sum_codes(&s, w, n, codes, 1u << (l->base + l->residuals));
        fit_parts(&next, &s);
        double error = assign(&next, w, n, codes);
        if (!(error < least * ENOUGH)) break;
        least = error;
        *l = next;
    }
    return least;
}

/* As integers: Δ as small as the grid allows, and coarser ones; the best by the final error. */
static double to_integers(bb_row_grid *out, const ladder *l, const float *w, size_t n, uint8_t *codes)
{
    uint32_t planes = l->base + l->residuals;
    double m[BB_PLANES], low = l->part[0], high, least = -1;
    sums s;
    for (uint32_t p = 0; p < l->base; p++) m[p] = l->part[1] * (double)(1u << p);
    for (uint32_t j = 0; j < l->residuals; j++) {
        low -= l->part[2 + j];
        m[l->base + j] = 2 * l->part[2 + j];
    }
    double offset = low;
    high = low;
    for (uint32_t p = 0; p < planes; p++)
        if (m[p] < 0) low += m[p]; else high += m[p];
    double most = high > -low ? high : -low, finest = (high - low > most ? high - low : most) / 126;
    if (!(finest > 1e-30)) return -1;
    for (uint32_t i = 0; i < SCALES; i++) {
        bb_row_grid g = {.planes = planes, .delta = (float)(finest * (1 + (double)i / SCALES))};
        int32_t bottom = nearest(offset / (double)g.delta), top;
        g.offset = (int16_t)bottom;
        top = bottom;
        for (uint32_t p = 0; p < planes; p++) {
            g.multiplier[p] = (int16_t)nearest(m[p] / (double)g.delta);
            if (g.multiplier[p] < 0) bottom += g.multiplier[p]; else top += g.multiplier[p];
        }
        if (bottom < -128 || top > 127 || top - bottom > 127) continue;
        bb_row_codes(&g, w, n, codes);
        sum_codes(&s, w, n, codes, 1u << planes);
        float delta = best_delta(&s, &g);
        if (delta > 0) g.delta = delta;
        bb_row_codes(&g, w, n, codes);
        double error = bb_row_error(&g, w, n, codes);
        if (least >= 0 && !(error < least)) continue;
        least = error;
        *out = g;
    }
    return least;
}

/* Least squares of offset and step from a start; returns the squared error. */
static double refit_line(ladder *line, const float *w, size_t n, uint32_t rounds, uint8_t *codes)
{
    sums s;
    double least = assign(line, w, n, codes);
    for (uint32_t round = 0; round < rounds; round++) {
        ladder next = *line;
        sum_codes(&s, w, n, codes, 1u << line->base);
        if (!fit_line(&s, 1u << line->base, &next.part[0], &next.part[1])) break;
        double error = assign(&next, w, n, codes);
        if (!(error < least * ENOUGH)) break;
        least = error;
        *line = next;
    }
    return least;
}

/* Levels equally far apart, with an offset that need not be a whole number of steps: from the plain grid, and from
 * wider and narrower ones with the same middle, for the rounds end in the nearest local minimum. */
static ladder uniform_start(const bb_row_grid *plain, uint32_t residuals, const float *w, size_t n, uint32_t rounds,
                            uint8_t *codes)
{
    static const double scales[] = {1, 0.7, 0.85, 1.15, 1.3};
    double step = (double)plain->delta, half = step * ((1u << plain->planes) - 1) / 2, least = -1;
    double middle = step * plain->offset + half;
    ladder line = {.base = plain->planes};
    for (uint32_t i = 0; i < BB_COUNT(scales); i++) {
        ladder next = {.part = {middle - half * scales[i], step * scales[i]}, .base = plain->planes};
        double error = refit_line(&next, w, n, rounds, codes);
        if (least >= 0 && !(error < least)) continue;
        least = error;
        line = next;
    }
    ladder l = {.base = plain->planes - residuals, .residuals = residuals};
    l.part[0] = line.part[0];
    l.part[1] = line.part[1] * (double)(1u << residuals);
    for (uint32_t j = 0; j < residuals; j++) {
        l.part[2 + j] = line.part[1] * (double)(1u << (residuals - 1 - j)) / 2;
        l.part[0] += l.part[2 + j];
    }
    return l;
}

/* Each plane as the sign of what is left, at its mean size. */
static ladder greedy_start(const float *w, size_t n, uint32_t base, uint32_t residuals, bb_range range, uint8_t *codes)
{
    ladder l = {.base = base};
    if (base) {
        bb_weight_grid g = bb_weight_grid_fit(w, n, base, range);
        l.part[1] = (double)g.delta;
        l.part[0] = (double)g.delta * g.offset;
    }
    for (uint32_t j = 0; j < residuals; j++) {
        double mean = 0, size = 0;
        assign(&l, w, n, codes);
        for (size_t i = 0; i < n; i++) mean += (double)w[i] - ladder_value(&l, codes[i]);
        mean /= (double)n;
        for (size_t i = 0; i < n; i++) {
            double r = (double)w[i] - ladder_value(&l, codes[i]) - mean;
            size += r < 0 ? -r : r;
        }
        l.part[0] += mean;
        l.part[2 + j] = size / (double)n;
        l.residuals++;
    }
    return l;
}

bb_row_grid bb_row_fit(const bb_row_args *a)
{
    bb_row_grid best = bb_row_plain(bb_weight_grid_fit(a->w, a->n, a->planes, a->range), a->planes);
    if (a->refit) best = refit_plain(best, a->w, a->n, a->refit, a->codes);
    if (a->ladder && a->planes < 8) {
        uint32_t residuals = a->residuals < a->planes ? a->residuals : a->planes;
        const ladder starts[2] = {
            uniform_start(&best, residuals, a->w, a->n, a->refit, a->codes),
            greedy_start(a->w, a->n, a->planes - residuals, residuals, a->range, a->codes)};
        bb_row_codes(&best, a->w, a->n, a->codes);
        double least = bb_row_error(&best, a->w, a->n, a->codes);
        for (uint32_t i = 0; i < (residuals ? 2 : 1); i++) {
            ladder l = starts[i];
            bb_row_grid g;
            refit_ladder(&l, a->w, a->n, a->refit, a->codes);
            double error = to_integers(&g, &l, a->w, a->n, a->codes);
            if (error < 0 || !(error < least)) continue;
            least = error;
            best = g;
        }
    }
    bb_row_codes(&best, a->w, a->n, a->codes);
    return best;
}
