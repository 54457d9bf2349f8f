/* Weights out: as a diffusers checkpoint folder, and as a packed file in memory. */
#include "train/teach/pipeline.h"

#include "base/mathf.h"
#include "batch.h"
#include "import/checkpoint.h"
#include "import/safetensors.h"
#include "make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bb_status no_memory(bb_error *err)
{
    return bb_fail(err, BB_ERR_SPACE, "out of memory for a copy of the weights");
}

/* ---- packed ---- */

/* Floats stay where they are: params have the packed file's own order. */
typedef struct packing {
    bb_weight_ref *refs;
    bb_tensor_out *tensors;
    float *pool;
    uint32_t n_tensors;
    size_t n_pool;
} packing;

static void add_slot(packing *k, const bb_params *p, const float *w, uint32_t slot)
{
    const bb_weight_slot *s = &p->graph->weights[slot];
    const float *x = w + p->at[slot];
    if (s->rank == 1) {
        k->refs[slot] = (bb_weight_ref){BB_STORE_POOL, (uint32_t)k->n_pool};
        memcpy(k->pool + k->n_pool, x, p->count[slot] * sizeof *x);
        k->n_pool += p->count[slot];
        return;
    }
    bb_tensor_out t = {.name = bb_graph_string(p->graph, s->name), .dtype = BB_F32, .rank = s->rank,
                       .shape = {s->dim[1], s->dim[0]}, .data = x};
    for (uint32_t i = 0; i < p->graph->n_ops; i++)
        if (p->graph->ops[i].kind == BB_OP_EMBEDDING && p->graph->ops[i].weight[0] == slot)
            t.shape[0] = s->dim[0], t.shape[1] = s->dim[1];
    if (s->rank == 4) memcpy(t.shape, (uint32_t[]){s->dim[2], s->dim[3], s->dim[1], s->dim[0]}, sizeof t.shape);
    k->refs[slot] = (bb_weight_ref){BB_STORE_TENSOR, 0};
    k->tensors[k->n_tensors++] = t;
}

bb_status bb_pipeline_pack(const bb_pipeline *p, const bb_params *params, const float *w, const char *command,
                           uint8_t **out, size_t *n, bb_error *err)
{
    const uint32_t slots = p->graph->n_weights;
    packing k = {.refs = calloc(slots + 1, sizeof *k.refs), .tensors = calloc(slots + 1, sizeof *k.tensors),
                 .pool = malloc((params->n + 1) * sizeof *k.pool)};
    bb_status status = k.refs && k.tensors && k.pool ? BB_OK : no_memory(err);
    for (uint32_t s = 0; status == BB_OK && s < slots; s++) add_slot(&k, params, w, s);
    bb_meta_out meta[3] = {{"architecture", "UNet2DModel"}, {"command", command}};
    uint32_t n_meta = 2;
    if (p->labels.names) meta[n_meta++] = (bb_meta_out){"labels", p->labels.names};
    const bb_unet2d_facts *f = &p->facts;
    const bb_pack_out pack = {
        .graph = p->graph, .refs = k.refs, .tensors = k.tensors, .n_tensors = k.n_tensors, .f32 = k.pool,
        .n_f32 = (uint32_t)k.n_pool, .schedule = &p->schedule, .meta = meta, .n_meta = n_meta,
        .info = {.width = f->width, .height = f->height, .channels = f->channels, .classes = f->classes,
                 .null_label = p->labels.null_label, .train_steps = p->schedule.train_steps, .bits_milli = 32000}};
    if (status == BB_OK) status = bb_make_file(&pack, out, n, err);
    free(k.refs);
    free(k.tensors);
    free(k.pool);
    return status;
}

/* ---- folder ---- */

static bb_status put(const char *folder, const char *name, const void *data, size_t n, bb_error *err)
{
    char path[BB_PATH_MAX];
    bool kept;
    if (!bb_path_join(path, sizeof path, folder, name))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s/%s: the path is too long", folder, name);
    return bb_batch_file(path, data, n, &kept, err);
}

static bb_status put_text(const char *folder, const char *name, const char *text, bb_error *err)
{
    return put(folder, name, text, strlen(text), err);
}

static bb_status make_folder(const char *path, const char *name, bb_error *err)
{
    char sub[BB_PATH_MAX];
    if (!bb_path_join(sub, sizeof sub, path, name))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s/%s: the path is too long", path, name);
    return bb_batch_folder(sub, err);
}

/* In PyTorch's order and the number type asked for; `into` has room for them. What f16 cannot hold is refused. */
static bb_status convert(const bb_params *p, const float *w, uint32_t slot, uint32_t dtype, float *row, void *into,
                         bb_error *err)
{
    const size_t count = p->count[slot];
    bb_slot_to_torch(p->graph, slot, w + p->at[slot], row);
    if (dtype == BB_ST_F32) memcpy(into, row, count * sizeof *row);
    uint16_t *half = into;
    for (size_t i = 0; dtype == BB_ST_F16 && i < count; i++) {
        half[i] = bb_f32_to_f16(row[i]);
        if ((half[i] & 0x7c00) == 0x7c00)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "tensor %s holds values too large for f16; use --dtype f32",
                           bb_graph_string(p->graph, p->graph->weights[slot].name));
    }
    return BB_OK;
}

/* The file of all trained tensors; the checkpoint has no frequencies, they follow from its configuration. */
static bb_status weights_file(const bb_pipeline *pipe, const bb_params *p, const float *w, uint32_t dtype,
                              uint8_t **out, size_t *bytes, bb_error *err)
{
    const bb_graph *g = p->graph;
    const size_t each = dtype == BB_ST_F16 ? 2 : 4;
    bb_st_out *list = calloc(g->n_weights + 1, sizeof *list);
    uint8_t *all = malloc(p->n * each + 1);
    float *row = malloc((p->n + 1) * sizeof *row);
    bb_status status = list && all && row ? BB_OK : no_memory(err);
    size_t n = 0;
    for (uint32_t s = 0; status == BB_OK && s < g->n_weights; s++) {
        if (pipe->builder.constants[s]) continue;
        uint8_t *into = all + p->at[s] * each;
        status = convert(p, w, s, dtype, row, into, err);
        list[n] = (bb_st_out){.name = bb_graph_string(g, g->weights[s].name), .rank = g->weights[s].rank, .data = into,
                              .dtype = dtype};
        memcpy(list[n++].shape, g->weights[s].dim, sizeof list->shape);
    }
    if (status == BB_OK) status = bb_safetensors_write(list, n, out, bytes, err);
    free(list);
    free(all);
    free(row);
    return status;
}

static const char model_index_format[] =
    "{\n"
    "  \"_class_name\": \"DDIMPipeline\",\n"
    "  \"_diffusers_version\": \"0.27.2\",\n"
    "  \"scheduler\": [\n    \"diffusers\",\n    \"%s\"\n  ],\n"
    "  \"unet\": [\n    \"diffusers\",\n    \"UNet2DModel\"\n  ]\n"
    "}\n";

bb_status bb_pipeline_put(const bb_pipeline *p, const bb_params *params, const float *w, uint32_t dtype,
                          const char *path, bb_error *err)
{
    char model_index[sizeof model_index_format + sizeof p->scheduler_class];
    uint8_t *bytes = NULL;
    size_t n = 0;
    snprintf(model_index, sizeof model_index, model_index_format, p->scheduler_class);
    BB_TRY(weights_file(p, params, w, dtype, &bytes, &n, err));
    bb_status status = bb_batch_folder(path, err);
    if (status == BB_OK) status = make_folder(path, "unet", err);
    if (status == BB_OK) status = make_folder(path, "scheduler", err);
    if (status == BB_OK) status = put(path, "unet/diffusion_pytorch_model.safetensors", bytes, n, err);
    if (status == BB_OK) status = put_text(path, "unet/config.json", p->config, err);
    if (status == BB_OK) status = put_text(path, "scheduler/scheduler_config.json", p->scheduler, err);
    if (status == BB_OK && p->labels_text) status = put_text(path, "labels.json", p->labels_text, err);
    if (status == BB_OK) status = put_text(path, "model_index.json", model_index, err);
    free(bytes);
    return status;
}
