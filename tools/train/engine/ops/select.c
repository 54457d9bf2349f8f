/* Which table: asked of the CPU once, not of the compiler. */
#include <omp.h>

#include "kernels/kernels.h"
#include "train/engine/ops/set.h"

static uint32_t ops_threads = 1;

bb_norm_split bb_norm_parts(const bb_norm_args *a)
{
    const size_t run = (128 + a->channels - 1) / a->channels * a->channels; /* 128: some vectors of the widest set */
    size_t parts = (ops_threads + a->items - 1) / a->items;
    parts = smaller(parts, 1 + (size_t)a->pixels * a->channels / SMALL);
    const size_t pixels = (a->pixels + parts - 1) / parts;
    return (bb_norm_split){(a->pixels + pixels - 1) / pixels, pixels, run};
}

size_t bb_norm_scratch(const bb_norm_args *a)
{
    const bb_norm_split split = bb_norm_parts(a);
    return a->items * split.parts * 2 * a->channels + ops_threads * BB_NORM_SLOTS * split.run;
}

void bb_ops_table_baseline(bb_ops *t);
#if defined(__x86_64__)
void bb_ops_table_avx2(bb_ops *t);
void bb_ops_table_avx512(bb_ops *t);
#endif

const bb_ops *bb_ops_select(uint32_t cpu, uint32_t threads)
{
    static bb_ops ops;
    ops_threads = threads ? threads : 1;
    omp_set_num_threads((int)ops_threads);
    bb_ops_table_baseline(&ops);
#if defined(__x86_64__)
    /* Every CPU with AVX2 but one forgotten has FMA; bb_cpu_features does not ask for it, as core never uses it. */
    const uint32_t has = __builtin_cpu_supports("fma") ? bb_cpu_features() : 0;
    if (has & BB_CPU_AVX512 && (cpu == 0 || cpu == 3)) bb_ops_table_avx512(&ops);
    else if (has & BB_CPU_AVX2 && cpu != 1) bb_ops_table_avx2(&ops);
#endif
    return &ops;
}
