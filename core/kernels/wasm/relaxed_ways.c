/* The door of bitbrush-relaxed.wasm: nothing but dot ways, for the module that it is instantiated on top of. */
#include "kernels/wasm/relaxed.h"

double bbw_build(void); /* to be compared with bbw_info(10) */
void bbr_add(void);

double bbw_build(void) { return BBW_BUILD; }

void bbr_add(void)
{
    static const bb_kernels ways = {.isa = "wasm_relaxed", .needs = BB_CPU_WASM_RELAXED, .dots = {BB_RELAXED_WAYS}};
    bb_kernels_add(&ways);
}
