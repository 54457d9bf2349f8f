/* Reads a packed model: every count, range and reference is checked here, once, with overflow-safe arithmetic; what
 * is allocated is bounded by the file's own size. Afterwards the rest of core trusts the bb_pack. The file's tensors
 * stand in one fixed order (core/FORMAT.md), so reading is a single pass with a cursor. */
#include "pack/layout.h"

typedef struct reader {
    bb_pack *pack;
    const uint8_t *blob;
    const bb_file_tensor *tensors;
    uint32_t n_tensors, next;
    bb_pools pools;
    const bb_weight_ref *refs;
    const bb_layer_rec *layer_recs;
    const bb_quantizer_rec *quantizer_recs;
    bb_weight *weights;
    bb_layer *layers;
    bb_quantizer *quantizers;
    int32_t *wsum; /* BB_MAX_SEGMENTS · pools.n_rows */
    bb_error *err;
} reader;

/* What the arena holds, from the header alone, so that probing and reading agree. */
typedef struct counts { uint64_t head_bytes, tensors, weights, layers, quantizers, rows, values; } counts;

static uint64_t size_of_counts(const counts *c)
{
    uint64_t bytes = bb_json_scratch((size_t)c->head_bytes);
    bytes += c->tensors * sizeof(bb_file_tensor) + c->weights * sizeof(bb_weight);
    bytes += c->layers * sizeof(bb_layer) + c->quantizers * sizeof(bb_quantizer);
    bytes += c->rows * BB_MAX_SEGMENTS * sizeof(int32_t);
    /* Shapes for the checks here, and the arrays of a bb_plan for the owner of the pack. */
    bytes += c->values * (2 * sizeof(bb_shape) + 2 * sizeof(size_t) + 2 * sizeof(uint32_t) + 20);
    return bytes + 26 * BB_ALIGNMENT;
}

static void count_tensor(counts *c, const bb_file_tensor *t)
{
    c->tensors++;
    if (bb_tensor_is(t, "graph")) c->values = t->bytes / (sizeof(bb_value) + sizeof(bb_op)); /* inputs take more */
    if (bb_tensor_is(t, "weights")) c->weights = t->bytes / sizeof(bb_weight_ref);
    if (bb_tensor_is(t, "layers")) c->layers = t->bytes / sizeof(bb_layer_rec);
    if (bb_tensor_is(t, "quantizers")) c->quantizers = t->bytes / sizeof(bb_quantizer_rec);
    if (bb_tensor_is(t, "pool.delta")) c->rows = t->bytes / sizeof(float);
}

bb_status bb_pack_probe(const void *head, size_t n, void *scratch, size_t size, bb_info *info, bb_error *err)
{
    bb_file_index index;
    bb_arena arena = bb_arena_init(scratch, size);
    *info = (bb_info){0};
    BB_TRY(bb_pack_head_bytes(head, n, &info->head_bytes, err));
    size_t bytes = bb_json_scratch((size_t)info->head_bytes);
    void *tokens = bb_arena_take(&arena, 1, bytes);
    if (!tokens) return bb_fail(err, BB_ERR_SPACE, "bb_probe needs %z bytes of scratch", bytes + BB_ALIGNMENT);
    BB_TRY(bb_index_parse(&index, head, n, tokens, bytes, NULL, err));
    BB_TRY(bb_index_info(&index, info, err));
    counts c = {.head_bytes = info->head_bytes};
    for (uint32_t key = bb_json_first(&index.json, 0); key != BB_JSON_NONE; key = bb_json_next(&index.json, key)) {
        bb_file_tensor t;
        if (bb_json_value(&index.json, key) == index.metadata) continue;
        BB_TRY(bb_index_tensor(&index, key, &t, err));
        count_tensor(&c, &t);
    }
    info->blob_bytes = index.file_bytes;
    info->model_bytes = size_of_counts(&c);
    return BB_OK;
}

/* The next tensor, which must be this one; NULL if it is absent (then *count is 0). */
static const void *take(reader *r, const char *name, uint32_t dtype, uint32_t *count)
{
    *count = 0;
    if (r->next >= r->n_tensors || !bb_tensor_is(&r->tensors[r->next], name)) return NULL;
    const bb_file_tensor *t = &r->tensors[r->next];
    uint64_t n = t->bytes / bb_dtype_size(dtype);
    if (t->dtype != dtype || n > UINT32_MAX) return NULL;
    r->next++;
    *count = (uint32_t)n;
    return r->blob + t->begin;
}

static bb_status missing(reader *r, const char *name)
{
    return bb_fail(r->err, BB_ERR_CORRUPT, "tensor %s: missing, out of order or of the wrong dtype", name);
}

/* Cuts `count` records of `words` words each off the graph tensor; false if there are not so many. */
static bool cut(const uint32_t **at, uint32_t *left, uint32_t count, size_t bytes_each, void *out)
{
    size_t words = bytes_each / 4;
    if (count > *left / words) return false;
    memcpy(out, at, sizeof *at); /* out points to a pointer of the record's type */
    *at += count * words;
    *left -= (uint32_t)(count * words);
    return true;
}

static bb_status read_graph(reader *r)
{
    bb_graph *g = &r->pack->graph;
    uint32_t left, string_bytes;
    const uint32_t *at = take(r, "graph", BB_U32, &left), *head;
    const bb_stage *stage;
    if (!at || !cut(&at, &left, 1, BB_GRAPH_HEAD_WORDS * 4, (void *)&head)) return missing(r, "graph");
    if (head[0] != 1 || head[1] != 1 || head[2] || head[3] || head[10] || head[11])
        return bb_fail(r->err, BB_ERR_UNSUPPORTED, "the model has %u graphs and %u stages; this build runs one",
                       head[0], head[1]);
    *g = (bb_graph){.name = head[4], .n_inputs = head[5], .n_outputs = head[6], .n_values = head[7],
                    .n_weights = head[8], .n_ops = head[9]};
    if (!cut(&at, &left, 1, sizeof *stage, (void *)&stage) ||
        !cut(&at, &left, g->n_inputs, sizeof *g->inputs, (void *)&g->inputs) ||
        !cut(&at, &left, g->n_outputs, sizeof *g->outputs, (void *)&g->outputs) ||
        !cut(&at, &left, g->n_values, sizeof *g->values, (void *)&g->values) ||
        !cut(&at, &left, g->n_weights, sizeof *g->weights, (void *)&g->weights) ||
        !cut(&at, &left, g->n_ops, sizeof *g->ops, (void *)&g->ops))
        return bb_fail(r->err, BB_ERR_CORRUPT, "tensor graph: its counts do not fit its size");
    if (stage->graph != 0 || stage->when != BB_WHEN_STEP || stage->first_link || stage->n_links)
        return bb_fail(r->err, BB_ERR_UNSUPPORTED, "the model's pipeline is not one this build knows");
    g->strings = take(r, "strings", BB_U8, &string_bytes);
    g->string_bytes = string_bytes;
    if (!g->strings) return missing(r, "strings");
    return bb_graph_check(g, r->err);
}

static bb_status read_schedule(reader *r)
{
    uint32_t n, n_alphas;
    const uint32_t *w = take(r, "schedule", BB_U32, &n);
    if (!w || n < BB_SCHEDULE_WORDS) return missing(r, "schedule");
    bb_schedule *s = &r->pack->schedule;
    bool ok = bb_schedule_from_words(s, w) && s->train_steps == r->pack->info.train_steps;
    s->alphas_cumprod = take(r, "schedule.alphas_cumprod", BB_F32, &n_alphas);
    if (!s->alphas_cumprod) return missing(r, "schedule.alphas_cumprod");
    ok = ok && s->train_steps <= n_alphas;
    for (uint32_t i = 0; ok && i < s->train_steps; i++) ok = s->alphas_cumprod[i] >= 0 && s->alphas_cumprod[i] <= 1;
    return ok ? BB_OK : bb_fail(r->err, BB_ERR_CORRUPT, "tensor schedule: a value is out of range");
}

static void read_pools(reader *r)
{
    bb_pools *p = &r->pools;
    uint32_t n_offset, n_delta;
    p->f32 = take(r, "pool.f32", BB_F32, &p->n_f32);
    p->delta = take(r, "pool.delta", BB_F32, &p->n_rows);
    p->offset = take(r, "pool.offset", BB_I16, &n_offset);
    p->multiplier = take(r, "pool.multiplier", BB_I16, &p->n_multiplier);
    p->perm = take(r, "pool.perm", BB_U16, &p->n_perm);
    p->inv_s = take(r, "pool.inv_s", BB_F32, &p->n_inv_s);
    p->step_key = take(r, "pool.step_key", BB_F32, &p->n_step_key);
    p->step_delta = take(r, "pool.step_delta", BB_F32, &n_delta);
    p->step_zero = take(r, "pool.step_zero", BB_U8, &p->n_step);
    if (n_offset < p->n_rows) p->n_rows = n_offset;
    if (n_delta < p->n_step) p->n_step = n_delta;
}

/* An unquantized matrix: inputs in rows, outputs padded to whole tiles. */
static bool matrix_ok(const bb_weight_slot *s, const bb_file_tensor *t, uint32_t *stride)
{
    uint64_t k = s->rank == 4 ? (uint64_t)s->dim[1] * s->dim[2] * s->dim[3] : s->dim[1];
    *stride = t->last;
    return t->last >= s->dim[0] && t->last % BB_TILE == 0 && t->bytes / bb_dtype_size(t->dtype) / t->last == k;
}

/* An embedding keeps its natural [rows][columns] order. */
static bool table_ok(const bb_weight_slot *s, const bb_file_tensor *t, uint32_t *stride)
{
    *stride = t->last;
    return s->rank == 2 && t->last >= s->dim[1] && t->bytes / bb_dtype_size(t->dtype) / t->last == s->dim[0];
}

enum use { UNUSED, MATRIX, TABLE, VECTOR, CLASH };

/* How the ops use each slot, left in weights[].stride for the pass below; a slot used in two ways is refused. */
static void mark_uses(const bb_graph *g, bb_weight *weights)
{
    for (uint32_t i = 0; i < g->n_ops; i++)
        for (uint32_t k = 0; k < 2; k++) {
            uint32_t slot = g->ops[i].weight[k], kind = g->ops[i].kind;
            if (slot == BB_NONE) continue;
            enum use here = k == 1 ? VECTOR : kind == BB_OP_CONV2D || kind == BB_OP_LINEAR ? MATRIX
                          : kind == BB_OP_EMBEDDING ? TABLE : VECTOR;
            uint32_t *use = &weights[slot].stride;
            *use = *use == UNUSED || *use == here ? here : CLASH;
        }
}

static bb_status read_tensor_weight(reader *r, uint32_t slot, enum use use, const char *name)
{
    const bb_weight_slot *s = &r->pack->graph.weights[slot];
    bb_weight *w = &r->weights[slot];
    if (r->next >= r->n_tensors || !bb_tensor_is(&r->tensors[r->next], name)) return missing(r, name);
    const bb_file_tensor *t = &r->tensors[r->next++];
    bool shape = (t->dtype == BB_F32 || t->dtype == BB_F16) &&
                 (use == TABLE ? table_ok(s, t, &w->stride) : use == MATRIX && matrix_ok(s, t, &w->stride));
    if (!shape) return bb_fail(r->err, BB_ERR_CORRUPT, "tensor %s: wrong dtype, shape or use", name);
    const void *data = r->blob + t->begin;
    if (t->dtype == BB_F32) w->f32 = data; else w->f16 = data;
    return BB_OK;
}

/* Layers stand in the order of their slots; number and rows count what the slots before had. */
static bb_status read_layer_weight(reader *r, uint32_t slot, enum use use, const char *name, uint32_t number,
                                   uint32_t *rows)
{
    if (use != MATRIX || number >= r->pack->n_layers || r->refs[slot].index != number ||
        r->layer_recs[number].weight != slot ||
        r->layer_recs[number].quantizer >= r->pack->n_quantizers || r->layer_recs[number].row_at != *rows)
        return bb_fail(r->err, BB_ERR_CORRUPT, "layer %s: bad or repeated reference, or out of order", name);
    if (r->next >= r->n_tensors || !bb_tensor_is(&r->tensors[r->next], name) || r->tensors[r->next].dtype != BB_U8)
        return missing(r, name);
    const bb_file_tensor *t = &r->tensors[r->next++];
    bb_layer *layer = &r->layers[number];
    BB_TRY(bb_layer_check(layer, &r->layer_recs[number], &r->quantizers[r->layer_recs[number].quantizer],
                          &r->pack->graph.weights[slot], name, &r->pools, r->blob + t->begin, t->bytes,
                          r->wsum + (size_t)*rows * BB_MAX_SEGMENTS, r->err));
    *rows += layer->rows;
    r->weights[slot].layer = layer;
    return BB_OK;
}

static bb_status read_weights(reader *r)
{
    const bb_graph *g = &r->pack->graph;
    uint32_t rows = 0, layers = 0;
    mark_uses(g, r->weights);
    for (uint32_t slot = 0; slot < g->n_weights; slot++) {
        const char *name = bb_graph_string(g, g->weights[slot].name);
        enum use use = (enum use)r->weights[slot].stride;
        uint32_t index = r->refs[slot].index, n = g->weights[slot].dim[0];
        switch (r->refs[slot].store) {
        case BB_STORE_TENSOR: BB_TRY(read_tensor_weight(r, slot, use, name)); break;
        case BB_STORE_LAYER: BB_TRY(read_layer_weight(r, slot, use, name, layers++, &rows)); break;
        case BB_STORE_POOL:
            if (use != VECTOR || index > r->pools.n_f32 || n > r->pools.n_f32 - index)
                return bb_fail(r->err, BB_ERR_CORRUPT, "weight %s: bad pool offset or use", name);
            r->weights[slot].f32 = r->pools.f32 + index;
            break;
        default: return bb_fail(r->err, BB_ERR_CORRUPT, "weight %s: unknown kind of storage", name);
        }
    }
    if (r->next != r->n_tensors || layers != r->pack->n_layers)
        return bb_fail(r->err, BB_ERR_CORRUPT, "the file holds tensors or layers that nothing refers to");
    return BB_OK;
}

/* The inputs and output that a picture model must have, at its own size. */
static bb_status check_pictures(const bb_pack *pack, bb_shape *shapes, bb_error *err)
{
    const bb_graph *g = &pack->graph;
    bb_bindings bind = {{1, 1, pack->info.height, pack->info.width, 1, 1}};
    BB_TRY(bb_graph_shapes(g, &bind, shapes, err));
    uint32_t x = bb_graph_find_input(g, "sample"), t = bb_graph_find_input(g, "timestep");
    uint32_t label = bb_graph_find_input(g, "class_labels"), out = bb_graph_find_output(g, "sample");
    if (x == BB_NONE || t == BB_NONE || out == BB_NONE || (pack->info.classes > 0) != (label != BB_NONE))
        return bb_fail(err, BB_ERR_CORRUPT, "the graph lacks an input or output that its metadata promises");
    bool learned = pack->schedule.variance >= BB_VARIANCE_LEARNED;
    uint32_t channels = pack->info.channels;
    bool fits = shapes[x].c == channels && shapes[x].h == pack->info.height && shapes[x].w == pack->info.width &&
                shapes[out].h == shapes[x].h && shapes[out].w == shapes[x].w &&
                (shapes[out].c == channels || (learned && shapes[out].c == 2 * channels)) &&
                bb_shape_size(shapes[t]) == 1 && (label == BB_NONE || bb_shape_size(shapes[label]) == 1);
    return fits ? BB_OK : bb_fail(err, BB_ERR_CORRUPT, "the graph's inputs or output do not have the model's size");
}

static bb_status read_index(reader *r, const void *blob, size_t n, bb_arena *arena, counts *c)
{
    bb_file_index index;
    BB_TRY(bb_pack_head_bytes(blob, n, &c->head_bytes, r->err));
    size_t token_bytes = bb_json_scratch((size_t)c->head_bytes);
    void *tokens = bb_arena_take(arena, 1, token_bytes);
    if (!tokens) return BB_ERR_SPACE;
    BB_TRY(bb_index_parse(&index, blob, n, tokens, token_bytes, NULL, r->err));
    bb_file_tensor *tensors = bb_arena_take(arena, index.n_tensors, sizeof *tensors);
    if (!tensors) return BB_ERR_SPACE;
    BB_TRY(bb_index_parse(&index, blob, n, tokens, token_bytes, tensors, r->err));
    if (index.file_bytes > n)
        return bb_fail(r->err, BB_ERR_SHORT, "the file is cut short: its header promises more bytes than it has");
    if (index.file_bytes < n) return bb_fail(r->err, BB_ERR_CORRUPT, "the file has bytes after its last tensor");
    for (uint32_t i = 0; i < index.n_tensors; i++) count_tensor(c, &tensors[i]);
    r->tensors = tensors;
    r->n_tensors = index.n_tensors;
    r->pack->header = index.json;
    r->pack->info.head_bytes = c->head_bytes;
    r->pack->info.blob_bytes = n;
    return bb_index_info(&index, &r->pack->info, r->err);
}

static bb_status read_pack(reader *r, const void *blob, size_t n, bb_arena *arena)
{
    bb_pack *pack = r->pack;
    counts c = {0};
    uint32_t n_refs, words;
    BB_TRY(read_index(r, blob, n, arena, &c));
    BB_TRY(read_graph(r));
    r->refs = take(r, "weights", BB_U32, &n_refs);
    if (!r->refs || n_refs / 2 < pack->graph.n_weights) return missing(r, "weights");
    r->layer_recs = take(r, "layers", BB_U32, &words);
    pack->n_layers = words / (uint32_t)(sizeof(bb_layer_rec) / 4);
    r->quantizer_recs = take(r, "quantizers", BB_U32, &words);
    pack->n_quantizers = words / (uint32_t)(sizeof(bb_quantizer_rec) / 4);
    BB_TRY(read_schedule(r));
    read_pools(r);
    pack->weights = r->weights = bb_arena_take(arena, pack->graph.n_weights, sizeof *r->weights);
    pack->layers = r->layers = bb_arena_take(arena, pack->n_layers, sizeof *r->layers);
    pack->quantizers = r->quantizers = bb_arena_take(arena, pack->n_quantizers, sizeof *r->quantizers);
    r->wsum = bb_arena_take(arena, (size_t)r->pools.n_rows * BB_MAX_SEGMENTS, sizeof *r->wsum);
    bb_shape *shapes = bb_arena_take(arena, pack->graph.n_values, sizeof *shapes);
    if (arena->overflow) return bb_fail(r->err, BB_ERR_SPACE, "the memory for the model is too small");
    for (uint32_t i = 0; i < pack->n_quantizers; i++)
        BB_TRY(bb_quantizer_check(&r->quantizers[i], &r->quantizer_recs[i], &r->pools, i, r->err));
    BB_TRY(read_weights(r));
    return check_pictures(pack, shapes, r->err);
}

bb_status bb_pack_read(bb_pack *pack, const void *blob, size_t n, bb_arena *arena, bb_error *err)
{
    *pack = (bb_pack){0};
    reader r = {.pack = pack, .blob = blob, .err = err};
    if ((uintptr_t)blob % BB_ALIGNMENT)
        return bb_fail(err, BB_ERR_ARGUMENT, "the model must lie at a multiple of 64 bytes");
    bb_status status = read_pack(&r, blob, n, arena);
    if (arena->overflow) return bb_fail(err, BB_ERR_SPACE, "the memory for the model is too small");
    return status;
}
