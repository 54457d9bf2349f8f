/* The packed file with the student's numbers: a copy of its bytes is changed in place, for widths, planes and tables
 * keep their sizes; then the file's writer puts it together again with new metadata, and its reader proves it. */
#include "train/student/layer.h"

#include "make.h"

#include <stdlib.h>

typedef struct writer {
    const bb_student *s;
    const bb_pack *pack;
    uint8_t *copy; /* of the packed file */
    bb_blocks blocks;
    char quantization[256], seed[24];
} writer;

/* What the reader borrowed, in the copy. */
static void *in_copy(const writer *w, const void *borrowed)
{
    return w->copy + ((const uint8_t *)borrowed - w->s->opt.blob);
}

/* ---- numbers ---- */

/* The code of each level, + 128. */
static void code_table(const bb_row_grid *g, uint8_t code[256])
{
    bb_row_levels l;
    bb_row_levels_of(g, &l);
    for (uint32_t i = l.n; i--;) code[l.level[i] + 128] = l.code[i];
}

static void write_matrix(const writer *w, const bb_student_matrix *m, uint8_t *codes)
{
    const bb_layer *l = m->from;
    const bb_quantizer_rec *q = l->quantizer->rec;
    uint8_t *planes = in_copy(w, l->planes), table[256];
    float *delta = in_copy(w, l->delta);
    size_t bytes = 0;
    for (uint32_t i = 0; i < l->rec->n_classes; i++)
        bytes += bb_plane_bytes((uint32_t)bb_align_up(l->rec->class_rows[i], BB_TILE), l->k_blocks,
                                l->rec->class_planes[i]);
    memset(planes, 0, bytes);
    for (uint32_t n = 0; n < m->n; n++) {
        const bb_student_place at = bb_student_place_of(l, m->row[n]);
        code_table(&m->grid[n], table);
        for (size_t k = 0; k < m->k; k++) codes[k] = table[m->code[k * m->n + n] + 128];
        bb_planes_put(planes + at.plane_at, at.planes, at.row, l->rec->taps, q->segments, q->seg_channels, codes);
        delta[m->row[n]] = m->delta[n];
    }
}

static void write_floats(const writer *w)
{
    const bb_params *p = &w->s->params;
    for (uint32_t i = 0; i < w->pack->graph.n_weights; i++) {
        const bb_weight *to = &w->pack->weights[i];
        if (to->layer || p->fixed[i]) continue;
        const size_t row = bb_student_float_row(w->s, i), stride = to->stride > row ? to->stride : row;
        for (size_t k = 0; k < p->count[i]; k++) {
            const float x = p->w[p->at[i] + k];
            const size_t at = k / row * stride + k % row;
            if (to->f32) ((float *)in_copy(w, to->f32))[at] = x;
            else ((uint16_t *)in_copy(w, to->f16))[at] = bb_f32_to_f16(x);
        }
    }
}

static bb_status write_numbers(writer *w, bb_error *err)
{
    const bb_student *s = w->s;
    uint32_t most = 0;
    for (uint32_t i = 0; i < w->pack->n_layers; i++) most = s->matrices[i].k > most ? s->matrices[i].k : most;
    uint8_t *codes = bb_blocks_take(&w->blocks, most, 1);
    if (!codes) return bb_fail(err, BB_ERR_SPACE, "out of memory for the model file");
    for (uint32_t i = 0; i < w->pack->n_layers; i++) write_matrix(w, &s->matrices[i], codes);
    for (uint32_t i = 0; i < w->pack->n_quantizers; i++) {
        const bb_student_steps *q = &s->steps[i];
        memcpy(in_copy(w, q->from->delta), q->delta, q->entries * sizeof *q->delta);
        memcpy(in_copy(w, q->from->zero), q->zero, q->entries);
    }
    write_floats(w);
    return BB_OK;
}

/* ---- the file ---- */

/* A tensor of the file, in the copy; all zero if there is none. */
static bb_tensor_out find_tensor(const writer *w, const char *name)
{
    const bb_json *j = &w->pack->header;
    const uint32_t tensor = bb_json_member(j, 0, name), shape = bb_json_member(j, tensor, "shape");
    uint64_t begin = 0, dim = 0;
    bb_tensor_out t = {.name = name, .rank = bb_json_size(j, shape)};
    if (!bb_json_u64(j, bb_json_element(j, bb_json_member(j, tensor, "data_offsets"), 0), &begin)) return t;
    for (uint32_t i = 0; i < t.rank && i < BB_COUNT(t.shape); i++) {
        bb_json_u64(j, bb_json_element(j, shape, i), &dim);
        t.shape[i] = (uint32_t)dim;
    }
    t.data = w->copy + w->pack->info.head_bytes + begin;
    return t;
}

static const void *pool(const writer *w, const char *name, uint32_t *n)
{
    const bb_tensor_out t = find_tensor(w, name);
    *n = t.shape[0];
    return t.data;
}

/* Tensors of the slots that have one of their own. */
static bb_tensor_out *slot_tensors(writer *w, const bb_weight_ref *refs, uint32_t *n)
{
    const bb_graph *g = &w->pack->graph;
    bb_tensor_out *tensors = bb_blocks_take(&w->blocks, g->n_weights, sizeof *tensors);
    *n = 0;
    for (uint32_t i = 0; tensors && i < g->n_weights; i++) {
        const bb_weight *from = &w->pack->weights[i];
        if (refs[i].store == BB_STORE_POOL) continue;
        tensors[*n] = find_tensor(w, bb_graph_string(g, g->weights[i].name));
        tensors[(*n)++].dtype = from->layer ? BB_U8 : from->f32 ? BB_F32 : BB_F16;
    }
    return tensors;
}

static bool is_one_of(const bb_json *j, uint32_t key, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bb_json_equals(j, key, names[i])) return true;
    return false;
}

static void describe(writer *w)
{
    static const char *const weights[] = {"weights", "rank %u", "rank %u, OOLRI (a)", "rank %u, OOLRI (b)",
                                          "no weights"};
    const bb_student_options *o = &w->s->opt;
    char before[160] = "", kind[32];
    bb_pack_metadata(w->pack, "quantization", before, sizeof before);
    bb_format(kind, sizeof kind, weights[o->weights], o->rank);
    bb_format(w->quantization, sizeof w->quantization, "%s; trained: %s%s%s%s", before, kind,
              o->train_scales ? ", scales" : "", o->train_activations ? ", steps" : "",
              o->train_float ? ", float tensors" : "");
}

/* The file's metadata with command, seed and quantization as they are now. */
static bb_meta_out *metadata(writer *w, const char *command, uint64_t seed, uint32_t *n)
{
    static const char *const dropped[] = {"format", "format_version", "width", "height", "channels", "classes",
                                          "null_label", "train_steps", "bits_milli", /* the writer's own */
                                          "command", "seed", "quantization"};
    const bb_json *j = &w->pack->header;
    const uint32_t object = bb_json_member(j, 0, "__metadata__");
    bb_meta_out *meta = bb_blocks_take(&w->blocks, bb_json_size(j, object) + 3, sizeof *meta);
    *n = 0;
    for (uint32_t key = bb_json_first(j, object); meta && key != BB_JSON_NONE; key = bb_json_next(j, key)) {
        size_t key_bytes = 0, value_bytes = 0;
        if (is_one_of(j, key, dropped, BB_COUNT(dropped))) continue;
        bb_json_raw(j, key, &key_bytes);
        bb_json_raw(j, bb_json_value(j, key), &value_bytes);
        char *name = bb_blocks_take(&w->blocks, key_bytes + 1, 1);
        char *value = bb_blocks_take(&w->blocks, value_bytes + 1, 1);
        if (!name || !value) return NULL;
        bb_json_string(j, key, name, key_bytes + 1);
        bb_json_string(j, bb_json_value(j, key), value, value_bytes + 1);
        meta[(*n)++] = (bb_meta_out){name, value};
    }
    if (!meta) return NULL;
    describe(w);
    bb_format(w->seed, sizeof w->seed, "%l", seed);
    meta[(*n)++] = (bb_meta_out){"quantization", w->quantization};
    meta[(*n)++] = (bb_meta_out){"seed", w->seed};
    if (command) meta[(*n)++] = (bb_meta_out){"command", command};
    return meta;
}

static bb_status put_together(writer *w, const char *command, uint64_t seed, uint8_t **out, size_t *n, bb_error *err)
{
    const bb_pack *pack = w->pack;
    uint32_t count, zeros;
    bb_pack_out p = {.graph = &pack->graph, .schedule = &pack->schedule, .info = pack->info,
                     .layers = pack->layers->rec, .n_layers = pack->n_layers,
                     .quantizers = pack->quantizers->rec, .n_quantizers = pack->n_quantizers};
    p.refs = pool(w, "weights", &count);
    p.f32 = pool(w, "pool.f32", &p.n_f32);
    p.delta = pool(w, "pool.delta", &p.n_rows);
    p.offset = pool(w, "pool.offset", &count);
    p.n_rows = count < p.n_rows ? count : p.n_rows;
    p.multiplier = pool(w, "pool.multiplier", &p.n_multiplier);
    p.perm = pool(w, "pool.perm", &p.n_perm);
    p.inv_s = pool(w, "pool.inv_s", &p.n_inv_s);
    p.step_key = pool(w, "pool.step_key", &p.n_step_key);
    p.step_delta = pool(w, "pool.step_delta", &p.n_step);
    p.step_zero = pool(w, "pool.step_zero", &zeros);
    p.n_step = zeros < p.n_step ? zeros : p.n_step;
    p.tensors = slot_tensors(w, p.refs, &p.n_tensors);
    p.meta = metadata(w, command, seed, &p.n_meta);
    if (!p.tensors || !p.meta) return bb_fail(err, BB_ERR_SPACE, "out of memory for the model file");
    return bb_make_file(&p, out, n, err);
}

bb_status bb_student_write(const bb_student *s, const char *command, uint64_t seed, uint8_t **out, size_t *n,
                           bb_error *err)
{
    writer w = {.s = s, .pack = s->pack, .blocks = {.memory = bb_tools_memory}};
    *out = NULL;
    w.copy = bb_blocks_take(&w.blocks, s->opt.blob_bytes, 1);
    bb_status status = w.copy ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory for the model file");
    if (w.copy) {
        memcpy(w.copy, s->opt.blob, s->opt.blob_bytes);
        status = write_numbers(&w, err);
    }
    if (status >= 0) status = put_together(&w, command, seed, out, n, err);
    bb_blocks_give(&w.blocks, NULL);
    return status;
}
