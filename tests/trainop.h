/* For tests of the trainer's ops: a function of up to three arrays with a reference in double, its gradients by central
 * differences. */
#ifndef BB_TESTS_TRAINOP_H
#define BB_TESTS_TRAINOP_H

#include <stdint.h>

#include "base/mathf.h"
#include "base/rng.h"
#include "check.h"
#include "train/engine/ops.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define STEP 1e-5 /* of differences in double: error STEP² of the third derivative, 1e-16/STEP of rounding: ≤ 1e-9 */

/* Each result is some ten roundings of 2^-24, a sum of n terms in runs some √n more; what is computed is compared with
 * the largest of the array. 2e-6 is 32 such roundings. */
#define CLOSE 2e-6

static float *normals(size_t n, uint32_t stream)
{
    float *x = calloc(n + 1, sizeof *x);
    bb_normals(x, n, 7, stream, 0);
    return x;
}

/* max |a − b|, for a in f32; inf if one is not finite. */
static double distance(const float *a, const double *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs(a[i] - b[i]);
        if (!(d <= 1e30)) return INFINITY;
        worst = d > worst ? d : worst;
    }
    return worst;
}

static double largest(const double *x, size_t n)
{
    double most = 1e-30;
    for (size_t i = 0; i < n; i++) most = fabs(x[i]) > most ? fabs(x[i]) : most;
    return most;
}

/* ---- a function of up to three arrays, its reference, its gradient ---- */

typedef struct problem {
    const char *name;
    uint32_t items, pixels, channels, groups, act, factor;
    bb_shape in, out;
    bool flag;
    size_t n[3], result; /* elements of the inputs, 0: no such input; of the result */
    const float *x[3];
    void (*reference)(const struct problem *p, double *const x[3], double *y);
    void (*forward)(const bb_ops *ops, const struct problem *p, float *y);
    void (*backward)(const bb_ops *ops, const struct problem *p, const float *dy, float *const dx[3]);
    double cancel; /* factor by which terms that cancel exceed the result's scale; 1 */
} problem;

static void differences(const problem *p, double *const x[3], const float *weight, double *const dx[3])
{
    double *y = calloc(p->result, sizeof *y);
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < p->n[k]; i++) {
            const double at = x[k][i];
            double loss[2] = {0, 0};
            for (int side = 0; side < 2; side++) {
                x[k][i] = at + (side ? STEP : -STEP);
                p->reference(p, x, y);
                for (size_t j = 0; j < p->result; j++) loss[side] += (double)weight[j] * y[j];
            }
            x[k][i] = at;
            dx[k][i] = (loss[1] - loss[0]) / (2 * STEP);
        }
    }
    free(y);
}

/* Gradients are added to: they start at 1 here. */
static void check_problem(const bb_ops *ops, const problem *p)
{
    double *x[3], *dx[3], *y = calloc(p->result, sizeof *y);
    float *d[3], *result = calloc(p->result, sizeof *result), *weight = normals(p->result, 99);
    for (int k = 0; k < 3; k++) {
        x[k] = calloc(p->n[k] + 1, sizeof *x[k]);
        dx[k] = calloc(p->n[k] + 1, sizeof *dx[k]);
        d[k] = calloc(p->n[k] + 1, sizeof *d[k]);
        for (size_t i = 0; i < p->n[k]; i++) {
            x[k][i] = (double)p->x[k][i];
            d[k][i] = 1;
        }
    }
    p->reference(p, x, y);
    p->forward(ops, p, result);
    const double cancel = p->cancel > 1 ? p->cancel : 1, error = distance(result, y, p->result) / largest(y, p->result);
    CHECK(error <= CLOSE * cancel, "%s %s (%u %u %u %u): %g", ops->name, p->name, p->items, p->pixels, p->channels,
          p->groups, error);
    differences(p, x, weight, dx);
    p->backward(ops, p, weight, d);
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < p->n[k]; i++) dx[k][i] += 1;
        const double scale = largest(dx[k], p->n[k]) * cancel, off = distance(d[k], dx[k], p->n[k]) / scale;
        CHECK(!p->n[k] || off <= 2 * CLOSE, "%s %s' of input %d (%u %u %u %u): %g", ops->name, p->name, k, p->items,
              p->pixels, p->channels, p->groups, off);
        free(x[k]);
        free(dx[k]);
        free(d[k]);
    }
    free(y);
    free(result);
    free(weight);
}

static inline void run_problem(const bb_ops *ops, problem p)
{
    for (int k = 0; k < 3; k++)
        if (p.n[k] && !p.x[k]) p.x[k] = normals(p.n[k], 20 + (uint32_t)k);
    check_problem(ops, &p);
    for (int k = 0; k < 3; k++) free((void *)(uintptr_t)p.x[k]);
}

/* Calls test with the table of each instruction set that this CPU has. */
static inline void each_set(void (*test)(const bb_ops *ops))
{
    bb_ops set, before = {.name = ""};
    for (uint32_t cpu = 1; cpu <= 3; cpu++) {
        set = *bb_ops_select(cpu, 2);
        if (strcmp(set.name, before.name)) test(&set);
        before = set;
    }
}

static const uint32_t shapes[][4] = { /* items, pixels, channels, groups */
    {1, 1, 1, 1}, {2, 1, 6, 2}, {1, 1, 5, 5}, {2, 7, 5, 1}, {1, 9, 12, 4}, {3, 2, 33, 11}, {1, 5, 131, 131},
    {2, 50, 8, 2},
};

#endif
