/* A second opinion on the scalar kernels: the same ops written naively in double precision (libm exp) or in exact
 * integers. u = 2^−24 is half an ulp of 1; a chain of n float operations is off by at most γ(n) ≈ n·u relative to the
 * sum of magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, §3.1 and §4.2). Each bound below counts
 * its own operations; `slack` covers the products of u that the first-order count drops (n·u < 2e-5 here). */
#ifndef BB_TESTS_KERNELCHECK_MODEL_H
#define BB_TESTS_KERNELCHECK_MODEL_H

#include "check.h"
#include "kernelcheck_dot.h"

static const double kc_u = 0x1p-24, kc_slack = 1.001, kc_tiny = 0x1p-126;

/* Reports the worst of n values against ref with bounds; true values below 2^−126 may lose everything. */
static inline void model_check(const char *op, uint64_t seed, double got, double want, double bound, size_t at)
{
    CHECK(fabs(got - want) <= bound * kc_slack + kc_tiny, "%s seed %llu value %zu: %.9g, not %.9g ± %.3g", op,
          (unsigned long long)seed, at, got, want, bound);
}

static inline void model_quantize(kc *k, const bb_kernels *s)
{
    bb_quantize_args a = {.pixels = 5, .channels = 11, .a_stride = 20, .x_stride = 13, .levels = 255};
    if (kc_coin(k)) a.levels = 15;
    a.zero = (uint32_t)kc_range(k, 0, a.levels);
    float *x = kc_floats(k, KC_A, 5 * 13, 2), *m = kc_floats(k, KC_B, 11, 0);
    for (size_t i = 0; i < 5 * 13; i++) x[i] *= 40;
    for (size_t i = 0; i < 11; i++) m[i] = kc_coin(k) ? 0.5f : m[i]; /* ties among them */
    a.x = x;
    a.m = m;
    a.a = kc_place(k, KC_REF, 5 * 20);
    memset(a.a, 0xa5, 5 * 20);
    s->quantize(&a);
    for (size_t p = 0; p < 5; p++) {
        for (size_t c = 0; c < 20; c++) {
            /* the product of two floats is exact in double, so one rounding remains; then clamp the integers */
            double code = rint((double)(float)((double)x[p * 13 + (c < 11 ? c : 0)] * m[c < 11 ? c : 0])) + a.zero;
            if (!(code > 0)) code = 0;
            if (code > a.levels) code = a.levels;
            const int want = c < 11 ? (int)code : c < 16 ? 0 : 0xa5;
            CHECK(a.a[p * 20 + c] == want, "quantize seed %llu pixel %zu channel %zu: %d, not %d",
                  (unsigned long long)k->seed, p, c, a.a[p * 20 + c], want);
        }
    }
}

/* With a norm and a SiLU in front: v is off by three products and a sum, times the SiLU's slope (at most 1.1) and its
 * own 6u, times m, and u more; the code is that of a value no further away. Sums are those of the codes. */
static inline void model_quantize_after(kc *k, const bb_kernels *s)
{
    enum { PIXELS = 3, C = 21 };
    bb_quantize_args a = {.pixels = PIXELS, .channels = C, .a_stride = 24, .x_stride = C, .levels = 255, .zero = 90};
    const float *x = a.x = kc_floats(k, KC_A, PIXELS * C, 0), *norm = kc_floats(k, KC_B, 4 * C, 0);
    const float *m = a.m = kc_floats(k, KC_C, C, 0);
    int32_t sum[PIXELS];
    uint8_t code[PIXELS * 24];
    a.mean = norm;
    a.rstd = norm + C;
    a.scale = norm + 2 * C;
    a.shift = norm + 3 * C;
    a.silu = true;
    a.sum = sum;
    a.a = code;
    s->quantize(&a);
    for (size_t p = 0; p < PIXELS; p++) {
        int32_t total = 0;
        for (size_t c = 0; c < C; c++) {
            const double n = ((double)x[p * C + c] - a.mean[c]) * a.rstd[c] * a.scale[c], y = n + a.shift[c];
            const double silu = y / (1 + exp(-y)), v = silu * m[c];
            const double off = (1.1 * kc_u * (3 * fabs(n) + fabs(y)) + 6 * kc_u * fabs(silu)) * fabs(m[c])
                             + kc_u * fabs(v);
            const double low = fmin(fmax(rint(v - off) + a.zero, 0), 255);
            const double high = fmin(fmax(rint(v + off) + a.zero, 0), 255);
            const uint8_t got = code[p * 24 + c];
            total += got;
            CHECK(got >= low && got <= high, "quantize after norm, seed %llu pixel %zu channel %zu: %d, not %g..%g",
                  (unsigned long long)k->seed, p, c, got, low, high);
        }
        CHECK(sum[p] == total, "quantize seed %llu pixel %zu: sum %d, not %d", (unsigned long long)k->seed, p, sum[p],
              total);
    }
}

/* Planes to weights to a dot product in 64-bit integers, straight from the bits. */
static inline void model_dot(kc *k, const bb_kernels *s)
{
    kc_tile t;
    kc_make_tile(k, &t, 3, 24);
    kc_run_way(k, &t, s, kc_scalar_way(s), KC_REF);
    const int32_t *acc = kc_place(k, KC_REF, BB_TILE_PIXELS * BB_TILE * 4);
    for (size_t p = 0; p < t.pixels; p++) {
        for (size_t j = 0; j < BB_TILE; j++) {
            int64_t want = 0;
            for (size_t i = 0; i < 3 * 24; i++) {
                int64_t weight = t.offset[j];
                for (size_t plane = 0; plane < t.shape.planes; plane++)
                    if (t.planes[(i / 8 * t.shape.planes + plane) * BB_TILE + j] & 1 << i % 8)
                        weight += t.multiplier[plane * BB_TILE + j];
                want += weight * t.codes[t.row_of[i / 24 * BB_TILE_PIXELS + p] * (t.first + 24) + t.first + i % 24];
            }
            CHECK(acc[p * BB_TILE + j] == want, "dot seed %llu pixel %zu output %zu: %d, not %lld",
                  (unsigned long long)k->seed, p, j, acc[p * BB_TILE + j], (long long)want);
        }
    }
}

static inline void model_dequantize(kc *k, const bb_kernels *s)
{
    enum { SEGMENTS = 3, PIXELS = 6 };
    int32_t acc[SEGMENTS * BB_TILE_PIXELS * BB_TILE], zsum[SEGMENTS * BB_TILE];
    for (size_t i = 0; i < BB_COUNT(acc); i++) acc[i] = (int32_t)((int64_t)kc_next(k) >> 36);
    for (size_t i = 0; i < BB_COUNT(zsum); i++) zsum[i] = (int32_t)((int64_t)kc_next(k) >> 40);
    const float *e = kc_floats(k, KC_A, SEGMENTS * BB_TILE, 0), *bias = kc_floats(k, KC_B, BB_TILE, 0);
    const float *add = kc_floats(k, KC_C, PIXELS * BB_TILE, 0);
    float y[PIXELS * BB_TILE];
    s->dequantize_tile(&(bb_dequantize_args){.y = y, .y_stride = BB_TILE, .add = add, .add_stride = BB_TILE,
                                             .acc = acc, .zsum = zsum, .e = e, .bias = bias,
                                             .pixels = PIXELS, .segments = SEGMENTS});
    for (size_t i = 0; i < PIXELS * BB_TILE; i++) {
        const size_t j = i % BB_TILE;
        double want = (double)bias[j] + add[i], magnitude = fabs(bias[j]) + fabs(add[i]);
        for (size_t g = 0; g < SEGMENTS; g++) {
            const double n = (double)acc[g * BB_TILE_PIXELS * BB_TILE + i] - zsum[g * BB_TILE + j];
            const double t = n * e[g * BB_TILE + j];
            want += t;
            magnitude += fabs(t);
        }
        /* each term: conversion, product, SEGMENTS sums, the bias, what is added */
        model_check("dequantize_tile", k->seed, y[i], want, (SEGMENTS + 4) * kc_u * magnitude, i);
    }
}

static inline void model_conv(kc *k, const bb_kernels *s)
{
    enum { TAPS = 9, CHANNELS = 13, PIXELS = 7, STRIDE = 21, K = TAPS * CHANNELS };
    const float *x = kc_floats(k, KC_A, 8 * CHANNELS, 0), *w = kc_floats(k, KC_B, K * STRIDE, 0);
    float bias[BB_TILE], y[PIXELS * BB_TILE];
    for (size_t j = 0; j < BB_TILE; j++) bias[j] = kc_float(k, 0);
    const float *const *rows = kc_rows(k, BB_TILE_PIXELS * TAPS, (const uint8_t *)x, 8, CHANNELS * 4);
    s->conv_tile_f32(&(bb_conv_f32_args){.y = y, .rows = rows, .w = w, .bias = bias, .pixels = PIXELS, .taps = TAPS,
                                         .channels = CHANNELS, .w_stride = STRIDE, .outputs = BB_TILE});
    for (size_t i = 0; i < PIXELS * BB_TILE; i++) {
        double want = bias[i % BB_TILE], magnitude = fabs(want);
        for (size_t t = 0; t < K; t++) {
            const double in = rows[t / CHANNELS * BB_TILE_PIXELS + i / BB_TILE][t % CHANNELS];
            const double v = in * w[t * STRIDE + i % BB_TILE];
            want += v;
            magnitude += fabs(v);
        }
        model_check("conv_tile_f32", k->seed, y[i], want, (K + 2) * kc_u * magnitude, i); /* product, K sums, bias */
    }
}

static inline void model_f16(const bb_kernels *s)
{
    for (uint32_t h = 0; h < 65536; h++) {
        const uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;
        double want = exponent == 31 ? mantissa ? NAN : INFINITY
                    : exponent ? ldexp(1024 + mantissa, (int)exponent - 25) : ldexp(mantissa, -24);
        if (h >> 15) want = -want;
        float got;
        s->f16_to_f32(&got, &(uint16_t){(uint16_t)h}, 1);
        CHECK(isnan(want) ? isnan(got) : got == want && !signbit(got) == !(h >> 15),
              "f16 %04x: %g, not %g", h, got, want);
    }
}

/* Chains: 64 in a run, the runs, the group's channels. The mean is off by at most (chain + 1)·u·mean|x|, hence every
 * d = x − mean by that (call it `shift`) plus u·|d|; the variance by 2·shift·mean|d| + shift² from the mean and
 * (chain + 4)·u from its own sums; √ halves that and 1/√ adds three roundings; the last line has four more. */
static inline void model_group_norm(kc *k, const bb_kernels *s)
{
    const size_t pixels = kc_range(k, 1, 150), groups = kc_range(k, 1, 4);
    const size_t per = kc_range(k, 2, 6), c = groups * per;
    const float *x = kc_floats(k, KC_A, pixels * c, 0), *scale = kc_floats(k, KC_B, c, 0);
    const float *shift = kc_floats(k, KC_C, c, 0);
    float *y = kc_place(k, KC_REF, pixels * c * 4);
    const float eps = 1e-3f;
    s->group_norm(&(bb_group_norm_args){.y = y, .x = x, .scale = scale, .shift = shift, .pixels = pixels, .c = c,
                                        .scratch = kc_place(k, KC_SCRATCH, 8 * c), .groups = groups, .eps = eps});
    const double count = (double)(pixels * per), chain = 64 + (double)(pixels / 64 + 1 + per);
    for (size_t g = 0; g < groups; g++) {
        double mean = 0, magnitude = 0, var = 0, spread = 0;
        for (size_t i = 0; i < pixels * per; i++) {
            const double v = x[i / per * c + g * per + i % per];
            mean += v / count;
            magnitude += fabs(v) / count;
        }
        for (size_t i = 0; i < pixels * per; i++) {
            const double d = x[i / per * c + g * per + i % per] - mean;
            var += d * d / count;
            spread += fabs(d) / count;
        }
        const double off = (chain + 1) * kc_u * magnitude, rstd = 1 / sqrt(var + eps);
        const double var_off = (2 * off * spread + off * off) / (var + eps) + (chain + 4) * kc_u;
        for (size_t i = 0; i < pixels * per; i++) {
            const size_t at = i / per * c + g * per + i % per, ch = at % c;
            const double n = (x[at] - mean) * rstd, want = n * scale[ch] + shift[ch];
            const double bound = fabs(scale[ch]) * (off * rstd + fabs(n) * (var_off / 2 + 8 * kc_u))
                               + kc_u * fabs(want);
            model_check("group_norm", k->seed, y[at], want, bound, at);
        }
    }
}

/* A score is off by (d + 2)·u·Σ|q·k|·scale =: ε; s − m' by 2ε (both ends) and u·|s − m'|; exp turns absolute into
 * relative error and adds 2 ulp (4u); each later tile multiplies by an r with the same kind of error. Weights cancel
 * in o/l up to that error ρ, once above and once below; the sums add (keys + tiles + 2)·u each, the division u. */
static inline void model_attention(kc *k, const bb_kernels *s)
{
    const size_t keys = kc_range(k, 1, 140), d = kc_range(k, 1, 40), tiles = (keys + 63) / 64;
    const float scale = 0.25f, *q = kc_floats(k, KC_A, 3 * d, 0);
    const float *key = kc_floats(k, KC_B, keys * (d + 1), 0), *v = kc_floats(k, KC_C, keys * (d + 1), 0);
    float *o = kc_place(k, KC_REF, 3 * d * 4);
    s->attention(&(bb_attention_args){.o = o, .q = q, .k = key, .v = v, .first_query = 1, .queries = 2, .keys = keys,
                                      .scratch = kc_place(k, KC_SCRATCH, BB_ATTENTION_SCRATCH(d) * 4), .d = d,
                                      .o_stride = d, .q_stride = d, .kv_stride = d + 1, .scale = scale});
    for (size_t i = 1; i < 3; i++) {
        double score[140], max = -INFINITY, least = INFINITY, worst = 0, sum = 0;
        for (size_t n = 0; n < keys; n++) {
            double magnitude = 0;
            score[n] = 0;
            for (size_t c = 0; c < d; c++) {
                const double t = (double)q[i * d + c] * key[n * (d + 1) + c] * scale;
                score[n] += t;
                magnitude += fabs(t);
            }
            max = fmax(max, score[n]);
            least = fmin(least, score[n]);
            worst = fmax(worst, magnitude);
        }
        for (size_t n = 0; n < keys; n++) sum += exp(score[n] - max);
        const double one = 2 * ((double)d + 2) * kc_u * worst + kc_u * (max - least) + 4 * kc_u;
        const double rho = (double)tiles * (one + kc_u), sums = (double)(keys + tiles + 2) * kc_u;
        for (size_t c = 0; c < d; c++) {
            double want = 0, magnitude = 0;
            for (size_t n = 0; n < keys; n++) {
                const double t = exp(score[n] - max) / sum * v[n * (d + 1) + c];
                want += t;
                magnitude += fabs(t);
            }
            const double bound = magnitude * (2 * rho + 2 * sums + kc_u);
            model_check("attention", k->seed, o[i * d + c], want, bound, i * d + c);
        }
    }
}

/* silu: exp 2 ulp (4u), sum, division. exp is infinite from 88.7 on, where the truth is still 89·e^−88.7 < 3e-37.
 * gelu, on |x| ≤ 4: Φ or 1 − Φ is a product of t (z, z/2 + 1 and the division: 4u), P (4.5e-8 < u of the fit; its nine
 * terms sum to less than 5 times the result: 20u with t's error, as the coefficients' rounding), e^−z² (5u, and z² off
 * by 3u of itself, so the whole by 3·8·u = 24u) and two products: 56u; then one subtraction and one product.
 * mish: e 4u, e + 2 and n: 6u; n + 2 and the quotient: at most 6u + 2u more; the product: 15u. Below −87.4 e is 0,
 * and the truth less than 1e-36. */
static inline void model_elementwise(kc *k, const bb_kernels *s)
{
    enum { PIXELS = 3, C = 7, N = PIXELS * C };
    const float *x = kc_floats(k, KC_A, N, 0), *b = kc_floats(k, KC_B, N, 0);
    const float mul = kc_float(k, 0), add = kc_float(k, 0);
    float y[7][N], wide[N];
    for (size_t i = 0; i < N; i++) wide[i] = x[i] * 25;
    s->silu(y[0], wide, N);
    s->add(y[1], x, b, N);
    s->add_channels(y[2], x, b, PIXELS, C);
    s->modulate(y[3], x, b, b + C, PIXELS, C);
    s->affine(y[4], x, mul, add, N);
    s->gelu(y[5], b, N);
    s->mish(y[6], wide, N);
    for (size_t i = 0; i < N; i++) {
        const double v = x[i], scaled = v * (1.0 + b[i % C]), w = wide[i], silu = w / (1 + exp(-w));
        model_check("silu", k->seed, y[0][i], silu, 6 * kc_u * fabs(silu) + 3e-37, i);
        const double phi = erfc(-b[i] / sqrt(2)) / 2, mish = w * tanh(log1p(exp(w)));
        model_check("gelu", k->seed, y[5][i], b[i] * phi,
                    fabs(b[i]) * kc_u * (b[i] < 0 ? 57 * phi : 56 * (1 - phi) + 2), i);
        model_check("mish", k->seed, y[6][i], mish, 15 * kc_u * fabs(mish) + 1e-36, i);
        model_check("add", k->seed, y[1][i], v + b[i], kc_u * fabs(v + b[i]), i);
        model_check("add_channels", k->seed, y[2][i], v + b[i % C], kc_u * fabs(v + b[i % C]), i);
        model_check("modulate", k->seed, y[3][i], scaled + b[C + i % C],
                    2 * kc_u * fabs(scaled) + kc_u * fabs(scaled + b[C + i % C]), i);
        model_check("affine", k->seed, y[4][i], v * mul + add, kc_u * fabs(v * mul) + kc_u * fabs(v * mul + add), i);
    }
}

/* factor² sums from 0, then the division. */
static inline void model_avg_pool(kc *k, const bb_kernels *s)
{
    enum { PIXELS = 3, C = 5 };
    const size_t factor = kc_range(k, 1, 4), stride = PIXELS * factor * C + 3;
    const float *x = kc_floats(k, KC_A, factor * stride, 0);
    float y[PIXELS * C];
    s->avg_pool2d(&(bb_avg_pool_args){.y = y, .x = x, .pixels = PIXELS, .c = C, .factor = factor,
                                      .row_stride = stride});
    for (size_t i = 0; i < PIXELS * C; i++) {
        double want = 0, magnitude = 0, count = (double)(factor * factor);
        for (size_t t = 0; t < factor * factor; t++) {
            const double v = x[t / factor * stride + (i / C * factor + t % factor) * C + i % C];
            want += v / count;
            magnitude += fabs(v) / count;
        }
        model_check("avg_pool2d", k->seed, y[i], want, (count + 1) * kc_u * magnitude, i);
    }
}

static inline void model_run(kc *k, const bb_kernels *scalar, uint64_t seed, uint32_t rounds)
{
    model_f16(scalar);
    for (uint32_t i = 0; i < rounds; i++) {
        k->random = k->seed = seed + i;
        model_quantize(k, scalar);
        model_quantize_after(k, scalar);
        model_dot(k, scalar);
        model_dequantize(k, scalar);
        model_conv(k, scalar);
        model_group_norm(k, scalar);
        model_attention(k, scalar);
        model_elementwise(k, scalar);
        model_avg_pool(k, scalar);
    }
}

#endif
