/* --lora FILE[:SCALE] of the commands that read float models. */
#ifndef BB_TOOLS_LORA_H
#define BB_TOOLS_LORA_H

#include "cli.h"
#include "io.h"
#include "make/lora.h"

#define BB_LORA_OPTION(list) \
    {"--lora", BB_OPTION_LIST, &(list), "FILE[:SCALE]", "fold in a LoRA (peft, diffusers, kohya); may be repeated", \
     0, 0, NULL}

/* A LoRA's files, mapped: the weights, and adapter_config.json beside them if there is one. */
typedef struct bb_lora_input {
    bb_lora_file lora;
    char path[4096], config_path[4096];
    bb_file file, config;
} bb_lora_input;

/* text: FILE or FILE:SCALE; the last ':' with a number behind it counts. On failure nothing needs closing. */
bb_status bb_lora_input_open(bb_lora_input *in, const char *text, bb_error *err);
void bb_lora_input_close(bb_lora_input *in);

/* What the user may want to know, on stderr. */
void bb_lora_note(const bb_lora_input *in, const bb_lora_report *report);

/* Folds a list into an opened model, which then borrows from blocks. */
bb_status bb_lora_fold_list(bb_model *model, const bb_list *list, bb_blocks *blocks, bb_error *err);

#endif
