/* The f32 kernels and the activation quantizer of every SIMD set, written once in GCC/clang vector extensions. An ISA
 * file defines BB_ISA and BB_LANES (floats per vector), includes vec_types.h, defines what that asks for, and includes
 * this. Same bits as scalar/: lanes run over outputs, channels or keys' scores, never along a sum. */
#ifndef BB_KERNELS_VEC_H
#define BB_KERNELS_VEC_H

#include "kernels/vec_math.h"

typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));

#define PIXELS 4 /* 4 pixels × 2 vectors of sums, 2 of weights: fits 16 registers */

/* The codes of `blocks` times 16 channels of one pixel, and their sum. */
static int32_t quantize_blocks(const bb_quantize_args *a, uint8_t *code, const float *x, size_t blocks)
{
    const int32_t zero = (int32_t)a->zero;
    const vf low = splat(-(float)zero), high = splat((float)((int32_t)a->levels - zero));
    vi sum = {0};
    for (size_t c = 0; c < blocks * BB_TILE; c += BB_TILE) {
        vf v[VECTORS];
        vi n[VECTORS];
        _Pragma("GCC unroll 4") for (size_t i = 0; i < VECTORS; i++) v[i] = load(x + c + i * BB_LANES);
        if (a->mean) {
            _Pragma("GCC unroll 4") for (size_t i = 0; i < VECTORS; i++) {
                const size_t at = c + i * BB_LANES;
                const vf normal = (v[i] - load(a->mean + at)) * load(a->rstd + at);
                v[i] = normal * load(a->scale + at) + load(a->shift + at);
            }
        }
        if (a->silu) {
            _Pragma("GCC unroll 4") for (size_t i = 0; i < VECTORS; i++) v[i] = silu_v(v[i]);
        }
        _Pragma("GCC unroll 4") for (size_t i = 0; i < VECTORS; i++) {
            v[i] = lesser(greater(v[i] * load(a->m + c + i * BB_LANES), low), high);
            /* v + 1.5·2^23 has round(v) in its low mantissa bits: bb_round_even as an integer */
            n[i] = (vi)(v[i] + 12582912.0f) + (zero - 0x4b400000);
            sum = sum + n[i];
        }
        store_codes(code + c, n);
    }
    int32_t total = 0;
    for (size_t i = 0; i < BB_LANES; i++) total += sum[i];
    return total;
}

/* Channels that fill no block of 16: computed in copies with zeros behind them. */
static void quantize_rest(const bb_quantize_args *a, size_t first)
{
    const size_t rest = a->channels - first, bytes = rest * sizeof(float);
    float x[BB_TILE] = {0}, m[BB_TILE] = {0}, norm[4][BB_TILE] = {{0}};
    bb_quantize_args one = *a;
    memcpy(m, a->m + first, bytes);
    one.m = m;
    if (a->mean) {
        const float **from[4] = {&one.mean, &one.rstd, &one.scale, &one.shift};
        for (size_t i = 0; i < 4; i++) {
            memcpy(norm[i], *from[i] + first, bytes);
            *from[i] = norm[i];
        }
    }
    for (size_t p = 0; p < a->pixels; p++) {
        uint8_t code[BB_TILE];
        memcpy(x, a->x + p * a->x_stride + first, bytes);
        quantize_blocks(&one, code, x, 1);
        memset(code + rest, 0, BB_TILE - rest);
        memcpy(a->a + p * a->a_stride + first, code, bb_align_up(rest, BB_K_BLOCK));
        for (size_t c = 0; a->sum && c < rest; c++) a->sum[p] += code[c];
    }
}

void BB_FN(quantize)(const bb_quantize_args *a)
{
    const size_t blocks = a->channels / BB_TILE, whole = blocks * BB_TILE;
    for (size_t p = 0; p < a->pixels; p++) {
        const int32_t sum = quantize_blocks(a, a->a + p * a->a_stride, a->x + p * a->x_stride, blocks);
        if (a->sum) a->sum[p] = sum;
    }
    if (whole < a->channels) quantize_rest(a, whole);
}

/* One tap over n pixels and two vectors of outputs. n is a constant at every call: sums stay in registers. */
BB_INLINE void conv_tap(vf (*acc)[VECTORS], const bb_conv_f32_args *a, size_t tap, size_t first, const size_t n)
{
    const float *const *rows = a->rows + tap * BB_TILE_PIXELS + first;
    for (size_t v = 0; v < VECTORS; v += 2) {
        const float *w = a->w + tap * a->channels * a->w_stride + v * BB_LANES, *x[PIXELS];
        vf sum[PIXELS][2];
        _Pragma("GCC unroll 4") for (size_t p = 0; p < n; p++) {
            x[p] = rows[p];
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

void BB_FN(tables)(const bb_tables_args *a)
{
    for (size_t p = 0; p < a->pixels; p++) {
        const uint8_t *code = a->a + p * a->a_stride;
        uint8_t *t = a->t + p * a->t_stride;
        for (size_t c = 0; c < a->channels; c += 4, t += 16) {
            const uint8_t none = (uint8_t)a->bias;
            t[0] = none;
            for (size_t b = 0; b < 4; b++)
                for (size_t i = 0; i < (size_t)1 << b; i++) t[(1u << b) + i] = (uint8_t)(t[i] + code[c + b]);
        }
    }
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

/* Adds Σ x, or Σ (x − mean)², over the pixels to each of n vectors of channels; n and centred are constants at every
 * call, so that the sums stay in registers. */
BB_INLINE void add_run(float *sum, const float *x, const float *mean, size_t stride, size_t pixels, const size_t n,
                       const bool centred)
{
    vf run[4] = {{0}};
    for (size_t p = 0; p < pixels; p++, x += stride) {
        _Pragma("GCC unroll 4") for (size_t v = 0; v < n; v++) {
            vf d = load(x + v * BB_LANES);
            if (centred) d = d - load(mean + v * BB_LANES);
            run[v] = run[v] + (centred ? d * d : d);
        }
    }
    for (size_t v = 0; v < n; v++) store(sum + v * BB_LANES, load(sum + v * BB_LANES) + run[v]);
}

/* sum[c] = Σ x, or Σ (x − mean)²: over runs of 64 pixels, then over the runs. */
BB_INLINE void channel_sums(const bb_norm_stats_args *a, float *sum, const float *mean, const bool centred)
{
    memset(sum, 0, a->c * sizeof *sum);
    for (size_t first = 0; first < a->pixels; first += BB_NORM_RUN) {
        const size_t left = a->pixels - first, pixels = left < BB_NORM_RUN ? left : BB_NORM_RUN;
        const float *x = a->x + first * a->c;
        size_t c = 0;
        for (; c + 4 * BB_LANES <= a->c; c += 4 * BB_LANES)
            add_run(sum + c, x + c, mean + c, a->c, pixels, 4, centred);
        for (; c + BB_LANES <= a->c; c += BB_LANES) add_run(sum + c, x + c, mean + c, a->c, pixels, 1, centred);
        for (; c < a->c; c++) {
            float run = 0;
            for (size_t p = 0; p < pixels; p++) {
                const float d = centred ? x[p * a->c + c] - mean[c] : x[p * a->c + c];
                run = run + (centred ? d * d : d);
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
    channel_sums(a, a->rstd, a->mean, false);
    group_means(a, a->mean, a->rstd);
    channel_sums(a, a->rstd, a->mean, true);
    group_means(a, a->rstd, a->rstd);
    for (size_t c = 0; c < a->c; c++) a->rstd[c] = 1.0f / bb_sqrtf(a->rstd[c] + a->eps);
}

void BB_FN(group_norm)(const bb_group_norm_args *a)
{
    const size_t whole = a->c / BB_LANES * BB_LANES;
    float *mean = a->scratch, *rstd = mean + a->c;
    BB_FN(norm_stats)(&(bb_norm_stats_args){.mean = mean, .rstd = rstd, .x = a->x, .pixels = a->pixels, .c = a->c,
                                            .groups = a->groups, .eps = a->eps});
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
    for (; i + BB_LANES <= n; i += BB_LANES) store(y + i, silu_v(load(x + i)));
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
