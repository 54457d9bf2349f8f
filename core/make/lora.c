/* See lora.h. */
#include "make/lora.h"

#include "base/mathf.h"
#include "base/sha256.h"
#include "make/make.h"

#include <float.h>

static bb_status bad(const bb_lora *l, const char *tensor, bb_status status, const char *what, bb_error *err)
{
    return bb_fail(err, status, "%s: tensor %s: %s", l->file->name, tensor, what);
}

static const char *slot_name(const bb_lora *l, uint32_t slot)
{
    return bb_graph_string(l->graph, l->graph->weights[slot].name);
}

/* ---- every tensor to its layer ---- */

static bool of_ldm(const char *module)
{
    static const char *const starts[] = {"input_blocks", "output_blocks", "middle_block", "diffusion_model",
                                         "model.diffusion_model"};
    for (size_t i = 0; i < BB_COUNT(starts); i++) {
        size_t k = 0;
        while (starts[i][k] && module[k] == starts[i][k]) k++;
        if (!starts[i][k]) return true;
    }
    return false;
}

static bb_status no_such_layer(const bb_lora *l, const bb_lora_names *names, const char *tensor, const bb_lora_key *key,
                               bb_error *err)
{
    if (of_ldm(key->module))
        return bad(l, tensor, BB_ERR_UNSUPPORTED, "the blocks are named as in the LDM code; load it with diffusers and "
                   "save it again (save_lora_weights)", err);
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor %s: the model has no layer %s (its layers have names such as "
                   "%s); the LoRA belongs to another model", l->file->name, tensor, key->module,
                   names->n ? slot_name(l, names->slot[0]) : "none");
}

static bb_status place(bb_lora *l, const bb_lora_names *names, const bb_st_tensor *t, bb_error *err)
{
    bb_lora_key key;
    bb_lora_key_read(&key, t->name);
    if (key.role == BB_LORA_ELSE) {
        l->report.skipped++;
        return BB_OK;
    }
    if (key.role == BB_LORA_METHOD)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor %s: %s is not supported, only LoRA of convolutions and "
                       "linear layers; merge it into the checkpoint first (peft: merge_and_unload) and use that",
                       l->file->name, t->name, key.method);
    if (key.role == BB_LORA_UNKNOWN)
        return bad(l, t->name, BB_ERR_UNSUPPORTED, "not a name that peft, diffusers or kohya give to a part of a LoRA "
                   "(such as lora_A.weight, lora.down.weight, lora_down.weight, alpha)", err);
    uint32_t slot = bb_lora_names_find(names, &key);
    if (slot == BB_NONE) return no_such_layer(l, names, t->name, &key, err);
    bb_lora_pair *p = &l->pairs[slot];
    const bb_st_tensor **half = key.role == BB_LORA_DOWN ? &p->down : key.role == BB_LORA_UP ? &p->up : &p->alpha;
    if (*half)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensors %s and %s are for the same layer: the file holds more "
                       "than one LoRA", l->file->name, (*half)->name, t->name);
    *half = t;
    return BB_OK;
}

/* ---- checks ---- */

static uint64_t dim(const bb_st_tensor *t, uint32_t i) { return i < t->rank ? t->shape[i] : 1; }

/* [a, b] or [a, b, kh, kw]; a linear layer may be stored as a 1×1 convolution, and the reverse. */
static bool has_shape(const bb_st_tensor *t, uint64_t a, uint64_t b, uint64_t kh, uint64_t kw)
{
    return (t->rank == 2 || t->rank == 4) && dim(t, 0) == a && dim(t, 1) == b && dim(t, 2) == kh && dim(t, 3) == kw;
}

static bb_status check_shapes(const bb_lora *l, uint32_t slot, bb_error *err)
{
    const bb_lora_pair *p = &l->pairs[slot];
    const bb_weight_slot *w = &l->graph->weights[slot];
    uint64_t kh = w->rank == 4 ? w->dim[2] : 1, kw = w->rank == 4 ? w->dim[3] : 1, rank = dim(p->down, 0);
    if (p->down->count && p->up->count && has_shape(p->down, rank, w->dim[1], kh, kw) &&
        has_shape(p->up, w->dim[0], rank, 1, 1))
        return BB_OK;
    char a[192], b[192], c[96];
    uint64_t want[4] = {w->dim[0], w->dim[1], kh, kw};
    bb_st_shape_text(a, sizeof a, p->down->shape, p->down->rank);
    bb_st_shape_text(b, sizeof b, p->up->shape, p->up->rank);
    bb_st_shape_text(c, sizeof c, want, w->rank);
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensors %s %s and %s %s do not make a change of %s %s",
                   l->file->name, p->down->name, a, p->up->name, b, slot_name(l, slot), c);
}

static bool is_finite(double x) { return x - x == 0; }

static bb_status read_scale(bb_lora *l, const bb_lora_config *config, uint32_t slot, bb_error *err)
{
    bb_lora_pair *p = &l->pairs[slot];
    uint64_t rank = dim(p->down, 0);
    char module[256];
    size_t n = bb_format(module, sizeof module, "%s", slot_name(l, slot));
    module[n > 7 ? n - 7 : n] = 0; /* ".weight" */
    if (p->alpha) {
        float alpha = 0;
        if (p->alpha->count != 1) return bad(l, p->alpha->name, BB_ERR_CORRUPT, "alpha must be one number", err);
        bb_st_to_f32(p->alpha, &alpha);
        p->scale = (double)alpha / (double)rank;
    } else {
        BB_TRY(bb_lora_config_scale(config, module, rank, &p->scale, err));
    }
    p->scale *= (double)l->file->scale;
    return is_finite(p->scale) ? BB_OK : bad(l, p->down->name, BB_ERR_CORRUPT, "alpha is no finite number", err);
}

static bb_status check_pair(bb_lora *l, const bb_lora_config *config, uint32_t slot, bb_error *err)
{
    const bb_lora_pair *p = &l->pairs[slot];
    const bb_st_tensor *any = p->down ? p->down : p->up ? p->up : p->alpha;
    if (!any) return BB_OK;
    if (!p->down || !p->up)
        return bb_fail(err, BB_ERR_CORRUPT, "%s: tensor %s: its other half (%s) is missing", l->file->name, any->name,
                       p->down ? "lora_B or up" : "lora_A or down");
    if (p->down->dtype > BB_ST_BF16 || p->up->dtype > BB_ST_BF16)
        return bad(l, any->name, BB_ERR_UNSUPPORTED, "LoRA weights must be F32, F16 or BF16", err);
    BB_TRY(check_shapes(l, slot, err));
    l->report.layers++;
    return read_scale(l, config, slot, err);
}

bb_status bb_lora_open(bb_lora *l, const bb_graph *g, const bb_lora_file *file, bb_blocks *blocks, bb_error *err)
{
    size_t bytes;
    bb_lora_names names;
    bb_lora_config config;
    *l = (bb_lora){.file = file, .graph = g};
    if (!is_finite(file->scale)) return bb_fail(err, BB_ERR_OPTION, "%s: the scale is no finite number", file->name);
    BB_TRY(bb_safetensors_memory(file->data, file->bytes, file->name, &bytes, err));
    void *memory = bb_blocks_take(blocks, bytes, 1);
    l->pairs = bb_blocks_take(blocks, g->n_weights, sizeof *l->pairs);
    if (!memory || !l->pairs) return bb_out_of_memory(err, file->name);
    BB_TRY(bb_safetensors_parse(&l->st, file->data, file->bytes, file->name, memory, bytes, err));
    BB_TRY(bb_lora_names_init(&names, g, blocks, err));
    BB_TRY(bb_lora_config_read(&config, file, &l->st, blocks, err));
    for (size_t i = 0; i < l->st.n; i++) BB_TRY(place(l, &names, &l->st.tensors[i], err));
    for (uint32_t slot = 0; slot < g->n_weights; slot++) BB_TRY(check_pair(l, &config, slot, err));
    if (l->report.layers) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: none of its %z tensors is for this model%s", file->name, l->st.n,
                   l->report.skipped ? ": they are for a text encoder" : "");
}

/* ---- the sum ---- */

static bb_status to_finite(const bb_lora *l, const bb_st_tensor *t, float *x, bb_error *err)
{
    bb_st_to_f32(t, x);
    for (size_t i = 0; i < t->count; i++) {
        if (!is_finite(x[i]))
            return bad(l, t->name, BB_ERR_CORRUPT, "holds a value that is no finite number", err);
    }
    return BB_OK;
}

/* Sums in double, r ascending, rounded once at the end. */
static bb_status add(const bb_lora *l, uint32_t slot, float *w, bb_lora_steps s, bb_blocks *blocks, bb_error *err)
{
    const bb_lora_pair *p = &l->pairs[slot];
    size_t rank = (size_t)p->down->shape[0], outs = (size_t)p->up->shape[0], ins = (size_t)p->down->shape[1];
    size_t k = p->down->count / rank, taps = k / ins;
    float *a = bb_blocks_take(blocks, p->down->count, sizeof *a), *b = bb_blocks_take(blocks, p->up->count, sizeof *b);
    double *sum = bb_blocks_take(blocks, k, sizeof *sum);
    if (!a || !b || !sum) return bb_out_of_memory(err, l->file->name);
    BB_TRY(to_finite(l, p->down, a, err));
    BB_TRY(to_finite(l, p->up, b, err));
    for (size_t o = 0; o < outs; o++) {
        memset(sum, 0, k * sizeof *sum);
        for (size_t r = 0; r < rank; r++) {
            for (size_t x = 0; x < k; x++) sum[x] += (double)b[o * rank + r] * (double)a[r * k + x];
        }
        for (size_t x = 0; x < k; x++) {
            float *at = w + o * s.out + x / taps * s.in + x % taps * s.tap;
            double y = (double)*at + p->scale * sum[x];
            if (!(y <= (double)FLT_MAX && y >= -(double)FLT_MAX))
                return bad(l, p->up->name, BB_ERR_UNSUPPORTED, "the sum of weight and change is too large", err);
            *at = (float)y;
        }
    }
    return BB_OK;
}

bb_status bb_lora_add(const bb_lora *l, uint32_t slot, float *w, bb_lora_steps steps, bb_blocks *blocks, bb_error *err)
{
    bb_block *before = blocks->last;
    bb_status status = add(l, slot, w, steps, blocks, err);
    bb_blocks_give(blocks, before);
    return status;
}

/* The slot's matrix as f32 in memory that may be written to; NULL if there is none. */
static float *own_copy(const bb_pack *pack, bb_weight *weights, uint32_t slot, bb_blocks *blocks)
{
    const bb_weight_slot *s = &pack->graph.weights[slot];
    bb_weight *w = &weights[slot];
    size_t rows = s->rank == 4 ? (size_t)s->dim[1] * s->dim[2] * s->dim[3] : s->dim[1], n = rows * w->stride;
    if (w->f32 && w->f32 != pack->weights[slot].f32) return (float *)(uintptr_t)w->f32; /* of a LoRA before */
    float *copy = bb_blocks_take(blocks, n, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++) copy[i] = w->f32 ? w->f32[i] : bb_f16_to_f32(w->f16[i]);
    if (copy) *w = (bb_weight){.f32 = copy, .stride = w->stride};
    return copy;
}

bb_status bb_lora_fold(const bb_pack *pack, bb_weight *weights, const bb_lora_file *file, bb_blocks *blocks,
                       bb_lora_report *report, bb_error *err)
{
    bb_lora l;
    if (pack->n_layers)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: the model is quantized already, and a LoRA must be folded in "
                       "before: bitbrush quantize CHECKPOINT --lora FILE", file->name);
    BB_TRY(bb_lora_open(&l, &pack->graph, file, blocks, err));
    for (uint32_t slot = 0; slot < pack->graph.n_weights; slot++) {
        if (!l.pairs[slot].down) continue;
        float *w = own_copy(pack, weights, slot, blocks);
        if (!w) return bb_out_of_memory(err, file->name);
        size_t row = weights[slot].stride;
        bb_lora_steps steps = {1, row, row * pack->graph.weights[slot].dim[1]};
        BB_TRY(bb_lora_add(&l, slot, w, steps, blocks, err));
    }
    if (report) *report = l.report;
    return BB_OK;
}

/* ---- metadata ---- */

static size_t put_json(char *out, const char *s)
{
    size_t n = 0;
    out[n++] = '"';
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') out[n++] = '\\';
        out[n++] = (unsigned char)*s < 0x20 ? '?' : *s;
    }
    out[n++] = '"';
    return n;
}

/* The shortest decimal of up to 9 places that is the same f32. */
static size_t put_number(char *out, size_t size, float x)
{
    double m = x < 0 ? -(double)x : (double)x, power = 1;
    uint32_t places = 0;
    while (places < 9 && m < 1e6 && (float)((double)(uint64_t)(m * power + 0.5) / power) != (float)m) {
        power *= 10;
        places++;
    }
    uint64_t digits = m < 1e15 ? (uint64_t)(m * power + 0.5) : 0, whole = digits / (uint64_t)power;
    size_t n = bb_format(out, size, "%s%l", x < 0 ? "-" : "", whole);
    if (places) n += bb_format(out + n, size - n, ".");
    for (uint64_t rest = digits % (uint64_t)power, unit = (uint64_t)power / 10; unit; unit /= 10) {
        n += bb_format(out + n, size - n, "%u", (uint32_t)(rest / unit % 10));
    }
    return n;
}

const char *bb_lora_metadata(const char *old, const bb_lora_file *file, bb_blocks *blocks)
{
    char sha[65];
    size_t before = 0, name = 0, n;
    while (old && old[before]) before++;
    while (file->name[name]) name++;
    const char *base = file->name;
    for (const char *c = base; *c; c++) {
        if (*c == '/') base = c + 1; /* of a path the last part only, as in "command" */
    }
    char *out = bb_blocks_take(blocks, before + 2 * name + 192, 1);
    if (!out) return NULL;
    bb_sha256(file->data, file->bytes, sha);
    bool more = before > 2 && old[0] == '[' && old[before - 1] == ']';
    n = more ? bb_format(out, before, "%s", old) : bb_format(out, 2, "["); /* cuts the ']' */
    n += bb_format(out + n, 16, "%s{\"file\":", more ? "," : "");
    n += put_json(out + n, base);
    n += bb_format(out + n, 16, ",\"scale\":");
    n += put_number(out + n, 48, file->scale);
    bb_format(out + n, 96, ",\"sha256\":\"%s\"}]", sha);
    return out;
}
