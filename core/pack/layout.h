/* Constants of the packed file that reader and writer share (core/FORMAT.md). Private to core/pack. */
#ifndef BB_PACK_LAYOUT_H
#define BB_PACK_LAYOUT_H

#include "base/json.h"
#include "pack/pack.h"

/* dtypes beyond those a graph value may have */
enum { BB_I16 = 3, BB_U16, BB_U32, BB_FILE_DTYPES };

/* "graph": counts of graphs, stages, links, 0; then name, inputs, outputs, values, weights, ops, 0, 0 */
#define BB_GRAPH_HEAD_WORDS 12u
#define BB_SCHEDULE_WORDS 16u
void bb_schedule_to_words(const bb_schedule *s, uint32_t w[BB_SCHEDULE_WORDS]);
/* All but alphas_cumprod; false if a word is out of range. */
bool bb_schedule_from_words(bb_schedule *s, const uint32_t w[BB_SCHEDULE_WORDS]);
#define BB_FILE_TENSORS 15u /* besides "graph" and the weights' own */

#define BB_MAX_HEADER_BYTES (64u << 20)

/* A tensor of the safetensors header; names point into the header text and are not terminated. */
typedef struct bb_file_tensor {
    const char *name;
    uint32_t name_bytes;
    uint32_t dtype;  /* bb_dtype or the ones above */
    uint32_t last;   /* last dimension, elements */
    uint64_t begin, bytes; /* from the start of the file */
} bb_file_tensor;

typedef struct bb_file_index {
    bb_json json;
    uint32_t metadata;     /* token of __metadata__ */
    uint32_t n_tensors;
    uint64_t file_bytes;   /* what the header says the whole file has */
} bb_file_index;

uint32_t bb_dtype_size(uint32_t dtype); /* bytes per element; 0 if unknown */
const char *bb_dtype_name(uint32_t dtype); /* as safetensors names it */

/* Parses and checks the header. tokens: bb_json_scratch(head bytes) bytes. tensors NULL: counts and sizes only. */
bb_status bb_index_parse(bb_file_index *index, const void *head, size_t n, void *tokens, size_t token_bytes,
                         bb_file_tensor *tensors, bb_error *err);

/* The whole numbers of the metadata, into info. */
bb_status bb_index_info(const bb_file_index *index, bb_info *info, bb_error *err);

/* Iterates the header's tensors without an array: first key token, or BB_JSON_NONE. */
bb_status bb_index_tensor(const bb_file_index *index, uint32_t key, bb_file_tensor *out, bb_error *err);

bool bb_tensor_is(const bb_file_tensor *t, const char *name);

/* Resolves and checks all quantizers and layers (layers.c). */
typedef struct bb_pools {
    const float *f32, *delta, *inv_s, *step_key, *step_delta;
    const int16_t *offset, *multiplier;
    const uint16_t *perm;
    const uint8_t *step_zero;
    uint32_t n_f32, n_rows, n_multiplier, n_perm, n_inv_s, n_step_key, n_step;
} bb_pools;

bb_status bb_quantizer_check(bb_quantizer *q, const bb_quantizer_rec *rec, const bb_pools *pools, uint32_t number,
                             bb_error *err);
/* planes, plane_bytes: the slot's tensor. wsum: room for BB_MAX_SEGMENTS·rows. next_row: where its rows must begin. */
bb_status bb_layer_check(bb_layer *layer, const bb_layer_rec *rec, const bb_quantizer *q, const bb_weight_slot *slot,
                         const char *name, const bb_pools *pools, const uint8_t *planes, uint64_t plane_bytes,
                         int32_t *wsum, bb_error *err);

#endif
