#include "pack/pack.h"

uint32_t bb_step_row(const bb_quantizer *q, float timestep)
{
    uint32_t best = 0;
    float distance = 0;
    for (uint32_t r = 0; r < q->rec->rows; r++) {
        float d = q->key[r] > timestep ? q->key[r] - timestep : timestep - q->key[r];
        /* Keys descend, so an equal distance later on is the less noisy key: it loses. */
        if (r == 0 || d < distance) {
            best = r;
            distance = d;
        }
    }
    return best;
}
