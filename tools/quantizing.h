/* Quantizing a checkpoint, as `bitbrush quantize` does it and `bitbrush distill` begins with: the options, and
 * core/make driven with a progress line; after a break it goes on where calibration was. */
#ifndef BB_TOOLS_QUANTIZING_H
#define BB_TOOLS_QUANTIZING_H

#include "host.h"
#include "make.h"

typedef struct bb_quantizing {
    bb_make_options make;
    bb_list lora;
    bool wbits_given, ladder_given, mixed_given;
} bb_quantizing;

#define BB_QUANTIZING_OPTIONS(q)                                                                                       \
    {"--wbits", BB_OPTION_U32, &(q).make.wbits, "N", "bits of a weight (default 4)", 1, 8, &(q).wbits_given},          \
    {"--abits", BB_OPTION_U32, &(q).make.abits, "N", "bits of an activation (default 8)", 4, 8, NULL},                 \
    {"--layers", BB_OPTION_CHOICE, &(q).make.layers, "default|all-low|paper",                                          \
     "first and last layer float, time layers and 1x1 shortcuts 8/8; all-low: first, last and time layers 8/8; "       \
     "paper: that, and shortcuts and resamplers float", 0, 0, NULL},                                                   \
    {"--smoothing", BB_OPTION_FLOAT, &(q).make.smoothing, "A",                                                         \
     "exponent of activations' smoothing per input channel (default 0.5; 0 = none)", 0, 1, NULL},                      \
    {"--range", BB_OPTION_CHOICE, &(q).make.range, "mse|p2.4|minmax", "how ranges are chosen (default p2.4)", 0, 0,    \
     NULL},                                                                                                            \
    {"--tables", BB_OPTION_CHOICE, &(q).make.tables, "step|static", "activation ranges by step (default), or one for " \
     "all steps", 0, 0, NULL},                                                                                         \
    {"--refit", BB_OPTION_U32, &(q).make.refit, "N", "rounds of least squares on an output's levels at most (default " \
     "25)", 0, 1000, NULL},                                                                                            \
    {"--ladder", BB_OPTION_CHOICE, &(q).make.ladder, "never|best|always",                                              \
     "binary residual planes with free multipliers; best (default): at 3 bits and less, where worth their bytes; "     \
     "always: at 4 and less", 0, 0, &(q).ladder_given},                                                                \
    {"--mixed", BB_OPTION_CHOICE, &(q).make.mixed, "never|kurtosis|gain", "one bit more and one bit less for up to "   \
     "half of a layer's outputs each, ranked so (default never)", 0, 0, &(q).mixed_given},                             \
    {"--compensation", BB_OPTION_FLOAT, &(q).make.compensation, "A", "rounding by output error on sampled inputs; A: " \
     "weight of the nearest level (quantize: 0.3; 0 = always the nearest)", 0, 100, NULL},                             \
    {"--images", BB_OPTION_U32, &(q).make.images, "N", "pictures drawn for calibration (default 16)", 1, 4096, NULL}

/* BB_EXIT_OK, or the exit code after a usage error about options that do not go together has been printed. */
int bb_quantizing_check(const bb_command *c, const bb_quantizing *q);

/* Quantizes the host's model; `use` gets the finished maker, and when it has succeeded OUT.calibration is removed.
 * Signals are held meanwhile. q's par is set. */
typedef bb_status (*bb_quantizing_use)(void *user, const bb_make *make, bb_error *err);
bb_status bb_quantizing_run(bb_quantizing *q, bb_host *h, const char *out, bool quiet, bb_quantizing_use use,
                            void *user, bb_error *err);

#endif
