/* Which ops are done inside others: group norm and SiLU while a quantized layer's input becomes codes, sums in a
 * layer's epilogue. The bits are the same, but the values in between are never made. Private to core/run. */
#ifndef BB_RUN_FUSE_H
#define BB_RUN_FUSE_H

#include "run/run.h"

/* What op i does when nothing is fused. */
bb_fusion bb_fusion_none(const bb_graph *g, uint32_t i);

/* Fills fusion[n_ops]. others, wanted: scratch, [n_values] each. */
void bb_fuse(bb_fusion *fusion, const bb_pack *pack, const bb_shape *shapes, uint32_t *others, uint32_t *wanted);

#endif
