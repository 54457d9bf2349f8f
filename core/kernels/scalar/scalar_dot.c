/* The meaning of a dot way: expand the weights, multiply and add. Panel: [taps][channels/2][BB_TILE][2] int8. */
#include "kernels/kernels.h"

extern const bb_dot bb_dot_scalar;

static bool fits(const bb_dot_shape *s) { return true; }

static void run(const bb_dot_args *a)
{
    for (size_t p = 0; p < a->pixels; p++) {
        const int8_t *w = a->panel;
        int32_t acc[BB_TILE] = {0};
        for (size_t tap = 0; tap < a->shape->taps; tap++) {
            const uint8_t *x = a->rows[tap * BB_TILE_PIXELS + p] + a->first;
            for (size_t c = 0; c < a->shape->channels; c += 2, w += BB_TILE * 2)
                for (size_t j = 0; j < BB_TILE; j++)
                    acc[j] += w[j * 2] * x[c] + w[j * 2 + 1] * x[c + 1];
        }
        memcpy(a->acc + p * BB_TILE, acc, sizeof acc);
    }
}

const bb_dot bb_dot_scalar = {.name = "scalar", .rows = BB_ROWS_CODES, .cost = 10, .fits = fits,
                              .panel_bytes = bb_expanded_bytes, .pack = bb_expand_panel, .run = run};
