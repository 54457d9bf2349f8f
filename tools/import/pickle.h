/* The part of Python's pickle format that torch.save needs for tensors: plain values, dictionaries, and a fixed list of
 * names that stand for tensors and their storages. Nothing is ever imported or called: a pickle is a program, and any
 * other name or instruction is refused. Method: the comments of CPython's Lib/pickletools.py, protocols 2 to 5. */
#ifndef BB_TOOLS_IMPORT_PICKLE_H
#define BB_TOOLS_IMPORT_PICKLE_H

#include "base/safetensors.h"

typedef enum bb_pickle_kind {
    BB_PICKLE_MARK, BB_PICKLE_OTHER /* None, numbers with a point, lists: of no interest */, BB_PICKLE_INT,
    BB_PICKLE_STRING, BB_PICKLE_TUPLE, BB_PICKLE_DICT, BB_PICKLE_GLOBAL, BB_PICKLE_STORAGE, BB_PICKLE_TENSOR
} bb_pickle_kind;

/* Text inside the pickle, not terminated. */
typedef struct bb_pickle_text { const char *at; size_t n; } bb_pickle_text;

typedef struct bb_pickle_storage {
    bb_pickle_text key; /* its record in the archive is data/KEY */
    uint32_t dtype;     /* as bb_tensor.dtype */
    uint64_t numel;
} bb_pickle_storage;

/* Every element lies inside the storage, and there are no more of them than the storage has. */
typedef struct bb_pickle_tensor {
    bb_pickle_storage storage;
    uint64_t offset; /* of the first element, in elements */
    uint32_t rank;
    uint64_t shape[BB_ST_MAX_RANK], stride[BB_ST_MAX_RANK];
    size_t count;
} bb_pickle_tensor;

typedef struct bb_pickle_node {
    uint32_t kind;     /* bb_pickle_kind */
    uint32_t first, n; /* TUPLE: in items. DICT: first pair (BB_PICKLE_NO_PAIR: empty); n its newest. STORAGE, TENSOR:
                          in storages, tensors; GLOBAL: which one */
    union { int64_t number; bb_pickle_text text; };
} bb_pickle_node;

#define BB_PICKLE_NO_PAIR 0xffffffffu
typedef struct bb_pickle_pair { uint32_t key, value, next; } bb_pickle_pair; /* nodes; next pair of the dictionary */

typedef struct bb_pickle_list { void *at; size_t n, each; } bb_pickle_list;

typedef struct bb_pickle {
    uint32_t root; /* node */
    /* Lists of: bb_pickle_node, bb_pickle_pair, bb_pickle_storage, bb_pickle_tensor, and node numbers. */
    bb_pickle_list nodes, pairs, storages, tensors, items, stack, marks, memo;
} bb_pickle;

/* Reads n bytes, which must stay valid; file: what messages call them. Memory is bounded by n. On failure nothing needs
 * freeing. */
bb_status bb_pickle_read(bb_pickle *p, const uint8_t *data, size_t n, const char *file, bb_error *err);
void bb_pickle_free(bb_pickle *p);

BB_INLINE const bb_pickle_node *bb_pickle_nodes(const bb_pickle *p) { return p->nodes.at; }
BB_INLINE const bb_pickle_pair *bb_pickle_pairs(const bb_pickle *p) { return p->pairs.at; }
BB_INLINE const bb_pickle_tensor *bb_pickle_tensors(const bb_pickle *p) { return p->tensors.at; }

#endif
