/* The whole test framework: CHECK counts, failures print where and why, main returns check_done(). */
#ifndef BB_TESTS_CHECK_H
#define BB_TESTS_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_passed, check_failed;

#define CHECK(cond, ...)                                              \
    do {                                                              \
        if (cond) { check_passed++; break; }                          \
        check_failed++;                                               \
        printf("FAIL %s:%d: %s: ", __FILE__, __LINE__, #cond);        \
        printf(__VA_ARGS__);                                          \
        printf("\n");                                                 \
    } while (0)

/* The parity measure of the reference data: max|a−ref| / max|ref|; NaN or inf anywhere gives inf. */
static inline double check_error(const float *a, const float *ref, size_t n)
{
    double worst = 0, scale = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - ref[i]);
        if (!(d <= 1e30)) return INFINITY;
        if (d > worst) worst = d;
        if (fabs(ref[i]) > scale) scale = fabs(ref[i]);
    }
    return scale > 0 ? worst / scale : worst;
}

static inline int check_done(void)
{
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed ? 1 : 0;
}

#endif
