/* The flat face of bitbrush_make.h for JavaScript, of a module on top of the one with door.h: it quantizes that one's
 * model, in its memory and with its functions (exports-for-make.txt), if both are of one build, which is for the caller
 * to check. Memory up to the heap of bbm_start is the caller's; above it the maker takes and gives back its own, and
 * grows the memory. What a function returns is a bb_status unless said otherwise. */
#ifndef BB_WASM_MAKE_DOOR_H
#define BB_WASM_MAKE_DOOR_H

#include <stddef.h>
#include <stdint.h>

double bbw_build(void); /* to be compared with bbw_info(10) */

/* Ends what was being made, sets the options to their defaults and the maker's memory to begin at this address. */
void bbm_start(size_t heap);
/* Fields of bb_make_options in its order: 0 wbits, 1 abits, 2 budget, 3 layers, 4 range, 5 ladder, 6 mixed, 7 tables,
 * 8 refit, 9 smoothing, 10 images, 11 steps, 12 guidance, and 13 compensation; the seed in two halves. */
void bbm_option(uint32_t field, double value);
void bbm_seed(uint32_t low, uint32_t high);
int32_t bbm_begin(const char *command); /* borrowed, may be 0; begins with the model of bbw_model */
int32_t bbm_lora(const char *name, const void *data, size_t bytes, const char *config, size_t config_bytes,
                 float scale); /* config may be 0 */
int32_t bbm_step(void);
/* 0 phase, 1 done, 2 total of the last slice; 3 layers changed, 4 tensors skipped by the last LoRA. */
uint32_t bbm_progress(uint32_t field);
const uint8_t *bbm_result(void); /* 0 before bbm_step has returned BB_DONE */
size_t bbm_result_bytes(void);

#endif
