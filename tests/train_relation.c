/* Relation losses against the same formulas in double, their gradients by central differences; what they must not see
 * and what they must; the memory of teacher pixels. Numbers of oracles: those of relation.h's source. */
#include <stdint.h>

#include "base/rng.h"
#include "check.h"
#include "train/distill/relation.h"

#define TEMPERATURE 0.1f
/* Logits up to 1/τ = 10 with errors of some 2^-24 of that (similarities of f32), in both softmaxes: 2e-6 absolute in a
 * KL of about 1; gradients have 1/τ more. */
#define CLOSE 4e-6

static const bb_ops *ops;
static bb_dnn *dnn;

static float *normals(size_t n, uint32_t stream)
{
    float *x = aligned_alloc(64, (n * sizeof *x + 127) / 64 * 64);
    bb_normals(x, n, 11, stream, 0);
    return x;
}

typedef struct data { bb_features x; float *f, *q, *dq; size_t n; } data;

/* The student is the teacher with noise. */
static data make_data(uint32_t items, uint32_t pixels, uint32_t channels)
{
    data d = {.n = (size_t)items * pixels * channels};
    d.f = normals(d.n, 1);
    d.q = normals(d.n, 2);
    d.dq = calloc(d.n, sizeof *d.dq);
    for (size_t i = 0; i < d.n; i++) d.q[i] = 1.7f * d.f[i] + 0.8f * d.q[i];
    d.x = (bb_features){items, pixels, channels, d.f, d.q, d.dq};
    return d;
}

static void free_data(data *d)
{
    free(d->f);
    free(d->q);
    free(d->dq);
}

/* ---- references in double ---- */

static double cosine(const double *a, const double *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += a[i] * b[i];
        aa += a[i] * a[i];
        bb += b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

/* KL of the softmaxes of cosines of row f, q to n pixels each. */
static double kl_of(const double *f, const double *q, const double *pf, const double *pq, size_t n, size_t c, double t)
{
    double sum_f = 0, sum_q = 0, cross = 0;
    for (size_t i = 0; i < n; i++) {
        const double a = cosine(f, pf + i * c, c) / t, b = cosine(q, pq + i * c, c) / t;
        sum_f += exp(a);
        sum_q += exp(b);
        cross += exp(a) * (a - b);
    }
    return cross / sum_f - log(sum_f / sum_q);
}

static double trd_reference(const bb_features *x, const double *f, const double *q)
{
    const size_t c = x->channels, item = x->pixels * c;
    double sum = 0;
    for (size_t i = 0; i < x->items; i++)
        for (size_t p = 0; p < x->pixels; p++)
            sum += kl_of(f + i * item + p * c, q + i * item + p * c, f + i * item, q + i * item, x->pixels, c,
                         (double)TEMPERATURE);
    return sum / x->items / x->pixels;
}

static double mtrd_reference(const bb_features *x, const bb_pixel_memory *m, const double *f, const double *q)
{
    const size_t c = x->channels, n = (size_t)m->slots * m->per_slot, rows = (size_t)x->items * x->pixels;
    double *anchor = calloc(n * c, sizeof *anchor), sum = 0;
    for (size_t i = 0; i < n * c; i++) anchor[i] = (double)m->pixel[i];
    for (size_t p = 0; p < rows; p++) sum += kl_of(f + p * c, q + p * c, anchor, anchor, n, c, (double)TEMPERATURE);
    free(anchor);
    return sum / (double)rows;
}

static void check_gradient(const char *name, const data *d, const bb_pixel_memory *m, double loss, const float *before)
{
    double *f = calloc(d->n, sizeof *f), *q = calloc(d->n, sizeof *q), most = 0, worst = 0, want = 0;
    for (size_t i = 0; i < d->n; i++) {
        f[i] = (double)d->f[i] + (before ? (double)before[i] : 0);
        q[i] = (double)d->q[i] + (before ? (double)before[i] : 0);
    }
    for (size_t i = 0; i < d->n; i++) {
        const double at = q[i], h = 1e-5;
        double side[2];
        for (int k = 0; k < 2; k++) {
            q[i] = at + (k ? h : -h);
            side[k] = m ? mtrd_reference(&d->x, m, f, q) : trd_reference(&d->x, f, q);
        }
        q[i] = at;
        const double slope = 3 * (side[1] - side[0]) / (2 * h); /* weight 3 */
        most = fmax(most, fabs(slope));
        worst = fmax(worst, fabs(slope - (double)d->dq[i]));
    }
    want = m ? mtrd_reference(&d->x, m, f, q) : trd_reference(&d->x, f, q);
    CHECK(fabs(loss - want) <= CLOSE, "%s: %g, should be %g", name, loss, want);
    CHECK(most > 1e-3 && worst <= 10 * CLOSE * most, "%s: gradient up to %g, off by %g", name, most, worst);
    free(f);
    free(q);
}

/* ---- TRD ---- */

static double trd(const data *d) { return bb_trd(ops, dnn, &d->x, NULL, NULL, TEMPERATURE, 3, NULL); }

static void test_trd(void)
{
    static const uint32_t shapes[][3] = {{1, 5, 3}, {2, 17, 8}, {1, 40, 4}};
    for (size_t i = 0; i < 3; i++) {
        data d = make_data(shapes[i][0], shapes[i][1], shapes[i][2]);
        check_gradient("TRD", &d, NULL, trd(&d), NULL);
        float *before = normals(d.n, 5); /* averaged in: the same as adding it, as lengths do not matter */
        memset(d.dq, 0, d.n * sizeof *d.dq);
        const double loss = bb_trd(ops, dnn, &d.x, before, before, TEMPERATURE, 3, NULL);
        check_gradient("TRD of two steps", &d, NULL, loss, before);
        free(before);
        free_data(&d);
    }
}

/* x becomes x − 2v<v, x>/<v, v>, a rotation (and reflection) of all its pixels. */
static void turn(float *x, size_t n, uint32_t channels)
{
    float *v = normals(channels, 9);
    double vv = 0;
    for (uint32_t c = 0; c < channels; c++) vv += (double)v[c] * (double)v[c];
    for (size_t p = 0; p < n; p += channels) {
        double vx = 0;
        for (uint32_t c = 0; c < channels; c++) vx += (double)v[c] * (double)x[p + c];
        for (uint32_t c = 0; c < channels; c++) x[p + c] -= (float)(2 * vx / vv * (double)v[c]);
    }
    free(v);
}

static void stretch(float *x, size_t n, uint32_t channels)
{
    for (size_t i = 0; i < n; i++) x[i] *= 0.5f + (float)(i / channels % 7);
}

/* ---- MTRD ---- */

static double mtrd(const data *d, const bb_pixel_memory *m)
{
    return bb_mtrd(ops, dnn, &d->x, m, m->slots * m->per_slot, d->x.items * d->x.pixels, TEMPERATURE, 1, 2, 3, NULL);
}

/* Filled with other pixels. */
static bb_pixel_memory make_memory(uint32_t slots, uint32_t per_slot, uint32_t channels)
{
    bb_pixel_memory m;
    CHECK(bb_pixel_memory_new(&m, slots, per_slot, channels, NULL) == BB_OK, "memory");
    float *f = normals((size_t)slots * per_slot * channels, 7);
    for (uint32_t slot = 0; slot < slots; slot++) {
        const bb_features x = {slots, per_slot, channels, f, NULL, NULL};
        CHECK(!bb_pixel_memory_ready(&m), "not filled yet");
        bb_pixel_memory_push(&m, slot, &x, slot, per_slot, 3, slot);
    }
    CHECK(bb_pixel_memory_ready(&m), "filled");
    free(f);
    return m;
}

static void test_mtrd(void)
{
    static const uint32_t shapes[][5] = {{1, 5, 3, 2, 4}, {2, 17, 8, 3, 11}, {1, 300, 2, 1, 5}};
    for (size_t i = 0; i < 3; i++) {
        const uint32_t *s = shapes[i];
        data d = make_data(s[0], s[1], s[2]);
        bb_pixel_memory m = make_memory(s[3], s[4], s[2]);
        const double loss = mtrd(&d, &m);
        check_gradient("MTRD", &d, &m, loss, NULL);

        /* Oracle 24: the order of anchors does not matter. */
        const size_t c = s[2], n = (size_t)s[3] * s[4];
        for (size_t k = 0; k < n / 2; k++)
            for (size_t j = 0; j < c; j++) {
                const float x = m.pixel[k * c + j];
                m.pixel[k * c + j] = m.pixel[(n - 1 - k) * c + j];
                m.pixel[(n - 1 - k) * c + j] = x;
            }
        CHECK(fabs(mtrd(&d, &m) - loss) <= CLOSE, "other order: %g, not %g", mtrd(&d, &m), loss);
        for (size_t k = c; k < n * c; k++) m.pixel[k] = m.pixel[k - c];
        CHECK(mtrd(&d, &m) <= CLOSE, "equal anchors: %g", mtrd(&d, &m));
        bb_pixel_memory_free(&m);
        free_data(&d);
    }
}

/* Oracles 22, 23. */
static void test_invariance(void)
{
    data d = make_data(2, 24, 6);
    bb_pixel_memory m = make_memory(2, 9, 6);
    const double t = trd(&d), r = mtrd(&d, &m);
    CHECK(t > 1e-3 && t <= 4 / (double)TEMPERATURE && r > 1e-3 && r <= 4 / (double)TEMPERATURE, "%g %g", t, r);
    stretch(d.q, d.n, 6);
    CHECK(fabs(trd(&d) - t) <= CLOSE && fabs(mtrd(&d, &m) - r) <= CLOSE, "lengths of pixels do not matter");
    turn(d.q, d.n, 6);
    CHECK(fabs(trd(&d) - t) <= CLOSE, "TRD does not see a rotation: %g, not %g", trd(&d), t);
    CHECK(fabs(mtrd(&d, &m) - r) > 0.05 * r, "MTRD sees a rotation: %g, as before %g", mtrd(&d, &m), r);
    memcpy(d.q, d.f, d.n * sizeof *d.q);
    memset(d.dq, 0, d.n * sizeof *d.dq);
    CHECK(trd(&d) == 0 && mtrd(&d, &m) == 0, "0 where they agree");
    for (size_t i = 0; i < d.n; i++) CHECK(fabsf(d.dq[i]) < 1e-6f, "and no gradient but of roundings: %g", d.dq[i]);
    stretch(d.q, d.n, 6);
    CHECK(trd(&d) >= 0 && trd(&d) < CLOSE && mtrd(&d, &m) >= 0 && mtrd(&d, &m) < CLOSE, "nearly 0, not below");
    bb_pixel_memory_free(&m);
    free_data(&d);
}

/* Some rows, some anchors: other pixels take no gradient; the same draw gives the same bits, another another loss. */
static void test_draws(void)
{
    data d = make_data(3, 50, 6);
    bb_pixel_memory m = make_memory(4, 30, 6);
    double loss[4];
    float *first = calloc(d.n, sizeof *first);
    for (int run = 0; run < 3; run++) {
        memset(d.dq, 0, d.n * sizeof *d.dq);
        loss[run] = bb_mtrd(ops, dnn, &d.x, &m, 22, 40, TEMPERATURE, 5, run == 2, 1, NULL);
        size_t touched = 0;
        for (size_t i = 0; i < d.n; i += 6) touched += d.dq[i] != 0;
        CHECK(touched == 40, "%zu rows", touched);
        if (run == 1) CHECK(!memcmp(first, d.dq, d.n * sizeof *first), "the same bits");
        memcpy(first, d.dq, d.n * sizeof *first);
    }
    CHECK(loss[0] == loss[1] && loss[0] != loss[2], "%g %g %g", loss[0], loss[1], loss[2]);
    /* More of each than there are: all rows once, anchors as often as they come. */
    memset(d.dq, 0, d.n * sizeof *d.dq);
    const double all = mtrd(&d, &m), twice = bb_mtrd(ops, dnn, &d.x, &m, 240, 1000, TEMPERATURE, 5, 0, 1, NULL);
    CHECK(fabs(all - twice) <= CLOSE, "every anchor twice: %g, not %g", twice, all);
    bb_pixel_memory_free(&m);
    free(first);
    free_data(&d);
}

/* A pixel without direction: no NaN, no gradient. */
static void test_zeros(void)
{
    data d = make_data(1, 20, 4);
    bb_pixel_memory m = make_memory(2, 5, 4);
    memset(d.q, 0, 4 * sizeof *d.q);
    memset(d.f + 8, 0, 4 * sizeof *d.f);
    const double t = trd(&d), r = mtrd(&d, &m);
    bool finite = isfinite(t) && isfinite(r);
    for (size_t i = 0; i < d.n; i++) finite = finite && isfinite(d.dq[i]);
    CHECK(finite && d.dq[0] == 0 && d.dq[3] == 0 && d.dq[4] != 0, "pixels of length 0");
    bb_pixel_memory_free(&m);
    free_data(&d);
}

/* Oracles 25, 27. */
static void test_memory(void)
{
    enum { ITEMS = 3, PIXELS = 12, C = 4, SLOTS = 3, EACH = 5 };
    data d = make_data(ITEMS, PIXELS, C);
    bb_pixel_memory m;
    CHECK(bb_pixel_memory_new(&m, SLOTS, EACH, C, NULL) == BB_OK, "memory");
    CHECK(bb_mtrd(ops, dnn, &d.x, &m, 8, 8, TEMPERATURE, 1, 1, 1, NULL) == 0, "an empty memory");
    bb_pixel_memory_push(&m, 1, &d.x, 2, 3, 1, 1);
    CHECK(m.filled[0] == 0 && m.filled[1] == 3 && m.filled[2] == 0 && m.next[1] == 3, "its slot only");
    for (size_t i = 0; i < (size_t)SLOTS * EACH * C; i++)
        CHECK((m.pixel[i] != 0) == (i >= EACH * C && i < (EACH + 3) * C), "its slot only: %zu", i);
    const double partly = bb_mtrd(ops, dnn, &d.x, &m, 8, 8, TEMPERATURE, 1, 1, 1, NULL);
    CHECK(isfinite(partly) && partly > 0, "a memory that is not full: %g", partly);

    uint32_t drawn[PIXELS] = {0};
    for (size_t i = 0; i < 3; i++) {
        const float *x = m.pixel + (EACH + i) * C;
        double length = 0;
        uint32_t same = 0;
        for (size_t c = 0; c < C; c++) length += (double)x[c] * (double)x[c];
        CHECK(fabs(sqrt(length) - 1) < 1e-6, "unit length");
        for (size_t p = 0; p < PIXELS; p++) {
            double xf = 0, ff = 0;
            for (size_t c = 0; c < C; c++) {
                const double f = (double)d.f[(2 * PIXELS + p) * C + c];
                xf += (double)x[c] * f;
                ff += f * f;
            }
            if (xf / sqrt(ff) > 1 - 1e-6) same += 1, drawn[p]++;
        }
        CHECK(same == 1, "row %zu is a pixel of the item", i);
    }
    for (size_t p = 0; p < PIXELS; p++) CHECK(drawn[p] <= 1, "without repetition");

    float kept[2 * C];
    memcpy(kept, m.pixel + (EACH + 1) * C, sizeof kept);
    bb_pixel_memory_push(&m, 1, &d.x, 0, 3, 1, 2); /* the last two places, then the oldest */
    CHECK(m.filled[1] == EACH && m.next[1] == 1, "first in, first out");
    CHECK(!memcmp(kept, m.pixel + (EACH + 1) * C, sizeof kept), "what came later stays");
    bb_pixel_memory_push(&m, 0, &d.x, 0, 100, 1, 3); /* all that there are */
    CHECK(m.filled[0] == EACH && m.next[0] == PIXELS % EACH, "all pixels: %u", m.next[0]);

    /* Every pixel is as likely as any other: 1,200 draws of 3 of 12, standard deviation √(1200·¼·¾) = 15. */
    uint32_t often[PIXELS] = {0};
    float one_hot[PIXELS * PIXELS] = {0};
    bb_pixel_memory ones;
    CHECK(bb_pixel_memory_new(&ones, 1, 3, PIXELS, NULL) == BB_OK, "memory");
    for (size_t p = 0; p < PIXELS; p++) one_hot[p * PIXELS + p] = 2;
    const bb_features hot = {1, PIXELS, PIXELS, one_hot, NULL, NULL};
    for (uint64_t k = 0; k < 1200; k++) {
        bb_pixel_memory_push(&ones, 0, &hot, 0, 3, 9, k);
        for (size_t i = 0; i < 3; i++)
            for (size_t p = 0; p < PIXELS; p++) often[p] += ones.pixel[i * PIXELS + p] == 1;
    }
    for (size_t p = 0; p < PIXELS; p++)
        CHECK(abs((int)often[p] - 300) < 75, "pixel %zu was drawn %u times", p, often[p]);
    bb_pixel_memory_free(&ones);
    bb_pixel_memory_free(&m);
    free_data(&d);
}

int main(void)
{
    bb_error err = {0};
    CHECK(bb_dnn_open(&dnn, 2, 0, &err) == BB_OK, "%s", err.text);
    ops = bb_ops_select(0, 2);
    test_trd();
    test_mtrd();
    test_invariance();
    test_draws();
    test_zeros();
    test_memory();
    bb_dnn_close(dnn);
    return check_done();
}
