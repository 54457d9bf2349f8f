/* Attention by blocks of 16 queries and tiles of 64 keys, for vec.h. */
#ifndef BB_KERNELS_VEC_ATTENTION_H
#define BB_KERNELS_VEC_ATTENTION_H

#include "kernels/vec_math.h"

/* What a block of 16 queries carries over the keys. Lanes run over queries, in the weighted sum over channels. */
typedef struct attention_state {
    const float *q; /* [d][16]: transposed, zeros where there is no query */
    float *o;       /* [16] rows o_stride floats apart, whole vectors */
    float *s;       /* [64][16] scores, then weights, of a tile of keys */
    float *rest;    /* [64][lanes]: the tile's last channels, when they fill no vector */
    size_t o_stride;
    vf max[VECTORS], sum[VECTORS]; /* m and l */
    float r[BB_TILE];
} attention_state;

/* s[i][query] = (Σ_c q·k)·scale. */
static void attention_scores(attention_state *t, const bb_attention_args *a, const float *k, size_t keys,
                             size_t queries)
{
    for (size_t i = 0; i < keys; i += ROWS) {
        const float *x[ROWS]; /* the last key stands in for missing ones */
        _Pragma("GCC unroll 8") for (size_t r = 0; r < ROWS; r++)
            x[r] = k + (i + r < keys ? i + r : keys - 1) * a->kv_stride;
        for (size_t j = 0; j < queries; j += COLUMNS * BB_LANES) {
            vf sum[ROWS][COLUMNS] = {{{0}}};
            products(sum, x, 1, t->q + j, BB_TILE, a->d, COLUMNS);
            _Pragma("GCC unroll 8") for (size_t r = 0; r < ROWS; r++)
                for (size_t v = 0; v < COLUMNS; v++)
                    store(t->s + (i + r) * BB_TILE + j + v * BB_LANES, sum[r][v] * a->scale);
        }
    }
}

/* Scores to weights p; m, l and r follow. */
static void attention_weights(attention_state *t, size_t keys)
{
    for (size_t v = 0; v < VECTORS; v++) {
        float *s = t->s + v * BB_LANES, half[BB_ATTENTION_KEYS * BB_LANES];
        vf max = t->max[v];
        for (size_t i = 0; i < keys; i++) max = greater(load(s + i * BB_TILE), max);
        const vf r = exp_v(t->max[v] - max);
        for (size_t i = 0; i < keys; i++) {
            vf power;
            store(half + i * BB_LANES, exp_split(load(s + i * BB_TILE) - max, &power));
            store(s + i * BB_TILE, power);
        }
        vf sum = t->sum[v] * r;
        for (size_t i = 0; i < keys; i++) {
            const vf p = exp_join(load(half + i * BB_LANES), load(s + i * BB_TILE));
            store(s + i * BB_TILE, p);
            sum = sum + p;
        }
        store(t->r + v * BB_LANES, r);
        t->max[v] = max;
        t->sum[v] = sum;
    }
}

/* o[query][c] = o·r + Σ_i p·v[i][c] for some vectors of channels. */
BB_INLINE void weigh(attention_state *t, float *o, const float *v, size_t stride, size_t keys, size_t queries,
                     const size_t columns)
{
    for (size_t i = 0; i < queries; i += ROWS) {
        const float *p[ROWS];
        vf sum[ROWS][COLUMNS];
        float *row = o + i * t->o_stride;
        _Pragma("GCC unroll 8") for (size_t r = 0; r < ROWS; r++) {
            p[r] = t->s + i + r;
            for (size_t j = 0; j < columns; j++) sum[r][j] = load(row + r * t->o_stride + j * BB_LANES) * t->r[i + r];
        }
        products(sum, p, BB_TILE, v, stride, keys, columns);
        _Pragma("GCC unroll 8") for (size_t r = 0; r < ROWS; r++)
            for (size_t j = 0; j < columns; j++) store(row + r * t->o_stride + j * BB_LANES, sum[r][j]);
    }
}

static void attention_tile(attention_state *t, const bb_attention_args *a, size_t first, size_t keys, size_t queries)
{
    const float *v = a->v + first * a->kv_stride;
    attention_scores(t, a, a->k + first * a->kv_stride, keys, queries);
    attention_weights(t, keys);
    for (size_t c = 0; c < a->d;) {
        const size_t left = a->d - c;
        if (COLUMNS > 1 && left >= COLUMNS * BB_LANES) {
            weigh(t, t->o + c, v + c, a->kv_stride, keys, queries, COLUMNS);
            c += COLUMNS * BB_LANES;
            continue;
        }
        const bool whole = left >= BB_LANES;
        for (size_t i = 0; !whole && i < keys; i++)
            memcpy(t->rest + i * BB_LANES, v + i * a->kv_stride + c, left * sizeof *v);
        weigh(t, t->o + c, whole ? v + c : t->rest, whole ? a->kv_stride : BB_LANES, keys, queries, 1);
        c += BB_LANES;
    }
}

/* Queries first..first+n−1, at most 16, over all keys. */
static void attention_block(const bb_attention_args *a, size_t first, size_t n)
{
    const size_t d = a->d;
    float *q = a->scratch;
    attention_state t = {.q = q, .o_stride = bb_align_up(d, BB_LANES)};
    t.o = q + d * BB_TILE;
    t.s = t.o + t.o_stride * BB_TILE;
    t.rest = t.s + BB_ATTENTION_KEYS * BB_TILE;
    memset(t.o, 0, BB_TILE * t.o_stride * sizeof *t.o);
    memset(t.rest, 0, BB_ATTENTION_KEYS * BB_LANES * sizeof *t.rest);
    if (n < BB_TILE) memset(q, 0, d * BB_TILE * sizeof *q);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < d; c++) q[c * BB_TILE + i] = a->q[(first + i) * a->q_stride + c];
    for (size_t v = 0; v < VECTORS; v++) t.max[v] = splat(BB_ATTENTION_LOWEST);
    for (size_t key = 0; key < a->keys; key += BB_ATTENTION_KEYS) {
        const size_t left = a->keys - key;
        attention_tile(&t, a, key, left < BB_ATTENTION_KEYS ? left : BB_ATTENTION_KEYS, n);
    }
    for (size_t v = 0; v < VECTORS; v++) store(t.r + v * BB_LANES, t.sum[v]);
    for (size_t i = 0; i < n; i++) {
        float *o = t.o + i * t.o_stride;
        for (size_t c = 0; c < d; c += BB_LANES) store(o + c, load(o + c) / t.r[i]);
        memcpy(a->o + (first + i) * a->o_stride, o, d * sizeof *o);
    }
}

void BB_FN(attention)(const bb_attention_args *a)
{
    for (size_t i = 0; i < a->queries; i += BB_TILE) {
        const size_t left = a->queries - i;
        attention_block(a, a->first_query + i, left < BB_TILE ? left : BB_TILE);
    }
}

#endif
