#include "base/par.h"

bb_par *bb_par_start(uint32_t threads) { (void)threads; return NULL; }
void bb_par_stop(bb_par *par) { (void)par; }
uint32_t bb_par_threads(const bb_par *par) { (void)par; return 1; }

void bb_par_for(bb_par *par, size_t count, bb_par_fn *fn, void *ctx)
{
    (void)par;
    for (size_t i = 0; i < count; i++) fn(ctx, i, 0);
}
