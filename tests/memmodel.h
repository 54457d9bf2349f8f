/* Small models built in memory with the packed file's own writer, for tests that need a graph of their own choice. */
#ifndef BB_TESTS_MEMMODEL_H
#define BB_TESTS_MEMMODEL_H

#include "api/model.h"
#include "check.h"

enum { MM_OPS = 64, MM_SLOTS = 64, MM_VALUES = 72 };

typedef struct memmodel {
    bb_graph graph;
    bb_graph_input inputs[8];
    bb_graph_output outputs[8];
    bb_value values[MM_VALUES];
    bb_weight_slot slots[MM_SLOTS];
    bb_weight_ref refs[MM_SLOTS];
    bb_op ops[MM_OPS];
    char strings[4096];
    float f32[4096];
    float alphas[1000];
    bb_tensor_out tensors[MM_SLOTS];
    bb_schedule schedule;
    bb_pack_out out;
    /* after mm_open */
    void *blob, *mem;
    bb_model *model;
} memmodel;

static uint32_t mm_string(memmodel *m, const char *text)
{
    uint32_t at = m->graph.string_bytes;
    strcpy(m->strings + at, text);
    m->graph.string_bytes += (uint32_t)strlen(text) + 1;
    return at;
}

static void mm_start(memmodel *m, uint32_t width, uint32_t height, uint32_t channels, uint32_t classes,
                     int32_t null_label)
{
    memset(m, 0, sizeof *m);
    m->graph.name = mm_string(m, "denoiser");
    m->out.info = (bb_info){.width = width, .height = height, .channels = channels, .classes = classes,
                            .null_label = null_label, .bits_milli = 4000};
    for (int t = 0; t < 1000; t++) m->alphas[t] = 0.9999f - 0.0009f * (float)t;
    m->schedule = (bb_schedule){.alphas_cumprod = m->alphas, .train_steps = 1000, .solver = {.family = BB_FAMILY_DDIM},
                                .set_alpha_to_one = true, .clip_sample_range = 1, .dynamic_thresholding_ratio = 0.995f,
                                .sample_max_value = 1};
}

/* Inputs come before ops. Not a picture: one row of c values per item. */
static uint32_t mm_input(memmodel *m, const char *name, bool picture, uint32_t c, uint32_t rate)
{
    bb_dim one = {BB_DIM_ONE, 1, 1, 0}, h = {BB_DIM_H, 1, 1, 0}, w = {BB_DIM_W, 1, 1, 0};
    bb_graph_input in = {.name = mm_string(m, name), .rate = rate,
                         .shape = {{BB_DIM_B, 1, 1, 0}, picture ? h : one, picture ? w : one, {BB_DIM_ONE, c, 1, 0}}};
    m->values[m->graph.n_values++] = (bb_value){.path = BB_NONE, .rate = rate};
    m->inputs[m->graph.n_inputs] = in;
    return m->graph.n_inputs++;
}

static void mm_output(memmodel *m, const char *name, uint32_t value)
{
    m->outputs[m->graph.n_outputs++] = (bb_graph_output){mm_string(m, name), value};
}

/* An op with its inputs and weights set to none; its value's rate is the fastest of its inputs'. */
static bb_op *mm_op(memmodel *m, uint32_t kind, uint32_t in0, uint32_t in1, uint32_t in2, uint32_t *value)
{
    bb_op *op = &m->ops[m->graph.n_ops++];
    *op = (bb_op){.kind = kind, .in = {in0, in1, in2, BB_NONE}, .weight = {BB_NONE, BB_NONE}, .path = BB_NONE};
    uint32_t rate = 0;
    for (int k = 0; k < 4; k++)
        if (op->in[k] != BB_NONE && m->values[op->in[k]].rate > rate) rate = m->values[op->in[k]].rate;
    *value = m->graph.n_values++;
    m->values[*value] = (bb_value){.path = BB_NONE, .rate = rate};
    return op;
}

static uint32_t mm_slot(memmodel *m, const char *name, uint32_t rank, const uint32_t *dim, uint32_t store,
                        uint32_t index)
{
    bb_weight_slot *s = &m->slots[m->graph.n_weights];
    *s = (bb_weight_slot){.name = mm_string(m, name), .rank = rank};
    memcpy(s->dim, dim, rank * sizeof *dim);
    m->refs[m->graph.n_weights] = (bb_weight_ref){store, index};
    return m->graph.n_weights++;
}

static inline uint32_t mm_vector(memmodel *m, const char *name, const float *data, uint32_t n)
{
    uint32_t at = m->out.n_f32;
    memcpy(m->f32 + at, data, n * sizeof *data);
    m->out.n_f32 += n;
    return mm_slot(m, name, 1, &n, BB_STORE_POOL, at);
}

/* data stays the caller's until mm_open; tensors must be added in slot order. */
static void mm_tensor(memmodel *m, const char *name, uint32_t dtype, uint32_t rank, const uint32_t *shape,
                      const void *data)
{
    bb_tensor_out *t = &m->tensors[m->out.n_tensors++];
    *t = (bb_tensor_out){.name = name, .dtype = dtype, .rank = rank, .data = data};
    memcpy(t->shape, shape, rank * sizeof *shape);
}

/* Writes the file into m->blob; returns its bytes. Pools of quantized layers are set by the caller in m->out. */
static size_t mm_write(memmodel *m)
{
    bb_graph *g = &m->graph;
    g->inputs = m->inputs, g->outputs = m->outputs, g->values = m->values, g->weights = m->slots, g->ops = m->ops;
    g->strings = m->strings;
    m->out.graph = g;
    m->out.refs = m->refs;
    m->out.tensors = m->tensors;
    m->out.f32 = m->f32;
    m->out.schedule = &m->schedule;
    size_t n = (size_t)bb_pack_write_size(&m->out);
    m->blob = aligned_alloc(64, bb_align_up(n, 64));
    bb_pack_write(&m->out, m->blob);
    return n;
}

/* Reads the n bytes at m->blob. */
static bb_status mm_read(memmodel *m, size_t n, bb_error *err)
{
    void *scratch = malloc(BB_PROBE_SCRATCH(n));
    bb_info info = {0};
    bb_status status = bb_probe(m->blob, n, scratch, BB_PROBE_SCRATCH(n), &info, err);
    free(scratch);
    if (status < 0) return status;
    m->mem = malloc((size_t)info.model_bytes);
    return bb_model_init(m->blob, n, m->mem, (size_t)info.model_bytes, &m->model, err);
}

static inline bb_status mm_open(memmodel *m, bb_error *err) { return mm_read(m, mm_write(m), err); }

static void mm_close(memmodel *m)
{
    free(m->blob);
    free(m->mem);
}

/* A session in memory of its own, to be freed; NULL with a failed check. */
static inline bb_session *mm_session(const memmodel *m, bb_request req, void **ws)
{
    bb_error err = {0};
    bb_session *s = NULL;
    size_t bytes = 0;
    req.size_of = sizeof req;
    bb_status status = bb_session_size(m->model, &req, &bytes, &err);
    *ws = malloc(bytes ? bytes : 1);
    memset(*ws, 0xa5, bytes); /* nothing may rely on a fresh workspace being zero */
    if (status >= 0) status = bb_session_init(m->model, &req, *ws, bytes, &s, &err);
    CHECK(status == BB_OK, "%s", err.text);
    return status == BB_OK ? s : NULL;
}

#endif
