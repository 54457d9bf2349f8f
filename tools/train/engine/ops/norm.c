/* Group norm with an activation behind it. A thread takes an item whole, which fits its cache: so memory is passed over
 * once each way. Where there are more threads than items an item is cut into parts of pixels.
 *
 * Inner loops are flat: they go over runs of whole pixels, and what belongs to channels is repeated to the length of a
 * run, so that few or odd channels cost no more than others. */
#include <omp.h>

#include "train/engine/ops/set.h"

/* A thread's slots, one run each. The sums are of the run's lanes; with d = x − CENTRE the rest means
 * y = act(d·MUL + SHIFT) and dx = dz·MUL − OFFSET − d·SLOPE. */
enum { SUM, SUM_D, CENTRE, MUL, SHIFT, OFFSET, SLOPE };
_Static_assert(SLOPE + 1 == BB_NORM_SLOTS, "slots");

typedef struct part {
    const bb_norm_args *a;
    bb_norm_split split;
    size_t item, first, n; /* its floats: from a->x + first on */
    float *sums;           /* [2][channels], of the part */
    float *slot[BB_NORM_SLOTS];
} part;

static part part_at(const bb_norm_args *a, bb_norm_split split, size_t number)
{
    const size_t c = a->channels, pixel = number % split.parts * split.pixels, item = number / split.parts;
    part p = {.a = a, .split = split, .item = item, .first = (item * a->pixels + pixel) * c,
              .n = smaller(split.pixels, a->pixels - pixel) * c, .sums = a->scratch + number * 2 * c};
    float *own = a->scratch + a->items * split.parts * 2 * c + (size_t)omp_get_thread_num() * BB_NORM_SLOTS * split.run;
    for (size_t k = 0; k < BB_NORM_SLOTS; k++) p.slot[k] = own + k * split.run;
    return p;
}

/* The sums of a part's item, all parts of it. */
static double item_sum(const part *p, size_t which, size_t channel)
{
    const size_t c = p->a->channels;
    const float *sums = p->a->scratch + p->item * p->split.parts * 2 * c + which * c + channel;
    double sum = 0;
    for (size_t i = 0; i < p->split.parts; i++) sum += (double)sums[i * 2 * c];
    return sum;
}

/* The first `channels` of a slot over all of it. */
static void repeat(const part *p, size_t slot)
{
    const size_t c = p->a->channels;
    for (size_t i = c; i < p->split.run; i++) p->slot[slot][i] = p->slot[slot][i - c];
}

/* Sums of lanes to sums of channels. */
static void fold(const part *p)
{
    const size_t c = p->a->channels;
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < c; i++) {
            float sum = 0;
            for (size_t j = i; j < p->split.run; j += c) sum += p->slot[k][j];
            p->sums[k * c + i] = sum;
        }
    }
}

/* ---- forward ---- */

static void moments_run(size_t n, const float *restrict x, const float *restrict centre, float *restrict sum,
                        float *restrict sum_d)
{
    SIMD for (size_t i = 0; i < n; i++) {
        const float d = x[i] - centre[i];
        sum[i] += d;
        sum_d[i] += d * d;
    }
}

/* Σ d and Σ d² of each channel, d taken from the item's first pixel: near the mean, so that nothing cancels. */
static void moments(const part *p)
{
    const bb_norm_args *a = p->a;
    memset(p->slot[SUM], 0, 2 * p->split.run * sizeof(float));
    memcpy(p->slot[CENTRE], a->x + p->item * a->pixels * a->channels, a->channels * sizeof(float));
    repeat(p, CENTRE);
    for (size_t i = 0; i < p->n; i += p->split.run)
        moments_run(smaller(p->split.run, p->n - i), a->x + p->first + i, p->slot[CENTRE], p->slot[SUM],
                    p->slot[SUM_D]);
    fold(p);
}

/* The group's squares about its mean from those about its channels' means (Chan, Golub & LeVeque 1983). */
static void group_statistics(const part *p, size_t group)
{
    const bb_norm_args *a = p->a;
    const size_t width = a->channels / a->groups;
    const float *centre = a->x + p->item * a->pixels * a->channels;
    const double n = a->pixels, all = n * (double)width;
    double mean = 0, squares = 0;
    for (size_t c = group * width; c < (group + 1) * width; c++) mean += centre[c] + item_sum(p, SUM, c) / n;
    mean /= (double)width;
    for (size_t c = group * width; c < (group + 1) * width; c++) {
        const double sum = item_sum(p, SUM, c), off = centre[c] + sum / n - mean;
        squares += n * off * off + (item_sum(p, SUM_D, c) - sum * sum / n);
    }
    a->mean[p->item * a->groups + group] = (float)mean;
    a->rstd[p->item * a->groups + group] = (float)(1 / bb_sqrt((squares < 0 ? 0 : squares) / all + (double)a->eps));
}

static void channel_values(const part *p)
{
    const bb_norm_args *a = p->a;
    const size_t width = a->channels / a->groups;
    for (size_t c = 0; c < a->channels; c++) {
        p->slot[CENTRE][c] = a->mean[p->item * a->groups + c / width];
        p->slot[MUL][c] = a->rstd[p->item * a->groups + c / width] * a->scale[c];
        p->slot[SHIFT][c] = a->shift[c];
    }
    for (size_t k = CENTRE; k <= SHIFT; k++) repeat(p, k);
}

BB_INLINE void result_run(const uint32_t act, const bool wide, const bool narrow, size_t n, const float *restrict x,
                          const part *p, float *restrict y, uint16_t *restrict y16)
{
    const float *restrict centre = p->slot[CENTRE], *restrict mul = p->slot[MUL], *restrict shift = p->slot[SHIFT];
    SIMD for (size_t i = 0; i < n; i++) {
        const float v = activate(act, (x[i] - centre[i]) * mul[i] + shift[i]);
        if (wide) y[i] = v;
        if (narrow) y16[i] = bf16(v);
    }
}

BB_INLINE void result_as(const uint32_t act, const bool wide, const bool narrow, const part *p)
{
    const bb_norm_args *a = p->a;
    for (size_t i = 0; i < p->n; i += p->split.run)
        result_run(act, wide, narrow, smaller(p->split.run, p->n - i), a->x + p->first + i, p,
                   wide ? a->y + p->first + i : NULL, narrow ? a->y16 + p->first + i : NULL);
}

static void result(const part *p)
{
    channel_values(p);
#define RESULT(act)                                                     \
    if (p->a->y && p->a->y16) result_as(act, true, true, p);            \
    else if (p->a->y) result_as(act, true, false, p);                   \
    else result_as(act, false, true, p)
    BB_EACH_ACT(p->a->act, RESULT)
#undef RESULT
}

static void norm_forward(const bb_norm_args *a)
{
    const bb_norm_split split = bb_norm_parts(a);
    const size_t parts = a->items * split.parts;
    const bool threads = (size_t)a->items * a->pixels * a->channels > SMALL;
#pragma omp parallel if (threads)
    {
#pragma omp for schedule(static)
        for (size_t i = 0; i < parts; i++) {
            const part p = part_at(a, split, i);
            moments(&p);
            if (split.parts > 1) continue;
            for (size_t group = 0; group < a->groups; group++) group_statistics(&p, group);
            result(&p);
        }
        if (split.parts > 1) {
#pragma omp for schedule(static)
            for (size_t i = 0; i < (size_t)a->items * a->groups; i++) {
                const part p = part_at(a, split, i / a->groups * split.parts);
                group_statistics(&p, i % a->groups);
            }
#pragma omp for schedule(static)
            for (size_t i = 0; i < parts; i++) {
                const part p = part_at(a, split, i);
                result(&p);
            }
        }
    }
}

/* ---- backward ---- */

/* begin: dx is the place of dz until the second pass, which spares its recomputation. */
BB_INLINE void sums_run(const uint32_t act, const bool begin, size_t n, const float *restrict x,
                        const float *restrict dy, const part *p, float *restrict dx)
{
    const float *restrict centre = p->slot[CENTRE], *restrict mul = p->slot[MUL], *restrict shift = p->slot[SHIFT];
    float *restrict sum = p->slot[SUM], *restrict sum_d = p->slot[SUM_D];
    SIMD for (size_t i = 0; i < n; i++) {
        const float d = x[i] - centre[i], dz = dy[i] * act_slope(act, d * mul[i] + shift[i]);
        sum[i] += dz;
        sum_d[i] += dz * d;
        if (begin) dx[i] = dz;
    }
}

BB_INLINE void sums_as(const uint32_t act, const bool begin, const part *p)
{
    const bb_norm_args *a = p->a;
    for (size_t i = 0; i < p->n; i += p->split.run)
        sums_run(act, begin, smaller(p->split.run, p->n - i), a->x + p->first + i, a->dy + p->first + i, p,
                 begin ? a->dx + p->first + i : NULL);
}

/* Σ dz and Σ dz·d of each channel, dz the gradient in front of the activation. */
static void gradient_sums(const part *p)
{
    channel_values(p);
    memset(p->slot[SUM], 0, 2 * p->split.run * sizeof(float));
#define SUMS(act)                                        \
    if (p->a->dx && p->a->begin) sums_as(act, true, p);  \
    else sums_as(act, false, p)
    BB_EACH_ACT(p->a->act, SUMS)
#undef SUMS
    fold(p);
}

/* With x̂ = d·rstd: dx = rstd·(scale·dz − mean(scale·dz) − x̂·mean(scale·dz·x̂)), means over the group. */
static void group_slopes(const part *p)
{
    const bb_norm_args *a = p->a;
    const size_t width = a->channels / a->groups;
    for (size_t group = 0; group < a->groups; group++) {
        const double rstd = a->rstd[p->item * a->groups + group], n = (double)a->pixels * (double)width;
        double offset = 0, slope = 0;
        for (size_t c = group * width; c < (group + 1) * width; c++) {
            offset += a->scale[c] * item_sum(p, SUM, c);
            slope += a->scale[c] * item_sum(p, SUM_D, c);
        }
        for (size_t c = group * width; c < (group + 1) * width; c++) {
            p->slot[OFFSET][c] = (float)(rstd * offset / n);
            p->slot[SLOPE][c] = (float)(rstd * rstd * rstd * slope / n);
        }
    }
    repeat(p, OFFSET);
    repeat(p, SLOPE);
}

BB_INLINE void gradient_run(const uint32_t act, const bool begin, size_t n, const float *restrict x,
                            const float *restrict dy, const part *p, float *restrict dx)
{
    const float *restrict centre = p->slot[CENTRE], *restrict mul = p->slot[MUL], *restrict shift = p->slot[SHIFT];
    const float *restrict offset = p->slot[OFFSET], *restrict slope = p->slot[SLOPE];
    SIMD for (size_t i = 0; i < n; i++) {
        const float d = x[i] - centre[i], dz = begin ? dx[i] : dy[i] * act_slope(act, d * mul[i] + shift[i]);
        const float v = dz * mul[i] - offset[i] - d * slope[i];
        dx[i] = begin ? v : dx[i] + v;
    }
}

BB_INLINE void gradient_as(const uint32_t act, const bool begin, const part *p)
{
    const bb_norm_args *a = p->a;
    for (size_t i = 0; i < p->n; i += p->split.run)
        gradient_run(act, begin, smaller(p->split.run, p->n - i), a->x + p->first + i, a->dy + p->first + i, p,
                     a->dx + p->first + i);
}

static void gradient(const part *p)
{
    group_slopes(p);
#define GRADIENT(act) gradient_as(act, false, p)
    if (p->a->begin) gradient_as(BB_ACT_NONE, true, p);
    else BB_EACH_ACT(p->a->act, GRADIENT)
#undef GRADIENT
}

/* dshift += Σ dz, dscale += Σ dz·x̂, over the items in order. */
static void parameter_gradients(const bb_norm_args *a, bb_norm_split split)
{
    const size_t width = a->channels / a->groups;
    for (size_t c = 0; c < a->channels; c++) {
        double shift = 0, scale = 0;
        for (size_t item = 0; item < a->items; item++) {
            const part p = {.a = a, .split = split, .item = item};
            shift += item_sum(&p, SUM, c);
            scale += item_sum(&p, SUM_D, c) * (double)a->rstd[item * a->groups + c / width];
        }
        if (a->dshift) a->dshift[c] += (float)shift;
        if (a->dscale) a->dscale[c] += (float)scale;
    }
}

static void norm_backward(const bb_norm_args *a)
{
    const bb_norm_split split = bb_norm_parts(a);
    const size_t parts = a->items * split.parts;
    const bool threads = (size_t)a->items * a->pixels * a->channels > SMALL;
#pragma omp parallel if (threads)
    {
#pragma omp for schedule(static)
        for (size_t i = 0; i < parts; i++) {
            const part p = part_at(a, split, i);
            gradient_sums(&p);
            if (split.parts == 1 && a->dx) gradient(&p);
        }
        if (split.parts > 1 && a->dx) {
#pragma omp for schedule(static)
            for (size_t i = 0; i < parts; i++) {
                const part p = part_at(a, split, i);
                channel_values(&p);
                gradient(&p);
            }
        }
    }
    parameter_gradients(a, split);
}

void BB_FN(norm)(bb_ops *t)
{
    t->norm_forward = norm_forward;
    t->norm_backward = norm_backward;
}
