#include "eval/distance.h"

#include "eval/linear.h"

#include <math.h>
#include <string.h>

static void multiply(uint32_t n, const double *a, const double *b, double *c)
{
    memset(c, 0, (size_t)n * n * sizeof *c);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < n; k++) {
            const double x = a[(size_t)i * n + k];
            for (uint32_t j = 0; j < n; j++) c[(size_t)i * n + j] += x * b[(size_t)k * n + j];
        }
}

double bb_frechet(uint32_t d, const double *mean1, const double *cov1, const double *mean2, const double *cov2,
                  double *scratch)
{
    const size_t n = (size_t)d * d;
    double *root = scratch, *product = root + n, *work = product + n, sum = 0;
    memcpy(product, cov1, n * sizeof *product);
    bb_root(product, d, root, work);
    multiply(d, root, cov2, product);
    multiply(d, product, root, work);
    double *values = product; /* no longer needed */
    for (uint32_t i = 0; i < d; i++) /* rounding left it a little unsymmetric */
        for (uint32_t j = 0; j < i; j++)
            work[(size_t)i * d + j] = work[(size_t)j * d + i] = (work[(size_t)i * d + j] + work[(size_t)j * d + i]) / 2;
    bb_eigen(work, d, values, NULL);
    for (uint32_t i = 0; i < d; i++) {
        const double apart = mean1[i] - mean2[i], value = values[i] > 0 ? values[i] : 0;
        sum += apart * apart + cov1[(size_t)i * d + i] + cov2[(size_t)i * d + i] - 2 * sqrt(value);
    }
    return sum;
}

/* ---- products of all pairs, by blocks of columns that stay in the first cache ---- */

enum { BLOCK = 64, LARGEST_D = 512 };

typedef struct pairs {
    const float *x, *y, *radius2;
    size_t n, m;
    uint32_t d, k;
    float *out;
    uint8_t *inside;
} pairs;

/* dot[j] = x · y[first + j] for j < count ≤ BLOCK; columns: the block of y with a row for each feature. */
static void block_products(const float *x, const float *columns, uint32_t d, float *dot)
{
    memset(dot, 0, BLOCK * sizeof *dot);
    for (uint32_t k = 0; k < d; k++)
        for (uint32_t j = 0; j < BLOCK; j++) dot[j] += x[k] * columns[k * BLOCK + j];
}

static size_t load_block(const float *y, size_t m, uint32_t d, size_t first, float *columns)
{
    const size_t count = m - first < BLOCK ? m - first : BLOCK;
    for (size_t j = 0; j < BLOCK; j++)
        for (uint32_t k = 0; k < d; k++) columns[k * BLOCK + j] = j < count ? y[(first + j) * d + k] : 0;
    return count;
}

static float squares(const float *x, uint32_t d)
{
    float sum = 0;
    for (uint32_t k = 0; k < d; k++) sum += x[k] * x[k];
    return sum;
}

static size_t blocks(size_t n) { return (n + BLOCK - 1) / BLOCK; }

/* Item: a block of rows of the matrix' transpose, that is, of columns. */
static void kernel_block(void *ctx, size_t item, size_t thread)
{
    const pairs *p = ctx;
    float columns[BLOCK * LARGEST_D], dot[BLOCK];
    const size_t first = item * BLOCK, count = load_block(p->y, p->m, p->d, first, columns);
    for (size_t i = 0; i < p->n; i++) {
        block_products(p->x + i * p->d, columns, p->d, dot);
        for (size_t j = 0; j < count; j++) {
            const float base = dot[j] / (float)p->d + 1;
            p->out[i * p->m + first + j] = base * base * base;
        }
    }
}

void bb_kernel(bb_par *par, const float *x, size_t n, const float *y, size_t m, uint32_t d, float *k)
{
    BB_ASSERT(d <= LARGEST_D);
    bb_par_for(par, blocks(m), kernel_block, &(pairs){.x = x, .y = y, .n = n, .m = m, .d = d, .out = k});
}

static float squared_distance(float dot, float xx, float yy)
{
    const float apart = xx + yy - 2 * dot;
    return apart > 0 ? apart : 0;
}

/* near: the k smallest so far, ascending. */
static void keep_near(float *near, uint32_t k, float distance)
{
    if (!(distance < near[k - 1])) return;
    uint32_t at = k - 1;
    for (; at && near[at - 1] > distance; at--) near[at] = near[at - 1];
    near[at] = distance;
}

static void radius_block(void *ctx, size_t item, size_t thread)
{
    const pairs *p = ctx;
    float columns[BLOCK * LARGEST_D], dot[BLOCK], near[BLOCK][8], yy[BLOCK];
    const size_t first = item * BLOCK, count = load_block(p->y, p->m, p->d, first, columns);
    for (size_t j = 0; j < count; j++) {
        yy[j] = squares(p->y + (first + j) * p->d, p->d);
        for (uint32_t k = 0; k < p->k; k++) near[j][k] = INFINITY;
    }
    for (size_t i = 0; i < p->n; i++) {
        const float xx = squares(p->x + i * p->d, p->d);
        block_products(p->x + i * p->d, columns, p->d, dot);
        for (size_t j = 0; j < count; j++)
            if (i != first + j) keep_near(near[j], p->k, squared_distance(dot[j], xx, yy[j]));
    }
    for (size_t j = 0; j < count; j++) p->out[first + j] = near[j][p->k - 1];
}

void bb_radii(bb_par *par, const float *x, size_t n, uint32_t d, uint32_t k, float *radius2)
{
    BB_ASSERT(d <= LARGEST_D && k >= 1 && k <= 8 && k < n);
    bb_par_for(par, blocks(n), radius_block, &(pairs){.x = x, .y = x, .n = n, .m = n, .d = d, .k = k, .out = radius2});
}

static void inside_block(void *ctx, size_t item, size_t thread)
{
    const pairs *p = ctx;
    float columns[BLOCK * LARGEST_D], dot[BLOCK], yy[BLOCK];
    const size_t first = item * BLOCK, count = load_block(p->y, p->m, p->d, first, columns);
    for (size_t j = 0; j < count; j++) {
        yy[j] = squares(p->y + (first + j) * p->d, p->d);
        p->inside[first + j] = 0;
    }
    for (size_t i = 0; i < p->n; i++) {
        const float xx = squares(p->x + i * p->d, p->d);
        block_products(p->x + i * p->d, columns, p->d, dot);
        for (size_t j = 0; j < count; j++)
            p->inside[first + j] |= squared_distance(dot[j], xx, yy[j]) <= p->radius2[i];
    }
}

void bb_inside(bb_par *par, const float *x, const float *radius2, size_t n, const float *y, size_t m, uint32_t d,
               uint8_t *inside)
{
    BB_ASSERT(d <= LARGEST_D);
    bb_par_for(par, blocks(m), inside_block,
               &(pairs){.x = x, .y = y, .radius2 = radius2, .n = n, .m = m, .d = d, .inside = inside});
}

/* ---- maximum mean discrepancy ---- */

/* Σ_j w_j k_j, without w: Σ_j k_j; four sums side by side. */
static double weighted_row(const float *k, const uint32_t *w, size_t n)
{
    double sum[4] = {0};
    size_t j = 0;
    for (; j + 4 <= n; j += 4)
        for (size_t l = 0; l < 4; l++) sum[l] += (w ? (double)w[j + l] : 1) * k[j + l];
    for (; j < n; j++) sum[0] += (w ? (double)w[j] : 1) * k[j];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Mean of a square kernel matrix over pairs of different pictures. */
static double mean_of_pairs(const float *k, const uint32_t *w, size_t n)
{
    double sum = 0, total = 0, same = 0;
    for (size_t i = 0; i < n; i++) {
        const double wi = w ? w[i] : 1;
        if (wi == 0) continue;
        sum += wi * (weighted_row(k + i * n, w, n) - wi * k[i * n + i]);
        total += wi;
        same += wi * wi;
    }
    return sum / (total * total - same);
}

double bb_mmd(const float *xx, const float *yy, const float *xy, const uint32_t *wx, size_t n, const uint32_t *wy,
              size_t m)
{
    double sum = 0, total_x = 0, total_y = 0;
    for (size_t j = 0; j < m; j++) total_y += wy ? wy[j] : 1;
    for (size_t i = 0; i < n; i++) {
        const double wi = wx ? wx[i] : 1;
        if (wi > 0) sum += wi * weighted_row(xy + i * m, wy, m);
        total_x += wi;
    }
    return mean_of_pairs(xx, wx, n) + mean_of_pairs(yy, wy, m) - 2 * sum / (total_x * total_y);
}
