/* Relation distillation: losses over similarities of pixels, not over their values. Features are f32
 * [items][pixels][channels] of the teacher (f) and the student (q). Each loss adds its gradient, times `weight`, to dq
 * and returns the loss (without the weight), a mean over rows of KL(teacher ‖ student) in nats: it is 0 where the
 * features agree up to a positive factor for each pixel, and at most 4/temperature. Where memory lacks: 0, with err
 * filled.
 * Sources: mpq-dm §3.2 (TRD), §4.3 (MTRD); oracles §9, 22–27. */
#ifndef BB_TRAIN_DISTILL_RELATION_H
#define BB_TRAIN_DISTILL_RELATION_H

#include "train/engine/dnn.h"
#include "train/engine/ops.h"

typedef struct bb_features { uint32_t items, pixels, channels; const float *f, *q; float *dq; } bb_features;

/* TRD: softmax over all pixels of an item of cosine similarities / temperature, for each of its pixels. before_f,
 * before_q: features of the step before, which are averaged in without gradient (N = 2); NULL: none. Work and memory
 * grow with the square and the number of pixels: similarities are made for 256 rows at a time. */
double bb_trd(const bb_ops *ops, bb_dnn *dnn, const bb_features *x, const float *before_f, const float *before_q,
              float temperature, float weight, bb_error *err);

/* MTRD's memory: for each step of the schedule a queue (first in, first out) of normalized teacher pixels. */
typedef struct bb_pixel_memory {
    uint32_t slots, per_slot, channels;
    float *pixel;      /* [slots][per_slot][channels], unit length */
    uint32_t *filled, *next; /* [slots] */
} bb_pixel_memory;
bb_status bb_pixel_memory_new(bb_pixel_memory *m, uint32_t slots, uint32_t per_slot, uint32_t channels, bb_error *err);
void bb_pixel_memory_free(bb_pixel_memory *m);
/* `count` pixels of item `item` drawn without repetition by (seed, number) go into the slot of its step. */
void bb_pixel_memory_push(bb_pixel_memory *m, uint32_t slot, const bb_features *x, uint32_t item, uint32_t count,
                          uint64_t seed, uint64_t number);
bool bb_pixel_memory_ready(const bb_pixel_memory *m); /* every slot has been filled once */

/* MTRD: softmax of cosine similarities / temperature to `anchors` pixels of the memory, in equal shares from all slots
 * (from those that hold any; the first ones give the remainder), for `rows` pixels of the items. Both are drawn by
 * (seed, number), without repetition as far as there are as many. An empty memory: 0. */
double bb_mtrd(const bb_ops *ops, bb_dnn *dnn, const bb_features *x, const bb_pixel_memory *m, uint32_t anchors,
               uint32_t rows, float temperature, uint64_t seed, uint64_t number, float weight, bb_error *err);

#endif
