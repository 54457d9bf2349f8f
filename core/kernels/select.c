#include "kernels/kernels.h"

#include "kernel_sets.inc" /* written by CMake: BB_SETS(X), best first, scalar last */

#define X(isa) extern const bb_kernels bb_kernels_##isa;
BB_SETS(X)
#undef X

#define X(isa) &bb_kernels_##isa,
static const bb_kernels *const sets[] = {BB_SETS(X)};
#undef X

static const bb_kernels *added;

void bb_kernels_add(const bb_kernels *ways) { added = ways; }

/* Ops are the last fields of a table, one function pointer each. */
#define FIRST_OP offsetof(bb_kernels, quantize)
typedef void any_op(void);

static void add_missing_ops(bb_kernels *out, const bb_kernels *set)
{
    for (size_t at = FIRST_OP; at < sizeof *out; at += sizeof(any_op *)) {
        any_op *op;
        memcpy(&op, (const uint8_t *)out + at, sizeof op);
        if (!op) memcpy((uint8_t *)out + at, (const uint8_t *)set + at, sizeof op);
    }
}

/* All ways of the set, or the last, which fits everything. */
static void add_ways(bb_kernels *out, const bb_kernels *set, bool all)
{
    size_t n = 0, k = 0;
    while (n < BB_DOTS && out->dots[n]) n++;
    while (!all && k + 1 < BB_DOTS && set->dots[k + 1]) k++;
    for (; k < BB_DOTS && set->dots[k]; k++, n++) {
        BB_ASSERT(n < BB_DOTS);
        out->dots[n] = set->dots[k];
        out->cost[n] = out->dots[n]->cost;
    }
}

void bb_kernels_select(bb_kernels *out, uint32_t cpu)
{
    *out = (bb_kernels){0};
    if (added) {
        out->isa = added->isa;
        add_ways(out, added, true);
    }
    for (size_t i = 0; i < BB_COUNT(sets); i++) {
        if (sets[i]->needs & ~cpu) continue;
        if (!out->isa) out->isa = sets[i]->isa;
        add_missing_ops(out, sets[i]);
        add_ways(out, sets[i], !added);
    }
}
