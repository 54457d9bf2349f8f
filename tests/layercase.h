/* A random model of one to four quantized layers that read the same value (layer.h), packed into a real file in memory:
 * mixed widths with a permutation, free and uniform multipliers, 1–3 segments (a concat or parts of one tensor), step
 * tables, smoothing, stride, uneven padding, odd sizes, and quantizers that layers share. */
#ifndef BB_TESTS_LAYERCASE_H
#define BB_TESTS_LAYERCASE_H

#include "layer.h"
#include "memmodel.h"

enum { LAYERS = 4, BATCH = 3, MAX_SIDE = 11, POOL = LAYERS * 256 };

/* Everything the file's pools hold, in the order of their rows. */
typedef struct packed {
    bb_layer_rec layers[LAYERS];
    bb_quantizer_rec quantizers[LAYERS];
    float delta[POOL], inv_s[LAYERS * MAX_C], step_key[LAYERS * MAX_ROWS], step_delta[LAYERS * MAX_ROWS * MAX_SEG];
    int16_t offset[POOL], multiplier[POOL * 8];
    uint16_t perm[POOL];
    uint8_t step_zero[LAYERS * MAX_ROWS * MAX_SEG];
    uint8_t *planes[LAYERS];
} packed;

typedef struct test_case {
    uint64_t seed;
    int n_layers, n_quantizers, w, h;
    bool concat;
    quantizer quantizers[LAYERS];
    layer layers[LAYERS];
    float *x; /* [BATCH][h][w][channels] */
    float timestep[BATCH];
    packed packed;
    memmodel model;
} test_case;

static void pack_quantizer(test_case *t, int i)
{
    const quantizer *q = &t->quantizers[i];
    packed *p = &t->packed;
    bb_pack_out *out = &t->model.out;
    bb_quantizer_rec *rec = &p->quantizers[i];
    *rec = (bb_quantizer_rec){.kind = BB_QUANTIZER_STATIC, .bits = (uint32_t)q->bits, .segments = (uint32_t)q->segments,
                              .rows = (uint32_t)q->rows, .key_at = out->n_step_key, .step_at = out->n_step,
                              .inv_s_at = q->has_inv_s ? out->n_inv_s : BB_NONE};
    for (int g = 0; g < q->segments; g++) rec->seg_channels[g] = (uint32_t)q->seg[g];
    for (int r = 0; r < q->rows; r++) {
        p->step_key[out->n_step_key++] = q->key[r];
        for (int g = 0; g < q->segments; g++) {
            p->step_zero[out->n_step] = (uint8_t)q->zero[r][g];
            p->step_delta[out->n_step++] = q->delta[r][g];
        }
    }
    for (int c = 0; q->has_inv_s && c < q->channels; c++) p->inv_s[out->n_inv_s++] = q->inv_s[c];
    out->n_quantizers++;
}

/* Bit planes of one tile: blocks of 8 inputs of one segment under one tap, then planes, then the 16 outputs. Bits past
 * a segment's end are noise: the codes there are zero. Returns the end. */
static uint8_t *pack_tile(const layer *l, const quantizer *q, const int *outputs, int planes, uint8_t *at)
{
    for (int tap = 0; tap < l->kh * l->kw; tap++)
        for (int g = 0, first = 0; g < q->segments; first += q->seg[g], g++)
            for (int c = 0; c < q->seg[g]; c += 8)
                for (int p = 0; p < planes; p++)
                    for (int j = 0; j < BB_TILE; j++) {
                        unsigned byte = (unsigned)(rnd() >> 56);
                        for (int i = 0; i < 8 && c + i < q->seg[g] && outputs[j] >= 0; i++) {
                            unsigned bit = l->bits[outputs[j]][tap * l->c + first + c + i] >> p & 1;
                            byte = (byte & ~(1u << i)) | bit << i;
                        }
                        *at++ = (uint8_t)byte;
                    }
    return at;
}

/* Rows of one tile into the pools; outputs[j] < 0 is padding, whose weights must be legal but count for nothing. */
static void pack_rows(test_case *t, const layer *l, const int *outputs, int planes)
{
    packed *p = &t->packed;
    bb_pack_out *out = &t->model.out;
    for (int j = 0; j < BB_TILE; j++, out->n_rows++) {
        int n = outputs[j];
        p->delta[out->n_rows] = n < 0 ? 0 : l->delta[n];
        p->offset[out->n_rows] = (int16_t)(n < 0 ? -(1 << (planes - 1)) : l->offset[n]);
        p->perm[out->n_rows] = (uint16_t)(n < 0 ? 65535 : n);
    }
    for (int k = 0; k < planes && !l->powers; k++)
        for (int j = 0; j < BB_TILE; j++)
            p->multiplier[out->n_multiplier++] = (int16_t)(outputs[j] < 0 ? 1 : l->multiplier[outputs[j]][k]);
}

static void pack_layer(test_case *t, int i)
{
    layer *l = &t->layers[i];
    const quantizer *q = &t->quantizers[l->quantizer];
    bb_layer_rec *rec = &t->packed.layers[i];
    size_t row_bytes = 0;
    *rec = (bb_layer_rec){.quantizer = (uint32_t)l->quantizer, .outputs = (uint32_t)l->n,
                          .taps = (uint32_t)(l->kh * l->kw), .channels = (uint32_t)l->c, .row_at = t->model.out.n_rows,
                          .multiplier_at = l->powers ? BB_NONE : t->model.out.n_multiplier,
                          .perm_at = t->model.out.n_rows};
    for (int g = 0; g < q->segments; g++) row_bytes += (size_t)(q->seg[g] + 7) / 8 * (size_t)(l->kh * l->kw);
    uint8_t *at = t->packed.planes[i] = malloc((size_t)(MAX_N + 8 * BB_TILE) * row_bytes * 8);
    for (int planes = 8; planes >= 1; planes--) {
        int members[MAX_N], n = 0;
        for (int k = 0; k < l->n; k++)
            if (l->planes[k] == planes) members[n++] = k;
        for (int k = n - 1; k > 0 && !l->groups; k--) { /* any order inside a class */
            int other = between(0, k), m = members[k];
            members[k] = members[other];
            members[other] = m;
        }
        if (!n) continue;
        rec->class_planes[rec->n_classes] = (uint32_t)planes;
        rec->class_rows[rec->n_classes++] = (uint32_t)n;
        for (int first = 0; first < n; first += BB_TILE) {
            int outputs[BB_TILE];
            for (int j = 0; j < BB_TILE; j++) outputs[j] = first + j < n ? members[first + j] : -1;
            at = pack_tile(l, q, outputs, planes, at);
            pack_rows(t, l, outputs, planes);
        }
    }
    t->model.out.n_layers++;
    rec->weight = t->model.graph.n_weights;
    uint32_t dim[4] = {rec->outputs, rec->channels, (uint32_t)l->kh, (uint32_t)l->kw};
    uint32_t bytes = (uint32_t)(at - t->packed.planes[i]);
    static const char *const names[LAYERS] = {"a.weight", "b.weight", "c.weight", "d.weight"};
    mm_slot(&t->model, names[i], l->linear ? 2 : 4, dim, BB_STORE_LAYER, (uint32_t)i);
    mm_tensor(&t->model, names[i], BB_U8, 1, &bytes, t->packed.planes[i]);
}

/* The layer without a permutation where outputs of one class happen to be in order would be the same file with
 * perm_at = BB_NONE; made on purpose for a third of the single-class layers. */
static void drop_permutation(test_case *t, int i)
{
    bb_layer_rec *rec = &t->packed.layers[i];
    bool identity = rec->n_classes == 1;
    for (int n = 0; identity && n < t->layers[i].n; n++) identity = t->packed.perm[rec->perm_at + (uint32_t)n] == n;
    if (identity) rec->perm_at = BB_NONE;
}

static void build_graph(test_case *t)
{
    static const char *const inputs[MAX_SEG] = {"sample", "second", "third"};
    static const char *const outputs[LAYERS] = {"a", "b", "c", "d"};
    memmodel *m = &t->model;
    const quantizer *q = &t->quantizers[0];
    uint32_t in[3] = {BB_NONE, BB_NONE, BB_NONE}, x, y;
    int n_inputs = t->concat ? q->segments : 1;
    mm_start(m, (uint32_t)t->w, (uint32_t)t->h, (uint32_t)(t->concat ? q->seg[0] : q->channels), 0, -1);
    for (int i = 0; i < n_inputs; i++)
        in[i] = mm_input(m, inputs[i], true, (uint32_t)(t->concat ? q->seg[i] : q->channels), BB_RATE_SAMPLE);
    mm_input(m, "timestep", false, 1, BB_RATE_STEP);
    mm_output(m, "sample", 0);
    x = in[0];
    if (n_inputs > 1) mm_op(m, BB_OP_CONCAT, in[0], in[1], in[2], &x);
    for (int i = 0; i < t->n_quantizers; i++) pack_quantizer(t, i);
    for (int i = 0; i < t->n_layers; i++) {
        const layer *l = &t->layers[i];
        bb_op *op = mm_op(m, l->linear ? BB_OP_LINEAR : BB_OP_CONV2D, x, BB_NONE, BB_NONE, &y);
        if (!l->linear) {
            op->conv.kh = (uint32_t)l->kh, op->conv.kw = (uint32_t)l->kw, op->conv.stride = (uint32_t)l->stride;
            op->conv.top = (uint32_t)l->top, op->conv.left = (uint32_t)l->left;
            op->conv.bottom = (uint32_t)l->bottom, op->conv.right = (uint32_t)l->right;
        }
        op->weight[0] = m->graph.n_weights;
        pack_layer(t, i);
        drop_permutation(t, i);
        if (l->has_bias) op->weight[1] = mm_vector(m, "bias", l->bias, (uint32_t)l->n);
        mm_output(m, outputs[i], y);
    }
    packed *p = &t->packed;
    bb_pack_out *out = &m->out;
    out->layers = p->layers, out->quantizers = p->quantizers, out->delta = p->delta, out->offset = p->offset;
    out->multiplier = p->multiplier, out->perm = p->perm, out->n_perm = out->n_rows, out->inv_s = p->inv_s;
    out->step_key = p->step_key, out->step_delta = p->step_delta, out->step_zero = p->step_zero;
}

/* Ordinary values, exact halves of a step, far outliers, and now and then a NaN or an infinity. */
static float random_input(const quantizer *q, int channel)
{
    int how = between(0, 19);
    if (how == 0) return uniform(-1e6f, 1e6f);
    if (how == 1) return coin() ? NAN : coin() ? INFINITY : -INFINITY;
    float step = q->delta[0][0] / (q->has_inv_s ? q->inv_s[channel] : 1.0f);
    if (how < 8) return ((float)between(-300, 300) + 0.5f) * step;
    return uniform(-200, 200) * step;
}

static void random_case(test_case *t, uint64_t seed)
{
    int segments, seg[MAX_SEG];
    memset(t, 0, sizeof *t);
    rnd_state = t->seed = seed;
    t->concat = coin();
    segments = between(1, MAX_SEG);
    for (int g = 0; g < segments; g++) seg[g] = between(1, coin() ? 20 : 9);
    t->w = between(5, MAX_SIDE), t->h = between(3, MAX_SIDE);
    t->n_layers = between(1, LAYERS);
    for (int i = 0; i < t->n_layers; i++) {
        bool share = t->n_quantizers && coin(); /* as q, k and v do */
        if (!share) random_quantizer(&t->quantizers[t->n_quantizers++], segments, seg, coin());
        random_layer(&t->layers[i], &t->quantizers[t->n_quantizers - 1], between(0, 3) == 0);
        t->layers[i].quantizer = t->n_quantizers - 1;
    }
    int channels = t->quantizers[0].channels, pixels = BATCH * t->w * t->h;
    t->x = malloc((size_t)(pixels * channels) * sizeof *t->x);
    for (int i = 0; i < pixels * channels; i++) t->x[i] = random_input(&t->quantizers[0], i % channels);
    for (int b = 0; b < BATCH; b++) {
        const quantizer *q = &t->quantizers[0];
        int r = between(0, q->rows - 1), next = r + 1 < q->rows ? r + 1 : r;
        t->timestep[b] = coin() ? q->key[r] : coin() ? (q->key[r] + q->key[next]) / 2 : (float)between(0, 1000);
    }
    build_graph(t);
}

static void close_case(test_case *t)
{
    mm_close(&t->model);
    for (int i = 0; i < t->n_layers; i++) free(t->packed.planes[i]);
    free(t->x);
}

#endif
