/* Scalar kernels in f32: the written order of every float sum. Reductions ascend, multiply then add; where a loop
 * has independent outputs they are innermost, so a compiler may vectorize them without changing a bit. */
#include "base/mathf.h"

#define BB_ISA scalar
#include "kernels/set.h"

void BB_FN(conv_tile_f32)(const bb_conv_f32_args *a)
{
    float acc[BB_TILE_PIXELS][BB_TILE] = {{0}};
    for (size_t tap = 0; tap < a->taps; tap++) {
        for (size_t c = 0; c < a->channels; c++) {
            const float *w = a->w + (tap * a->channels + c) * a->w_stride;
            for (size_t p = 0; p < a->pixels; p++) {
                const float x = a->rows[tap * BB_TILE_PIXELS + p][c];
                for (size_t j = 0; j < BB_TILE; j++) acc[p][j] = acc[p][j] + x * w[j];
            }
        }
    }
    for (size_t p = 0; p < a->pixels; p++)
        for (size_t j = 0; j < BB_TILE; j++) a->y[p * BB_TILE + j] = acc[p][j] + a->bias[j];
}

void BB_FN(f16_to_f32)(float *y, const uint16_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = bb_f16_to_f32(x[i]);
}

/* sum[c] = Σ x, or Σ (x − mean)² if mean is given: over runs of 64 pixels, then over the runs. */
static void channel_sums(const bb_norm_stats_args *a, float *sum, const float *mean)
{
    for (size_t c = 0; c < a->c; c++) {
        sum[c] = 0;
        for (size_t first = 0; first < a->pixels; first += BB_NORM_RUN) {
            const size_t end = first + BB_NORM_RUN < a->pixels ? first + BB_NORM_RUN : a->pixels;
            float run = 0;
            for (size_t p = first; p < end; p++) {
                const float x = a->x[p * a->c + c], d = mean ? x - mean[c] : x;
                run = run + (mean ? d * d : d);
            }
            sum[c] = sum[c] + run;
        }
    }
}

/* Channel sums to the mean over each group, written to all of the group's channels. */
static void group_means(const bb_norm_stats_args *a, float *out, const float *sum)
{
    const size_t per_group = a->c / a->groups;
    const float count = (float)(a->pixels * per_group);
    for (size_t first = 0; first < a->c; first += per_group) {
        float total = 0;
        for (size_t c = first; c < first + per_group; c++) total = total + sum[c];
        for (size_t c = first; c < first + per_group; c++) out[c] = total / count;
    }
}

void BB_FN(norm_stats)(const bb_norm_stats_args *a)
{
    channel_sums(a, a->rstd, NULL);
    group_means(a, a->mean, a->rstd);
    channel_sums(a, a->rstd, a->mean);
    group_means(a, a->rstd, a->rstd);
    for (size_t c = 0; c < a->c; c++) a->rstd[c] = 1.0f / bb_sqrtf(a->rstd[c] + a->eps);
}

void BB_FN(group_norm)(const bb_group_norm_args *a)
{
    float *mean = a->scratch, *rstd = mean + a->c;
    BB_FN(norm_stats)(&(bb_norm_stats_args){.mean = mean, .rstd = rstd, .x = a->x, .pixels = a->pixels, .c = a->c,
                                            .groups = a->groups, .eps = a->eps});
    for (size_t p = 0; p < a->pixels; p++) {
        const float *x = a->x + p * a->c;
        float *y = a->y + p * a->c;
        for (size_t c = 0; c < a->c; c++) y[c] = ((x[c] - mean[c]) * rstd[c]) * a->scale[c] + a->shift[c];
    }
}

/* One query over one tile of keys; o, l and m carry the online softmax from tile to tile. */
static void attention_tile(const bb_attention_args *a, size_t query, size_t first, size_t n,
                           float *o, float *l, float *m)
{
    float *s = a->scratch + a->d;
    const float *q = a->q + query * a->q_stride;
    float max = *m;
    for (size_t i = 0; i < n; i++) {
        const float *k = a->k + (first + i) * a->kv_stride;
        float sum = 0;
        for (size_t c = 0; c < a->d; c++) sum = sum + q[c] * k[c];
        s[i] = sum * a->scale;
        max = s[i] > max ? s[i] : max;
    }
    const float r = bb_expf(*m - max);
    *l = *l * r;
    for (size_t c = 0; c < a->d; c++) o[c] = o[c] * r;
    for (size_t i = 0; i < n; i++) {
        const float *v = a->v + (first + i) * a->kv_stride, p = bb_expf(s[i] - max);
        *l = *l + p;
        for (size_t c = 0; c < a->d; c++) o[c] = o[c] + p * v[c];
    }
    *m = max;
}

void BB_FN(attention)(const bb_attention_args *a)
{
    float *o = a->scratch;
    for (size_t i = 0; i < a->queries; i++) {
        const size_t query = a->first_query + i;
        float l = 0, m = BB_ATTENTION_LOWEST;
        for (size_t c = 0; c < a->d; c++) o[c] = 0;
        for (size_t first = 0; first < a->keys; first += BB_ATTENTION_KEYS) {
            const size_t left = a->keys - first;
            attention_tile(a, query, first, left < BB_ATTENTION_KEYS ? left : BB_ATTENTION_KEYS, o, &l, &m);
        }
        for (size_t c = 0; c < a->d; c++) a->o[query * a->o_stride + c] = o[c] / l;
    }
}

void BB_FN(avg_pool2d)(const bb_avg_pool_args *a)
{
    const float count = (float)(a->factor * a->factor);
    for (size_t p = 0; p < a->pixels; p++) {
        for (size_t c = 0; c < a->c; c++) {
            float sum = 0;
            for (size_t ky = 0; ky < a->factor; ky++) {
                for (size_t kx = 0; kx < a->factor; kx++)
                    sum = sum + a->x[ky * a->row_stride + (p * a->factor + kx) * a->c + c];
            }
            a->y[p * a->c + c] = sum / count;
        }
    }
}

void BB_FN(silu)(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + bb_expf(-x[i]));
}

void BB_FN(gelu)(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = bb_geluf(x[i]);
}

void BB_FN(mish)(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = bb_mishf(x[i]);
}

void BB_FN(add)(float *y, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void BB_FN(add_channels)(float *y, const float *a, const float *b, size_t pixels, size_t c)
{
    for (size_t p = 0; p < pixels; p++)
        for (size_t i = 0; i < c; i++) y[p * c + i] = a[p * c + i] + b[i];
}

void BB_FN(modulate)(float *y, const float *x, const float *scale, const float *shift, size_t pixels, size_t c)
{
    for (size_t p = 0; p < pixels; p++)
        for (size_t i = 0; i < c; i++) y[p * c + i] = x[p * c + i] * (1.0f + scale[i]) + shift[i];
}

void BB_FN(affine)(float *y, const float *x, float mul, float add, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] * mul + add;
}

extern const bb_dot bb_dot_scalar;
BB_SET(0, &bb_dot_scalar);
