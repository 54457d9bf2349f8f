/* LoRA fold-in: W + scale·(alpha/r)·B·A, before anything is quantized. Private to core/make and the tools.
 * Keys are read as peft, diffusers and kohya's scripts write them (lora_keys.c), alpha as they keep it (lora_alpha.c).
 * Method: Hu et al., LoRA, 2021, §4.1; rank-stabilized: Kalajdzievski 2023. */
#ifndef BB_MAKE_LORA_H
#define BB_MAKE_LORA_H

#include "base/safetensors.h"
#include "make/blocks.h"
#include "pack/pack.h"

/* ---- names ---- */

typedef enum bb_lora_role {
    BB_LORA_DOWN,    /* A: [r, in] or [r, in, kh, kw] */
    BB_LORA_UP,      /* B: [out, r] or [out, r, 1, 1] */
    BB_LORA_ALPHA,   /* one number */
    BB_LORA_ELSE,    /* of another part of a pipeline, such as the text encoder */
    BB_LORA_METHOD,  /* of a method that is not plain LoRA */
    BB_LORA_UNKNOWN,
} bb_lora_role;

typedef struct bb_lora_key {
    bb_lora_role role;
    const char *method; /* of BB_LORA_METHOD: its name */
    char module[256];   /* path of the layer in today's names, without ".weight"; "" if too long */
    bool flat;          /* '_' stands for '.' too */
} bb_lora_key;

void bb_lora_key_read(bb_lora_key *key, const char *name);

/* The conv and linear slots by module path. */
typedef struct bb_lora_names {
    const bb_graph *graph;
    uint32_t *slot; uint32_t n; /* in the order of their flat names */
} bb_lora_names;

bb_status bb_lora_names_init(bb_lora_names *names, const bb_graph *g, bb_blocks *blocks, bb_error *err);
/* The slot of a key's module; BB_NONE if there is none, or more than one. */
uint32_t bb_lora_names_find(const bb_lora_names *names, const bb_lora_key *key);

/* ---- alpha ---- */

/* peft's adapter_config.json: beside the file, or inside it as diffusers keeps it. */
typedef struct bb_lora_config {
    const char *file;
    bb_json json;
    bool present, rank_stabilized;
    double r, alpha;
    uint32_t rank_pattern, alpha_pattern;
} bb_lora_config;

bb_status bb_lora_config_read(bb_lora_config *c, const bb_lora_file *file, const bb_safetensors *st,
                              bb_blocks *blocks, bb_error *err);
/* alpha/r, or alpha/√r, of a layer whose A has that rank; 1 without a config. */
bb_status bb_lora_config_scale(const bb_lora_config *c, const char *module, uint64_t rank, double *out, bb_error *err);

/* ---- fold-in ---- */

typedef struct bb_lora_pair {
    const bb_st_tensor *down, *up, *alpha;
    double scale; /* all factors together */
} bb_lora_pair;

typedef struct bb_lora {
    const bb_lora_file *file;
    const bb_graph *graph;
    bb_safetensors st;
    bb_lora_pair *pairs; /* [graph->n_weights]; down is NULL where nothing is added */
    bb_lora_report report;
} bb_lora;

/* Reads the file and finds each tensor's layer; everything but the numbers is checked. The result borrows all. */
bb_status bb_lora_open(bb_lora *l, const bb_graph *g, const bb_lora_file *file, bb_blocks *blocks, bb_error *err);

/* Adds to the matrix of a slot that has a pair. w: element (output o, input i, tap t) at o·out + i·in + t·tap. */
typedef struct bb_lora_steps { size_t out, in, tap; } bb_lora_steps;
bb_status bb_lora_add(const bb_lora *l, uint32_t slot, float *w, bb_lora_steps steps, bb_blocks *blocks,
                      bb_error *err);

/* Replaces matrices in weights[], which begins as a copy of pack->weights, by folded ones from blocks. */
bb_status bb_lora_fold(const bb_pack *pack, bb_weight *weights, const bb_lora_file *file, bb_blocks *blocks,
                       bb_lora_report *report, bb_error *err);

/* The metadata "lora" with this file added: a JSON array of {"file", "scale", "sha256"} in the order of folding.
 * old: what there is so far, NULL = nothing. NULL if there is no memory. */
const char *bb_lora_metadata(const char *old, const bb_lora_file *file, bb_blocks *blocks);

#endif
