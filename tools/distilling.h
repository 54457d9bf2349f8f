/* One run of `bitbrush distill`: from where it begins (a state, a packed file, or the checkpoint quantized) over the
 * training, with its state written now and then, to the packed file. */
#ifndef BB_TOOLS_DISTILLING_H
#define BB_TOOLS_DISTILLING_H

#include "quantizing.h"
#include "train/distill/distill.h"

typedef struct bb_distilling {
    const char *out, *from, *strip, *budget;
    uint32_t method, rates, pictures;
    float save_every;
    bool quiet, json, updates_given;
    bb_host_options host_options;
    bb_quantizing quantizing;
    bb_distill_options options;
    bb_ranks ranks;
    bb_host host, start, made;       /* the teacher, the quantized network, the result */
    uint8_t *start_bytes, *made_bytes; size_t start_size, made_size;
    char command[1024], digest[65], state[4096];
    bool on_disk;                    /* the state */
    bb_distill distill; bool open;
    double begun, saved, seconds;    /* after quantization; the last state; in all */
    bb_distill_check before, after;  /* by the integer kernels */
    double flipped;
} bb_distilling;

/* All of it but reading the command line and the last word. host, ranks and options are there; signals are held from
 * here on. */
bb_status bb_distilling_run(bb_distilling *j, bb_error *err);
void bb_distilling_close(bb_distilling *j);

#endif
