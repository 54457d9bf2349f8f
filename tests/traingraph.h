/* Random small graphs that have every kind of op, for tests of the trainer. */
#ifndef BB_TESTS_TRAINGRAPH_H
#define BB_TESTS_TRAINGRAPH_H

#include "check.h"

#include "base/rng.h"
#include "import/builder.h"

enum { TG_POOL = 96, TG_CLASSES = 3, TG_HEIGHT = 6, TG_WIDTH = 4, TG_PIXELS = 48, TG_KINDS = BB_OP_MISH + 1 };

typedef struct tg_value { uint32_t value, h, w, c; } tg_value;

typedef struct traingraph {
    bb_builder b;
    uint64_t seed, drawn;
    tg_value pool[TG_POOL];
    uint32_t n, e, named; /* values to choose from; the embedding, 8 wide; modules so far */
    bb_error err;
} traingraph;

static inline uint32_t tg_draw(traingraph *t, uint32_t n)
{
    return (uint32_t)(bb_uniform(t->seed, BB_STREAM_TOOLS, t->drawn++) * n);
}

static inline const char *tg_name(traingraph *t)
{
    static char name[16];
    snprintf(name, sizeof name, "m%u", t->named++);
    return name;
}

static inline void tg_put(traingraph *t, uint32_t value, uint32_t h, uint32_t w)
{
    if (t->n < TG_POOL) t->pool[t->n++] = (tg_value){value, h, w, bb_build_channels(&t->b, value)};
}

/* The later ones more often, so that graphs are deep. */
static inline tg_value tg_pick(traingraph *t)
{
    uint32_t a = tg_draw(t, t->n), b = tg_draw(t, t->n);
    return t->pool[a > b ? a : b];
}

static inline uint32_t tg_linear(traingraph *t, uint32_t x, uint32_t out)
{
    return bb_build_linear(&t->b, x, tg_name(t), out);
}

static inline void tg_conv(traingraph *t, tg_value x)
{
    uint32_t k = tg_draw(t, 2) ? 3 : 1, stride = 1 + tg_draw(t, 2), out = 2 + tg_draw(t, 6);
    uint32_t low = k / 2 * tg_draw(t, 2), high = k / 2;
    uint32_t y = bb_build_conv2d(&t->b, x.value, tg_name(t), out, k, stride, (bb_pads){low, low, high, high});
    if (x.h + low + high < k || x.w + low + high < k) return;
    tg_put(t, y, (x.h + low + high - k) / stride + 1, (x.w + low + high - k) / stride + 1);
}

static inline uint32_t tg_norm(traingraph *t, tg_value x)
{
    uint32_t groups = x.c % 2 == 0 && tg_draw(t, 2) ? 2 : 1;
    return bb_build_group_norm(&t->b, x.value, tg_name(t), groups, 1e-2f);
}

static inline void tg_add(traingraph *t, tg_value x)
{
    tg_value other = x;
    for (uint32_t i = 0; i < t->n; i++)
        if (t->pool[i].value != x.value && t->pool[i].h == x.h && t->pool[i].w == x.w && t->pool[i].c == x.c)
            other = t->pool[i];
    uint32_t y = other.value;
    if (y == x.value && tg_draw(t, 4)) y = tg_linear(t, x.value, x.c); /* else the same twice */
    tg_put(t, tg_draw(t, 2) ? bb_build_add(&t->b, x.value, y) : bb_build_add(&t->b, y, x.value), x.h, x.w);
}

static inline void tg_concat(traingraph *t, tg_value x)
{
    for (uint32_t i = t->n; i-- > 0;)
        if (t->pool[i].h == x.h && t->pool[i].w == x.w && x.c + t->pool[i].c <= 12) {
            tg_put(t, bb_build_concat(&t->b, x.value, t->pool[i].value), x.h, x.w);
            return;
        }
}

/* By a factor, or to the size of another value. */
static inline void tg_upsample(traingraph *t, tg_value x)
{
    tg_value like = tg_pick(t);
    if (tg_draw(t, 2) && 4 * x.h * x.w <= TG_PIXELS) {
        tg_put(t, bb_build_upsample(&t->b, x.value, 2), 2 * x.h, 2 * x.w);
        return;
    }
    uint32_t y = bb_build_upsample(&t->b, x.value, 1);
    bb_op *op = &t->b.ops[t->b.graph.n_ops - 1];
    op->in[1] = like.value;
    op->upsample.factor = 0;
    tg_put(t, y, like.h, like.w);
}

static inline void tg_attention(traingraph *t, tg_value x)
{
    uint32_t heads = 1 + tg_draw(t, 2), d = 2 + tg_draw(t, 3), c = heads * d, kind = tg_draw(t, 3);
    tg_value other = tg_pick(t);
    uint32_t q = kind == 0 ? x.value : tg_linear(t, x.value, c), k = q, v = q;
    if (kind == 0 && x.c % heads) heads = 1;
    if (kind == 1) k = v = tg_linear(t, other.value, c);
    if (kind == 2) k = tg_linear(t, x.value, c), v = tg_linear(t, x.value, c);
    tg_put(t, bb_build_attention(&t->b, q, k, v, heads, 0.7f), x.h, x.w);
}

static inline void tg_modulate(traingraph *t, tg_value x)
{
    uint32_t both = tg_linear(t, t->e, 2 * x.c), scale = bb_build_slice(&t->b, both, 0, x.c);
    tg_put(t, bb_build_modulate(&t->b, x.value, scale, bb_build_slice(&t->b, both, x.c, x.c)), x.h, x.w);
}

static inline void tg_step(traingraph *t, uint32_t kind)
{
    static const uint32_t acts[] = {BB_OP_SILU, BB_OP_GELU, BB_OP_MISH};
    tg_value x = tg_pick(t);
    bb_builder *b = &t->b;
    switch (kind) {
    case 0: tg_conv(t, x); break;
    case 1: tg_put(t, tg_linear(t, x.value, 2 + tg_draw(t, 6)), x.h, x.w); break;
    case 2: tg_put(t, tg_norm(t, x), x.h, x.w); break;
    case 3: tg_put(t, bb_build_activation(b, acts[tg_draw(t, 3)], x.value), x.h, x.w); break;
    case 4: tg_put(t, bb_build_activation(b, acts[t->named % 3], tg_norm(t, x)), x.h, x.w); break; /* together */
    case 5: tg_add(t, x); break;
    case 6: tg_put(t, bb_build_add(b, x.value, tg_linear(t, t->e, x.c)), x.h, x.w); break; /* spread */
    case 7: tg_concat(t, x); break;
    case 8: tg_upsample(t, x); break;
    case 9: tg_attention(t, x); break;
    case 10: tg_modulate(t, x); break;
    case 11: if (x.c > 1) tg_put(t, bb_build_slice(b, x.value, 1, x.c - 1), x.h, x.w); break;
    case 12: tg_put(t, bb_build_affine(b, x.value, 0.8f, -0.3f), x.h, x.w); break;
    case 13: if (x.h > 1 && x.w > 1) tg_put(t, bb_build_avg_pool2d(b, x.value, 2), x.h / 2, x.w / 2); break;
    }
}

/* Sums of sums whose gradients could share memory, were it not for another reader of c in between. */
static inline void tg_sums(traingraph *t, uint32_t x)
{
    uint32_t a = tg_linear(t, x, 4), c = tg_linear(t, x, 4), d = tg_linear(t, x, 4);
    bb_build_silu(&t->b, c);
    bb_build_add(&t->b, a, bb_build_add(&t->b, c, d));
}

static inline void tg_random(traingraph *t)
{
    uint32_t of_kind[TG_KINDS] = {0};
    for (uint32_t i = 0; i < 3 * 14; i++) tg_step(t, (i * 5 + i / 14 * 3) % 14);
    for (uint32_t i = 0; i < t->b.graph.n_ops; i++) of_kind[t->b.ops[i].kind]++;
    for (uint32_t kind = 1; kind < TG_KINDS; kind++)
        CHECK(of_kind[kind], "graph %u has no %s", (unsigned)t->seed, bb_op_name(kind));
}

/* Seed 0: tg_sums. Inputs: sample, 3 channels, TG_HEIGHT × TG_WIDTH; timestep; class_labels. Outputs: what nobody
 * reads, but for the first such value, so that there is something without a gradient. */
static inline void tg_open(traingraph *t, uint64_t seed)
{
    static const float f[] = {0.9f, 0.2f, 0.01f};
    *t = (traingraph){.seed = seed};
    bb_builder *b = &t->b;
    bb_dim one = bb_dim_of(1), items = bb_dim_symbol(BB_DIM_B);
    bb_builder_init(b, "denoiser", &t->err);
    bb_dim h = bb_dim_symbol(BB_DIM_H), w = bb_dim_symbol(BB_DIM_W);
    uint32_t x = bb_build_input(b, "sample", BB_RATE_SAMPLE, items, h, w, 3);
    uint32_t time = bb_build_input(b, "timestep", BB_RATE_STEP, items, one, one, 1);
    uint32_t label = bb_build_input(b, "class_labels", BB_RATE_PROMPT, items, one, one, 1);
    uint32_t e = tg_linear(t, bb_build_timestep_embedding(b, time, "time", f, 3, seed % 2), 8);
    t->e = bb_build_silu(b, bb_build_add(b, e, bb_build_embedding(b, label, "class", TG_CLASSES, 8)));
    tg_put(t, x, TG_HEIGHT, TG_WIDTH);
    if (seed) tg_random(t);
    else tg_sums(t, x);
    bool *is_read = calloc(b->graph.n_values, sizeof *is_read), spared = false;
    for (uint32_t i = 0; i < b->graph.n_ops; i++)
        for (uint32_t k = 0; k < 4; k++)
            if (b->ops[i].in[k] != BB_NONE) is_read[b->ops[i].in[k]] = true;
    for (uint32_t v = b->graph.n_inputs; v < b->graph.n_values; v++) {
        if (is_read[v]) continue;
        if (spared) bb_build_output(b, tg_name(t), v);
        spared = true;
    }
    free(is_read);
    CHECK(bb_builder_finish(b) == BB_OK, "graph %u: %s", (unsigned)seed, t->err.text);
}

#endif
