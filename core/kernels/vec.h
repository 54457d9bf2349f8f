/* The f32 kernels of every SIMD set, written once in GCC/clang vector extensions. An ISA file defines BB_ISA and
 * BB_LANES (floats per vector), then includes this. Same bits as scalar/: lanes run over outputs, channels or keys'
 * scores, never along a sum. */
#ifndef BB_KERNELS_VEC_H
#define BB_KERNELS_VEC_H

#include "base/mathf.h"
#include "kernels/set.h"

typedef float vf __attribute__((vector_size(4 * BB_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * BB_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * BB_LANES)));
typedef float vf_memory __attribute__((vector_size(4 * BB_LANES), aligned(4), may_alias));
typedef uint16_t vh_memory __attribute__((vector_size(2 * BB_LANES), aligned(2), may_alias));
typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));

#define VECTORS (BB_TILE / BB_LANES) /* per pixel of a tile */
#define PIXELS 4                     /* 4 pixels × 2 vectors of sums, 2 of weights: fits 16 registers */

BB_INLINE vf load(const float *x) { return *(const vf_memory *)x; }
BB_INLINE void store(float *y, vf v) { *(vf_memory *)y = v; }
BB_INLINE vf splat(float x) { return (vf){0} + x; }
BB_INLINE vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* bb_expf of mathf.h, step by step; n as an integer is read from the sum's low mantissa bits. */
BB_INLINE vf exp_v(vf x)
{
    const vf high = splat(BB_EXP_HIGH), low = splat(BB_EXP_LOW), magic = splat(12582912.0f);
    vf c = choose(x < high, x, high);
    c = choose(c > low, c, low);
    const vf shifted = c * BB_EXP_LOG2E + magic, n = shifted - magic;
    const vf r = (c - n * BB_EXP_LN2_HIGH) - n * BB_EXP_LN2_LOW;
    vf p = splat(BB_EXP_P0);
    p = p * r + BB_EXP_P1;
    p = p * r + BB_EXP_P2;
    p = p * r + BB_EXP_P3;
    p = p * r + BB_EXP_P4;
    p = p * r + BB_EXP_P5;
    p = (p * (r * r) + r) + 1.0f;
    const vi i = (vi)shifted - 0x4b400000, half = i >> 1;
    p = p * (vf)((half + 127) << 23);
    p = p * (vf)((i - half + 127) << 23);
    p = choose(x < low, (vf){0}, p);
    p = choose(x > high, (vf)((vi){0} + 0x7f800000), p);
    return choose(x == x, p, x);
}

/* bb_geluf and bb_mishf, step by step. */
BB_INLINE vf gelu_v(vf x)
{
    const vi negative = x < 0.0f;
    const vf z = choose(negative, -x, x) * BB_GELU_SQRT_HALF, t = 1.0f / (1.0f + 0.5f * z);
    vf p = splat(BB_GELU_P8);
    p = p * t + BB_GELU_P7;
    p = p * t + BB_GELU_P6;
    p = p * t + BB_GELU_P5;
    p = p * t + BB_GELU_P4;
    p = p * t + BB_GELU_P3;
    p = p * t + BB_GELU_P2;
    p = p * t + BB_GELU_P1;
    p = p * t + BB_GELU_P0;
    const vf tail = (p * t) * exp_v(-(z * z));
    return x * choose(negative, tail, 1.0f - tail);
}

BB_INLINE vf mish_v(vf x)
{
    const vf top = splat(20.0f), e = exp_v(choose(x < top, x, top)), n = e * (e + 2.0f);
    return x * (n / (n + 2.0f));
}

/* One tap over n pixels and two vectors of outputs. n is a constant at every call: sums stay in registers. */
BB_INLINE void conv_tap(vf (*acc)[VECTORS], const bb_conv_f32_args *a, size_t tap, size_t first, const size_t n)
{
    const float *const *rows = a->rows + first * a->taps + tap;
    for (size_t v = 0; v < VECTORS; v += 2) {
        const float *w = a->w + tap * a->channels * a->w_stride + v * BB_LANES, *x[PIXELS];
        vf sum[PIXELS][2];
        _Pragma("GCC unroll 4") for (size_t p = 0; p < n; p++) {
            x[p] = rows[p * a->taps];
            sum[p][0] = acc[first + p][v];
            sum[p][1] = acc[first + p][v + 1];
        }
        for (size_t c = 0; c < a->channels; c++, w += a->w_stride) {
            const vf w0 = load(w), w1 = load(w + BB_LANES);
            _Pragma("GCC unroll 4") for (size_t p = 0; p < n; p++) {
                sum[p][0] = sum[p][0] + x[p][c] * w0;
                sum[p][1] = sum[p][1] + x[p][c] * w1;
            }
        }
        _Pragma("GCC unroll 4") for (size_t p = 0; p < n; p++) {
            acc[first + p][v] = sum[p][0];
            acc[first + p][v + 1] = sum[p][1];
        }
    }
}

void BB_FN(conv_tile_f32)(const bb_conv_f32_args *a)
{
    vf acc[BB_TILE_PIXELS][VECTORS];
    memset(acc, 0, sizeof acc);
    for (size_t tap = 0; tap < a->taps; tap++) {
        size_t p = 0;
        for (; p + PIXELS <= a->pixels; p += PIXELS) conv_tap(acc, a, tap, p, PIXELS);
        for (; p < a->pixels; p++) conv_tap(acc, a, tap, p, 1);
    }
    for (size_t p = 0; p < a->pixels; p++)
        for (size_t v = 0; v < VECTORS; v++)
            store(a->y + p * BB_TILE + v * BB_LANES, acc[p][v] + load(a->bias + v * BB_LANES));
}

/* Exponent and mantissa shifted to their f32 places are x·2^−112, half subnormals included; the product is exact. */
void BB_FN(f16_to_f32)(float *y, const uint16_t *x, size_t n)
{
    size_t i = 0;
    for (; i + BB_LANES <= n; i += BB_LANES) {
        const vu h = __builtin_convertvector(*(const vh_memory *)(x + i), vu);
        const vu magnitude = (h & 0x7fffu) << 13, sign = (h & 0x8000u) << 16;
        const vf finite = (vf)magnitude * bb_f32_from_bits((127 + 112) << 23);
        const vi special = (vi)(magnitude >= 0x7c00u << 13);
        const vf all = choose(special, (vf)(magnitude | 0x7f800000u), finite);
        store(y + i, (vf)((vu)all | sign));
    }
    for (; i < n; i++) y[i] = bb_f16_to_f32(x[i]);
}

/* sum[c] = Σ x, or Σ (x − mean)² if mean is given: over runs of 64 pixels, then over the runs. */
BB_INLINE void channel_sums(const bb_group_norm_args *a, float *sum, float *run, const float *mean)
{
    const size_t whole = a->c / BB_LANES * BB_LANES;
    memset(sum, 0, a->c * sizeof *sum);
    for (size_t first = 0; first < a->pixels; first += BB_NORM_RUN) {
        const size_t end = first + BB_NORM_RUN < a->pixels ? first + BB_NORM_RUN : a->pixels;
        memset(run, 0, a->c * sizeof *run);
        for (size_t p = first; p < end; p++) {
            const float *x = a->x + p * a->c;
            for (size_t c = 0; c < whole; c += BB_LANES) {
                const vf d = mean ? load(x + c) - load(mean + c) : load(x + c);
                store(run + c, load(run + c) + (mean ? d * d : d));
            }
            for (size_t c = whole; c < a->c; c++) {
                const float d = mean ? x[c] - mean[c] : x[c];
                run[c] = run[c] + (mean ? d * d : d);
            }
        }
        for (size_t c = 0; c < whole; c += BB_LANES) store(sum + c, load(sum + c) + load(run + c));
        for (size_t c = whole; c < a->c; c++) sum[c] = sum[c] + run[c];
    }
}

/* Channel sums to the mean over each group, written to all of the group's channels. */
static void group_means(const bb_group_norm_args *a, float *out, const float *sum)
{
    const size_t per_group = a->c / a->groups;
    const float count = (float)(a->pixels * per_group);
    for (size_t first = 0; first < a->c; first += per_group) {
        float total = 0;
        for (size_t c = first; c < first + per_group; c++) total = total + sum[c];
        for (size_t c = first; c < first + per_group; c++) out[c] = total / count;
    }
}

void BB_FN(group_norm)(const bb_group_norm_args *a)
{
    const size_t whole = a->c / BB_LANES * BB_LANES;
    float *sum = a->scratch, *run = sum + a->c, *mean = run + a->c, *rstd = mean + a->c;
    channel_sums(a, sum, run, NULL);
    group_means(a, mean, sum);
    channel_sums(a, sum, run, mean);
    group_means(a, rstd, sum);
    for (size_t c = 0; c < a->c; c++) rstd[c] = 1.0f / bb_sqrtf(rstd[c] + a->eps);
    for (size_t p = 0; p < a->pixels; p++) {
        const float *x = a->x + p * a->c;
        float *y = a->y + p * a->c;
        for (size_t c = 0; c < whole; c += BB_LANES) {
            const vf centred = load(x + c) - load(mean + c);
            store(y + c, (centred * load(rstd + c)) * load(a->scale + c) + load(a->shift + c));
        }
        for (size_t c = whole; c < a->c; c++) y[c] = ((x[c] - mean[c]) * rstd[c]) * a->scale[c] + a->shift[c];
    }
}

/* kt[c][i] = k[i][c] for n keys, zeros up to the tile's 64. */
static void transpose_keys(float *kt, const float *k, size_t stride, size_t n, size_t d)
{
    const size_t whole_n = n / 4 * 4, whole_d = d / 4 * 4;
    for (size_t i = 0; i < whole_n; i += 4) {
        for (size_t c = 0; c < whole_d; c += 4) {
            const float *in = k + i * stride + c;
            const v4 r0 = *(const v4 *)in, r1 = *(const v4 *)(in + stride);
            const v4 r2 = *(const v4 *)(in + 2 * stride), r3 = *(const v4 *)(in + 3 * stride);
            const v4 a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
            const v4 e = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), f = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
            float *out = kt + c * BB_ATTENTION_KEYS + i;
            *(v4 *)out = __builtin_shufflevector(a, b, 0, 1, 4, 5);
            *(v4 *)(out + BB_ATTENTION_KEYS) = __builtin_shufflevector(a, b, 2, 3, 6, 7);
            *(v4 *)(out + 2 * BB_ATTENTION_KEYS) = __builtin_shufflevector(e, f, 0, 1, 4, 5);
            *(v4 *)(out + 3 * BB_ATTENTION_KEYS) = __builtin_shufflevector(e, f, 2, 3, 6, 7);
        }
    }
    for (size_t c = 0; c < d; c++) {
        for (size_t i = c < whole_d ? whole_n : 0; i < n; i++) kt[c * BB_ATTENTION_KEYS + i] = k[i * stride + c];
        for (size_t i = n; i < BB_ATTENTION_KEYS; i++) kt[c * BB_ATTENTION_KEYS + i] = 0;
    }
}

/* s[i] = (Σ_c q·k)·scale for 64 keys. Returns the greatest of the first n and m. */
static float scores(float *s, const float *q, const float *kt, size_t n, size_t d, float scale, float m)
{
    for (size_t first = 0; first < BB_ATTENTION_KEYS; first += 8 * BB_LANES) {
        vf sum[8] = {{0}};
        for (size_t c = 0; c < d; c++)
            _Pragma("GCC unroll 8") for (size_t v = 0; v < 8; v++)
                sum[v] = sum[v] + q[c] * load(kt + c * BB_ATTENTION_KEYS + first + v * BB_LANES);
        _Pragma("GCC unroll 8") for (size_t v = 0; v < 8; v++) store(s + first + v * BB_LANES, sum[v] * scale);
    }
    for (size_t i = n; i < BB_ATTENTION_KEYS; i++) s[i] = s[0]; /* padding that no maximum notices */
    vf max = splat(m);
    for (size_t i = 0; i < BB_ATTENTION_KEYS; i += BB_LANES) {
        const vf v = load(s + i);
        max = choose(v > max, v, max);
    }
    for (size_t i = 0; i < BB_LANES; i++) m = max[i] > m ? max[i] : m;
    return m;
}

/* o[c] = o[c]·r + Σ_i p[i]·v[i][c] for n vectors of channels, n a constant at every call. */
BB_INLINE void weigh(float *o, float r, const float *p, const float *v, size_t stride, size_t keys, const size_t n)
{
    vf sum[8];
    _Pragma("GCC unroll 8") for (size_t j = 0; j < n; j++) sum[j] = load(o + j * BB_LANES) * r;
    for (size_t i = 0; i < keys; i++, v += stride)
        _Pragma("GCC unroll 8") for (size_t j = 0; j < n; j++) sum[j] = sum[j] + p[i] * load(v + j * BB_LANES);
    _Pragma("GCC unroll 8") for (size_t j = 0; j < n; j++) store(o + j * BB_LANES, sum[j]);
}

/* One query's o and l after one tile of n keys; s holds scores and becomes p. */
static void attention_tile(float *o, float *l, float *s, float r, float max, const float *v, size_t stride,
                           size_t n, size_t d)
{
    for (size_t i = 0; i < BB_ATTENTION_KEYS; i += BB_LANES) store(s + i, exp_v(load(s + i) - max));
    float sum = *l * r;
    for (size_t i = 0; i < n; i++) sum = sum + s[i];
    *l = sum;
    size_t c = 0;
    for (; c + 8 * BB_LANES <= d; c += 8 * BB_LANES) weigh(o + c, r, s, v + c, stride, n, 8);
    for (; c + 4 * BB_LANES <= d; c += 4 * BB_LANES) weigh(o + c, r, s, v + c, stride, n, 4);
    for (; c + BB_LANES <= d; c += BB_LANES) weigh(o + c, r, s, v + c, stride, n, 1);
    for (; c < d; c++) {
        float rest = o[c] * r;
        for (size_t i = 0; i < n; i++) rest = rest + s[i] * v[i * stride + c];
        o[c] = rest;
    }
}

/* Queries first..first+n−1 (at most 16) over all keys: a key tile is transposed once for all of them. */
static void attention_block(const bb_attention_args *a, size_t first, size_t n)
{
    const size_t d = a->d;
    float *kt = a->scratch, *o = kt + BB_ATTENTION_KEYS * d, *l = o + BB_ATTENTION_QUERIES * d;
    float *m = l + BB_ATTENTION_QUERIES, *s = m + BB_ATTENTION_QUERIES;
    memset(o, 0, n * d * sizeof *o);
    memset(l, 0, n * sizeof *l);
    for (size_t i = 0; i < n; i++) m[i] = BB_ATTENTION_LOWEST;
    for (size_t key = 0; key < a->keys; key += BB_ATTENTION_KEYS) {
        const size_t left = a->keys - key, keys = left < BB_ATTENTION_KEYS ? left : BB_ATTENTION_KEYS;
        const float *v = a->v + key * a->kv_stride;
        transpose_keys(kt, a->k + key * a->kv_stride, a->kv_stride, keys, d);
        for (size_t i = 0; i < n; i++) {
            const float max = scores(s, a->q + (first + i) * a->q_stride, kt, keys, d, a->scale, m[i]);
            attention_tile(o + i * d, l + i, s, bb_expf(m[i] - max), max, v, a->kv_stride, keys, d);
            m[i] = max;
        }
    }
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < d; c++) a->o[(first + i) * a->o_stride + c] = o[i * d + c] / l[i];
}

void BB_FN(attention)(const bb_attention_args *a)
{
    for (size_t i = 0; i < a->queries; i += BB_ATTENTION_QUERIES) {
        const size_t left = a->queries - i;
        attention_block(a, a->first_query + i, left < BB_ATTENTION_QUERIES ? left : BB_ATTENTION_QUERIES);
    }
}

void BB_FN(avg_pool2d)(const bb_avg_pool_args *a)
{
    const float count = (float)(a->factor * a->factor);
    for (size_t p = 0; p < a->pixels; p++) {
        const float *x = a->x + p * a->factor * a->c;
        float *y = a->y + p * a->c;
        size_t c = 0;
        for (; c + BB_LANES <= a->c; c += BB_LANES) {
            vf sum = {0};
            for (size_t ky = 0; ky < a->factor; ky++)
                for (size_t kx = 0; kx < a->factor; kx++) sum = sum + load(x + ky * a->row_stride + kx * a->c + c);
            store(y + c, sum / count);
        }
        for (; c < a->c; c++) {
            float sum = 0;
            for (size_t ky = 0; ky < a->factor; ky++)
                for (size_t kx = 0; kx < a->factor; kx++) sum = sum + x[ky * a->row_stride + kx * a->c + c];
            y[c] = sum / count;
        }
    }
}

void BB_FN(silu)(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + BB_LANES <= n; i += BB_LANES) {
        const vf v = load(x + i);
        store(y + i, v / (1.0f + exp_v(-v)));
    }
    for (; i < n; i++) y[i] = x[i] / (1.0f + bb_expf(-x[i]));
}

void BB_FN(gelu)(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + BB_LANES <= n; i += BB_LANES) store(y + i, gelu_v(load(x + i)));
    for (; i < n; i++) y[i] = bb_geluf(x[i]);
}

void BB_FN(mish)(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + BB_LANES <= n; i += BB_LANES) store(y + i, mish_v(load(x + i)));
    for (; i < n; i++) y[i] = bb_mishf(x[i]);
}

void BB_FN(add)(float *y, const float *a, const float *b, size_t n)
{
    size_t i = 0;
    for (; i + BB_LANES <= n; i += BB_LANES) store(y + i, load(a + i) + load(b + i));
    for (; i < n; i++) y[i] = a[i] + b[i];
}

void BB_FN(add_channels)(float *y, const float *a, const float *b, size_t pixels, size_t c)
{
    for (size_t p = 0; p < pixels; p++) BB_FN(add)(y + p * c, a + p * c, b, c);
}

void BB_FN(modulate)(float *y, const float *x, const float *scale, const float *shift, size_t pixels, size_t c)
{
    const size_t whole = c / BB_LANES * BB_LANES;
    for (size_t p = 0; p < pixels; p++, y += c, x += c) {
        for (size_t i = 0; i < whole; i += BB_LANES)
            store(y + i, load(x + i) * (1.0f + load(scale + i)) + load(shift + i));
        for (size_t i = whole; i < c; i++) y[i] = x[i] * (1.0f + scale[i]) + shift[i];
    }
}

void BB_FN(affine)(float *y, const float *x, float mul, float add, size_t n)
{
    size_t i = 0;
    for (; i + BB_LANES <= n; i += BB_LANES) store(y + i, load(x + i) * mul + add);
    for (; i < n; i++) y[i] = x[i] * mul + add;
}

#endif
