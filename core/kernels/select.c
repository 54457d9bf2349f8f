#include "kernels/kernels.h"

#include "kernel_sets.inc" /* written by CMake: BB_SETS(X), best first, scalar last */

#define X(isa) extern const bb_kernels bb_kernels_##isa;
BB_SETS(X)
#undef X

#define X(isa) &bb_kernels_##isa,
static const bb_kernels *const sets[] = {BB_SETS(X)};
#undef X

void bb_kernels_select(bb_kernels *out, uint32_t cpu)
{
    size_t n = 0;
    *out = (bb_kernels){0};
    for (size_t i = 0; i < BB_COUNT(sets); i++) {
        if (sets[i]->needs & ~cpu) continue;
        if (!out->isa) out->isa = sets[i]->isa;
#define BB_OP(name, args) if (!out->name) out->name = sets[i]->name;
#include "kernels/ops.inc"
#undef BB_OP
        for (size_t k = 0; k < BB_DOTS && sets[i]->dots[k]; k++, n++) {
            BB_ASSERT(n < BB_DOTS);
            out->dots[n] = sets[i]->dots[k];
            out->cost[n] = out->dots[n]->cost;
        }
    }
}
