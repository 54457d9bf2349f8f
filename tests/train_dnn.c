/* The oneDNN adapter against sums in double: shapes, strides, padding on one side, all directions, f32 and bf16.
 * `test_train_dnn` runs itself once for each level of --cpu, since oneDNN takes one for a process. */
#include "base/rng.h"
#include "check.h"
#include "train/engine/dnn.h"

#include <sys/wait.h>
#include <unistd.h>

typedef struct tensor { float *f; uint16_t *h; size_t n; } tensor;

static void *aligned(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

static uint16_t bf16_of(float x) { return (uint16_t)(bb_f32_bits(x) >> 16); } /* of values that fit */

/* Integers from −range to range, or floats of a mean square of 1/3 (range 0). */
static tensor filled(size_t n, uint32_t range, uint32_t stream)
{
    tensor t = {aligned(n * sizeof *t.f), aligned(n * sizeof *t.h), n};
    for (size_t i = 0; i < n; i++) {
        const float u = (float)bb_uniform(5, stream, i);
        t.f[i] = range ? (float)((int)(u * (2 * (float)range + 1)) - (int)range) : 2 * u - 1;
        t.h[i] = bf16_of(t.f[i]);
    }
    return t;
}

static void drop(tensor *t) { free(t->f), free(t->h); }

typedef struct sums { double *x, *y, *w, *x_abs, *y_abs, *w_abs; } sums; /* dx, y, dw and the same of magnitudes */

static void visit(const bb_conv_shape *s, uint32_t oh, uint32_t ow, const float *x, const float *dy, const float *w,
                  sums *out, uint32_t n, uint32_t i, uint32_t j)
{
    for (uint32_t a = 0; a < s->kh; a++)
        for (uint32_t b = 0; b < s->kw; b++) {
            const int64_t h = (int64_t)i * s->stride + a - s->top, v = (int64_t)j * s->stride + b - s->left;
            if (h < 0 || v < 0 || h >= s->h || v >= s->w) continue;
            const size_t at_x = (((size_t)n * s->h + (size_t)h) * s->w + (size_t)v) * s->c;
            const size_t at_y = (((size_t)n * oh + i) * ow + j) * s->out;
            for (uint32_t c = 0; c < s->c; c++)
                for (uint32_t o = 0; o < s->out; o++) {
                    const size_t at_w = (((size_t)a * s->kw + b) * s->c + c) * s->out + o;
                    const double forward = (double)x[at_x + c] * w[at_w], grad = (double)x[at_x + c] * dy[at_y + o];
                    const double data = (double)dy[at_y + o] * w[at_w];
                    out->y[at_y + o] += forward, out->y_abs[at_y + o] += fabs(forward);
                    out->x[at_x + c] += data, out->x_abs[at_x + c] += fabs(data);
                    out->w[at_w] += grad, out->w_abs[at_w] += fabs(grad);
                }
        }
}

/* A sum of m products in f32, in any order, is off by at most m·u·Σ|terms| to first order, u = 2^-24 (Higham, Accuracy
 * and Stability of Numerical Algorithms, §3.1); one more for the bias. Integers below 2^24 have no error at all. */
#define EXACT (-1.0)
static void compare(const char *what, const char *shape, const float *got, const double *want, const double *size,
                    size_t n, double terms)
{
    double worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const double over = fabs(got[i] - want[i]) - (terms + 1) * 0x1p-24 * size[i];
        if (!(over <= worst)) worst = over, at = i;
    }
    CHECK(worst == 0, "%s of %s: element %zu is %.9g, not %.9g", what, shape, at, got[at], want[at]);
}

static void conv_case(bb_dnn *d, const bb_conv_shape *s, bool bf16, uint32_t directions)
{
    char name[120];
    snprintf(name, sizeof name, "%ux%ux%ux%u to %u, %ux%u stride %u, pad %u %u %u %u%s", s->n, s->h, s->w, s->c, s->out,
             s->kh, s->kw, s->stride, s->top, s->left, s->bottom, s->right, bf16 ? ", bf16" : "");
    const uint32_t oh = (s->h + s->top + s->bottom - s->kh) / s->stride + 1;
    const uint32_t ow = (s->w + s->left + s->right - s->kw) / s->stride + 1;
    const size_t nx = (size_t)s->n * s->h * s->w * s->c, ny = (size_t)s->n * oh * ow * s->out;
    const size_t nw = (size_t)s->kh * s->kw * s->c * s->out;
    tensor x = filled(nx, bf16 ? 255 : 0, 1), dy = filled(ny, bf16 ? 31 : 0, 2), w = filled(nw, bf16 ? 127 : 0, 3);
    tensor bias = filled(s->out, bf16 ? 100 : 0, 4), y = filled(ny, 0, 5), dx = filled(nx, 0, 6), dw = filled(nw, 0, 7);
    sums want = {calloc(nx, 8), calloc(ny, 8), calloc(nw, 8), calloc(nx, 8), calloc(ny, 8), calloc(nw, 8)};
    for (uint32_t n = 0; n < s->n; n++)
        for (uint32_t i = 0; i < oh; i++)
            for (uint32_t j = 0; j < ow; j++) visit(s, oh, ow, x.f, dy.f, w.f, &want, n, i, j);

    bb_conv *c;
    bb_error err = {0};
    CHECK(bb_conv_new(&c, d, s, bf16, directions, &err) == BB_OK, "%s: %s", name, err.text);
    if (c) {
        bb_conv_weights(c, dy.n >= nw ? dy.f : w.f); /* other weights first: renewed ones must count */
        bb_conv_weights(c, w.f);
        const void *px = bf16 ? (void *)x.h : (void *)x.f, *pdy = bf16 ? (void *)dy.h : (void *)dy.f;
        const uint32_t taps = s->kh * s->kw;
        if (directions & BB_DNN_FORWARD) {
            bb_conv_forward(c, px, NULL, y.f);
            compare("y", name, y.f, want.y, want.y_abs, ny, bf16 ? EXACT : (double)taps * s->c);
            bb_conv_forward(c, px, bias.f, y.f);
            for (size_t i = 0; i < ny; i++) {
                want.y[i] += bias.f[i % s->out];
                want.y_abs[i] += fabs(bias.f[i % s->out]);
            }
            compare("y with bias", name, y.f, want.y, want.y_abs, ny, bf16 ? EXACT : (double)taps * s->c);
        }
        if (directions & BB_DNN_DATA) {
            bb_conv_data(c, pdy, dx.f);
            compare("dx", name, dx.f, want.x, want.x_abs, nx, bf16 ? EXACT : (double)taps * s->out);
        }
        if (directions & BB_DNN_WEIGHTS) {
            bb_conv_grad(c, px, pdy, dw.f, false);
            compare("dw", name, dw.f, want.w, want.w_abs, nw, bf16 ? EXACT : (double)s->n * oh * ow);
            float *first = memcpy(aligned(nw * sizeof *first), dw.f, nw * sizeof *first);
            bb_conv_grad(c, px, pdy, dw.f, false);
            CHECK(memcmp(first, dw.f, nw * sizeof *first) == 0, "dw of %s: other bits the second time", name);
            memset(dw.f, 0, nw * sizeof *first);
            bb_conv_grad(c, px, pdy, dw.f, true);
            CHECK(memcmp(first, dw.f, nw * sizeof *first) == 0, "dw of %s: other bits when added to 0", name);
            bb_conv_grad(c, px, pdy, dw.f, true);
            for (size_t i = 0; i < nw; i++) want.w[i] *= 2, want.w_abs[i] *= 2;
            compare("twice dw", name, dw.f, want.w, want.w_abs, nw, bf16 ? EXACT : (double)s->n * oh * ow + 1);
            free(first);
        }
        const size_t least = (directions & BB_DNN_FORWARD) ? nw * (bf16 ? 2 : 4) : 1;
        if ((directions & BB_DNN_DATA) && (directions & BB_DNN_WEIGHTS)) {
            float *dx2 = aligned(nx * sizeof *dx2), *dw2 = aligned(nw * sizeof *dw2);
            bb_conv_grad(c, px, pdy, dw.f, false);
            bb_conv_backward(c, px, pdy, dx2, dw2, false);
            CHECK(memcmp(dx2, dx.f, nx * sizeof *dx2) == 0 && memcmp(dw2, dw.f, nw * sizeof *dw2) == 0,
                  "%s: other bits when both gradients are made at once", name);
            free(dx2), free(dw2);
        }
        CHECK(bb_conv_bytes(c) >= least, "%s: holds %zu bytes, not %zu", name, bb_conv_bytes(c), least);
    }
    bb_conv_free(c);
    double *all[] = {want.x, want.y, want.w, want.x_abs, want.y_abs, want.w_abs};
    for (size_t i = 0; i < BB_COUNT(all); i++) free(all[i]);
    tensor *used[] = {&x, &dy, &w, &bias, &y, &dx, &dw};
    for (size_t i = 0; i < BB_COUNT(used); i++) drop(used[i]);
}

static const bb_conv_shape convs[] = {
    {2, 8, 8, 32, 32, 3, 3, 1, 1, 1, 1, 1},  {2, 7, 9, 1, 32, 3, 3, 1, 1, 1, 1, 1},
    {1, 8, 8, 32, 1, 3, 3, 1, 1, 1, 1, 1},   {2, 9, 9, 3, 10, 3, 3, 1, 1, 1, 1, 1},
    {2, 8, 8, 10, 48, 3, 3, 2, 1, 1, 1, 1},  {2, 8, 8, 16, 32, 3, 3, 2, 0, 0, 1, 1},
    {1, 9, 7, 32, 16, 3, 3, 2, 0, 0, 1, 1},  {1, 8, 6, 64, 48, 3, 3, 1, 0, 2, 1, 0},
    {1, 4, 4, 96, 64, 3, 3, 1, 1, 1, 1, 1},  {2, 6, 6, 96, 32, 1, 1, 1, 0, 0, 0, 0},
    {2, 6, 6, 33, 17, 1, 1, 1, 0, 0, 0, 0},  {1, 7, 7, 8, 8, 1, 1, 2, 0, 0, 0, 0},
    {1, 1, 8, 32, 128, 1, 1, 1, 0, 0, 0, 0}, {1, 1, 64, 128, 128, 1, 1, 1, 0, 0, 0, 0},
    {1, 1, 1, 128, 64, 1, 1, 1, 0, 0, 0, 0}, {1, 1, 300, 10, 3, 1, 1, 1, 0, 0, 0, 0},
    {1, 1, 5, 1, 1, 1, 1, 1, 0, 0, 0, 0},    {1, 6, 6, 192, 64, 3, 3, 1, 1, 1, 1, 1},
    {1, 9, 9, 5, 6, 5, 3, 1, 2, 1, 2, 1},    {2, 12, 1, 8, 5, 2, 2, 2, 0, 1, 0, 0}, /* a column never met */
    /* two threads: slices alike and not, rows of a linear layer, and oneDNN's own threads */
    {4, 8, 8, 32, 32, 3, 3, 1, 1, 1, 1, 1},  {9, 8, 8, 16, 48, 3, 3, 2, 0, 0, 1, 1},
    {1, 1, 601, 64, 33, 1, 1, 1, 0, 0, 0, 0}, {3, 8, 8, 32, 48, 3, 3, 1, 1, 1, 1, 1},
};

static size_t reach(const bb_matmul_shape *s, const bb_matrix *m, uint32_t rows, uint32_t columns)
{
    return (s->outer - 1) * m->outer + (s->batch - 1) * m->batch + (rows - 1) * m->row + (columns - 1) * m->column + 1;
}

static void matmul_case(bb_dnn *d, const bb_matmul_shape *s)
{
    char name[80];
    snprintf(name, sizeof name, "%u·%u products %ux%ux%u%s", s->outer, s->batch, s->m, s->n, s->k,
             s->bf16 ? ", bf16" : "");
    const size_t nc = reach(s, &s->c, s->m, s->n);
    tensor a = filled(reach(s, &s->a, s->m, s->k), 0, 1), b = filled(reach(s, &s->b, s->k, s->n), 0, 2);
    tensor c = filled(nc, 0, 3), before = filled(nc, 0, 3);
    for (size_t i = 0; i < a.n && s->bf16; i++) a.f[i] = bb_f32_from_bits((uint32_t)a.h[i] << 16);
    for (size_t i = 0; i < b.n && s->bf16; i++) b.f[i] = bb_f32_from_bits((uint32_t)b.h[i] << 16);
    double *want = calloc(nc, sizeof *want), *size = calloc(nc, sizeof *size);
    for (size_t i = 0; i < nc; i++) want[i] = c.f[i]; /* between the rows nothing is written */
    for (uint32_t o = 0; o < s->outer; o++)
        for (uint32_t i = 0; i < s->batch; i++)
            for (uint32_t m = 0; m < s->m; m++)
                for (uint32_t n = 0; n < s->n; n++) {
                    const size_t at = o * s->c.outer + i * s->c.batch + m * s->c.row + n * s->c.column;
                    double sum = 0;
                    for (uint32_t k = 0; k < s->k; k++) {
                        double p = (double)a.f[o * s->a.outer + i * s->a.batch + m * s->a.row + k * s->a.column] *
                                   b.f[o * s->b.outer + i * s->b.batch + k * s->b.row + n * s->b.column];
                        sum += p, size[at] += fabs((double)s->alpha * p);
                    }
                    want[at] = (double)s->alpha * sum + (s->add ? before.f[at] : 0);
                    if (s->add) size[at] += fabs(before.f[at]);
                }
    bb_matmul *mul;
    bb_error err = {0};
    CHECK(bb_matmul_new(&mul, d, s, &err) == BB_OK, "%s: %s", name, err.text);
    if (mul) {
        bb_matmul_run(mul, s->bf16 ? (void *)a.h : a.f, s->bf16 ? (void *)b.h : b.f, c.f);
        compare("c", name, c.f, want, size, nc, s->k + 1); /* + 1: alpha */
    }
    bb_matmul_free(mul);
    free(want), free(size);
    tensor *used[] = {&a, &b, &c, &before};
    for (size_t i = 0; i < BB_COUNT(used); i++) drop(used[i]);
}

/* Attention over items of `pixels` with `heads` of `width`: values are [item][pixel][head][width], scores
 * [item][head][pixel][pixel]. */
static void attention(bb_dnn *d, uint32_t items, uint32_t heads, uint32_t pixels, uint32_t width, bool bf16)
{
    const size_t row = (size_t)heads * width;
    const bb_matrix value = {pixels * row, width, row, 1}, turned = {pixels * row, width, 1, row};
    const bb_matrix score = {(size_t)heads * pixels * pixels, (size_t)pixels * pixels, pixels, 1};
    const bb_matrix score_turned = {score.outer, score.batch, 1, pixels};
    const bb_matmul_shape all[] = {
        {items, heads, pixels, pixels, width, value, turned, score, .125f, false, bf16},  /* q · kᵀ */
        {items, heads, pixels, width, pixels, score, value, value, 1, false, bf16},       /* p · v */
        {items, heads, pixels, width, pixels, score_turned, value, value, 1, true, bf16}, /* dv += pᵀ · dy */
        {items, heads, pixels, width, pixels, score, value, value, .125f, true, bf16},    /* dq += s · k */
    };
    for (size_t i = 0; i < BB_COUNT(all); i++) matmul_case(d, &all[i]);
}

static int level(uint32_t cpu)
{
    bb_dnn *d;
    bb_error err = {0};
    CHECK(bb_dnn_open(&d, 2, cpu, &err) == BB_OK, "%s", err.text);
    if (!d) return check_done();
    CHECK(strstr(bb_dnn_name(d), "oneDNN"), "%s", bb_dnn_name(d));
    CHECK(cpu == 0 || cpu == 3 || !bb_dnn_bf16(d), "bf16 with --cpu %u", cpu);
    for (size_t i = 0; i < BB_COUNT(convs); i++)
        for (int bf16 = 0; bf16 <= bb_dnn_bf16(d); bf16++)
            conv_case(d, &convs[i], bf16, BB_DNN_FORWARD | BB_DNN_DATA | BB_DNN_WEIGHTS);
    for (uint32_t one = BB_DNN_FORWARD; one <= BB_DNN_WEIGHTS; one *= 2) conv_case(d, &convs[5], false, one);
    for (int bf16 = 0; bf16 <= bb_dnn_bf16(d); bf16++) {
        attention(d, 2, 1, 16, 64, bf16);
        attention(d, 2, 3, 10, 8, bf16);
        attention(d, 1, 2, 64, 64, bf16);
        attention(d, 3, 2, 9, 3, bf16);
    }
    const bb_matmul_shape plain = {1, 1, 33, 20, 70, {0, 0, 70, 1}, {0, 0, 1, 70}, {0, 0, 25, 1}, -2, false, false};
    matmul_case(d, &plain);
    bb_dnn_close(d);
    return check_done();
}

int main(int argc, char **argv)
{
    if (argc > 1) return level((uint32_t)atoi(argv[1]));
    for (uint32_t cpu = 0; cpu <= 3; cpu++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            char number[2] = {(char)('0' + cpu), 0};
            execv(argv[0], (char *[]){argv[0], number, NULL});
            _exit(127);
        }
        int status = 1;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "--cpu %u: status %d", cpu, status);
    }
    return check_done();
}
