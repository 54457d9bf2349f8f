/* Private to core/api and the tools that choose kernels by hand. */
#ifndef BB_API_MODEL_H
#define BB_API_MODEL_H

#include "run/run.h"

struct bb_model {
    bb_pack pack;
    bb_kernels kernels;
    bb_plan scratch; /* arrays for planning a session; so one bb_session_size/_init at a time per model */
};

/* Uses only kernel sets whose needs are in cpu (tests, --cpu). */
void bb_model_select(bb_model *model, uint32_t cpu);

#endif
