/* The loops themselves, plain C that compilers vectorize; compiled for each instruction set with BB_STUDENT_SET as its
 * name. */
#include "train/student/loops.h"

#include "base/mathf.h"

#define LANES 64u /* of a strip: its intermediate values stay in the first cache */

/* To nearest even; values are finite. */
BB_INLINE uint16_t to_bf16(float x)
{
    uint32_t u = bb_f32_bits(x);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

/* A strip of at most LANES weights where every integer from low to high is a level. Round half even is moved down
 * where the half-way point was met exactly; r − v is exact (both are multiples of v's last place, and it is ≤ ½). */
static void uniform_strip(size_t n, const float *restrict w, const float *restrict delta, const float *restrict low,
                          const float *restrict high, float *restrict level)
{
    for (size_t i = 0; i < n; i++) {
        float v = w[i] / delta[i];
        v = v > low[i] ? v : low[i];
        v = v < high[i] ? v : high[i];
        float r = bb_round_even(v);
        level[i] = r - v == 0.5f ? r - 1 : r;
    }
}

static void ladder_strip(const bb_levels_args *a, size_t first, size_t n, const float *restrict w,
                         float *restrict level)
{
    float v[LANES], l[LANES];
    for (size_t i = 0; i < n; i++) {
        v[i] = w[i] / a->delta[first + i];
        l[i] = a->low[first + i];
    }
    for (size_t b = 0; b < a->bounds; b++) {
        const float *restrict bound = a->bound + b * a->n + first, *restrict gap = a->gap + b * a->n + first;
        for (size_t i = 0; i < n; i++) l[i] += v[i] > bound[i] ? gap[i] : 0;
    }
    for (size_t i = 0; i < n; i++) level[i] = l[i];
}

static void levels(const bb_levels_args *a)
{
    for (size_t first = 0; first < a->n; first += LANES) {
        const size_t n = a->n - first < LANES ? a->n - first : LANES;
        for (size_t k = 0; k < a->rows; k++) {
            float *restrict level = a->level + k * a->n + first;
            int8_t *restrict code = a->code + k * a->n + first;
            const float *w = a->w + k * a->n + first;
            if (a->bounds) ladder_strip(a, first, n, w, level);
            else uniform_strip(n, w, a->delta + first, a->low + first, a->high + first, level);
            for (size_t i = 0; i < n; i++) code[i] = (int8_t)level[i];
        }
    }
}

static void keep_codes(size_t n, const float *restrict x, const float *restrict m, float zero, float top,
                       uint8_t *restrict code, int8_t *restrict residual, float *restrict operand)
{
    for (size_t i = 0; i < n; i++) {
        float given = x[i] * m[i], v = given;
        v = v > -zero ? v : -zero; /* NaN is not greater: it becomes −z, as in core */
        v = v < top ? v : top;
        float r = bb_round_even(v), inside = bb_round_even((r - v) * BB_RESIDUAL);
        operand[i] = r;
        code[i] = (uint8_t)(int32_t)(r + zero);
        residual[i] = (int8_t)(int32_t)(given == v ? inside : (float)BB_OUTSIDE);
    }
}

static void codes_only(size_t n, const float *restrict x, const float *restrict m, float zero, float top,
                       float *restrict operand)
{
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * m[i];
        v = v > -zero ? v : -zero;
        v = v < top ? v : top;
        operand[i] = bb_round_even(v);
    }
}

static void store_bf16(size_t n, const float *restrict x, uint16_t *restrict y)
{
    for (size_t i = 0; i < n; i++) y[i] = to_bf16(x[i]);
}

static void codes(const bb_codes_args *a)
{
    const float zero = (float)a->zero, top = (float)a->levels - zero;
    for (size_t p = 0; p < a->pixels; p++)
        for (size_t first = 0; first < a->channels; first += LANES) {
            const size_t n = a->channels - first < LANES ? a->channels - first : LANES;
            const size_t at = p * a->stride + first, to = p * a->operand_stride + first;
            const float *x = a->x + p * a->x_stride + first;
            float strip[LANES], *operand = a->bf16 ? strip : (float *)a->operand + to;
            if (a->code) keep_codes(n, x, a->m + first, zero, top, a->code + at, a->residual + at, operand);
            else codes_only(n, x, a->m + first, zero, top, operand);
            if (a->bf16) store_bf16(n, strip, (uint16_t *)a->operand + to);
        }
}

static void operand(const bb_operand_args *a)
{
    for (size_t p = 0; p < a->pixels; p++)
        for (size_t first = 0; first < a->channels; first += LANES) {
            const size_t n = a->channels - first < LANES ? a->channels - first : LANES;
            const uint8_t *restrict code = a->code + p * a->stride + first;
            const size_t to = p * a->operand_stride + first;
            float strip[LANES], *restrict x = a->bf16 ? strip : (float *)a->operand + to;
            for (size_t i = 0; i < n; i++) x[i] = (float)((int32_t)code[i] - (int32_t)a->zero) * a->scale;
            if (a->bf16) store_bf16(n, strip, (uint16_t *)a->operand + to);
        }
}

static void scale(const bb_scale_args *a)
{
    const float *restrict delta = a->delta, *restrict bias = a->bias, step = a->step;
    for (size_t p = 0; p < a->pixels; p++) {
        float *restrict y = a->y + p * a->n;
        const float *restrict more = a->more + p * a->n;
        if (!a->more)
            for (size_t i = 0; i < a->n; i++) y[i] *= step * delta[i];
        else
            for (size_t i = 0; i < a->n; i++) y[i] += more[i] * (step * delta[i]);
        for (size_t i = 0; bias && i < a->n; i++) y[i] += bias[i];
    }
}

static void output_grad(const bb_output_grad_args *a)
{
    for (size_t p = 0; p < a->pixels; p++) {
        const float *restrict dy = a->dy + p * a->n, *restrict delta = a->delta;
        if (a->bf16) {
            uint16_t *restrict y = (uint16_t *)a->operand + p * a->n;
            for (size_t i = 0; i < a->n; i++) y[i] = to_bf16(dy[i] * delta[i]);
        } else {
            float *restrict y = (float *)a->operand + p * a->n;
            for (size_t i = 0; i < a->n; i++) y[i] = dy[i] * delta[i];
        }
    }
}

/* inv_s·g inside the range, 0 outside. */
static void to_input(size_t n, const float *restrict g, const int8_t *restrict residual, const float *restrict inv_s,
                     float *restrict dx)
{
    for (size_t i = 0; i < n; i++) {
        float inside = residual[i] == BB_OUTSIDE ? 0 : g[i];
        dx[i] += inv_s ? inside * inv_s[i] : inside;
    }
}

static void input_grad(const bb_input_grad_args *a)
{
    float *restrict step = a->step, *restrict outside = a->outside;
    for (size_t i = 0; i < a->channels; i++) step[i] = outside[i] = 0;
    for (size_t p = 0; p < a->pixels; p++) {
        const float *restrict g = a->g + p * a->stride;
        const uint8_t *restrict code = a->code + p * a->stride;
        const int8_t *restrict residual = a->residual + p * a->stride;
        for (size_t i = 0; i < a->channels; i++) {
            float edge = (float)((int32_t)code[i] - (int32_t)a->zero), rest = (float)residual[i] * (1 / BB_RESIDUAL);
            bool out = residual[i] == BB_OUTSIDE;
            step[i] += g[i] * (out ? edge : rest);
            outside[i] += out ? g[i] : 0;
        }
        if (a->dx) to_input(a->channels, g, residual, a->inv_s, a->dx + p * a->stride);
    }
}

static void weight_grad(const bb_weight_grad_args *a)
{
    for (size_t i = 0; i < a->n; i++) a->scale[i] = 0;
    for (size_t k = 0; k < a->rows; k++) {
        const float *restrict g = a->g + k * a->n, *restrict w = a->w + k * a->n, *restrict delta = a->delta;
        const int8_t *restrict code = a->code + k * a->n;
        float *restrict sum = a->scale;
        for (size_t i = 0; i < a->n; i++) sum[i] += g[i] * (float)code[i];
        if (!a->dw) continue;
        float *restrict dw = a->dw + k * a->n;
        const float *restrict low = a->low, *restrict high = a->high;
        for (size_t i = 0; i < a->n; i++) {
            bool inside = (w[i] >= low[i] * delta[i]) & (w[i] <= high[i] * delta[i]);
            float d = inside ? g[i] / delta[i] : 0;
            dw[i] = a->add ? dw[i] + d : d;
        }
    }
}

static void norm(size_t pixels, size_t channels, const float *x, const float *restrict mean, const float *restrict rstd,
                 const float *restrict scale_of, const float *restrict shift, float *y)
{
    for (size_t p = 0; p < pixels; p++) {
        const float *restrict from = x + p * channels;
        float *restrict to = y + p * channels;
        for (size_t i = 0; i < channels; i++) to[i] = ((from[i] - mean[i]) * rstd[i]) * scale_of[i] + shift[i];
    }
}

static void combine(size_t count, size_t n, const float *x, size_t step, const float *row, float *y)
{
    for (size_t first = 0; first < n; first += LANES) {
        const size_t lanes = n - first < LANES ? n - first : LANES;
        float sum[LANES];
        memcpy(sum, y + first, lanes * sizeof *sum);
        for (size_t i = 0; i < count; i++) {
            const float *restrict at = row + i * n + first, f = x[i * step];
            for (size_t k = 0; k < lanes; k++) sum[k] += f * at[k];
        }
        memcpy(y + first, sum, lanes * sizeof *sum);
    }
}

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
const bb_student_loops JOIN(bb_student_loops, BB_STUDENT_SET) = {levels, codes, operand, scale, output_grad, input_grad,
                                                                 weight_grad, norm, combine};
