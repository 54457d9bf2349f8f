/* See import.h: checkpoint → graph and weights in the packed file's layout → bytes. */
#include "import/import.h"

#include "base/mathf.h"
#include "import/checkpoint.h"
#include "import/labels.h"
#include "import/scheduler.h"
#include "import/unet2d.h"
#include "make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything one import owns, so that one function frees it whatever failed. */
typedef struct import {
    const bb_import_options *opt;
    bb_error *err;
    bb_checkpoint checkpoint;
    bb_builder builder;
    bb_unet2d_facts facts;
    bb_labels labels;
    bb_json_file scheduler_file;
    bb_schedule schedule;
    bb_weight_ref *refs;    /* [n_weights] */
    bb_tensor_out *tensors; /* [n_tensors]; their data is owned */
    void **data;            /* [n_tensors] */
    uint32_t n_tensors;
    float *pool;
    size_t n_pool;
    bb_blocks blocks;       /* of the LoRAs */
    bb_lora_input *lora_files; bb_lora *loras; uint32_t n_loras;
    const char *lora_text;  /* metadata */
} import;

static void release(import *im)
{
    for (uint32_t i = 0; i < im->n_tensors; i++) free(im->data[i]);
    free(im->refs);
    free(im->tensors);
    free(im->data);
    free(im->pool);
    for (uint32_t i = 0; i < im->n_loras; i++) bb_lora_input_close(&im->lora_files[i]);
    bb_blocks_give(&im->blocks, NULL);
    bb_scheduler_free(&im->schedule);
    bb_json_file_close(&im->scheduler_file);
    bb_labels_free(&im->labels);
    bb_builder_free(&im->builder);
    bb_checkpoint_close(&im->checkpoint);
}

static bb_status out_of_memory(import *im)
{
    return bb_fail(im->err, BB_ERR_SPACE, "%s: out of memory", im->checkpoint.weights.path);
}

/* ---- weights ---- */

static bb_status open_loras(import *im)
{
    const bb_list *list = &im->opt->lora;
    im->blocks.memory = bb_tools_memory;
    im->lora_files = bb_blocks_take(&im->blocks, list->n, sizeof *im->lora_files);
    im->loras = bb_blocks_take(&im->blocks, list->n, sizeof *im->loras);
    if (!im->lora_files || !im->loras) return out_of_memory(im);
    for (uint32_t i = 0; i < list->n; i++) {
        bb_lora_input *in = &im->lora_files[i];
        BB_TRY(bb_lora_input_open(in, list->item[i], im->err));
        im->n_loras++;
        BB_TRY(bb_lora_open(&im->loras[i], &im->builder.graph, &in->lora, &im->blocks, im->err));
        bb_lora_note(in, &im->loras[i].report);
        im->lora_text = bb_lora_metadata(im->lora_text, &in->lora, &im->blocks);
        if (!im->lora_text) return out_of_memory(im);
    }
    return BB_OK;
}

static bb_status fold_loras(import *im, uint32_t slot, float *x)
{
    const bb_weight_slot *w = &im->builder.graph.weights[slot];
    size_t taps = w->rank == 4 ? (size_t)w->dim[2] * w->dim[3] : 1;
    for (uint32_t i = 0; i < im->n_loras; i++) {
        bb_lora_steps steps = {w->dim[1] * taps, taps, 1};
        if (im->loras[i].pairs[slot].down) BB_TRY(bb_lora_add(&im->loras[i], slot, x, steps, &im->blocks, im->err));
    }
    return BB_OK;
}

/* The slot's numbers as f32, row-major in the checkpoint's order; malloc'd. */
static bb_status load(import *im, uint32_t slot, float **out, size_t *count)
{
    const bb_graph *g = &im->builder.graph;
    const bb_weight_slot *w = &g->weights[slot];
    const char *name = bb_graph_string(g, w->name);
    const float *constant = im->builder.constants[slot];
    const bb_tensor *t = NULL;
    *count = 1;
    for (uint32_t i = 0; i < w->rank; i++) *count *= w->dim[i];
    if (!constant) BB_TRY(bb_checkpoint_tensor(&im->checkpoint, name, w->dim, w->rank, &t, im->err));
    float *x = malloc(*count * sizeof *x);
    if (!x) return out_of_memory(im);
    if (constant) memcpy(x, constant, *count * sizeof *x);
    else bb_tensor_to_f32(t, x);
    for (size_t i = 0; i < *count; i++) {
        if (x[i] - x[i] == 0) continue;
        free(x);
        return bb_fail(im->err, BB_ERR_CORRUPT, "%s: tensor %s holds a value that is no finite number: the file "
                       "is damaged, or training had diverged",
                       t ? bb_weights_path(&im->checkpoint.weights, t) : "constants", name);
    }
    *out = x;
    return BB_OK;
}

/* [out][in][taps] → [taps][in][out]; linear layers have one tap. With one out and one in it is a plain copy. */
static float *transposed(const float *x, size_t outs, size_t ins, size_t taps)
{
    float *y = malloc(outs * ins * taps * sizeof *y);
    for (size_t o = 0; y && o < outs; o++) {
        for (size_t i = 0; i < ins; i++) {
            for (size_t t = 0; t < taps; t++) y[(t * ins + i) * outs + o] = x[(o * ins + i) * taps + t];
        }
    }
    return y;
}

/* A malloc'd copy in f16; refuses what f16 cannot hold. */
static bb_status halved(import *im, const char *name, const float *x, size_t n, uint16_t **out)
{
    uint16_t *h = malloc(n * sizeof *h);
    if (!h) return out_of_memory(im);
    for (size_t i = 0; i < n; i++) {
        h[i] = bb_f32_to_f16(x[i]);
        if ((h[i] & 0x7c00) != 0x7c00) continue;
        free(h);
        return bb_fail(im->err, BB_ERR_UNSUPPORTED, "%s: tensor %s holds values too large for f16; use --dtype f32",
                       im->checkpoint.weights.path, name);
    }
    *out = h;
    return BB_OK;
}

/* A matrix in the file's layout (core/pack/pack.h, BB_STORE_TENSOR). x is the checkpoint's order, borrowed. */
static bb_status add_tensor(import *im, const bb_weight_slot *w, const float *x, size_t n, bool is_table)
{
    const char *name = bb_graph_string(&im->builder.graph, w->name);
    size_t taps = w->rank == 4 ? (size_t)w->dim[2] * w->dim[3] : 1;
    bb_tensor_out t = {.name = name, .dtype = im->opt->dtype, .rank = w->rank, .shape = {w->dim[1], w->dim[0]}};
    if (is_table) t.shape[0] = w->dim[0], t.shape[1] = w->dim[1];
    if (w->rank == 4) memcpy(t.shape, (uint32_t[]){w->dim[2], w->dim[3], w->dim[1], w->dim[0]}, sizeof t.shape);
    float *y = is_table ? transposed(x, 1, 1, n) : transposed(x, w->dim[0], w->dim[1], taps);
    if (!y) return out_of_memory(im);
    void *data = y;
    bb_status status = BB_OK;
    if (im->opt->dtype == BB_F16) {
        uint16_t *h = NULL;
        status = halved(im, name, y, n, &h);
        data = h;
        free(y);
    }
    if (status < 0) return status;
    t.data = im->data[im->n_tensors] = data;
    im->tensors[im->n_tensors++] = t;
    return BB_OK;
}

static bool is_table(const bb_graph *g, uint32_t slot)
{
    for (uint32_t i = 0; i < g->n_ops; i++) {
        if (g->ops[i].kind == BB_OP_EMBEDDING && g->ops[i].weight[0] == slot) return true;
    }
    return false;
}

static bb_status add_weight(import *im, uint32_t slot)
{
    const bb_graph *g = &im->builder.graph;
    const bb_weight_slot *w = &g->weights[slot];
    float *x = NULL;
    size_t n = 0;
    BB_TRY(load(im, slot, &x, &n));
    bb_status status = fold_loras(im, slot, x);
    if (w->rank == 1) {
        im->refs[slot] = (bb_weight_ref){BB_STORE_POOL, (uint32_t)im->n_pool};
        memcpy(im->pool + im->n_pool, x, n * sizeof *x);
        im->n_pool += n;
    } else if (status == BB_OK) {
        im->refs[slot] = (bb_weight_ref){BB_STORE_TENSOR, 0};
        status = add_tensor(im, w, x, n, is_table(g, slot));
    }
    free(x);
    return status;
}

static bb_status add_weights(import *im)
{
    const bb_graph *g = &im->builder.graph;
    size_t vectors = 1;
    for (uint32_t i = 0; i < g->n_weights; i++) vectors += g->weights[i].rank == 1 ? g->weights[i].dim[0] : 0;
    im->refs = calloc(g->n_weights + 1, sizeof *im->refs);
    im->tensors = calloc(g->n_weights + 1, sizeof *im->tensors);
    im->data = calloc(g->n_weights + 1, sizeof *im->data);
    im->pool = calloc(vectors, sizeof *im->pool);
    if (!im->refs || !im->tensors || !im->data || !im->pool) return out_of_memory(im);
    for (uint32_t i = 0; i < g->n_weights; i++) BB_TRY(add_weight(im, i));
    return bb_checkpoint_finish(&im->checkpoint, im->err);
}

/* ---- the whole ---- */

static bb_status build(import *im)
{
    bb_checkpoint *ck = &im->checkpoint;
    bb_config c = bb_config_init(&ck->config.json, 0, ck->config_path, "UNet2DModel", im->err);
    bb_builder_init(&im->builder, "denoiser", im->err);
    BB_TRY(bb_unet2d_build(&im->builder, &c, &im->facts));
    return bb_builder_finish(&im->builder);
}

static bb_status read_scheduler(import *im)
{
    const char *path = im->checkpoint.scheduler_path;
    if (!*path) return bb_scheduler_read(&im->schedule, NULL, BB_JSON_NONE, "defaults", im->err);
    BB_TRY(bb_json_file_open(&im->scheduler_file, path, im->err));
    return bb_scheduler_read(&im->schedule, &im->scheduler_file.json, 0, path, im->err);
}

/* The samplers take a prediction of the picture's own channels, or followed by as many of a learned variance. */
static bb_status check_channels(import *im)
{
    uint32_t in = im->facts.channels, out = im->facts.out_channels;
    bool learned = im->schedule.variance >= BB_VARIANCE_LEARNED;
    if (out == in || (learned && out == 2 * in)) return BB_OK;
    return bb_fail(im->err, BB_ERR_UNSUPPORTED, "%s: \"out_channels\" is %u; supported: %u like in_channels, or %u "
                   "if the scheduler's variance_type is learned", im->checkpoint.config_path, out, in, 2 * in);
}

static bb_status write_pack(import *im, uint8_t **out, size_t *out_size)
{
    const bb_checkpoint *ck = &im->checkpoint;
    char sha[65];
    BB_TRY(bb_weights_sha256(&ck->weights, sha, im->err));
    bb_meta_out meta[8];
    uint32_t n = 0;
    meta[n++] = (bb_meta_out){"architecture", "UNet2DModel"};
    if (im->labels.names) meta[n++] = (bb_meta_out){"labels", im->labels.names};
    if (*ck->licence) meta[n++] = (bb_meta_out){"licence", ck->licence};
    meta[n++] = (bb_meta_out){"source", ck->source};
    meta[n++] = (bb_meta_out){"source_sha256", sha};
    if (im->lora_text) meta[n++] = (bb_meta_out){"lora", im->lora_text};
    if (im->opt->command) meta[n++] = (bb_meta_out){"command", im->opt->command};
    bb_pack_out p = {.graph = &im->builder.graph, .refs = im->refs, .tensors = im->tensors, .n_tensors = im->n_tensors,
                     .f32 = im->pool, .n_f32 = (uint32_t)im->n_pool, .schedule = &im->schedule, .meta = meta,
                     .n_meta = n};
    p.info = (bb_info){.width = im->facts.width, .height = im->facts.height,
                       .channels = im->facts.channels, .classes = im->facts.classes,
                       .null_label = im->labels.null_label, .train_steps = im->schedule.train_steps,
                       .bits_milli = im->opt->dtype == BB_F16 ? 16000 : 32000};
    return bb_make_file(&p, out, out_size, im->err);
}

static bb_status run(import *im, uint8_t **out, size_t *out_size)
{
    const bb_import_options *o = im->opt;
    BB_TRY(build(im));
    BB_TRY(bb_labels_read(&im->labels, o->labels ? o->labels : im->checkpoint.labels_path, o->null_label,
                          im->facts.classes, im->err));
    BB_TRY(read_scheduler(im));
    BB_TRY(check_channels(im));
    BB_TRY(open_loras(im));
    BB_TRY(add_weights(im));
    return write_pack(im, out, out_size);
}

bb_status bb_import(const bb_import_options *opt, uint8_t **out, size_t *out_size, bb_error *err)
{
    import im = {.opt = opt, .err = err};
    *out = NULL;
    *out_size = 0;
    BB_ASSERT(opt->dtype == BB_F32 || opt->dtype == BB_F16);
    BB_TRY(bb_checkpoint_open(&im.checkpoint, opt->path, err));
    bb_status status = run(&im, out, out_size);
    const bb_weights *w = &im.checkpoint.weights;
    if (status == BB_OK && w->unused) fprintf(stderr, "bitbrush: %s read; %s not\n", w->path, w->unused);
    release(&im);
    return status;
}
