/* What treats all pixels of an item alike: spreading, modulation, bias gradients, concatenated channels. */
#include "train/engine/ops/set.h"

#define COLUMNS 256 /* of a block of sums, on the stack */
#define RUN 64      /* terms that are summed before their sum is added to others: rounding errors grow with the terms */

BB_INLINE void add_run(const bool narrow, size_t n, const float *restrict x, float *restrict sum,
                       uint16_t *restrict x16)
{
    SIMD for (size_t j = 0; j < n; j++) {
        sum[j] += x[j];
        if (narrow) x16[j] = bf16(x[j]);
    }
}

/* sum[j] = Σ_i x[i][j] of `rows` rows, `stride` floats apart, n ≤ COLUMNS; dense rows several at a time. */
BB_INLINE void block_sums(const bool narrow, size_t rows, size_t stride, size_t n, const float *x, float *sum,
                          uint16_t *x16)
{
    const size_t side = stride == n ? COLUMNS / n : 1; /* rows side by side */
    float lanes[COLUMNS] = {0};
    for (size_t first = 0; first < rows; first += RUN * side) {
        const size_t end = smaller(rows, first + RUN * side);
        float run[COLUMNS] = {0};
        for (size_t i = first; i < end; i += side)
            add_run(narrow, smaller(side, end - i) * n, x + i * stride, run, narrow ? x16 + i * stride : NULL);
        SIMD for (size_t j = 0; j < side * n; j++) lanes[j] += run[j];
    }
    for (size_t j = 0; j < n; j++) {
        sum[j] = 0;
        for (size_t k = 0; k < side; k++) sum[j] += lanes[k * n + j];
    }
}

/* Rows in slices whose number does not depend on the threads'. */
#define SLICES 16
static void column_sums_to_bf16(size_t rows, uint32_t n, const float *dy, float *db, uint16_t *dy16)
{
    float sums[SLICES][COLUMNS];
    const size_t length = (rows + SLICES - 1) / SLICES;
    for (size_t first = 0; first < n; first += COLUMNS) {
        const size_t columns = smaller(COLUMNS, n - first);
#pragma omp parallel for schedule(static) if (rows * columns > SMALL)
        for (size_t slice = 0; slice < SLICES; slice++) {
            const size_t row = smaller(rows, slice * length), count = smaller(length, rows - row), at = row * n + first;
            if (dy16) block_sums(true, count, n, columns, dy + at, sums[slice], dy16 + at);
            else block_sums(false, count, n, columns, dy + at, sums[slice], NULL);
        }
        for (size_t slice = 0; db && slice < SLICES; slice++)
            for (size_t j = 0; j < columns; j++) db[first + j] += sums[slice][j];
    }
}

static void column_sums(size_t rows, uint32_t n, const float *dy, float *db)
{
    column_sums_to_bf16(rows, n, dy, db, NULL);
}

static void add_forward(uint32_t items, uint32_t pixels, uint32_t channels, bool spread, const float *a, const float *b,
                        float *y)
{
    const size_t rows = (size_t)items * pixels, c = channels, n = rows * c;
    if (!spread) {
#pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
        return;
    }
#pragma omp parallel for schedule(static) if (n > SMALL)
    for (size_t row = 0; row < rows; row++) {
        const float *one = a + row * c, *two = b + row / pixels * c;
        float *sum = y + row * c;
        SIMD for (size_t j = 0; j < c; j++) sum[j] = one[j] + two[j];
    }
}

static void add_backward(uint32_t items, uint32_t pixels, uint32_t channels, bool spread, const float *dy, float *da,
                         float *db)
{
    const size_t c = channels, size = pixels * c, n = items * size;
    if (!spread && da && db) {
#pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) {
            const float d = dy[i];
            da[i] += d;
            db[i] += d;
        }
        return;
    }
    float *same = da ? da : spread ? NULL : db;
    if (same) {
#pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) same[i] += dy[i];
    }
    if (!spread || !db) return;
#pragma omp parallel for schedule(static) if (n > SMALL)
    for (size_t item = 0; item < items; item++) {
        float sums[COLUMNS];
        for (size_t first = 0; first < c; first += COLUMNS) {
            const size_t columns = smaller(COLUMNS, c - first);
            block_sums(false, pixels, c, columns, dy + item * size + first, sums, NULL);
            for (size_t j = 0; j < columns; j++) db[item * c + first + j] += sums[j];
        }
    }
}

static void copy_channels(size_t rows, uint32_t channels, uint32_t first, uint32_t count, const float *x, float *y)
{
#pragma omp parallel for schedule(static) if (rows * count > SMALL)
    for (size_t row = 0; row < rows; row++)
        memcpy(y + row * count, x + row * channels + first, count * sizeof *y);
}

static void put_channels(size_t rows, uint32_t channels, uint32_t first, uint32_t count, const float *x, float *y,
                         bool add)
{
#pragma omp parallel for schedule(static) if (rows * count > SMALL)
    for (size_t row = 0; row < rows; row++) {
        const float *from = x + row * count;
        float *to = y + row * channels + first;
        if (!add) memcpy(to, from, count * sizeof *to);
        else SIMD for (size_t j = 0; j < count; j++) to[j] += from[j];
    }
}

static void modulate_forward(uint32_t items, uint32_t pixels, uint32_t channels, const float *x, const float *scale,
                             const float *shift, float *y)
{
    const size_t rows = (size_t)items * pixels, c = channels;
#pragma omp parallel for schedule(static) if (rows * c > SMALL)
    for (size_t row = 0; row < rows; row++) {
        const float *mul = scale + row / pixels * c, *add = shift + row / pixels * c;
        SIMD for (size_t j = 0; j < c; j++) y[row * c + j] = x[row * c + j] * (1.0f + mul[j]) + add[j];
    }
}

static void modulate_item(size_t pixels, size_t c, size_t columns, const float *x, const float *dy, float *dscale,
                          float *dshift)
{
    float products[COLUMNS], sums[COLUMNS];
    SIMD for (size_t j = 0; j < columns; j++) products[j] = 0;
    for (size_t i = 0; i < pixels; i++)
        SIMD for (size_t j = 0; j < columns; j++) products[j] += x[i * c + j] * dy[i * c + j];
    block_sums(false, pixels, c, columns, dy, sums, NULL);
    for (size_t j = 0; j < columns; j++) {
        if (dscale) dscale[j] += products[j];
        if (dshift) dshift[j] += sums[j];
    }
}

static void modulate_backward(uint32_t items, uint32_t pixels, uint32_t channels, const float *x, const float *scale,
                              const float *dy, float *dx, float *dscale, float *dshift)
{
    const size_t c = channels, size = pixels * c;
#pragma omp parallel for schedule(static) if (items * size > SMALL)
    for (size_t item = 0; item < items; item++) {
        const float *mul = scale + item * c, *in = x + item * size, *d = dy + item * size;
        for (size_t i = 0; dx && i < pixels; i++)
            SIMD for (size_t j = 0; j < c; j++) dx[item * size + i * c + j] += d[i * c + j] * (1.0f + mul[j]);
        for (size_t first = 0; first < c; first += COLUMNS)
            modulate_item(pixels, c, smaller(COLUMNS, c - first), in + first, d + first,
                          dscale ? dscale + item * c + first : NULL, dshift ? dshift + item * c + first : NULL);
    }
}

void BB_FN(channels)(bb_ops *t)
{
    t->add_forward = add_forward;
    t->add_backward = add_backward;
    t->copy_channels = copy_channels;
    t->put_channels = put_channels;
    t->modulate_forward = modulate_forward;
    t->modulate_backward = modulate_backward;
    t->column_sums = column_sums;
    t->column_sums_to_bf16 = column_sums_to_bf16;
}
