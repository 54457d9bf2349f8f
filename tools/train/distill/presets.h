/* The methods by name, from rounding to the nearest level up to MPQ-DMv2, the default: a table with a row per
 * ingredient. A method only sets the options; every option given beside it wins. */
#ifndef BB_TRAIN_DISTILL_PRESETS_H
#define BB_TRAIN_DISTILL_PRESETS_H

#include "bitbrush_make.h"
#include "train/student/student.h"

typedef enum bb_relation { BB_RELATION_NONE, BB_RELATION_TRD, BB_RELATION_MTRD } bb_relation;

/* Learning rates, for every method the same: --rates lab are those that were measured to work within minutes, paper
 * those of the released code, made for 16,000 updates (mpq-dm §3.3). */
typedef enum bb_rates { BB_RATES_LAB, BB_RATES_PAPER } bb_rates;

typedef struct bb_distill_options {
    uint32_t train;          /* 0: only quantize */
    uint32_t weights, rank;  /* bb_student_weights; of low rank */
    float inside;            /* as in bb_student_options */
    uint32_t relation;       /* bb_relation */
    uint32_t normalize;      /* 1: a step's losses are divided by their running mean; 0: mean squared error of ε */
    uint32_t mix_steps;      /* 1: every picture of a batch at a step of its own; 0: all at the same one */
    float lambda;            /* weight of the relation loss; with normalize relative to the task's */
    uint32_t anchors, pixels; /* MTRD: anchors and rows compared */
    uint32_t slot, push;     /* its memory of a step; pixels that go into it an update */
    float temperature;       /* of the relation's softmax */
    float rate[BB_STUDENT_KINDS]; /* per kind: of a level gap, of Δ, of δ, of a code, absolute */
    uint32_t trajectories, held_out, steps, batch; /* batch: pictures an update, per process */
    float guidance, ema, clip; /* ema: decay, 0 = none; clip: largest gradient norm, 0 = none */
    uint64_t updates;        /* 0: as many as fit into the budget */
    double budget;           /* seconds, for all after quantization */
    uint64_t warmup;         /* updates over which the rates rise to their full height */
    uint32_t checks;         /* of the held-out error, at most BB_DISTILL_MOST_CHECKS − 2 */
    uint32_t patience;       /* checks without a better one that end the training; 0: never. Not few: high rates hide for
                                a while what has been learnt, which shows when they have fallen */
    uint64_t seed;
} bb_distill_options;

#define BB_METHOD_WORDS "mpq-dm-v2|rtn|mse|efficientdm|mpq-dm" /* the default first */
#define BB_WEIGHTS_WORDS "full|lora|oolri-a|oolri-b|frozen"
#define BB_RELATION_WORDS "none|trd|mtrd"

void bb_distill_defaults(bb_distill_options *opt);
/* What the method (number of the word) sets, into both. */
void bb_method_apply(uint32_t method, bb_make_options *make, bb_distill_options *opt);
void bb_rates_apply(uint32_t rates, bb_distill_options *opt);
/* The table as text on stdout: --method list. */
void bb_method_print(void);

#endif
