/* The f32 kernels of every SIMD set, and those before and after quantized sums, written once in GCC/clang vector
 * extensions. An ISA file defines BB_ISA and BB_LANES (floats per vector), includes vec_types.h, defines what that asks
 * for, and includes this. Same bits as scalar/: lanes run over outputs, channels or queries, never along a sum. */
#ifndef BB_KERNELS_VEC_H
#define BB_KERNELS_VEC_H

#include "kernels/vec_attention.h"
#include "kernels/vec_math.h"

/* y = ((x − mean)·rstd)·scale + shift for n channels, whole vectors. */
BB_INLINE void normalize(float *y, const float *x, const float *mean, const float *rstd, const float *scale,
                         const float *shift, size_t n)
{
    for (size_t c = 0; c < n; c += BB_LANES)
        store(y + c, ((load(x + c) - load(mean + c)) * load(rstd + c)) * load(scale + c) + load(shift + c));
}

/* The codes of n channels of one pixel, and their sum; n is a multiple of 16. */
static int32_t quantize_channels(const bb_quantize_args *a, uint8_t *code, const float *x, size_t n)
{
    const int32_t zero = (int32_t)a->zero;
    const vf low = splat(-(float)zero), high = splat((float)((int32_t)a->levels - zero));
    vi sum = {0};
    for (size_t first = 0; first < n; first += RUN) {
        const size_t run = n - first < RUN ? n - first : RUN;
        const float *in = x + first, *m = a->m + first;
        float y[RUN], e[RUN];
        if (a->mean) {
            normalize(y, in, a->mean + first, a->rstd + first, a->scale + first, a->shift + first, run);
            in = y;
        }
        if (a->silu) silu_split(e, in, run);
        for (size_t c = 0; c < run; c += BB_TILE) {
            vi codes[VECTORS];
            _Pragma("GCC unroll 4") for (size_t i = 0; i < VECTORS; i++) {
                const size_t at = c + i * BB_LANES;
                vf v = load(in + at);
                if (a->silu) v = silu_join(v, load(e + at));
                v = lesser(greater(v * load(m + at), low), high);
                /* v + 1.5·2^23 has round(v) in its low mantissa bits: bb_round_even as an integer */
                codes[i] = (vi)(v + 12582912.0f) + (zero - 0x4b400000);
                sum = sum + codes[i];
            }
            store_codes(code + first + c, codes);
        }
    }
    int32_t total = 0;
    for (size_t i = 0; i < BB_LANES; i++) total += sum[i];
    return total;
}

/* Channels that fill no 16: computed in copies with zeros behind them. */
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
        quantize_channels(&one, code, x, BB_TILE);
        memset(code + rest, 0, BB_TILE - rest);
        memcpy(a->a + p * a->a_stride + first, code, bb_align_up(rest, BB_K_BLOCK));
        for (size_t c = 0; a->sum && c < rest; c++) a->sum[p] += code[c];
    }
}

void BB_FN(quantize)(const bb_quantize_args *a)
{
    const size_t whole = a->channels / BB_TILE * BB_TILE;
    for (size_t p = 0; p < a->pixels; p++) {
        const int32_t sum = quantize_channels(a, a->a + p * a->a_stride, a->x + p * a->x_stride, whole);
        if (a->sum) a->sum[p] = sum;
    }
    if (whole < a->channels) quantize_rest(a, whole);
}

/* Outputs first..first+lanes−1 of all pixels. The number of segments is a constant where there is one: then nothing but
 * sums is loaded for a pixel. */
BB_INLINE void dequantize_column(const bb_dequantize_args *args, size_t first, const size_t segments)
{
    const bb_dequantize_args copy = *args, *a = &copy; /* y might be where the arguments are, for all compilers know */
    const vf bias = load(a->bias + first), e0 = load(a->e + first);
    const vi zsum0 = *(const vi_memory *)(a->zsum + first);
    for (size_t p = 0; p < a->pixels; p++) {
        const int32_t *acc = a->acc + p * BB_TILE + first;
        vf sum = 0.0f + __builtin_convertvector(*(const vi_memory *)acc - zsum0, vf) * e0;
        for (size_t g = 1; g < segments; g++) {
            const vi zsum = *(const vi_memory *)(a->zsum + g * BB_TILE + first);
            acc += BB_TILE_PIXELS * BB_TILE;
            sum = sum + __builtin_convertvector(*(const vi_memory *)acc - zsum, vf) * load(a->e + g * BB_TILE + first);
        }
        sum = sum + bias;
        if (a->add) sum = sum + load(a->add + p * a->add_stride + first);
        store(a->y + p * a->y_stride + first, sum);
    }
}

void BB_FN(dequantize_tile)(const bb_dequantize_args *a)
{
    for (size_t j = 0; j < BB_TILE; j += BB_LANES) {
        if (a->segments == 1) dequantize_column(a, j, 1);
        else dequantize_column(a, j, a->segments);
    }
}

/* Up to ROWS pixels and some vectors of outputs, which begin at output `first`. */
BB_INLINE void conv_block(const bb_conv_f32_args *a, size_t pixel, size_t first, const size_t columns)
{
    const size_t left = a->pixels - pixel, n = left < ROWS ? left : ROWS;
    const float *w = a->w + first;
    vf sum[ROWS][COLUMNS] = {{{0}}};
    for (size_t tap = 0; tap < a->taps; tap++, w += a->channels * a->w_stride) {
        const float *x[ROWS]; /* the last pixel stands in for missing ones */
        _Pragma("GCC unroll 8") for (size_t r = 0; r < ROWS; r++)
            x[r] = a->rows[tap * BB_TILE_PIXELS + pixel + (r < n ? r : n - 1)];
        products(sum, x, 1, w, a->w_stride, a->channels, columns);
    }
    _Pragma("GCC unroll 8") for (size_t r = 0; r < ROWS; r++) {
        float *y = a->y + (pixel + r) * BB_TILE + first;
        for (size_t v = 0; r < n && v < columns; v++)
            store(y + v * BB_LANES, sum[r][v] + load(a->bias + first + v * BB_LANES));
    }
}

void BB_FN(conv_tile_f32)(const bb_conv_f32_args *a)
{
    for (size_t pixel = 0; pixel < a->pixels; pixel += ROWS) {
        size_t j = 0;
        for (; j + BB_LANES < a->outputs; j += COLUMNS * BB_LANES) conv_block(a, pixel, j, COLUMNS);
        if (j < a->outputs) conv_block(a, pixel, j, 1);
    }
}

void BB_FN(widen)(uint16_t *y, const uint8_t *x, size_t n)
{
    typedef uint8_t v8_bytes __attribute__((vector_size(8), aligned(1), may_alias));
    typedef uint16_t v8_halves __attribute__((vector_size(16), aligned(2), may_alias));
    size_t i = 0;
    for (; i + 8 <= n; i += 8) *(v8_halves *)(y + i) = __builtin_convertvector(*(const v8_bytes *)(x + i), v8_halves);
    for (; i < n; i++) y[i] = x[i];
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

/* Adds Σ x, or Σ (x − mean)² if mean is given, over the pixels to each of n vectors of channels, of which the last may
 * have only some. n is a constant at every call, so that the sums stay in registers. */
BB_INLINE void add_run(float *sum, const float *x, const float *mean, size_t stride, size_t pixels, const size_t n,
                       size_t channels)
{
    vf run[4] = {{0}};
    for (size_t p = 0; p < pixels; p++, x += stride) {
        vf d[4];
        _Pragma("GCC unroll 4") for (size_t v = 0; v < n; v++) d[v] = load_some(x + v * BB_LANES, channels);
        if (mean) {
            _Pragma("GCC unroll 4") for (size_t v = 0; v < n; v++) {
                d[v] = d[v] - load_some(mean + v * BB_LANES, channels);
                d[v] = d[v] * d[v];
            }
        }
        _Pragma("GCC unroll 4") for (size_t v = 0; v < n; v++) run[v] = run[v] + d[v];
    }
    for (size_t v = 0; v < n; v++) {
        float *to = sum + v * BB_LANES;
        store_some(to, load_some(to, channels) + run[v], channels);
    }
}

/* sum[c] = Σ x, or Σ (x − mean)² if mean is given: over runs of 64 pixels, then over the runs. */
static __attribute__((noinline)) void channel_sums(const bb_norm_stats_args *a, float *sum, const float *mean)
{
    memset(sum, 0, a->c * sizeof *sum);
    for (size_t first = 0; first < a->pixels; first += BB_NORM_RUN) {
        const size_t left = a->pixels - first, pixels = left < BB_NORM_RUN ? left : BB_NORM_RUN;
        const float *x = a->x + first * a->c;
        for (size_t c = 0; c < a->c;) {
            const float *m = mean ? mean + c : NULL;
            if (c + 4 * BB_LANES <= a->c) {
                add_run(sum + c, x + c, m, a->c, pixels, 4, BB_LANES);
                c += 4 * BB_LANES;
            } else {
                add_run(sum + c, x + c, m, a->c, pixels, 1, a->c - c);
                c += BB_LANES;
            }
        }
    }
}

/* Channel sums to the mean over each group, written to all of the group's channels. */
static __attribute__((noinline)) void group_means(const bb_norm_stats_args *a, float *out, const float *sum)
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
    const size_t whole = a->c / BB_LANES * BB_LANES;
    float *mean = a->scratch, *rstd = mean + a->c;
    BB_FN(norm_stats)(&(bb_norm_stats_args){.mean = mean, .rstd = rstd, .x = a->x, .pixels = a->pixels, .c = a->c,
                                            .groups = a->groups, .eps = a->eps});
    for (size_t p = 0; p < a->pixels; p++) {
        const float *x = a->x + p * a->c;
        float *y = a->y + p * a->c;
        normalize(y, x, mean, rstd, a->scale, a->shift, whole);
        for (size_t c = whole; c < a->c; c++) y[c] = ((x[c] - mean[c]) * rstd[c]) * a->scale[c] + a->shift[c];
    }
}

void BB_FN(avg_pool2d)(const bb_avg_pool_args *a)
{
    const float count = (float)(a->factor * a->factor);
    for (size_t p = 0; p < a->pixels; p++) {
        const float *x = a->x + p * a->factor * a->c;
        float *y = a->y + p * a->c;
        for (size_t c = 0; c < a->c; c += BB_LANES) {
            vf sum = {0};
            for (size_t ky = 0; ky < a->factor; ky++)
                for (size_t kx = 0; kx < a->factor; kx++)
                    sum = sum + load_some(x + ky * a->row_stride + kx * a->c + c, a->c - c);
            store_some(y + c, sum / count, a->c - c);
        }
    }
}

void BB_FN(silu)(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += RUN) {
        const size_t left = n - i < RUN ? n - i : RUN, whole = left / BB_LANES * BB_LANES;
        float e[RUN], copy[RUN];
        const float *in = x + i;
        if (left < RUN) {
            memset(copy, 0, sizeof copy);
            in = memcpy(copy, in, left * sizeof *in);
        }
        silu_split(e, in, bb_align_up(left, BB_LANES));
        for (size_t k = 0; k < whole; k += BB_LANES) store(y + i + k, silu_join(load(in + k), load(e + k)));
        if (whole < left) store_some(y + i + whole, silu_join(load(in + whole), load(e + whole)), left - whole);
    }
}

void BB_FN(gelu)(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += BB_LANES) store_some(y + i, gelu_v(load_some(x + i, n - i)), n - i);
}

void BB_FN(mish)(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += BB_LANES) store_some(y + i, mish_v(load_some(x + i, n - i)), n - i);
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
