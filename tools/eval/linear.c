#include "eval/linear.h"

#include <math.h>
#include <string.h>

static void add_row(const float *x, double weight, uint32_t d, const double *mean, double *cov, double *row)
{
    for (uint32_t i = 0; i < d; i++) row[i] = x[i] - mean[i];
    for (uint32_t i = 0; i < d; i++) {
        const double scaled = weight * row[i];
        for (uint32_t j = 0; j <= i; j++) cov[(size_t)i * d + j] += scaled * row[j];
    }
}

void bb_moments(const float *x, const uint32_t *weight, size_t n, uint32_t d, double *mean, double *cov)
{
    double total = 0, row[512];
    BB_ASSERT(d <= BB_COUNT(row));
    memset(mean, 0, d * sizeof *mean);
    memset(cov, 0, (size_t)d * d * sizeof *cov);
    for (size_t i = 0; i < n; i++) {
        const double w = weight ? weight[i] : 1;
        total += w;
        for (uint32_t k = 0; w > 0 && k < d; k++) mean[k] += w * x[i * d + k];
    }
    for (uint32_t k = 0; k < d; k++) mean[k] /= total;
    for (size_t i = 0; i < n; i++)
        if (!weight || weight[i]) add_row(x + i * d, weight ? weight[i] : 1, d, mean, cov, row);
    for (uint32_t i = 0; i < d; i++)
        for (uint32_t j = 0; j <= i; j++) cov[(size_t)j * d + i] = cov[(size_t)i * d + j] /= total - 1;
}

/* Makes a[p][q] zero: rows and columns p and q are turned by the angle of tangent t. */
static void rotate(double *a, uint32_t n, uint32_t p, uint32_t q, double *vectors)
{
    const double apq = a[(size_t)p * n + q], theta = (a[(size_t)q * n + q] - a[(size_t)p * n + p]) / (2 * apq);
    const double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
    const double c = 1 / sqrt(t * t + 1), s = t * c;
    double *rp = a + (size_t)p * n, *rq = a + (size_t)q * n;
    for (uint32_t k = 0; k < n; k++) {
        const double x = rp[k], y = rq[k];
        rp[k] = c * x - s * y;
        rq[k] = s * x + c * y;
    }
    for (uint32_t k = 0; k < n; k++) {
        double *row = a + (size_t)k * n;
        const double x = row[p], y = row[q];
        row[p] = c * x - s * y;
        row[q] = s * x + c * y;
    }
    for (uint32_t k = 0; vectors && k < n; k++) {
        const double x = vectors[(size_t)p * n + k], y = vectors[(size_t)q * n + k];
        vectors[(size_t)p * n + k] = c * x - s * y;
        vectors[(size_t)q * n + k] = s * x + c * y;
    }
}

void bb_eigen(double *a, uint32_t n, double *values, double *vectors)
{
    double whole = 0;
    for (size_t i = 0; i < (size_t)n * n; i++) whole += a[i] * a[i];
    for (uint32_t i = 0; vectors && i < n; i++)
        for (uint32_t j = 0; j < n; j++) vectors[(size_t)i * n + j] = i == j;
    for (int sweep = 0; sweep < 50; sweep++) {
        double off = 0;
        for (uint32_t p = 1; p < n; p++)
            for (uint32_t q = 0; q < p; q++) off += a[(size_t)p * n + q] * a[(size_t)p * n + q];
        if (!(2 * off > 1e-30 * whole)) break;
        for (uint32_t p = 0; p < n; p++) /* what is far below the rest is not worth a rotation */
            for (uint32_t q = p + 1; q < n; q++)
                if (a[(size_t)p * n + q] * a[(size_t)p * n + q] * n * n > 1e-32 * whole) rotate(a, n, p, q, vectors);
    }
    for (uint32_t i = 0; i < n; i++) values[i] = a[(size_t)i * n + i];
}

void bb_root(double *a, uint32_t n, double *root, double *scratch)
{
    double *vectors = scratch, *values = scratch + (size_t)n * n;
    bb_eigen(a, n, values, vectors);
    memset(root, 0, (size_t)n * n * sizeof *root);
    for (uint32_t k = 0; k < n; k++) {
        const double *v = vectors + (size_t)k * n, root_of = values[k] > 0 ? sqrt(values[k]) : 0;
        for (uint32_t i = 0; root_of > 0 && i < n; i++)
            for (uint32_t j = 0; j < n; j++) root[(size_t)i * n + j] += root_of * v[i] * v[j];
    }
}
