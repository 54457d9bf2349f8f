#include "train/distill/relation.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

#define BLOCK 256 /* rows of similarities that are in memory together */

enum { STREAM_PUSH = BB_STREAM_TOOLS + 0x60, STREAM_ANCHORS, STREAM_ROWS };

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* ---- draws ---- */

/* A number below n, the i-th of a stream. */
static uint32_t draw(uint64_t seed, uint32_t stream, uint64_t number, uint32_t i, uint32_t n)
{
    const uint32_t counter[4] = {i, (uint32_t)number, (uint32_t)(number >> 32), stream};
    uint32_t word[4];
    bb_philox(counter, (uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)}, word);
    return (uint32_t)((uint64_t)word[0] * n >> 32);
}

/* count of the numbers 0..n−1, by the first steps of a shuffle; after n of them they begin again. index: [n]. */
static void draw_some(uint32_t *index, uint32_t n, uint32_t *out, uint32_t count, uint64_t seed, uint32_t stream,
                      uint64_t number, uint32_t first)
{
    for (uint32_t i = 0; i < n; i++) index[i] = i;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t at = i % n, with = at + draw(seed, stream, number, first + i, n - at), taken = index[with];
        index[with] = index[at];
        index[at] = out[i] = taken;
    }
}

/* ---- unit lengths ---- */

#define SHORTEST 1e-12 /* a pixel below has no direction: it stays 0 and takes no gradient */

/* to = x (the mean of x and before, if given) by its length, which is returned. */
static float normalize(uint32_t channels, const float *x, const float *before, float *to)
{
    double square = 0;
    for (uint32_t c = 0; c < channels; c++) {
        to[c] = before ? 0.5f * (x[c] + before[c]) : x[c];
        square += (double)to[c] * (double)to[c];
    }
    const double length = sqrt(square), by = length < SHORTEST ? 0 : 1 / length;
    for (uint32_t c = 0; c < channels; c++) to[c] = (float)(to[c] * by);
    return (float)length;
}

/* dx += share · (dy − y·<y, dy>)/length: the gradient through x / |x|. */
static void normalize_backward(uint32_t channels, const float *y, float length, const float *dy, float share, float *dx)
{
    double along = 0;
    if (length < (float)SHORTEST) return;
    for (uint32_t c = 0; c < channels; c++) along += (double)y[c] * (double)dy[c];
    for (uint32_t c = 0; c < channels; c++) dx[c] += share / length * (dy[c] - y[c] * (float)along);
}

/* ---- rows against pixels ---- */

typedef struct relation {
    uint32_t rows, n, channels, block; /* rows to compare with n pixels, so many at a time, 0 rows at the end */
    bb_matmul *scores, *row_slopes, *pixel_slopes; /* logits; gradients of the rows and, in TRD, of the pixels */
    float *f, *q, *dq, *anchor;        /* [rows][channels]; [n][channels], MTRD only */
    float *length;                     /* [rows] of q */
    float *score_f, *score_q;          /* [block][n] */
    uint32_t *index;                   /* for draws */
    uint8_t *memory;
} relation;

static void relation_free(relation *r)
{
    bb_matmul_free(r->scores);
    bb_matmul_free(r->row_slopes);
    bb_matmul_free(r->pixel_slopes);
    free(r->memory);
    *r = (relation){0};
}

/* A matrix by itself. Strides over its one element count, too: where they are 0 oneDNN takes its slow reference. */
static bb_matrix dense(size_t rows, size_t columns)
{
    return (bb_matrix){.outer = rows * columns, .batch = rows * columns, .row = columns, .column = 1};
}

static bb_matrix turned(bb_matrix m) { return (bb_matrix){m.outer, m.batch, m.column, m.row}; }

/* scores = rows·pixelsᵀ/temperature. Gradients run back to the rows, and to the pixels where they are rows, too. */
static bb_status make_products(relation *r, bb_dnn *dnn, bool own, float temperature, bb_error *err)
{
    const uint32_t m = r->block, n = r->n, c = r->channels;
    const bb_matrix s = dense(m, n);
    const bb_matmul_shape scores = {1, 1, m, n, c, dense(m, c), turned(dense(n, c)), s, 1 / temperature, false, false};
    const bb_matmul_shape rows = {1, 1, m, c, n, s, dense(n, c), dense(m, c), 1 / temperature, true, false};
    const bb_matmul_shape pixels = {1, 1, n, c, m, turned(s), dense(m, c), dense(n, c), 1 / temperature, true, false};
    BB_TRY(bb_matmul_new(&r->scores, dnn, &scores, err));
    BB_TRY(bb_matmul_new(&r->row_slopes, dnn, &rows, err));
    return own ? bb_matmul_new(&r->pixel_slopes, dnn, &pixels, err) : BB_OK;
}

/* The next `count` floats of the memory, which is NULL while they are counted. */
static float *take(uint8_t *memory, size_t *used, size_t count)
{
    const size_t at = *used;
    *used += bb_align_up(count * sizeof(float), BB_ALIGNMENT);
    return memory ? (float *)(void *)(memory + at) : NULL;
}

static bb_status relation_new(relation *r, bb_dnn *dnn, uint32_t rows, uint32_t n, uint32_t channels, bool own,
                              uint32_t indices, float temperature, bb_error *err)
{
    *r = (relation){.n = n, .channels = channels, .block = (uint32_t)smaller(BLOCK, bb_align_up(rows, 16))};
    r->rows = (uint32_t)bb_align_up(rows, r->block);
    const size_t values = (size_t)r->rows * channels, anchors = own ? 0 : (size_t)n * channels;
    const size_t scores = (size_t)r->block * n;
    for (int pass = 0; pass < 2; pass++) {
        size_t used = 0;
        r->f = take(r->memory, &used, values);
        r->q = take(r->memory, &used, values);
        r->dq = take(r->memory, &used, values);
        r->anchor = take(r->memory, &used, anchors);
        r->length = take(r->memory, &used, r->rows);
        r->score_f = take(r->memory, &used, scores);
        r->score_q = take(r->memory, &used, scores);
        r->index = (uint32_t *)(void *)take(r->memory, &used, indices);
        if (!pass) r->memory = aligned_alloc(BB_ALIGNMENT, used);
        if (!r->memory) return bb_fail(err, BB_ERR_SPACE, "out of memory for relations of %u with %u pixels", rows, n);
    }
    memset(r->f, 0, values * sizeof *r->f);
    memset(r->q, 0, values * sizeof *r->q);
    memset(r->dq, 0, values * sizeof *r->dq);
    const bb_status made = make_products(r, dnn, own, temperature, err);
    if (made < 0) relation_free(r);
    return made;
}

/* Σ over rows of KL; weight · its gradient is in dq then. */
static double compare(relation *r, const bb_ops *ops, float weight)
{
    double sum = 0;
    const bool own = r->pixel_slopes != NULL;
    for (size_t first = 0; first < r->rows; first += r->block) {
        const size_t at = first * r->channels;
        bb_matmul_run(r->scores, r->f + at, own ? r->f : r->anchor, r->score_f);
        bb_matmul_run(r->scores, r->q + at, own ? r->q : r->anchor, r->score_q);
        sum += ops->softmax_kl(r->block, r->n, r->score_f, r->score_q, weight);
        bb_matmul_run(r->row_slopes, r->score_q, own ? r->q : r->anchor, r->dq + at);
        if (own) bb_matmul_run(r->pixel_slopes, r->score_q, r->q + at, r->dq);
    }
    return sum;
}

double bb_trd(const bb_ops *ops, bb_dnn *dnn, const bb_features *x, const float *before_f, const float *before_q,
              float temperature, float weight, bb_error *err)
{
    relation r = {0};
    const uint32_t c = x->channels;
    const double rows = (double)x->items * (double)x->pixels;
    double sum = 0;
    if (relation_new(&r, dnn, x->pixels, x->pixels, c, true, 0, temperature, err) < 0) return 0;
    for (size_t item = 0; item < x->items; item++) {
        const size_t first = item * x->pixels * c;
        memset(r.dq, 0, (size_t)r.rows * c * sizeof *r.dq);
        for (size_t i = 0; i < x->pixels; i++) {
            const size_t at = first + i * c;
            normalize(c, x->f + at, before_f ? before_f + at : NULL, r.f + i * c);
            r.length[i] = normalize(c, x->q + at, before_q ? before_q + at : NULL, r.q + i * c);
        }
        sum += compare(&r, ops, (float)((double)weight / rows));
        for (size_t i = 0; x->dq && i < x->pixels; i++)
            normalize_backward(c, r.q + i * c, r.length[i], r.dq + i * c, before_q ? 0.5f : 1, x->dq + first + i * c);
    }
    relation_free(&r);
    return sum / rows;
}

/* ---- the memory ---- */

bb_status bb_pixel_memory_new(bb_pixel_memory *m, uint32_t slots, uint32_t per_slot, uint32_t channels, bb_error *err)
{
    *m = (bb_pixel_memory){.slots = slots, .per_slot = per_slot, .channels = channels};
    m->pixel = calloc((size_t)slots * per_slot, channels * sizeof *m->pixel);
    m->filled = calloc(slots, sizeof *m->filled);
    m->next = calloc(slots, sizeof *m->next);
    if (m->pixel && m->filled && m->next) return BB_OK;
    bb_pixel_memory_free(m);
    return bb_fail(err, BB_ERR_SPACE, "out of memory for %u × %u pixels of %u channels", slots, per_slot, channels);
}

void bb_pixel_memory_free(bb_pixel_memory *m)
{
    free(m->pixel);
    free(m->filled);
    free(m->next);
    *m = (bb_pixel_memory){0};
}

/* Pixel after pixel is taken with the probability that `wanted` of the `left` ones shall be (Fan, Muller & Rezucha
 * 1962): no list of them is needed. */
void bb_pixel_memory_push(bb_pixel_memory *m, uint32_t slot, const bb_features *x, uint32_t item, uint32_t count,
                          uint64_t seed, uint64_t number)
{
    uint32_t left = x->pixels, wanted = (uint32_t)smaller(count, x->pixels);
    for (uint32_t i = 0; i < x->pixels && wanted; i++, left--) {
        if (draw(seed, STREAM_PUSH, number, i, left) >= wanted) continue;
        const size_t at = (size_t)slot * m->per_slot + m->next[slot], c = m->channels;
        normalize(m->channels, x->f + ((size_t)item * x->pixels + i) * c, NULL, m->pixel + at * c);
        m->next[slot] = (m->next[slot] + 1) % m->per_slot;
        m->filled[slot] += m->filled[slot] < m->per_slot;
        wanted--;
    }
}

bool bb_pixel_memory_ready(const bb_pixel_memory *m)
{
    for (uint32_t slot = 0; slot < m->slots; slot++)
        if (m->filled[slot] < m->per_slot) return false;
    return true;
}

/* ---- MTRD ---- */

static void draw_anchors(relation *r, const bb_pixel_memory *m, uint32_t *out, uint64_t seed, uint64_t number)
{
    uint32_t slots = 0, done = 0, nth = 0;
    for (uint32_t slot = 0; slot < m->slots; slot++) slots += m->filled[slot] > 0;
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        if (!m->filled[slot]) continue;
        const uint32_t share = r->n / slots + (nth++ < r->n % slots);
        draw_some(r->index, m->filled[slot], out, share, seed, STREAM_ANCHORS, number, done);
        for (uint32_t i = 0; i < share; i++)
            memcpy(r->anchor + (size_t)(done + i) * r->channels,
                   m->pixel + ((size_t)slot * m->per_slot + out[i]) * r->channels, r->channels * sizeof *r->anchor);
        done += share;
    }
}

double bb_mtrd(const bb_ops *ops, bb_dnn *dnn, const bb_features *x, const bb_pixel_memory *m, uint32_t anchors,
               uint32_t rows, float temperature, uint64_t seed, uint64_t number, float weight, bb_error *err)
{
    relation r = {0};
    const uint32_t c = x->channels, pixels = x->items * x->pixels, most = pixels > m->per_slot ? pixels : m->per_slot;
    bool any = false;
    for (uint32_t slot = 0; slot < m->slots; slot++) any = any || m->filled[slot];
    rows = (uint32_t)smaller(rows, pixels);
    if (!any || !anchors || !rows) return 0;
    if (relation_new(&r, dnn, rows, anchors, c, false, most + (rows > anchors ? rows : anchors), temperature, err) < 0)
        return 0;
    uint32_t *row = r.index + most;
    draw_anchors(&r, m, row, seed, number);
    draw_some(r.index, pixels, row, rows, seed, STREAM_ROWS, number, 0);
    for (size_t i = 0; i < rows; i++) {
        normalize(c, x->f + (size_t)row[i] * c, NULL, r.f + i * c);
        r.length[i] = normalize(c, x->q + (size_t)row[i] * c, NULL, r.q + i * c);
    }
    const double sum = compare(&r, ops, (float)((double)weight / rows));
    for (size_t i = 0; x->dq && i < rows; i++)
        normalize_backward(c, r.q + i * c, r.length[i], r.dq + i * c, 1, x->dq + (size_t)row[i] * c);
    relation_free(&r);
    return sum / rows;
}
