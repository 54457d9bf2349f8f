/* What this 64-bit ARM CPU can run, as Linux says it. NEON is in all of them. */
#include <sys/auxv.h>

#include "kernels/kernels.h"

uint32_t bb_cpu_features(void)
{
    return BB_CPU_NEON | (getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? BB_CPU_DOTPROD : 0);
}
