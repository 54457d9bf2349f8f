#include "train/distill/presets.h"

#include <stdio.h>
#include <string.h>

enum { MPQ_DM_V2, RTN, MSE, EFFICIENTDM, MPQ_DM, METHODS };
static const char *const names[METHODS] = {"mpq-dm-v2", "rtn", "mse", "efficientdm", "mpq-dm"};

typedef enum place { MAKE, DISTILL } place; /* the struct that an ingredient is an option of */

typedef struct ingredient {
    const char *option, *source; /* source: paragraph of the method's description */
    const char *words;           /* of a choice; NULL: a number */
    bool number;                 /* float, else uint32_t */
    place place;
    size_t at;                   /* in its struct */
    float value[METHODS];        /* in the order of the enum above */
} ingredient;

#define M(field) MAKE, offsetof(bb_make_options, field)
#define D(field) DISTILL, offsetof(bb_distill_options, field)
static const ingredient table[] = {
    /*                                                                            v2 rtn mse eff mpq */
    {"--range", "EfficientDM: scale initialisation, max and p = 2.4", "mse|p2.4|minmax", false, M(range),
     {BB_RANGE_P24, BB_RANGE_MINMAX, BB_RANGE_P24, BB_RANGE_P24, BB_RANGE_P24}},
    {"--refit", "least squares on levels (measured here)", NULL, false, M(refit), {25, 0, 0, 0, 0}},
    {"--compensation", "rounding by output error (GPTQ's, measured here)", NULL, true, M(compensation),
     {0, 0, 0, 0, 0}},
    {"--smoothing", "MPQ-DM: pre-scaling, exponent 1/2", NULL, true, M(smoothing), {0.5f, 0, 0, 0, 0.5f}},
    {"--tables", "EfficientDM: TALSQ, one range a step", "step|static", false, M(tables),
     {BB_TABLES_STEP, BB_TABLES_STATIC, BB_TABLES_STEP, BB_TABLES_STEP, BB_TABLES_STEP}},
    {"--mixed", "MPQ-DM: OMQ, widths by kurtosis", "never|kurtosis|gain", false, M(mixed),
     {BB_MIXED_KURTOSIS, BB_MIXED_NEVER, BB_MIXED_NEVER, BB_MIXED_NEVER, BB_MIXED_KURTOSIS}},
    {"--ladder", "MPQ-DMv2: FZ-RMQ, residual planes", "never|best|always", false, M(ladder),
     {BB_LADDER_BEST, BB_LADDER_NEVER, BB_LADDER_NEVER, BB_LADDER_NEVER, BB_LADDER_NEVER}},
    {"training", "EfficientDM: data-free distillation", "no|yes", false, D(train), {1, 0, 0, 1, 1}},
    {"--weights", "EfficientDM: QALoRA; MPQ-DMv2: OOLRI; full: QAT", BB_WEIGHTS_WORDS, false, D(weights),
     {BB_STUDENT_OOLRI_B, BB_STUDENT_FROZEN, BB_STUDENT_FROZEN, BB_STUDENT_LORA_ZERO, BB_STUDENT_LORA_ZERO}},
    {"--relation", "MPQ-DM: TRD; MPQ-DMv2: MTRD", BB_RELATION_WORDS, false, D(relation),
     {BB_RELATION_MTRD, BB_RELATION_NONE, BB_RELATION_NONE, BB_RELATION_NONE, BB_RELATION_TRD}},
    {"--temperature", "MPQ-DM: 1; MPQ-DMv2 (RDD): 0.1", NULL, true, D(temperature), {0.1f, 1, 1, 1, 1}},
};
#undef M
#undef D

void bb_distill_defaults(bb_distill_options *opt)
{
    *opt = (bb_distill_options){.rank = 32, .inside = 0.5f, .normalize = 1, .mix_steps = 1, .lambda = 0.3f,
                                .anchors = 1024, .pixels = 1024, .slot = 1000, .push = 128, .trajectories = 192,
                                .held_out = 8, .batch = 4, .budget = 600, .checks = 10, .patience = 8, .seed = 1};
    bb_rates_apply(BB_RATES_LAB, opt);
}

void bb_method_apply(uint32_t method, bb_make_options *make, bb_distill_options *opt)
{
    for (size_t i = 0; i < BB_COUNT(table); i++) {
        const ingredient *g = &table[i];
        char *at = (g->place == MAKE ? (char *)make : (char *)opt) + g->at;
        uint32_t word = (uint32_t)g->value[method];
        if (g->number) memcpy(at, &g->value[method], sizeof g->value[method]);
        else memcpy(at, &word, sizeof word);
    }
}

void bb_rates_apply(uint32_t rates, bb_distill_options *opt)
{
    static const float of[][BB_STUDENT_KINDS] = {
        [BB_RATES_LAB] = {1.0f / 60, 1e-3f, 1e-2f, 0.04f, 1e-4f},
        [BB_RATES_PAPER] = {1.0f / 2500, 1e-6f, 5e-4f, 5e-4f, 1e-6f},
    };
    memcpy(opt->rate, of[rates], sizeof opt->rate);
}

static void print_value(const ingredient *g, uint32_t method)
{
    const char *word = g->words;
    for (uint32_t n = word ? (uint32_t)g->value[method] : 0; n; n--) word = strchr(word, '|') + 1;
    if (word) printf("  %-11.*s", (int)strcspn(word, "|"), word);
    else printf("  %-11g", (double)g->value[method]);
}

void bb_method_print(void)
{
    static const uint32_t order[METHODS] = {RTN, MSE, EFFICIENTDM, MPQ_DM, MPQ_DM_V2};
    printf("%-15s", "");
    for (uint32_t i = 0; i < METHODS; i++) printf("  %-11s", names[order[i]]);
    printf("  source\n");
    for (size_t k = 0; k < BB_COUNT(table); k++) {
        printf("%-15s", table[k].option);
        for (uint32_t i = 0; i < METHODS; i++) print_value(&table[k], order[i]);
        printf("  %s\n", table[k].source);
    }
}
