/* bitbrush_make.h — make a packed low-bit model from a float one: calibration on the model's own drawings, then
 * quantization. C11, no libc; the native command and a page use the same code and get the same bytes.
 *
 *     bb_make_options opt;   bb_make_defaults(&opt);   opt.wbits = 4;
 *     bb_make *make;         bb_make_begin(model, &opt, &memory, &make, &err);
 *     bb_make_progress at;
 *     for (bb_status st; (st = bb_make_step(make, &at, &err)) != BB_DONE;) if (st < 0) break;
 *     bb_make_result(make, &bytes, &n);      // borrowed: copy or write them
 *     bb_make_end(make);                     // at any time, also to abort
 *
 * Work is cut into slices, so a caller can show progress, and abort by not calling again. Everything is a function of
 * the model and the options: threads, kernels and the machine change nothing. One bb_make is for one thread at a time.
 */
#ifndef BITBRUSH_MAKE_H
#define BITBRUSH_MAKE_H

#include "bitbrush.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where memory comes from. Sizes depend on what earlier phases found, so they cannot be asked for beforehand. Blocks
 * are given back strictly in the reverse order of taking: malloc and free will do, and so will a stack that grows. */
typedef struct bb_make_memory {
    void *user;
    void *(*take)(void *user, size_t bytes);              /* aligned to 16; NULL if there is no more: BB_ERR_SPACE */
    void (*give)(void *user, void *block, size_t bytes);  /* the block taken last */
} bb_make_memory;

/* Which layers get the asked bits. */
typedef enum bb_make_layers {
    BB_LAYERS_DEFAULT, /* all but: float first and last layer; 8-bit weights and activations in time embedding and
                          1×1 shortcuts */
    BB_LAYERS_ALL_LOW, /* all but: 8/8 first and last layer, time embedding */
    BB_LAYERS_PAPER,   /* as ALL_LOW, but shortcuts and down- and upsampling convolutions stay float (MPQ-DM's code) */
} bb_make_layers;

typedef enum bb_make_range { /* how the range of codes is chosen, for weights and activations */
    BB_RANGE_MSE,    /* of 80 shrunken min-max ranges, the one with the least squared error */
    BB_RANGE_P24,    /* the same by |error|^2.4 */
    BB_RANGE_MINMAX,
} bb_make_range;

typedef enum bb_make_ladder { /* binary residual planes with free multipliers instead of uniform levels */
    BB_LADDER_NEVER,
    BB_LADDER_BEST,  /* at 3 bits and less, per layer, where the output error pays for the bytes */
    BB_LADDER_ALWAYS, /* at 4 bits and less */
} bb_make_ladder;

typedef enum bb_make_mixed { /* one bit more for some outputs of a layer, one bit less for as many */
    BB_MIXED_NEVER,
    BB_MIXED_KURTOSIS, /* ranked by kurtosis; the share with the least output error, 0 to 50 % */
    BB_MIXED_GAIN,     /* ranked by the weight error that the bit saves or costs */
} bb_make_mixed;

typedef enum bb_make_tables { BB_TABLES_STEP, BB_TABLES_STATIC } bb_make_tables; /* activation ranges */

typedef struct bb_make bb_make;

typedef struct bb_make_options { /* fill with bb_make_defaults, then change */
    uint32_t size_of;        /* sizeof(bb_make_options) */
    uint32_t wbits, abits;   /* weights 1..8, activations 4..8 */
    uint64_t budget;         /* bytes of the file at most: bits are chosen per layer, wbits is ignored; 0 = none */
    uint32_t layers, range, ladder, mixed, tables; /* enums above */
    uint32_t refit;          /* rounds of least squares on an output's levels after the range, at most; 0 = none */
    float smoothing;         /* exponent: activations / s, weights · s, s = max|x|^a / max|w|^(1−a); 0 = none */
    float compensation;      /* rounding by output error on sampled inputs: share of their covariance's diagonal added
                                to it; 0 = to the nearest level */
    uint32_t images, steps;  /* pictures drawn for calibration, DDIM steps of each (≤ 64; 0 = 20 or all there are) */
    float guidance;          /* 0 = 2 with a null class, else 1 */
    uint64_t seed;           /* of picture 0; the others follow */
    const char *command;     /* metadata: what made the file; may be NULL */
    bb_par *par;             /* threads to use; NULL = the caller's only */
} bb_make_options;

void bb_make_defaults(bb_make_options *opt);

/* Starts. model: unquantized (what `bitbrush import` writes); it, its blob, the memory and opt's strings stay borrowed
 * until bb_make_end. BB_ERR_UNSUPPORTED if the model is quantized already, BB_ERR_OPTION for options that make no
 * sense together, BB_ERR_SPACE. On failure there is nothing to end. */
bb_status bb_make_begin(const bb_model *model, const bb_make_options *opt, const bb_make_memory *memory, bb_make **out,
                        bb_error *err);

/* A LoRA: weights W become W + scale·(alpha/r)·B·A, for convolutions and linear layers. Keys may be peft's, diffusers'
 * or those of kohya's scripts. */
typedef struct bb_lora_file {
    const char *name;                        /* of the file, for messages and the metadata */
    const void *data; size_t bytes;          /* safetensors */
    const char *config; size_t config_bytes; /* peft's adapter_config.json; NULL = none */
    const char *config_name;                 /* for messages; NULL = "adapter_config.json" */
    float scale;
} bb_lora_file;

typedef struct bb_lora_report {
    uint32_t layers;  /* changed */
    uint32_t skipped; /* tensors for other parts of a pipeline (text encoder), not used */
} bb_lora_report;

/* Folds a LoRA into the weights, before the first bb_make_step; several are applied one after the other, each rounded
 * to f32. file is not needed afterwards. report may be NULL. Errors name the file and the tensor; after one only
 * bb_make_end is left. */
bb_status bb_make_lora(bb_make *make, const bb_lora_file *file, bb_lora_report *report, bb_error *err);

typedef enum bb_make_phase { BB_MAKE_CALIBRATE, BB_MAKE_QUANTIZE, BB_MAKE_WRITE, BB_MAKE_PHASES } bb_make_phase;

typedef struct bb_make_progress {
    uint32_t phase;       /* bb_make_phase of the slice just done */
    uint32_t done, total; /* of that phase: denoising steps, weights, 1 */
} bb_make_progress;

/* Does one slice: a denoising step of calibration, one layer, the file. BB_AGAIN: more to do; BB_DONE: the result is
 * there. Negative: failed for good; err names the layer. progress may be NULL. */
bb_status bb_make_step(bb_make *make, bb_make_progress *progress, bb_error *err);

/* What calibration has found so far, to go on from there in another process. There is something to save after each
 * picture, until the first slice of the next one or of quantization; else state_bytes is 0 and state_save does nothing.
 * out: state_bytes(make) bytes, any alignment; for machines of the same byte order. */
size_t bb_make_state_bytes(const bb_make *make);
void bb_make_state_save(const bb_make *make, void *out);
/* After bb_make_lora and before the first bb_make_step, with the model, the LoRAs and the options of calibration
 * (layers, smoothing, images, steps, guidance, seed, tables) that it was saved with: that is for the caller to see to,
 * all else is checked. The result is then the one of a run without a break. BB_ERR_CORRUPT if the bytes are no state of
 * such a maker: nothing is taken from them, and calibration begins at its start. After another error only bb_make_end
 * is left. */
bb_status bb_make_state_load(bb_make *make, const void *bytes, size_t n, bb_error *err);

/* The packed file, proven readable; borrowed until bb_make_end. BB_ERR_ORDER before BB_DONE. */
bb_status bb_make_result(const bb_make *make, const uint8_t **bytes, size_t *n);

/* What became of a layer. */
typedef struct bb_make_layer {
    const char *name;                  /* of its weight */
    uint32_t outputs, inputs;          /* inputs: channels × taps */
    uint32_t wbits, abits;             /* 0: stayed float */
    uint32_t ladder;                   /* 1: free multipliers */
    uint32_t fewer, more;              /* outputs with one bit less and one bit more than wbits */
    uint64_t bytes;                    /* in the file, all but the header's share */
    double weight_error, output_error; /* squared, relative to the float layer's; output on sampled real inputs, with
                                          quantized activations */
} bb_make_layer;

uint32_t bb_make_layer_count(const bb_make *make);                               /* conv and linear layers done */
bb_status bb_make_layer_get(const bb_make *make, uint32_t i, bb_make_layer *out);

/* Gives all memory back. NULL is fine. */
void bb_make_end(bb_make *make);

#ifdef __cplusplus
}
#endif
#endif
