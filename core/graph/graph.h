/* The graph: ops with typed attributes, value ids and weight ids, in topological order. It knows nothing of
 * weights' bytes, kernels or model families. Builders (tools/import) make it, the packed file carries it,
 * core/run walks it, the trainer walks it backwards.
 *
 * Values are f32, NHWC: [n][h][w][c]. Token sequences are the same memory with h·w tokens; vectors per item
 * have h = w = 1; scalars per item also c = 1. Every op makes exactly one value, so value ids number the
 * inputs first, then the ops' results in order. All structs here are the file's own words (core/FORMAT.md §4),
 * little-endian, borrowed in place: 32-bit fields only. */
#ifndef BB_GRAPH_GRAPH_H
#define BB_GRAPH_GRAPH_H

#include "base/status.h"

#define BB_NONE 0xffffffffu /* absent value, weight or string */
#define BB_GRAPH_MAX_VALUES 65536u

typedef enum bb_op_kind {
#define BB_GRAPH_OP(NAME, name, number, min_in, max_in, weights) BB_OP_##NAME = number,
#include "graph/ops.inc"
#undef BB_GRAPH_OP
} bb_op_kind;

/* A dimension: (symbol·mul)/div + add, rounded down; symbol ONE makes it the constant mul/div + add. */
typedef enum bb_symbol {
    BB_DIM_ONE, BB_DIM_B /* items */, BB_DIM_H, BB_DIM_W /* picture, pixels */,
    BB_DIM_L /* tokens */, BB_DIM_F /* frames */, BB_DIM_SYMBOLS
} bb_symbol;

typedef struct bb_dim { uint32_t symbol, mul, div, add; } bb_dim;

/* How often a value changes: the fastest of the rates of its inputs. Values of MODEL and PROMPT rate are
 * computed once and kept, those of STEP rate once per schedule where memory allows, the others at every step. */
typedef enum bb_rate { BB_RATE_MODEL, BB_RATE_PROMPT, BB_RATE_STEP, BB_RATE_SAMPLE } bb_rate;

typedef enum bb_dtype { BB_F32, BB_F16, BB_U8 } bb_dtype; /* values: F32 only for now, the others reserved */

enum { BB_VALUE_PERSISTENT = 1 }; /* flag: kept between steps (feature caches); reserved */

typedef struct bb_value {
    uint32_t path;  /* string: path of the module whose output this is ("mid_block.resnets.1"); BB_NONE if inner.
                       Several modules with the same output: one path a line ('\n'), outermost first */
    uint32_t dtype; /* bb_dtype */
    uint32_t rate;  /* bb_rate */
    uint32_t flags;
} bb_value;

typedef struct bb_graph_input {
    uint32_t name; /* string: "sample", "timestep", "class_labels", … */
    bb_dim shape[4];
    uint32_t rate; /* bb_rate of this input */
} bb_graph_input;  /* input i is value i */

typedef struct bb_graph_output { uint32_t name, value; } bb_graph_output;

/* A weight slot: what the graph needs, by checkpoint name. Where its bytes are: bb_weight_ref in core/pack.
 * Shapes: conv2d [out, in, kh, kw]; linear, embedding [rows, columns]; vectors [n]. */
typedef struct bb_weight_slot {
    uint32_t name;  /* string: the checkpoint's tensor name */
    uint32_t rank;  /* 1..4 */
    uint32_t dim[4];
} bb_weight_slot;

/* One op. Unused inputs and weights are BB_NONE, unused attribute words 0. */
typedef struct bb_op {
    uint32_t kind;      /* bb_op_kind */
    uint32_t in[4];     /* value ids, all below out */
    uint32_t weight[2]; /* weight slots */
    uint32_t path;      /* string: module path of the op (layer name for reports); may be BB_NONE */
    union {
        uint32_t word[8];
        /* CONV2D y[n,oy,ox,o] = b[o] + Σ_{ky,kx,i ascending} w·x, zero padding. weight: w, b (b may be BB_NONE).
         * oh = (h + top + bottom − kh)/stride + 1. */
        struct { uint32_t kh, kw, stride, top, left, bottom, right; } conv;
        /* LINEAR over the last dimension. weight: w [out,in], b or BB_NONE. No attributes. */
        /* GROUP_NORM per item over h, w and channel groups; weight: scale, shift [c]. */
        struct { uint32_t groups; float eps; } norm;
        /* SILU x/(1+e^−x). GELU x·Φ(x), Φ by erf. MISH x·tanh(ln(1+e^x)). */
        /* ADD a + b; b may have h = w = 1 and is then spread over the pixels. */
        /* CONCAT along channels, 2 to 4 inputs, in order. */
        /* UPSAMPLE_NEAREST to factor× the size, or to h, w of input 1 where given (then factor 0). */
        struct { uint32_t factor; } upsample;
        /* ATTENTION in: q [n,lq], k, v [n,lk]; softmax(scale·q·kᵀ)·v per head, heads divide c. in[3] is reserved
         * for a mask, word[2..3] for key mask and row map; refused until implemented. */
        struct { uint32_t heads; float scale; } attention;
        /* TIMESTEP_EMBEDDING in: t [n,1,1,1]; weight: frequencies f [c/2]; [sin(t·f), cos(t·f)], cosine half first
         * if cos_first. Products are rounded to f32 before sin and cos, as the references do. */
        struct { uint32_t cos_first; } timestep;
        /* EMBEDDING in: row numbers [n,1,1,1] (f32 integers); weight: table [rows, c]. */
        /* MODULATE x·(1 + scale) + shift, in: x, scale, shift [n,1,1,c]. */
        /* SLICE channels first..first+count−1. */
        struct { uint32_t first, count; } slice;
        /* AFFINE x·mul + add. */
        struct { float mul, add; } affine;
        /* AVG_POOL2D mean of factor × factor pixels; rows and columns left over at the end are dropped. */
        struct { uint32_t factor; } pool;
    };
} bb_op;

_Static_assert(sizeof(bb_dim) == 16 && sizeof(bb_value) == 16, "file words");
_Static_assert(sizeof(bb_graph_input) == 72 && sizeof(bb_graph_output) == 8, "file words");
_Static_assert(sizeof(bb_weight_slot) == 24 && sizeof(bb_op) == 64, "file words");

/* Borrowed arrays; whoever made them owns them (the file, or a bb_graph_builder). */
typedef struct bb_graph {
    uint32_t name; /* string: "denoiser"; later "text", "decoder", "encoder" */
    uint32_t n_inputs, n_outputs, n_values, n_weights, n_ops; /* n_values = n_inputs + n_ops */
    const bb_graph_input *inputs;
    const bb_graph_output *outputs;
    const bb_value *values;
    const bb_weight_slot *weights;
    const bb_op *ops; /* op i makes value n_inputs + i */
    const char *strings; /* NUL-terminated strings; ids are byte offsets */
    uint32_t string_bytes;
} bb_graph;

/* A pipeline entry: run graph at `when`; more than one, and named links between them, are reserved. */
typedef enum bb_when { BB_WHEN_PROMPT, BB_WHEN_STEP, BB_WHEN_END } bb_when;
typedef struct bb_stage { uint32_t graph, when, first_link, n_links; } bb_stage;
typedef struct bb_link { uint32_t input /* string */, from_stage, output /* string */; } bb_link;

typedef struct bb_shape { uint32_t n, h, w, c; } bb_shape;
typedef struct bb_bindings { uint32_t of[BB_DIM_SYMBOLS]; } bb_bindings; /* of[BB_DIM_ONE] is ignored */

BB_INLINE uint32_t bb_op_value(const bb_graph *g, uint32_t op) { return g->n_inputs + op; }
BB_INLINE size_t bb_shape_size(bb_shape s) { return (size_t)s.n * s.h * s.w * s.c; }
const char *bb_graph_string(const bb_graph *g, uint32_t id); /* "" for BB_NONE */
const char *bb_op_name(uint32_t kind);                       /* "conv2d"; "?" if unknown */
/* For messages: the op's path, or its kind if it has none. */
const char *bb_op_label(const bb_graph *g, const bb_op *op);

/* Checks every id, kind, attribute, weight shape and rate of untrusted words; afterwards the graph is trusted,
 * but for the shapes of values, which bb_graph_shapes infers and checks for given sizes. */
bb_status bb_graph_check(const bb_graph *g, bb_error *err);

/* Shapes of all values for the given symbols: shapes[n_values]. BB_ERR_SIZE names the op whose inputs do not
 * fit together, or a value of more than 2^28 elements. The graph must have passed bb_graph_check. */
bb_status bb_graph_shapes(const bb_graph *g, const bb_bindings *bind, bb_shape *shapes, bb_error *err);

/* Channel segments of a value: the parts of the CONCAT it comes from, seen through GROUP_NORM, activations, AFFINE,
 * UPSAMPLE, AVG_POOL2D and SLICE-free per-channel ops. Returns G (1..4) and fills channels[G]; 1 where there is no
 * concat. c: the value's channels; shapes as from bb_graph_shapes. */
uint32_t bb_graph_segments(const bb_graph *g, const bb_shape *shapes, uint32_t value, uint32_t channels[4]);

uint32_t bb_graph_find_output(const bb_graph *g, const char *name); /* value id or BB_NONE */
uint32_t bb_graph_find_input(const bb_graph *g, const char *name);  /* value id or BB_NONE */

#endif
