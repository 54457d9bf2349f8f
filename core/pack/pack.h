/* The packed model file in memory: what core/FORMAT.md describes, as C structs. read.c checks untrusted bytes once
 * and borrows from them; write.c makes them. The records are the file's own little-endian words. */
#ifndef BB_PACK_PACK_H
#define BB_PACK_PACK_H

#include "base/arena.h"
#include "base/json.h"
#include "graph/graph.h"
#include "kernels/kernels.h"
#include "pack/schedule.h"

#define BB_MAX_SEGMENTS 4u  /* input segments of a layer */
#define BB_MAX_PLANES ((uint32_t)BB_PLANES)
#define BB_MAX_CLASSES 8u   /* width classes inside a layer */
#define BB_MAX_STEP_ROWS 64u
#define BB_MAX_K 65536u     /* inputs per output: keeps every sum inside int32 */

/* Where a weight slot's bytes are. */
typedef enum bb_store {
    BB_STORE_TENSOR, /* the file's tensor of the slot's name: F32 or F16; conv [kh][kw][in][out*], linear [in][out*],
                        embedding [rows][columns*]; * padded with zeros to a byte length of a multiple of 64 */
    BB_STORE_POOL,   /* f32 vector at element `index` of tensor "pool.f32" */
    BB_STORE_LAYER,  /* quantized: record `index` of tensor "layers" */
} bb_store;
typedef struct bb_weight_ref { uint32_t store, index; } bb_weight_ref;

/* How a layer's input becomes codes (core/FORMAT.md §6). Shared by layers that read the same value. */
enum { BB_QUANTIZER_STATIC = 1 /* per step table; 2 = dynamic per token, reserved */ };
typedef struct bb_quantizer_rec {
    uint32_t kind, bits;          /* bits A 4..8 */
    uint32_t segments;            /* G 1..4 */
    uint32_t seg_channels[BB_MAX_SEGMENTS]; /* sum = channels; the rest 0 */
    uint32_t rows;                /* step rows 1..64 */
    uint32_t key_at;              /* pool.step_key[key_at + row]: timestep, strictly descending (noisiest first) */
    uint32_t step_at;             /* pool.step_delta, pool.step_zero [step_at + row·G + g] */
    uint32_t inv_s_at;            /* pool.inv_s[inv_s_at + channel], or BB_NONE = all 1 */
    uint32_t reserved[5];
} bb_quantizer_rec;

/* A quantized conv or linear. Rows are outputs in packed order: class by class, each class padded to 16 rows. */
typedef struct bb_layer_rec {
    uint32_t weight;         /* weight slot of the graph (graph 0) */
    uint32_t quantizer;      /* record of its input */
    uint32_t outputs, taps, channels; /* N, kh·kw, input channels */
    uint32_t row_at;         /* pool.delta, pool.offset [row_at + packed row] */
    uint32_t multiplier_at;  /* pool.multiplier[multiplier_at + …]: per tile [planes][16]; BB_NONE = 1, 2, 4, … */
    uint32_t perm_at;        /* pool.perm[perm_at + packed row] = output, 65535 in padding; BB_NONE = identity */
    uint32_t n_classes;
    uint32_t class_planes[BB_MAX_CLASSES]; /* planes of each class, 1..8 */
    uint32_t class_rows[BB_MAX_CLASSES];   /* outputs in each class; sum = N */
    uint32_t reserved[7];
} bb_layer_rec;

_Static_assert(sizeof(bb_weight_ref) == 8 && sizeof(bb_quantizer_rec) == 64, "file words");
_Static_assert(sizeof(bb_layer_rec) == 128, "file words");

/* A quantizer or layer with its pool pointers resolved. */
typedef struct bb_quantizer {
    const bb_quantizer_rec *rec;
    const float *key, *delta;  /* [rows], [rows][G] */
    const uint8_t *zero;       /* [rows][G] */
    const float *inv_s;        /* [channels] or NULL */
    uint32_t channels;         /* sum over segments */
    uint32_t padded;           /* Σ_g round_up(seg_channels[g], 8): bytes of a pixel's codes */
} bb_quantizer;

typedef struct bb_layer {
    const bb_layer_rec *rec;
    const bb_quantizer *quantizer;
    uint32_t rows;             /* packed rows, multiple of 16 */
    uint32_t k_blocks;         /* taps · padded / 8 */
    const uint8_t *planes;     /* [tile][k_block][plane][16] */
    const float *delta;        /* [rows] Δ */
    const int16_t *offset;     /* [rows] o */
    const int16_t *multiplier; /* per tile [planes][16], or NULL: 2^p */
    const uint16_t *perm;      /* [rows] or NULL */
    const int32_t *wsum;       /* [G][rows] Σ_k w, derived at load */
} bb_layer;

typedef struct bb_weight {
    const float *f32;          /* exactly one of the three is set */
    const uint16_t *f16;
    const bb_layer *layer;
    uint32_t stride;           /* elements between rows of a TENSOR (padded outputs or columns) */
} bb_weight;

typedef struct bb_pack {
    bb_info info;
    bb_graph graph;            /* the denoiser */
    const bb_weight *weights;  /* [graph.n_weights] */
    const bb_layer *layers;    uint32_t n_layers;
    const bb_quantizer *quantizers; uint32_t n_quantizers;
    bb_schedule schedule;
    bb_json header;            /* of the file, for bb_pack_metadata */
} bb_pack;

/* Bytes of the header with its length field, from the first 8 bytes of the file; BB_ERR_SHORT if n is less. */
bb_status bb_pack_head_bytes(const void *head, size_t n, uint64_t *bytes, bb_error *err);
/* Header only: fills info; scratch as for bb_probe. */
bb_status bb_pack_probe(const void *head, size_t n, void *scratch, size_t size, bb_info *info, bb_error *err);
/* Checks everything; arrays go to the arena, bytes stay borrowed. */
bb_status bb_pack_read(bb_pack *pack, const void *blob, size_t n, bb_arena *arena, bb_error *err);

/* Metadata string of a key, JSON-unescaped into out (cut to size). False if absent. */
bool bb_pack_metadata(const bb_pack *pack, const char *key, char *out, size_t size);

/* The row of a step table for a timestep: nearest key, ties to the noisier (larger) one. */
uint32_t bb_step_row(const bb_quantizer *q, float timestep);

/* ---- writing ---- */

typedef struct bb_tensor_out {
    const char *name;
    uint32_t dtype;        /* bb_dtype */
    uint32_t rank, shape[4]; /* as the caller has it; the writer pads the last dimension to 64 bytes */
    const void *data;      /* dense, row-major */
} bb_tensor_out;
typedef struct bb_meta_out { const char *key, *value; } bb_meta_out;

/* Everything a file holds. Pools are dense arrays; all is borrowed. */
typedef struct bb_pack_out {
    const bb_graph *graph;              /* named "denoiser" */
    const bb_weight_ref *refs;          /* [graph->n_weights] */
    const bb_tensor_out *tensors;       uint32_t n_tensors; /* of the TENSOR and LAYER slots, named like the slot */
    const float *f32;                   uint32_t n_f32;     /* pool.f32 */
    const bb_layer_rec *layers;         uint32_t n_layers;
    const bb_quantizer_rec *quantizers; uint32_t n_quantizers;
    const float *delta; const int16_t *offset; uint32_t n_rows; /* pool.delta, pool.offset */
    const int16_t *multiplier;          uint32_t n_multiplier;
    const uint16_t *perm;               uint32_t n_perm;
    const float *inv_s;                 uint32_t n_inv_s;
    const float *step_key;              uint32_t n_step_key;
    const float *step_delta; const uint8_t *step_zero; uint32_t n_step;
    const bb_schedule *schedule;
    bb_info info;                       /* width, height, channels, classes, null_label, bits_milli are used */
    const bb_meta_out *meta;            uint32_t n_meta;    /* further metadata, in order */
} bb_pack_out;

uint64_t bb_pack_write_size(const bb_pack_out *p);
void bb_pack_write(const bb_pack_out *p, uint8_t *out); /* exactly that many bytes */

#endif
