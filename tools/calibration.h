/* OUT.calibration: what an unfinished `bitbrush quantize` has found so far, so that a break costs little work. */
#ifndef BB_TOOLS_CALIBRATION_H
#define BB_TOOLS_CALIBRATION_H

#include "host.h"
#include "make.h"

typedef struct bb_kept {
    char path[4096];
    const bb_host *host;
    const bb_make_options *opt;
    char lora[65], key[65]; /* of the LoRAs folded in; of all that calibration depends on, once it is needed */
    uint8_t *bytes; size_t n; /* the file as of the last picture's end */
    bool newer;             /* than what is on the disk */
    bool on_disk, off;
    double begun, written;
} bb_kept;

/* Nothing is read yet. All is borrowed. */
bb_kept bb_kept_begin(const char *out, const bb_host *host, const bb_make_options *opt);
/* Before _load: a LoRA that has been folded in. */
void bb_kept_lora(bb_kept *k, const bb_lora_file *file);
/* Goes on from the file if there is one of this calibration. What is wrong with a file is said on stderr, and is no
 * error: calibration then begins at its start. */
bb_status bb_kept_load(bb_kept *k, bb_make *make, bool quiet, bb_error *err);
/* After every slice: writes the file when enough work has gone into it. */
void bb_kept_slice(bb_kept *k, const bb_make *make, const bb_make_progress *at);
/* made: OUT is there, and the file is removed; else it is brought up to date, and a line tells how to go on. */
void bb_kept_end(bb_kept *k, bool made);

#endif
