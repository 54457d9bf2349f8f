#include "api/model.h"

uint32_t bb_version(void) { return BB_VERSION; }

bb_status bb_probe(const void *head, size_t n, void *scratch, size_t size, bb_info *out, bb_error *err)
{
    if (!head || !out) return bb_fail(err, BB_ERR_ARGUMENT, "bb_probe: head and out must not be NULL");
    BB_TRY(bb_pack_probe(head, n, scratch, size, out, err));
    out->model_bytes += bb_align_up(sizeof(bb_model), BB_ALIGNMENT) + BB_ALIGNMENT;
    return BB_OK;
}

bb_status bb_model_init(const void *blob, size_t n, void *mem, size_t size, bb_model **out, bb_error *err)
{
    if (!blob || !mem || !out) return bb_fail(err, BB_ERR_ARGUMENT, "bb_model_init: an argument is NULL");
    bb_arena arena = bb_arena_init(mem, size);
    bb_model *m = bb_arena_take(&arena, 1, sizeof *m);
    if (!m) return bb_fail(err, BB_ERR_SPACE, "the memory for the model is too small");
    BB_TRY(bb_pack_read(&m->pack, blob, n, &arena, err));
    uint32_t values = m->pack.graph.n_values;
    m->scratch.shapes = bb_arena_take(&arena, values, sizeof *m->scratch.shapes);
    m->scratch.fusion = bb_arena_take(&arena, m->pack.graph.n_ops, sizeof *m->scratch.fusion);
    for (uint32_t i = 0; i < BB_LAYOUTS; i++)
        m->scratch.offset[i] = bb_arena_take(&arena, values, sizeof *m->scratch.offset[i]);
    m->scratch.last = bb_arena_take(&arena, values, sizeof *m->scratch.last);
    m->scratch.live = bb_arena_take(&arena, values, sizeof *m->scratch.live);
    if (arena.overflow) return bb_fail(err, BB_ERR_SPACE, "the memory for the model is too small");
    m->pack.info.model_bytes = size;
    bb_model_select(m, bb_cpu_features());
    *out = m;
    return BB_OK;
}

void bb_model_select(bb_model *m, uint32_t cpu) { bb_kernels_select(&m->kernels, cpu); }

void bb_model_info(const bb_model *m, bb_info *out) { *out = m->pack.info; }

const char *bb_model_kernels(const bb_model *m) { return m->kernels.isa; }

int32_t bb_nth_label(const bb_info *info, uint32_t i)
{
    bool has_null = info->null_label >= 0 && info->classes > 1;
    uint32_t n = info->classes - (has_null ? 1u : 0u), label = n ? i % n : 0;
    return (int32_t)(has_null && label >= (uint32_t)info->null_label ? label + 1 : label);
}
