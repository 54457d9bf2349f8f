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

/* Class for picture number i when none is asked for: all but the null class, in turn. */
int32_t bb_nth_label(const bb_info *info, uint32_t i);

/* Internal observer by value id; bb_tap is its public form by module path, and replaces it. */
void bb_session_observe(bb_session *s, bb_observe_fn fn, void *user);

/* The op that bb_step ran last, for tools that time one after the other. */
uint32_t bb_session_ran(const bb_session *s);

/* Fusion (on at the start; always off for observers) changes no bit: off to compare, from the next step on. */
void bb_session_fuse(bb_session *s, bool on);

/* For tools that compare runs: picture 0's x of the current step (writable between steps) and the guided model output
 * of the last step; the batch's other pictures follow. n: values of a picture. */
float *bb_session_x(bb_session *s, size_t *n);
const float *bb_session_prediction(const bb_session *s, size_t *n);

#endif
