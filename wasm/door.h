/* The flat face of bitbrush.h for JavaScript: scalars and pointers only, so the page needs no struct offsets.
 * An instance holds one model and one session. Memory belongs to the caller (js/raw.js): everything from
 * __heap_base up. What a function returns is a bb_status unless said otherwise; exports.txt is the only door. */
#ifndef BB_WASM_DOOR_H
#define BB_WASM_DOOR_H

#include "bitbrush.h"

size_t bbw_probe_scratch(size_t n);
int32_t bbw_probe(const void *head, size_t n, void *scratch, size_t size); /* bbw_info then tells */
int32_t bbw_model(const void *blob, size_t n, void *mem, size_t size);
const char *bbw_kernels(void);

/* The dot ways of bitbrush.h; times: floats, one for each. bbw_trial returns multiply-adds. */
const char *bbw_way_name(uint32_t way);
double bbw_trial(uint32_t way, uint32_t rounds);
int32_t bbw_way_times(const float *times);

/* Fields of bb_info in its order: 0 width, 1 height, 2 channels, 3 classes, 4 null_label, 5 train_steps,
 * 6 bits_milli, 7 head_bytes, 8 blob_bytes, 9 model_bytes. Doubles hold all of them exactly below 2^53. And 10: the
 * number that all modules of one build have in common. */
double bbw_info(uint32_t field);
const char *bbw_error(void); /* one line about the last failure */

/* Threads of the sessions from now on, the caller's included. Modules with THREADS only, which also show bb_par_work
 * and bb_par_broke of base/par.h, for the threads that JavaScript starts. */
void bbw_threads(uint32_t count);

/* Keeps the request and works out the workspace it needs; bbw_session then starts a session with it. */
int32_t bbw_session_size(uint32_t width, uint32_t height, uint32_t batch, uint32_t steps, uint32_t sampler,
                         float guidance, float eta);
size_t bbw_session_bytes(void);
const char *bbw_sampler_name(uint32_t sampler); /* of bbw_session_size; NULL past the last one */
int32_t bbw_session(void *workspace, size_t size);
int32_t bbw_condition(uint32_t image, int32_t label);
int32_t bbw_begin(const uint64_t *seeds, const float *noise); /* seeds[batch], little-endian; noise may be 0 */
int32_t bbw_step(uint32_t max_ops);
int32_t bbw_preview(uint32_t image, uint8_t *rgba); /* 4·width·height bytes */
int32_t bbw_decode(uint32_t image, uint8_t *rgba);
/* Fields of bb_stats in its order: 0 step, 1 steps, 2 op, 3 ops, 4 workspace_bytes, 5 macs_per_step. */
double bbw_stat(uint32_t field);

/* text: "key\0value\0key\0value\0", text_bytes in all, at most BBW_TEXT_PAIRS pairs. */
#define BBW_TEXT_PAIRS 16u
size_t bbw_png_scratch(uint32_t width, uint32_t height);
int32_t bbw_png(const uint8_t *rgba, uint32_t width, uint32_t height, const char *text, size_t text_bytes,
                void *scratch, size_t size);
const uint8_t *bbw_png_at(void);
size_t bbw_png_bytes(void);

/* Sessions with steps = 0: named tensors in and out, for tests. */
int32_t bbw_input(const char *name, const float *data, size_t count);
int32_t bbw_output(const char *name);
const float *bbw_output_at(void);
uint32_t bbw_output_dim(uint32_t axis); /* 0..3 */

/* For make_door.c: the model, NULL if there is none; an empty error to fill; its code, after the text of bbw_error has
 * been seen to. */
const bb_model *bbw_loaded(void);
bb_error *bbw_fresh(void);
int32_t bbw_report(bb_status status);

#endif
