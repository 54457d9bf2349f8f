#include "eval/ssim.h"

#include <math.h>
#include <stddef.h>

enum { WINDOW = 11 };

static void make_window(double *w, uint32_t size)
{
    double sum = 0;
    for (uint32_t i = 0; i < size; i++) {
        const double at = (double)i - (size - 1) / 2.0;
        sum += w[i] = exp(-at * at / (2 * 1.5 * 1.5));
    }
    for (uint32_t i = 0; i < size; i++) w[i] /= sum;
}

/* Weighted sums of a, b, a², b², ab over the window at a place; a and b are its corner, row and pixel their steps. */
static double at_place(const uint8_t *a, const uint8_t *b, size_t row, size_t pixel, const double *w, uint32_t size)
{
    const double c1 = .01 * 255 * .01 * 255, c2 = .03 * 255 * .03 * 255;
    double sa = 0, sb = 0, aa = 0, bb = 0, ab = 0;
    for (uint32_t y = 0; y < size; y++)
        for (uint32_t x = 0; x < size; x++) {
            const double p = a[y * row + x * pixel], q = b[y * row + x * pixel], weight = w[y] * w[x];
            sa += weight * p, sb += weight * q;
            aa += weight * p * p, bb += weight * q * q, ab += weight * p * q;
        }
    return (2 * sa * sb + c1) * (2 * (ab - sa * sb) + c2) /
           ((sa * sa + sb * sb + c1) * (aa - sa * sa + bb - sb * sb + c2));
}

double bb_ssim(const uint8_t *a, const uint8_t *b, uint32_t height, uint32_t width, uint32_t channels)
{
    double w[WINDOW], sum = 0;
    uint32_t size = WINDOW;
    while (size > height || size > width) size -= size > 2 ? 2 : 1;
    make_window(w, size);
    const size_t row = (size_t)width * channels;
    for (uint32_t y = 0; y + size <= height; y++)
        for (uint32_t x = 0; x + size <= width; x++)
            for (uint32_t c = 0; c < channels; c++) {
                const size_t at = y * row + x * (size_t)channels + c;
                sum += at_place(a + at, b + at, row, channels, w, size);
            }
    return sum / ((double)(height - size + 1) * (width - size + 1) * channels);
}
