/* By the eigenvectors of the smaller of E·Eᵀ and Eᵀ·E, in double: a σ below 1e-8 of the largest one is noise. */
#include "train/student/lowrank.h"

#include <math.h>
#include <stdlib.h>

#define SWEEPS 60 /* never reached: convergence is quadratic */

/* Rows p and q of an [n][n] matrix become c·p − s·q and s·p + c·q. */
static void rotate_rows(double *x, uint32_t n, uint32_t p, uint32_t q, double c, double s)
{
    double *restrict rp = x + (size_t)p * n, *restrict rq = x + (size_t)q * n;
    for (uint32_t i = 0; i < n; i++) {
        const double a = rp[i], b = rq[i];
        rp[i] = c * a - s * b;
        rq[i] = s * a + c * b;
    }
}

static void rotate_columns(double *x, uint32_t n, uint32_t p, uint32_t q, double c, double s)
{
    for (size_t i = 0; i < (size_t)n * n; i += n) {
        const double a = x[i + p], b = x[i + q];
        x[i + p] = c * a - s * b;
        x[i + q] = s * a + c * b;
    }
}

/* Eigenvalues onto the diagonal of the symmetric g, eigenvectors into the rows of v: rotations pair by pair (Jacobi). */
static void diagonalize(double *g, double *v, uint32_t n)
{
    for (size_t i = 0; i < (size_t)n * n; i++) v[i] = i % (n + 1) == 0;
    for (uint32_t sweep = 0, turned = 1; turned && sweep < SWEEPS; sweep++) {
        turned = 0;
        for (uint32_t p = 0; p + 1 < n; p++)
            for (uint32_t q = p + 1; q < n; q++) {
                const double pp = g[(size_t)p * n + p], qq = g[(size_t)q * n + q], pq = g[(size_t)p * n + q];
                if (fabs(pq) <= 1e-15 * sqrt(fabs(pp * qq)) || fabs(pq) < 1e-290) continue;
                const double theta = (qq - pp) / (2 * pq);
                const double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
                const double c = 1 / sqrt(t * t + 1);
                rotate_rows(g, n, p, q, c, t * c);
                rotate_columns(g, n, p, q, c, t * c);
                rotate_rows(v, n, p, q, c, t * c);
                turned = 1;
            }
    }
}

/* Element (i, j) of the problem seen from its smaller side: `small` vectors of length `large`. */
typedef struct view { const float *e; size_t small, large, small_step, large_step; } view;

static void gram(const view *x, double *g)
{
#pragma omp parallel for schedule(static, 1)
    for (size_t i = 0; i < x->small; i++)
        for (size_t j = i; j < x->small; j++) {
            double sum = 0;
            const float *a = x->e + i * x->small_step, *b = x->e + j * x->small_step;
            for (size_t l = 0; l < x->large; l++)
                sum += (double)a[l * x->large_step] * (double)b[l * x->large_step];
            g[i * x->small + j] = g[j * x->small + i] = sum;
        }
}

/* Row numbers by falling eigenvalue. */
static void rank_values(const double *g, uint32_t n, uint32_t *rank)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = i;
        for (; at && g[(size_t)rank[at - 1] * (n + 1)] < g[(size_t)i * (n + 1)]; at--) rank[at] = rank[at - 1];
        rank[at] = i;
    }
}

static double sigma_of(const double *g, uint32_t n, uint32_t row)
{
    const double value = g[(size_t)row * (n + 1)];
    return value > 0 ? sqrt(value) : 0;
}

bb_status bb_low_rank(const float *e, uint32_t k, uint32_t n, uint32_t r, float *a, float *b, double *sigma,
                      bb_error *err)
{
    const bool wide = k < n; /* rows are the smaller side */
    const uint32_t small = wide ? k : n;
    const view x = {e, small, wide ? n : k, wide ? n : 1, wide ? 1 : n};
    double *g = calloc((size_t)small * small, 2 * sizeof *g), *v = g + (size_t)small * small;
    uint32_t *rank = calloc(small, sizeof *rank);
    if (!g || !rank) {
        free(g);
        free(rank);
        return bb_fail(err, BB_ERR_SPACE, "out of memory for the low-rank start");
    }
    gram(&x, g);
    diagonalize(g, v, small);
    rank_values(g, small, rank);
    for (uint32_t i = 0; sigma && i < small; i++) sigma[i] = sigma_of(g, small, rank[i]);
    const double least = 1e-7 * sigma_of(g, small, rank[0]);
    float *near = wide ? a : b, *far = wide ? b : a; /* factors on the smaller and on the larger side */
    const size_t near_step = wide ? r : 1, near_rank = wide ? 1 : n, far_step = wide ? 1 : r, far_rank = wide ? n : 1;
#pragma omp parallel for schedule(static, 1)
    for (uint32_t i = 0; i < r; i++) {
        const double *row = v + (size_t)rank[i] * small, s = sigma_of(g, small, rank[i]);
        const bool is = s > least && s > 0;
        for (size_t j = 0; j < small; j++) near[j * near_step + i * near_rank] = is ? (float)(row[j] * sqrt(s)) : 0;
        for (size_t l = 0; l < x.large; l++) {
            double sum = 0;
            for (size_t j = 0; j < small; j++)
                sum += row[j] * (double)x.e[j * x.small_step + l * x.large_step];
            far[l * far_step + i * far_rank] = is ? (float)(sum / sqrt(s)) : 0;
        }
    }
    free(g);
    free(rank);
    return BB_OK;
}
