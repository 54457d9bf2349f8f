/* Scalar kernels of the quantized layers: the meaning of the integer contract (quantize, tables, expand, dequantize;
 * scalar_dot.c has the product).
 * Loops run over the 16 outputs innermost, so a compiler may vectorize them without changing a bit. */
#include "base/mathf.h"

#define BB_ISA scalar
#include "kernels/set.h"

/* The group norm and the SiLU in front, where asked for. */
static float prologue(const bb_quantize_args *a, float x, size_t c)
{
    if (a->mean) x = ((x - a->mean[c]) * a->rstd[c]) * a->scale[c] + a->shift[c];
    return a->silu ? x / (1.0f + bb_expf(-x)) : x;
}

void BB_FN(quantize)(const bb_quantize_args *a)
{
    const int32_t zero = (int32_t)a->zero;
    const float low = -(float)zero, high = (float)((int32_t)a->levels - zero);
    for (size_t p = 0; p < a->pixels; p++) {
        uint8_t *code = a->a + p * a->a_stride;
        const float *x = a->x + p * a->x_stride;
        int32_t sum = 0;
        for (size_t c = 0; c < a->channels; c++) {
            float v = prologue(a, x[c], c) * a->m[c];
            v = v > low ? v : low; /* NaN is not greater: it becomes −z, code 0 */
            v = v < high ? v : high;
            code[c] = (uint8_t)((int32_t)bb_round_even(v) + zero);
            sum += code[c];
        }
        for (size_t c = a->channels; c < bb_align_up(a->channels, BB_K_BLOCK); c++) code[c] = 0;
        if (a->sum) a->sum[p] = sum;
    }
}

void BB_FN(expand_tile)(const bb_expand_args *a)
{
    for (size_t block = 0; block < a->k_blocks; block++) {
        const uint8_t *planes = a->planes + block * a->n_planes * BB_TILE;
        for (size_t bit = 0; bit < BB_K_BLOCK; bit++) {
            int8_t *w = a->w + ((block * BB_K_BLOCK + bit) / 2 * BB_TILE) * 2 + bit % 2;
            for (size_t j = 0; j < BB_TILE; j++) {
                int32_t sum = a->offset[j];
                for (size_t p = 0; p < a->n_planes; p++)
                    sum += a->multiplier[p * BB_TILE + j] * (planes[p * BB_TILE + j] >> bit & 1);
                w[j * 2] = (int8_t)sum;
            }
        }
    }
}

void BB_FN(tables)(const bb_tables_args *a)
{
    for (size_t p = 0; p < a->pixels; p++) {
        const uint8_t *code = a->a + p * a->a_stride;
        uint8_t *t = a->t + p * a->t_stride;
        for (size_t c = 0; c < a->channels; c += 4, t += 16)
            for (size_t i = 0; i < 16; i++) {
                int32_t sum = a->bias;
                for (size_t b = 0; b < 4; b++) sum += i >> b & 1 ? code[c + b] : 0;
                t[i] = (uint8_t)sum;
            }
    }
}

void BB_FN(widen)(uint16_t *y, const uint8_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i];
}

void BB_FN(dequantize_tile)(const bb_dequantize_args *a)
{
    for (size_t p = 0; p < a->pixels; p++) {
        for (size_t j = 0; j < BB_TILE; j++) {
            float sum = 0;
            for (size_t g = 0; g < a->segments; g++) {
                int32_t acc = a->acc[(g * BB_TILE_PIXELS + p) * BB_TILE + j] - a->zsum[g * BB_TILE + j];
                sum = sum + (float)acc * a->e[g * BB_TILE + j];
            }
            const float y = sum + a->bias[j];
            a->y[p * a->y_stride + j] = a->add ? y + a->add[p * a->add_stride + j] : y;
        }
    }
}
