#include "train/engine/dnn_api.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the library ---- */

static bool choose_isa(uint32_t cpu)
{
    static const dnnl_cpu_isa_t isa[] = {(dnnl_cpu_isa_t)0, dnnl_cpu_isa_sse41, dnnl_cpu_isa_avx2};
    return cpu >= BB_COUNT(isa) || cpu == 0 || dnnl_set_max_cpu_isa(isa[cpu]) == dnnl_success ||
           dnnl_get_effective_cpu_isa() <= isa[cpu];
}

static void name_library(bb_dnn *d, dnnl_cpu_isa_t isa)
{
    static const struct { dnnl_cpu_isa_t isa; const char *name; } names[] = {
        {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"}, {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
        {dnnl_cpu_isa_avx512_core, "avx512_core"}, {dnnl_cpu_isa_avx2, "avx2"}, {dnnl_cpu_isa_avx, "avx"},
        {dnnl_cpu_isa_sse41, "sse41"}};
    const dnnl_version_t *v = dnnl_version();
    const char *level = "baseline";
    for (size_t i = BB_COUNT(names); i-- > 0;)
        if (((unsigned)isa & (unsigned)names[i].isa) == (unsigned)names[i].isa) level = names[i].name;
    snprintf(d->name, sizeof d->name, "oneDNN %d.%d.%d, %s", v->major, v->minor, v->patch, level);
    d->bf16 = ((unsigned)isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

static dnnl_status_t start_library(bb_dnn *d, uint32_t threads)
{
    d->stream = calloc(threads, sizeof *d->stream);
    d->scratch = calloc(threads, sizeof *d->scratch);
    d->scratch_bytes = calloc(threads, sizeof *d->scratch_bytes);
    if (!d->stream || !d->scratch || !d->scratch_bytes) return dnnl_out_of_memory;
    d->threads = threads;
    dnnl_status_t made = dnnl_engine_create(&d->engine, dnnl_cpu, 0);
    for (uint32_t i = 0; made == dnnl_success && i < threads; i++)
        made = dnnl_stream_create(&d->stream[i], d->engine, dnnl_stream_default_flags);
    return made;
}

bb_status bb_dnn_open(bb_dnn **out, uint32_t threads, uint32_t cpu, bb_error *err)
{
    *out = NULL;
    if (!choose_isa(cpu))
        return bb_fail(err, BB_ERR_ORDER, "oneDNN was in use before its instruction set was chosen");
    bb_dnn *d = calloc(1, sizeof *d);
    if (!d) return bb_fail(err, BB_ERR_SPACE, "no memory for oneDNN");
    omp_set_num_threads((int)threads);
    if (start_library(d, threads) != dnnl_success) {
        bb_dnn_close(d);
        return bb_fail(err, BB_ERR_SPACE, "oneDNN does not start");
    }
    name_library(d, dnnl_get_effective_cpu_isa());
    *out = d;
    return BB_OK;
}

void bb_dnn_close(bb_dnn *d)
{
    if (!d) return;
    for (uint32_t i = 0; i < d->threads; i++) {
        if (d->stream[i]) dnnl_stream_destroy(d->stream[i]);
        free(d->scratch[i]);
    }
    if (d->engine) dnnl_engine_destroy(d->engine);
    free(d->stream);
    free(d->scratch);
    free(d->scratch_bytes);
    free(d->parts);
    free(d);
}

bool bb_dnn_bf16(const bb_dnn *d) { return d->bf16; }
const char *bb_dnn_name(const bb_dnn *d) { return d->name; }

/* ---- tasks ---- */

static void *aligned(size_t bytes)
{
    return aligned_alloc(BB_ALIGNMENT, bb_align_up(bytes ? bytes : 1, BB_ALIGNMENT));
}

dnnl_status_t bb_dnn_grow(void **buffer, size_t *has, size_t bytes)
{
    if (bytes <= *has) return dnnl_success;
    void *more = aligned(bytes);
    if (!more) return dnnl_out_of_memory;
    free(*buffer);
    *buffer = more;
    *has = bytes;
    return dnnl_success;
}

static dnnl_status_t task_argument(bb_task *t, bb_dnn *d, int arg, bb_layout_ref layout)
{
    t->arg[t->n].arg = arg;
    dnnl_status_t made = dnnl_memory_create(&t->arg[t->n].memory, layout, d->engine, DNNL_MEMORY_NONE);
    if (made == dnnl_success) t->n++;
    return made;
}

dnnl_status_t bb_task_new(bb_task *t, bb_dnn *d, dnnl_primitive_desc_t desc, const bb_task_arg *args, uint32_t n,
                          uint32_t slot)
{
    dnnl_status_t made = dnnl_primitive_create(&t->primitive, desc);
    dnnl_primitive_desc_destroy(desc);
    for (uint32_t i = 0; made == dnnl_success && i < n; i++)
        made = task_argument(t, d, args[i].arg, bb_task_layout(t, args[i].what, args[i].index));
    if (made != dnnl_success) return made;
    bb_layout_ref scratch = bb_task_layout(t, dnnl_query_scratchpad_md, 0);
    made = bb_dnn_grow(&d->scratch[slot], &d->scratch_bytes[slot], dnnl_memory_desc_get_size(scratch));
    return made == dnnl_success ? task_argument(t, d, DNNL_ARG_SCRATCHPAD, scratch) : made;
}

void bb_task_run(const bb_task *t, bb_dnn *d, const void *const *buffers, uint32_t slot)
{
    for (uint32_t i = 0; i < t->n; i++) {
        void *buffer = i + 1 < t->n ? (void *)(uintptr_t)buffers[i] : d->scratch[slot];
        dnnl_status_t set = dnnl_memory_set_data_handle(t->arg[i].memory, buffer);
        BB_ASSERT(set == dnnl_success);
    }
    dnnl_status_t ran = dnnl_primitive_execute(t->primitive, d->stream[slot], (int)t->n, t->arg);
    BB_ASSERT(ran == dnnl_success);
    dnnl_stream_wait(d->stream[slot]);
}

void bb_task_free(bb_task *t)
{
    for (uint32_t i = 0; i < t->n; i++) dnnl_memory_destroy(t->arg[i].memory);
    if (t->primitive) dnnl_primitive_destroy(t->primitive);
    *t = (bb_task){0};
}

bb_status bb_dnn_refused(bb_error *err, const char *what, dnnl_status_t code, uint32_t m, uint32_t n, uint32_t k)
{
    if (code == dnnl_out_of_memory)
        return bb_fail(err, BB_ERR_SPACE, "no memory for a %s (%u × %u × %u): make the batch smaller", what, m, n, k);
    return bb_fail(err, BB_ERR_UNSUPPORTED, "oneDNN refuses a %s (%u × %u × %u): status %u", what, m, n, k,
                   (uint32_t)code);
}
