/* Model space to 8-bit RGBA. */
#include "image/image.h"

#include "base/mathf.h"

static uint8_t to_byte(float x)
{
    float v = x > -1.0f ? x : -1.0f; /* NaN too */
    v = v < 1.0f ? v : 1.0f;
    return (uint8_t)bb_round_even(127.5f * v + 127.5f);
}

void bb_rgba(const float *x, uint32_t channels, bb_image *out)
{
    size_t stride = out->stride ? out->stride : (size_t)4 * out->width;
    uint32_t green = channels >= 3 ? 1 : 0, blue = channels >= 3 ? 2 : 0;
    for (uint32_t row = 0; row < out->height; row++) {
        uint8_t *to = out->rgba + row * stride;
        for (uint32_t col = 0; col < out->width; col++, to += 4, x += channels) {
            to[0] = to_byte(x[0]);
            to[1] = to_byte(x[green]);
            to[2] = to_byte(x[blue]);
            to[3] = 255;
        }
    }
}
