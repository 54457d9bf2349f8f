/* The network at low bits while it is being trained. It begins as a packed model (what `bitbrush quantize` makes), so
 * smoothing, widths, planes, tables and file layout are those; training changes numbers only, and bb_student_write puts
 * them into a copy of that file. There is one definition of every rounding: core/quant's.
 *
 * A quantized layer, forward (DESIGN: the integer contract, core/FORMAT.md §6–7): activations become integers a − z,
 * latent weights the nearest level w = o + Σ m·bit of their row; both are integers of at most 8 bits and sign, so bf16
 * operands are exact and f32 sums are exact below 2^24; y = Σ_g acc_g · (δ_g·Δ_n) + b. Backward, straight-through:
 *     latent     ∂ŵ/∂W = 1 between a row's lowest and highest level, else 0
 *     Δ          ∂ŵ/∂Δ = w (the level's integer), o and m stay the integers they are (mpq-dm §4.1, codebook form)
 *     δ, z       inside the range ∂x̂/∂δ = (a − z) − x/δ, ∂x̂/∂x = 1; outside a_bound − z, 0, and ∂x̂/∂z = −δ (§1.1)
 * z is trained as a float and rounded (straight-through) in every forward. The row of a step table is found by each
 * item's own timestep, never by a counter. */
#ifndef BB_TRAIN_STUDENT_STUDENT_H
#define BB_TRAIN_STUDENT_STUDENT_H

#include "api/model.h"
#include "train/engine/optim.h"
#include "train/engine/tape.h"

typedef enum bb_student_weights {
    BB_STUDENT_FULL,        /* latent weights: the teacher's, moved into the cell of their packed level */
    BB_STUDENT_LORA_ZERO,   /* Q(W + B·A), B = 0 */
    BB_STUDENT_OOLRI_A,     /* Q(W + B·A), B·A from the SVD of W − Q(W) */
    BB_STUDENT_OOLRI_B,     /* Q(Q(W) + B·A): the default of low rank (mpq-dm §4.2) */
    BB_STUDENT_FROZEN,      /* scales only */
} bb_student_weights;

/* Codes that compensated rounding chose are worth keeping: from the cell's edge (0.001) the first update at gap/60
 * takes half of them back, and the error of a W2A4 model's first step grows 140-fold; with 0.1, 3-fold. */
#define BB_STUDENT_INSIDE 0.1f

typedef struct bb_student_options {
    const bb_model *packed;   /* the start; borrowed with its blob */
    const uint8_t *blob; size_t blob_bytes; /* of packed */
    const bb_model *teacher;  /* the float model it was made from */
    uint32_t weights, rank;   /* bb_student_weights; 32 */
    uint64_t seed;            /* of A's random start */
    float inside;             /* latent weights whose packed level is not their nearest begin this far inside its cell,
                                 in distances between levels: 0.5 at most; 0: BB_STUDENT_INSIDE */
    bool train_scales, train_activations; /* Δ; δ and z */
    bool train_float;         /* float layers, norms and biases, too */
    bool f32;                 /* operands stay f32 where bf16 would be multiplied: for comparisons */
} bb_student_options;

typedef struct bb_student bb_student;
bb_status bb_student_new(bb_student **out, const bb_student_options *opt, bb_error *err);
void bb_student_free(bb_student *s);

/* Everything trainable in one flat array. Δ and δ lie in it as factors of what they were at the start, so that one rate
 * suits all. groups: rates relative to lr: latent weights, A and B: the layer's mean level gap (A and B of OOLRI at a
 * pace at which A·B moves as fast as from LoRA's start); Δ, δ: themselves; z: 1 code; float tensors: their root mean
 * square. factor[kind] multiplies a kind's rate; 0: the kind is not trained. */
enum { BB_STUDENT_KIND_WEIGHTS, BB_STUDENT_KIND_SCALES, BB_STUDENT_KIND_STEPS, BB_STUDENT_KIND_ZEROS,
       BB_STUDENT_KIND_FLOATS, BB_STUDENT_KINDS };
size_t bb_student_size(const bb_student *s);
float *bb_student_w(bb_student *s);
float *bb_student_g(bb_student *s);
/* groups NULL: only counts them. */
uint32_t bb_student_groups(const bb_student *s, const float factor[BB_STUDENT_KINDS], bb_optim_group *groups);

/* For a tape of these sizes: its params and layers. One tape at a time. */
bb_status bb_student_bind(bb_student *s, const bb_bindings *bind, bb_dnn *dnn, const bb_ops *ops, bb_params **params,
                          const bb_tape_layer **layers, bb_error *err);
/* After bb_student_bind: the ops for its tape, whose forward passes have core's bits, so that as good as no code flips;
 * the tape's own products should be f32 (bf16 = false) for the same reason. */
const bb_ops *bb_student_ops(const bb_student *s);
/* After w changed: clamps (Δ, δ > 0, z in range), weights become codes again, convolutions are repacked. */
void bb_student_changed(bb_student *s);
/* Share of weight codes that differ from the start's. */
double bb_student_flipped(const bb_student *s);
/* The packed file with these numbers; out from aligned_alloc(64), the caller frees. command, seed: metadata. */
bb_status bb_student_write(const bb_student *s, const char *command, uint64_t seed, uint8_t **out, size_t *n,
                           bb_error *err);

#endif
