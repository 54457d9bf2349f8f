/* CPUs without kernels of their own. */
#include "kernels/kernels.h"

uint32_t bb_cpu_features(void) { return 0; }
