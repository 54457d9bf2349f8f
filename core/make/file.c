/* The last phase: metadata and the file. */
#include "make/make.h"

static void add_meta(bb_make *m, const char *key, const char *value)
{
    BB_ASSERT(m->n_meta < BB_MAKE_META);
    if (value) m->meta[m->n_meta++] = (bb_meta_out){key, value};
}

bb_status bb_file_metadata(bb_make *m, bb_error *err)
{
    static const char *const kept[] = {"architecture", "labels", "licence", "source", "source_sha256"};
    const bb_make_options *o = &m->opt;
    size_t size = m->model.pack.header.n + 1; /* no value is longer than the whole header */
    for (size_t i = 0; i < BB_COUNT(kept); i++) {
        char *text = bb_blocks_take(&m->blocks, size, 1);
        if (!text) return bb_out_of_memory(err, "metadata");
        if (bb_pack_metadata(&m->model.pack, kept[i], text, size)) add_meta(m, kept[i], text);
    }
    add_meta(m, "lora", m->lora);
    static const char *const layers[] = {"first and last layer float, time embedding and 1x1 shortcuts 8/8",
                                         "first and last layer and time embedding 8/8",
                                         "first and last layer and time embedding 8/8, shortcuts and resamplers float"};
    enum { LINE = 160 };
    char *text = bb_blocks_take(&m->blocks, 3, LINE);
    if (!text) return bb_out_of_memory(err, "metadata");
    if (o->budget)
        bb_format(text, LINE, "W%u to %uA%u, %s", BB_BUDGET_LOWEST, BB_BUDGET_HIGHEST, o->abits, layers[o->layers]);
    else bb_format(text, LINE, "W%uA%u, %s", o->wbits, o->abits, layers[o->layers]);
    add_meta(m, "quantization", text);
    bb_format(text + LINE, LINE, "%u steps of DDIM", o->steps);
    add_meta(m, "calibration", text + LINE);
    bb_format(text + 2 * LINE, LINE, "%l", o->seed);
    add_meta(m, "seed", text + 2 * LINE);
    add_meta(m, "command", o->command);
    return BB_OK;
}

bb_pack_out bb_file_out(const bb_make *m)
{
    bb_info info = m->model.pack.info;
    info.bits_milli = bb_bits_milli(m->weights_in_all, m->weight_bits);
    return (bb_pack_out){
        .graph = &m->model.pack.graph, .refs = m->refs, .tensors = m->tensors, .n_tensors = m->n_tensors,
        .f32 = m->f32, .n_f32 = m->n_f32, .layers = m->layers, .n_layers = m->n_layers, .quantizers = m->quantizers,
        .n_quantizers = m->n_quantizers, .delta = m->delta, .offset = m->offset, .n_rows = m->n_rows,
        .multiplier = m->multiplier, .n_multiplier = m->n_multiplier, .perm = m->perm, .n_perm = m->n_perm,
        .inv_s = m->inv_s, .n_inv_s = m->n_inv_s, .step_key = m->step_key, .n_step_key = m->n_key,
        .step_delta = m->step_delta, .step_zero = m->step_zero, .n_step = m->n_step,
        .schedule = &m->model.pack.schedule, .info = info, .meta = m->meta, .n_meta = m->n_meta};
}

static bb_status read_back(bb_blocks *blocks, const uint8_t *bytes, size_t n, bb_error *err)
{
    bb_info info;
    bb_pack pack;
    uint64_t head_bytes;
    BB_TRY(bb_pack_head_bytes(bytes, n, &head_bytes, err));
    size_t scratch_bytes = BB_PROBE_SCRATCH((size_t)head_bytes);
    void *scratch = bb_blocks_take(blocks, scratch_bytes, 1);
    if (!scratch) return bb_out_of_memory(err, "checking the file");
    BB_TRY(bb_pack_probe(bytes, n, scratch, scratch_bytes, &info, err));
    void *memory = bb_blocks_take(blocks, (size_t)info.model_bytes, 1);
    if (!memory) return bb_out_of_memory(err, "checking the file");
    bb_arena arena = bb_arena_init(memory, (size_t)info.model_bytes);
    return bb_pack_read(&pack, bytes, n, &arena, err);
}

bb_status bb_file_prove(const uint8_t *bytes, size_t n, const bb_make_memory *memory, bb_error *err)
{
    bb_blocks blocks = {.memory = *memory};
    bb_error inner = {0};
    bb_status status = read_back(&blocks, bytes, n, &inner);
    bb_blocks_give(&blocks, NULL);
    if (status >= 0) return BB_OK;
    return bb_fail(err, status == BB_ERR_SPACE ? status : BB_ERR_UNSUPPORTED, "the model cannot be stored: %s",
                   inner.text);
}

bb_status bb_file_make(bb_make *m, bb_error *err)
{
    const bb_pack_out out = bb_file_out(m);
    uint64_t size = bb_pack_write_size(&out);
    m->file = size < SIZE_MAX / 2 ? bb_blocks_take(&m->blocks, (size_t)size, 1) : NULL;
    if (!m->file) return bb_out_of_memory(err, "the model file");
    m->file_bytes = (size_t)size;
    bb_pack_write(&out, m->file);
    BB_TRY(bb_file_prove(m->file, m->file_bytes, &m->blocks.memory, err));
    return BB_DONE;
}
