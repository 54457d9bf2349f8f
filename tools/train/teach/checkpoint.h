/* What a run leaves on disk from time to time: the diffusers folder of the averaged weights, and in its train/ the
 * state, log.csv, loss.svg and a sheet of samples. */
#ifndef BB_TRAIN_TEACH_CHECKPOINT_H
#define BB_TRAIN_TEACH_CHECKPOINT_H

#include "train/teach/state.h"

typedef struct bb_png_bytes { uint8_t *data; size_t n; } bb_png_bytes; /* data: malloc'd or NULL */

/* FOLDER/train/state.safetensors; false if the path is too long. */
bool bb_teach_state_path(char *out, size_t size, const char *folder);
/* Refuses a folder that holds a model, but no train/: it is not ours to write over. */
bb_status bb_teach_check_folder(const char *folder, bb_error *err);

/* Writes all: reports and model in one go, then the state, which may so be older but never newer than they are. dtype:
 * of the folder's weights, BB_ST_F32 or BB_ST_F16. samples: goes to train/samples-UPDATE.png unless empty. Signals are
 * held. */
bb_status bb_teach_checkpoint(const char *folder, uint32_t dtype, const bb_teach *t, const bb_course *run,
                              const bb_png_bytes *samples, bb_error *err);

/* A sheet drawn with the weights w by core's sampler: DDIM, 20 steps, guidance 2, two pictures a class, the same seeds
 * every time. Part of the command line, not of bb_train. */
bb_status bb_teach_samples(const bb_pipeline *p, const bb_params *params, const float *w, uint32_t threads,
                           uint32_t cpu, bb_png_bytes *out, bb_error *err);

#endif
