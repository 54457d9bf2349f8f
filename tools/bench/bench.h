/* bitbrush bench: what its reports share. Each prints a table, or with json one member of the JSON object with a
 * comma in front. */
#ifndef BB_TOOLS_BENCH_BENCH_H
#define BB_TOOLS_BENCH_BENCH_H

#include "bench/timer.h"
#include "host.h"

#include <stddef.h>

typedef struct bb_bench {
    const char *model;  /* NULL: none */
    const char *only;   /* entries whose name has this in it; NULL: all */
    const char *way;    /* the dot way to take where it fits; NULL: by cost */
    float seconds, guidance;
    uint32_t times;     /* not 0: exactly so many, to count instructions */
    uint32_t steps, batch, top;
    uint32_t size[2];   /* height, width; 0: the model's own */
    bool json, quiet, growth, trial, unfused;
    bb_host_options host;
    bb_kernels kernels; /* as chosen by host.cpu, trial and way */
    bb_par *par;
} bb_bench;

bb_status bb_bench_kernels(const bb_bench *b, bb_error *err);
bb_status bb_bench_growth(const bb_bench *b, bb_error *err);
bb_status bb_bench_model(const bb_bench *b, bb_error *err);
bb_status bb_bench_model_growth(const bb_bench *b, bb_error *err);

/* The object's first member, or a line. Reports begin with it once all is measured: a failure prints nothing here. */
void bb_bench_print_machine(const bb_bench *b, const bb_kernels *kernels, const bb_par *par);

bb_timing bb_bench_timing(const bb_bench *b);

bool bb_bench_wanted(const bb_bench *b, const char *name);

/* Makes `way` the choice wherever it fits; false if there is none of that name. */
bool bb_bench_prefer(bb_kernels *kernels, const char *way);

/* Dot ways of a layer's width classes, each once, with + between. */
void bb_bench_ways(const bb_kernels *kernels, const bb_op *op, const bb_layer *layer, char *out, size_t size);

#endif
