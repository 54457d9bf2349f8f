/* The model of models/tiny.safetensors: a denoiser of no use and every feature, built with the packed file's own writer
 * from Philox bits. Its shapes are odd on purpose: 3 channels, 13×11 pixels, channel counts that are no multiples of 8,
 * planes of 1, 2, 3, 4 and 8 bits in one layer, ladders with negative multipliers, step tables of 1 to 5 rows.
 * Gains and ranges are chosen so that values stay near ±3 and codes use their range.
 * Only + − × ÷ √ and core's own functions: the same bytes everywhere (-ffp-contract=off). */
#ifndef BB_TESTS_TINY_H
#define BB_TESTS_TINY_H

#include "base/mathf.h"
#include "base/rng.h"
#include "memmodel.h"

enum { TINY_HEIGHT = 13, TINY_WIDTH = 11, TINY_SEED = 20, TINY_TENSORS = 8192, TINY_ROWS = 1024 };

typedef struct tiny {
    memmodel m;
    bb_op *op; /* the last one made */
    uint64_t drawn;
    double bits, weights; /* of conv and linear weights, for bits_milli */
    bb_layer_rec layers[MM_SLOTS];
    bb_quantizer_rec quantizers[MM_SLOTS];
    float delta[TINY_ROWS], inv_s[256], step_key[64], step_delta[128];
    int16_t offset[TINY_ROWS], multiplier[TINY_ROWS * 8];
    uint16_t perm[TINY_ROWS], halves[TINY_TENSORS];
    float floats[TINY_TENSORS];
    uint32_t n_floats, n_halves;
    uint8_t step_zero[128];
    uint8_t *planes[MM_SLOTS];
    bb_meta_out meta[8];
} tiny;

static double tiny_uniform(tiny *t, double low, double high)
{
    return low + (high - low) * bb_uniform(TINY_SEED, BB_STREAM_TOOLS, t->drawn++);
}

static int tiny_between(tiny *t, int low, int high) { return low + (int)tiny_uniform(t, 0, high - low + 1); }

static uint32_t tiny_node(tiny *t, uint32_t kind, uint32_t a, uint32_t b, uint32_t c, const char *path)
{
    uint32_t value;
    t->op = mm_op(&t->m, kind, a, b, c, &value);
    if (path) t->op->path = t->m.values[value].path = mm_string(&t->m, path);
    return value;
}

static uint32_t tiny_vector(tiny *t, const char *name, uint32_t n, double low, double high)
{
    float v[64];
    for (uint32_t i = 0; i < n; i++) v[i] = (float)tiny_uniform(t, low, high);
    return mm_vector(&t->m, name, v, n);
}

static void tiny_name(char out[96], const char *module, const char *what)
{
    snprintf(out, 96, "%s.%s", module, what);
}

static uint32_t tiny_norm(tiny *t, uint32_t x, const char *path, uint32_t channels, uint32_t groups, float eps)
{
    char name[96];
    uint32_t y = tiny_node(t, BB_OP_GROUP_NORM, x, BB_NONE, BB_NONE, path);
    t->op->norm.groups = groups, t->op->norm.eps = eps;
    tiny_name(name, path, "weight"), t->op->weight[0] = tiny_vector(t, name, channels, 0.6, 1.4);
    tiny_name(name, path, "bias"), t->op->weight[1] = tiny_vector(t, name, channels, -0.3, 0.3);
    return y;
}

static uint32_t tiny_silu(tiny *t, uint32_t x, const char *path)
{
    return tiny_node(t, BB_OP_SILU, x, BB_NONE, BB_NONE, path);
}

/* An unquantized matrix [in][out] of a linear, or [rows][columns] of an embedding. */
static uint32_t tiny_matrix(tiny *t, const char *name, uint32_t dtype, uint32_t rows, uint32_t columns, bool linear,
                            double gain)
{
    uint32_t n = rows * columns, shape[2] = {rows, columns};
    uint32_t dim[2] = {linear ? columns : rows, linear ? rows : columns};
    float *f = t->floats + t->n_floats;
    uint16_t *h = t->halves + t->n_halves;
    for (uint32_t i = 0; i < n; i++) {
        float w = (float)tiny_uniform(t, -gain, gain);
        if (dtype == BB_F16) h[i] = bb_f32_to_f16(w); else f[i] = w;
    }
    if (dtype == BB_F16) t->n_halves += n; else t->n_floats += n;
    if (linear) t->weights += n, t->bits += n * (dtype == BB_F16 ? 16.0 : 32.0);
    uint32_t slot = mm_slot(&t->m, name, 2, dim, BB_STORE_TENSOR, 0);
    mm_tensor(&t->m, t->m.strings + t->m.slots[slot].name, dtype, 2, shape,
              dtype == BB_F16 ? (const void *)h : (const void *)f);
    return slot;
}

static uint32_t tiny_float_linear(tiny *t, uint32_t x, const char *path, uint32_t dtype, uint32_t in, uint32_t out)
{
    char name[96];
    uint32_t y = tiny_node(t, BB_OP_LINEAR, x, BB_NONE, BB_NONE, path);
    bb_op *op = t->op;
    tiny_name(name, path, "weight"), op->weight[0] = tiny_matrix(t, name, dtype, in, out, true, 1.5 / bb_sqrt(in));
    tiny_name(name, path, "bias"), op->weight[1] = tiny_vector(t, name, out, -0.2, 0.2);
    return y;
}

/* ---- quantized layers ---- */

/* Input of c channels, or of two segments of c and c2; its range is before smoothing. Keys and their midpoints are
 * whole timesteps, so ties can be met; each row and segment has another scale. */
static uint32_t tiny_quantizer(tiny *t, uint32_t bits, uint32_t c, uint32_t c2, uint32_t rows, double low, double high,
                               bool smooth)
{
    bb_pack_out *out = &t->m.out;
    double levels = (double)((1u << bits) - 1);
    t->quantizers[out->n_quantizers] = (bb_quantizer_rec){
        .kind = BB_QUANTIZER_STATIC, .bits = bits, .segments = c2 ? 2 : 1, .seg_channels = {c, c2}, .rows = rows,
        .key_at = out->n_step_key, .step_at = out->n_step, .inv_s_at = smooth ? out->n_inv_s : BB_NONE};
    for (uint32_t r = 0; r < rows; r++) {
        t->step_key[out->n_step_key++] = (float)(rows == 1 ? 500 : 980 - 960 / (rows - 1) / 2 * 2 * r);
        for (uint32_t g = 0; g < (c2 ? 2 : 1); g++, out->n_step++) {
            double delta = (high - low) / levels * (1 + 0.06 * r + 0.1 * g);
            t->step_delta[out->n_step] = (float)delta;
            t->step_zero[out->n_step] = (uint8_t)(-low / delta + 0.5);
        }
    }
    for (uint32_t i = 0; smooth && i < c + c2; i++) t->inv_s[out->n_inv_s++] = (float)tiny_uniform(t, 0.6, 1.25);
    return out->n_quantizers++;
}

typedef struct tiny_width { uint32_t planes, outputs; bool ladder; } tiny_width; /* ladders: in all classes or none */

typedef struct tiny_layer {
    const char *path;
    uint32_t x, quantizer, kernel; /* kernel 0: linear */
    uint32_t stride, top, left, bottom, right;
    tiny_width width[5];
    double gain;
    bool permuted, no_bias, groups; /* permuted: by single outputs, or by groups of 8 */
} tiny_layer;

/* Multipliers of one row: a base of planes u, 2u, 4u, …, then residual branches ±α as planes of ±2α, every second one
 * negative; their sum stays below 128. Returns the offset that centres the weights, and their variance. */
static int tiny_row(tiny *t, tiny_width w, int16_t multiplier[8], double *variance)
{
    uint32_t base = w.ladder ? (w.planes + 1) / 2 : w.planes;
    int sum = 0, unit = w.ladder ? tiny_between(t, 2, 5) : 1;
    *variance = 0;
    for (uint32_t p = 0; p < w.planes; p++) {
        int m = p < base ? unit << p : 2 * tiny_between(t, 1, 4) * (p % 2 ? -1 : 1);
        multiplier[p] = (int16_t)m;
        sum += m;
        *variance += m * m / 4.0;
    }
    return w.planes == 8 && !w.ladder ? -128 : -(sum + tiny_between(t, 0, 1)) / 2;
}

/* One class: rows into the pools in tiles of 16, padding rows legal and of no effect; planes are random bits. */
static uint8_t *tiny_class(tiny *t, tiny_width w, uint32_t blocks, double scale, const uint16_t *outputs, uint8_t *at)
{
    bb_pack_out *out = &t->m.out;
    uint32_t rows = (w.outputs + BB_TILE - 1) / BB_TILE * BB_TILE;
    for (uint32_t row = 0; row < rows; row++, out->n_rows++) {
        int16_t multiplier[8];
        double variance;
        int16_t offset = (int16_t)tiny_row(t, w, multiplier, &variance);
        bool used = row < w.outputs;
        t->offset[out->n_rows] = offset;
        t->delta[out->n_rows] = used ? (float)(scale / bb_sqrt(variance) * tiny_uniform(t, 0.7, 1.3)) : 0;
        if (outputs) t->perm[out->n_perm++] = used ? outputs[row] : 65535;
        uint32_t tile = out->n_multiplier + row / BB_TILE * w.planes * BB_TILE + row % BB_TILE;
        for (uint32_t p = 0; w.ladder && p < w.planes; p++) t->multiplier[tile + p * BB_TILE] = multiplier[p];
    }
    if (w.ladder) out->n_multiplier += rows * w.planes;
    for (uint32_t i = 0; i < rows * blocks * w.planes; i++) *at++ = (uint8_t)tiny_between(t, 0, 255);
    return at;
}

static void tiny_shuffle(tiny *t, uint16_t *outputs, uint32_t n, bool permuted)
{
    for (uint32_t i = 0; i < n; i++) outputs[i] = (uint16_t)i;
    for (uint32_t i = n; permuted && i > 1; i--) {
        uint32_t other = (uint32_t)tiny_between(t, 0, (int)i - 1);
        uint16_t o = outputs[i - 1];
        outputs[i - 1] = outputs[other];
        outputs[other] = o;
    }
}

/* Fills the record, the pools and the planes of layer n_layers; the slot is the next one. */
static void tiny_pack(tiny *t, const tiny_layer *l, bb_layer_rec *rec, uint32_t bytes_at_most, uint32_t *bytes)
{
    bb_pack_out *out = &t->m.out;
    const bb_quantizer_rec *q = &t->quantizers[l->quantizer];
    uint16_t outputs[64];
    uint32_t blocks = 0, first = 0;
    for (uint32_t g = 0; g < q->segments; g++) blocks += (q->seg_channels[g] + 7) / 8 * rec->taps;
    double scale = l->gain / bb_sqrt(rec->taps * rec->channels);
    tiny_shuffle(t, outputs, rec->outputs, l->permuted && !l->groups);
    for (uint32_t i = 0; l->groups && i < rec->outputs; i++)
        outputs[i] = (uint16_t)(rec->outputs - 8 - i / 8 * 8 + i % 8);
    uint8_t *start = t->planes[out->n_layers] = malloc(bytes_at_most), *at = start;
    for (uint32_t k = 0; k < rec->n_classes; k++) {
        tiny_width w = l->width[k];
        rec->class_planes[k] = w.planes, rec->class_rows[k] = w.outputs;
        t->bits += (double)w.planes * w.outputs * rec->taps * rec->channels;
        at = tiny_class(t, w, blocks, scale, l->permuted ? outputs + first : NULL, at);
        first += w.outputs;
    }
    t->weights += (double)rec->outputs * rec->taps * rec->channels;
    *bytes = (uint32_t)(at - start);
}

/* A quantized conv (kernel > 0) or linear. */
static uint32_t tiny_quantized(tiny *t, tiny_layer l)
{
    char name[96];
    memmodel *m = &t->m;
    const bb_quantizer_rec *q = &t->quantizers[l.quantizer];
    bb_layer_rec *rec = &t->layers[m->out.n_layers];
    uint32_t y = tiny_node(t, l.kernel ? BB_OP_CONV2D : BB_OP_LINEAR, l.x, BB_NONE, BB_NONE, l.path), bytes;
    bb_op *op = t->op;
    *rec = (bb_layer_rec){.weight = m->graph.n_weights, .quantizer = l.quantizer,
                          .taps = l.kernel ? l.kernel * l.kernel : 1, .row_at = m->out.n_rows,
                          .multiplier_at = l.width[0].ladder ? m->out.n_multiplier : BB_NONE,
                          .perm_at = l.permuted ? m->out.n_perm : BB_NONE};
    for (uint32_t g = 0; g < q->segments; g++) rec->channels += q->seg_channels[g];
    while (rec->n_classes < BB_COUNT(l.width) && l.width[rec->n_classes].planes)
        rec->outputs += l.width[rec->n_classes++].outputs;
    tiny_pack(t, &l, rec, 1u << 16, &bytes);
    uint32_t dim[4] = {rec->outputs, rec->channels, l.kernel, l.kernel};
    tiny_name(name, l.path, "weight");
    op->weight[0] = mm_slot(m, name, l.kernel ? 4 : 2, dim, BB_STORE_LAYER, m->out.n_layers);
    mm_tensor(m, m->strings + m->slots[op->weight[0]].name, BB_U8, 1, &bytes, t->planes[m->out.n_layers++]);
    tiny_name(name, l.path, "bias");
    if (!l.no_bias) op->weight[1] = tiny_vector(t, name, rec->outputs, -0.2, 0.2);
    if (l.kernel) {
        op->conv.kh = op->conv.kw = l.kernel, op->conv.stride = l.stride ? l.stride : 1;
        op->conv.top = l.top, op->conv.left = l.left, op->conv.bottom = l.bottom, op->conv.right = l.right;
    }
    return y;
}

static tiny_layer tiny_conv3(const char *path, uint32_t x, uint32_t quantizer, double gain)
{
    return (tiny_layer){.path = path, .x = x, .quantizer = quantizer, .gain = gain, .kernel = 3, .top = 1, .left = 1,
                        .bottom = 1, .right = 1};
}

/* A linear, or a 1×1 convolution, of one width class. */
static tiny_layer tiny_point(const char *path, uint32_t x, uint32_t quantizer, double gain, uint32_t kernel,
                             tiny_width width)
{
    return (tiny_layer){.path = path, .x = x, .quantizer = quantizer, .gain = gain, .kernel = kernel, .width = {width}};
}

/* ---- the network ---- */

/* Sine and cosine of the timestep, two linears (quantized at 8 bits, f16), plus the class: [B,1,1,24]. */
static uint32_t tiny_embedding(tiny *t, uint32_t timestep, uint32_t label)
{
    float f[8];
    for (int i = 0; i < 8; i++) f[i] = (float)bb_exp(-bb_log(10000.0) * i / 8);
    uint32_t x = tiny_node(t, BB_OP_TIMESTEP_EMBEDDING, timestep, BB_NONE, BB_NONE, "time_proj");
    t->op->timestep.cos_first = 1, t->op->weight[0] = mm_vector(&t->m, "time_proj.frequencies", f, 8);
    uint32_t q = tiny_quantizer(t, 8, 16, 0, 1, -1, 1, false);
    x = tiny_quantized(t, tiny_point("time_embedding.linear_1", x, q, 1.6, 0, (tiny_width){8, 24, false}));
    x = tiny_float_linear(t, tiny_silu(t, x, NULL), "time_embedding.linear_2", BB_F16, 24, 24);
    uint32_t row = tiny_node(t, BB_OP_EMBEDDING, label, BB_NONE, BB_NONE, "class_embedding");
    t->op->weight[0] = tiny_matrix(t, "class_embedding.weight", BB_F32, 5, 24, false, 2);
    return tiny_silu(t, tiny_node(t, BB_OP_ADD, x, row, BB_NONE, "emb"), "emb.act");
}

/* The residual block at full size, 12 → 20 channels, with the time added between its convolutions. */
static uint32_t tiny_down(tiny *t, uint32_t x, uint32_t emb, uint32_t q_emb)
{
    uint32_t h = tiny_silu(t, tiny_norm(t, x, "down.norm1", 12, 4, 1e-5f), "down.act1");
    uint32_t q = tiny_quantizer(t, 8, 12, 0, 5, -0.3, 3, true);
    tiny_layer l = tiny_conv3("down.conv1", h, q, 1.8);
    static const tiny_width widths[] = {{8, 3, false}, {4, 6, false}, {3, 4, false}, {2, 4, false}, {1, 3, false}};
    memcpy(l.width, widths, sizeof widths);
    l.permuted = true;
    h = tiny_quantized(t, l);
    l = tiny_point("down.time_emb_proj", emb, q_emb, 1.5, 0, (tiny_width){4, 20, true});
    h = tiny_node(t, BB_OP_ADD, h, tiny_quantized(t, l), BB_NONE, "down.add");
    h = tiny_silu(t, tiny_norm(t, h, "down.norm2", 20, 5, 1e-3f), "down.act2");
    q = tiny_quantizer(t, 6, 20, 0, 2, 0, 2.8, false);
    l = tiny_conv3("down.conv2", h, q, 1.5);
    memcpy(l.width, (tiny_width[]){{7, 5, true}, {8, 2, true}, {5, 13, true}}, 3 * sizeof *l.width);
    l.permuted = true;
    h = tiny_quantized(t, l);
    q = tiny_quantizer(t, 8, 12, 0, 1, -4, 4, false);
    l = tiny_point("down.conv_shortcut", x, q, 1, 1, (tiny_width){8, 20, false});
    h = tiny_node(t, BB_OP_ADD, tiny_quantized(t, l), h, BB_NONE, NULL);
    h = tiny_node(t, BB_OP_AFFINE, h, BB_NONE, BB_NONE, "down");
    t->op->affine.mul = 0.7f, t->op->affine.add = 0.05f;
    return h;
}

/* Half size: a convolution with padding below and right only, attention, and a modulation by the embedding. */
static uint32_t tiny_middle(tiny *t, uint32_t x, uint32_t emb, uint32_t q_emb)
{
    static const char *const names[3] = {"mid.attn.to_q", "mid.attn.to_k", "mid.attn.to_v"};
    static const uint32_t planes[3] = {4, 3, 6};
    uint32_t q = tiny_quantizer(t, 4, 20, 0, 3, -2.5, 3, false);
    tiny_layer l = {.path = "mid.downsample", .x = x, .quantizer = q, .kernel = 3, .stride = 2, .bottom = 1, .right = 1,
                    .width = {{3, 16, false}}, .gain = 1.3, .no_bias = true};
    uint32_t skip = tiny_quantized(t, l), qkv[3];
    uint32_t h = tiny_norm(t, skip, "mid.attn.group_norm", 16, 4, 1e-5f);
    q = tiny_quantizer(t, 6, 16, 0, 4, -3, 3, true);
    for (int i = 0; i < 3; i++) {
        l = tiny_point(names[i], h, q, 1.6, 0, (tiny_width){planes[i], 16, true});
        l.no_bias = i == 1, l.permuted = i == 2;
        qkv[i] = tiny_quantized(t, l);
    }
    h = tiny_node(t, BB_OP_ATTENTION, qkv[0], qkv[1], qkv[2], "mid.attn.attention");
    t->op->attention.heads = 2, t->op->attention.scale = (float)(1 / bb_sqrt(8));
    h = tiny_float_linear(t, h, "mid.attn.to_out", BB_F32, 16, 16);
    h = tiny_node(t, BB_OP_ADD, h, skip, BB_NONE, "mid.attn\nmid.first");
    l = tiny_point("mid.modulation", emb, q_emb, 1, 0, (tiny_width){2, 32, true});
    uint32_t both = tiny_quantized(t, l), part[2];
    for (uint32_t i = 0; i < 2; i++) {
        part[i] = tiny_node(t, BB_OP_SLICE, both, BB_NONE, BB_NONE, i ? "mid.shift" : "mid.scale");
        t->op->slice.first = 16 * i, t->op->slice.count = 16;
    }
    return tiny_node(t, BB_OP_MODULATE, tiny_norm(t, h, "mid.norm", 16, 2, 1e-6f), part[0], part[1], "mid");
}

/* Back to the size of the skip, which is joined on: 16 + 20 channels in two segments. */
static uint32_t tiny_up(tiny *t, uint32_t x, uint32_t skip)
{
    uint32_t h = tiny_node(t, BB_OP_UPSAMPLE_NEAREST, x, skip, BB_NONE, "up.upsample");
    uint32_t joined = tiny_node(t, BB_OP_CONCAT, h, skip, BB_NONE, "up.concat");
    h = tiny_silu(t, tiny_norm(t, joined, "up.norm1", 36, 6, 1e-5f), "up.act1");
    uint32_t q = tiny_quantizer(t, 8, 16, 20, 4, -0.3, 3.2, true);
    tiny_layer l = tiny_conv3("up.conv1", h, q, 1.6);
    static const tiny_width widths[] = {{5, 4, true}, {3, 7, true}, {1, 3, true}, {2, 2, true}};
    memcpy(l.width, widths, sizeof widths);
    l.permuted = true;
    h = tiny_quantized(t, l);
    q = tiny_quantizer(t, 5, 16, 20, 3, -3, 2.5, false);
    l = tiny_point("up.conv_shortcut", joined, q, 1, 1, (tiny_width){4, 16, false});
    return tiny_node(t, BB_OP_ADD, h, tiny_quantized(t, l), BB_NONE, "up");
}

static void tiny_network(tiny *t)
{
    memmodel *m = &t->m;
    uint32_t sample = mm_input(m, "sample", true, 3, BB_RATE_SAMPLE);
    uint32_t timestep = mm_input(m, "timestep", false, 1, BB_RATE_STEP);
    uint32_t label = mm_input(m, "class_labels", false, 1, BB_RATE_PROMPT);
    uint32_t emb = tiny_embedding(t, timestep, label);
    uint32_t q_emb = tiny_quantizer(t, 8, 24, 0, 1, -0.3, 3, false);
    uint32_t q = tiny_quantizer(t, 8, 3, 0, 1, -3.2, 3.2, false);
    tiny_layer l = tiny_conv3("conv_in", sample, q, 1.5);
    l.width[0] = (tiny_width){8, 12, false};
    uint32_t down = tiny_down(t, tiny_quantized(t, l), emb, q_emb);
    uint32_t h = tiny_up(t, tiny_middle(t, down, emb, q_emb), down);
    h = tiny_silu(t, tiny_norm(t, h, "conv_norm_out", 16, 8, 1e-5f), "conv_act");
    q = tiny_quantizer(t, 7, 16, 0, 1, -0.3, 3, false);
    l = tiny_conv3("conv_out", h, q, 1.0);
    l.width[0] = (tiny_width){8, 3, false};
    mm_output(m, "sample", tiny_quantized(t, l));
}

/* Linear betas as DDPM's. v-prediction, which keeps a network that was never trained in range. */
static void tiny_schedule(tiny *t)
{
    double product = 1;
    for (int i = 0; i < 1000; i++) {
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999);
        t->m.alphas[i] = (float)product;
    }
    t->m.schedule.prediction = BB_PREDICT_V, t->m.schedule.clip_sample = true;
}

/* Afterwards t->m.out describes the file, to be written or changed. */
static void tiny_build(tiny *t)
{
    static const bb_meta_out meta[] = {
        {"architecture", "made by tests/make_tiny.c"}, {"licence", "MIT"},
        {"labels", "[\"first\",\"second\",\"third\",\"fourth\"]"}, {"source", "random bits"}, {"seed", "20"},
    };
    memset(t, 0, sizeof *t);
    mm_start(&t->m, TINY_WIDTH, TINY_HEIGHT, 3, 5, 4);
    tiny_network(t);
    tiny_schedule(t);
    memcpy(t->meta, meta, sizeof meta);
    bb_pack_out *out = &t->m.out;
    out->meta = t->meta, out->n_meta = BB_COUNT(meta);
    out->info.bits_milli = (uint32_t)(1000 * t->bits / t->weights + 0.5);
    out->layers = t->layers, out->quantizers = t->quantizers, out->delta = t->delta, out->offset = t->offset;
    out->multiplier = t->multiplier, out->perm = t->perm, out->inv_s = t->inv_s;
    out->step_key = t->step_key, out->step_delta = t->step_delta, out->step_zero = t->step_zero;
}

static void tiny_free(tiny *t)
{
    for (uint32_t i = 0; i < t->m.out.n_layers; i++) free(t->planes[i]);
    mm_close(&t->m);
}

#endif
