/* scheduler_config.json → bb_schedule: beta schedules and their products, as diffusers 0.27.2 computes them. */
#ifndef BB_TOOLS_IMPORT_SCHEDULER_H
#define BB_TOOLS_IMPORT_SCHEDULER_H

#include "base/json.h"
#include "sample/sampler.h"

/* alphas_cumprod is malloc'd; free with bb_scheduler_free. j/tok: the config object (tok BB_JSON_NONE = DDPM defaults).
 * The classes of DDPM, DDIM, PNDM, Euler, Euler ancestral, DPM-Solver multistep, UniPC and LCM; others are refused by
 * name, unknown fields that are not null or false too. */
bb_status bb_scheduler_read(bb_schedule *out, const bb_json *j, uint32_t tok, const char *file, bb_error *err);
void bb_scheduler_free(bb_schedule *s);

#endif
