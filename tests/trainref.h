/* The graph in double precision, each op in its plainest form: what the trainer's passes are compared with. */
#ifndef BB_TESTS_TRAINREF_H
#define BB_TESTS_TRAINREF_H

#include "check.h"

#include "train/engine/tape.h"

typedef struct trainref {
    const bb_graph *g;
    bb_shape *shapes;  /* [n_values] */
    double **value;    /* [n_values] */
    const double *w;   /* weights, as in bb_params */
    const size_t *at;
} trainref;

static inline double *ref_in(const trainref *r, const bb_op *op, uint32_t k) { return r->value[op->in[k]]; }

static inline const double *ref_weight(const trainref *r, const bb_op *op, uint32_t k)
{
    return op->weight[k] == BB_NONE ? NULL : r->w + r->at[op->weight[k]];
}

static inline void ref_conv(const trainref *r, const bb_op *op, bb_shape x, bb_shape y, double *out)
{
    const double *in = ref_in(r, op, 0), *w = ref_weight(r, op, 0), *b = ref_weight(r, op, 1);
    for (uint32_t i = 0; i < y.n * y.h * y.w; i++)
        for (uint32_t o = 0; o < y.c; o++) {
            uint32_t n = i / (y.h * y.w), oy = i / y.w % y.h, ox = i % y.w;
            double sum = b ? b[o] : 0;
            for (uint32_t tap = 0; tap < op->conv.kh * op->conv.kw; tap++) {
                uint32_t iy = oy * op->conv.stride + tap / op->conv.kw - op->conv.top;
                uint32_t ix = ox * op->conv.stride + tap % op->conv.kw - op->conv.left;
                if (iy >= x.h || ix >= x.w) continue; /* padding; above or left of the picture wraps round */
                for (uint32_t c = 0; c < x.c; c++)
                    sum += in[((n * x.h + iy) * x.w + ix) * x.c + c] * w[(tap * x.c + c) * y.c + o];
            }
            out[i * y.c + o] = sum;
        }
}

static inline void ref_linear(const trainref *r, const bb_op *op, bb_shape x, bb_shape y, double *out)
{
    const double *in = ref_in(r, op, 0), *w = ref_weight(r, op, 0), *b = ref_weight(r, op, 1);
    for (uint32_t i = 0; i < y.n * y.h * y.w; i++)
        for (uint32_t o = 0; o < y.c; o++) {
            double sum = b ? b[o] : 0;
            for (uint32_t c = 0; c < x.c; c++) sum += in[i * x.c + c] * w[c * y.c + o];
            out[i * y.c + o] = sum;
        }
}

static inline void ref_norm(const trainref *r, const bb_op *op, bb_shape s, double *out)
{
    const double *in = ref_in(r, op, 0), *scale = ref_weight(r, op, 0), *shift = ref_weight(r, op, 1);
    uint32_t pixels = s.h * s.w, width = s.c / op->norm.groups;
    for (uint32_t i = 0; i < s.n * op->norm.groups; i++) {
        const size_t at = (size_t)(i / op->norm.groups) * pixels * s.c + i % op->norm.groups * width;
        double mean = 0, var = 0;
        for (uint32_t k = 0; k < pixels * width; k++) mean += in[at + k / width * s.c + k % width];
        mean /= pixels * width;
        for (uint32_t k = 0; k < pixels * width; k++) var += pow(in[at + k / width * s.c + k % width] - mean, 2);
        double rstd = 1 / sqrt(var / (pixels * width) + (double)op->norm.eps);
        for (uint32_t k = 0; k < pixels * width; k++) {
            size_t at_k = at + k / width * s.c + k % width;
            uint32_t c = (uint32_t)(at_k % s.c);
            out[at_k] = (in[at_k] - mean) * rstd * scale[c] + shift[c];
        }
    }
}

static inline double ref_act(uint32_t kind, double x)
{
    switch (kind) {
    case BB_OP_SILU: return x / (1 + exp(-x));
    case BB_OP_GELU: return 0.5 * x * (1 + erf(x / sqrt(2)));
    default: return x * tanh(log1p(exp(x)));
    }
}

static inline void ref_attention(const trainref *r, const bb_op *op, bb_shape q, bb_shape k, double *out)
{
    uint32_t heads = op->attention.heads, d = q.c / heads, lq = q.h * q.w, lk = k.h * k.w;
    double *p = malloc(lk * sizeof *p);
    for (uint32_t i = 0; i < q.n * heads * lq; i++) {
        uint32_t n = i / (heads * lq), head = i / lq % heads;
        size_t row = ((size_t)n * lq + i % lq) * q.c + head * d;
        double total = 0;
        for (uint32_t j = 0; j < lk; j++) {
            double dot = 0;
            for (uint32_t c = 0; c < d; c++)
                dot += ref_in(r, op, 0)[row + c] * ref_in(r, op, 1)[((size_t)n * lk + j) * q.c + head * d + c];
            total += p[j] = exp((double)op->attention.scale * dot);
        }
        for (uint32_t c = 0; c < d; c++) {
            double sum = 0;
            for (uint32_t j = 0; j < lk; j++) sum += p[j] * ref_in(r, op, 2)[((size_t)n * lk + j) * q.c + head * d + c];
            out[row + c] = sum / total;
        }
    }
    free(p);
}

/* Where element e of y, at (n, oy, ox, c), comes from. */
static inline double ref_moved(const trainref *r, const bb_op *op, bb_shape x, bb_shape y, size_t e)
{
    size_t c = e % y.c, ox = e / y.c % y.w, oy = e / y.c / y.w % y.h, n = e / y.c / y.w / y.h;
    switch (op->kind) {
    case BB_OP_SLICE: return ref_in(r, op, 0)[e / y.c * x.c + op->slice.first + c];
    case BB_OP_UPSAMPLE_NEAREST:
        return ref_in(r, op, 0)[((n * x.h + oy * x.h / y.h) * x.w + ox * x.w / y.w) * x.c + c];
    case BB_OP_AVG_POOL2D: {
        double sum = 0;
        uint32_t f = op->pool.factor;
        for (uint32_t k = 0; k < f * f; k++)
            sum += ref_in(r, op, 0)[((n * x.h + oy * f + k / f) * x.w + ox * f + k % f) * x.c + c];
        return sum / (f * f);
    }
    default: { /* CONCAT */
        uint32_t k = 0;
        for (uint32_t width; c >= (width = r->shapes[op->in[k]].c); k++) c -= width;
        return ref_in(r, op, k)[e / y.c * r->shapes[op->in[k]].c + c];
    }
    }
}

static inline double ref_element(const trainref *r, const bb_op *op, bb_shape x, bb_shape y, size_t e)
{
    size_t item = e / ((size_t)y.h * y.w * y.c) * y.c + e % y.c; /* of a vector per item */
    switch (op->kind) {
    case BB_OP_SILU: case BB_OP_GELU: case BB_OP_MISH: return ref_act(op->kind, ref_in(r, op, 0)[e]);
    case BB_OP_AFFINE: return ref_in(r, op, 0)[e] * (double)op->affine.mul + (double)op->affine.add;
    case BB_OP_MODULATE: return ref_in(r, op, 0)[e] * (1 + ref_in(r, op, 1)[item]) + ref_in(r, op, 2)[item];
    case BB_OP_ADD: {
        bb_shape b = r->shapes[op->in[1]];
        return ref_in(r, op, 0)[e] + ref_in(r, op, 1)[b.h == y.h && b.w == y.w ? e : item];
    }
    case BB_OP_EMBEDDING: return ref_weight(r, op, 0)[(size_t)ref_in(r, op, 0)[e / y.c] * y.c + e % y.c];
    case BB_OP_TIMESTEP_EMBEDDING: {
        size_t half = y.c / 2, k = e % y.c;
        double angle = ref_in(r, op, 0)[e / y.c] * ref_weight(r, op, 0)[k % half];
        return (k < half) == !op->timestep.cos_first ? sin(angle) : cos(angle);
    }
    default: return ref_moved(r, op, x, y, e);
    }
}

/* Values of all ops; those of inputs must be set. */
static inline void ref_forward(trainref *r)
{
    for (uint32_t i = 0; i < r->g->n_ops; i++) {
        const bb_op *op = &r->g->ops[i];
        uint32_t v = bb_op_value(r->g, i);
        bb_shape x = r->shapes[op->in[0]], y = r->shapes[v];
        double *out = r->value[v];
        switch (op->kind) {
        case BB_OP_CONV2D: ref_conv(r, op, x, y, out); break;
        case BB_OP_LINEAR: ref_linear(r, op, x, y, out); break;
        case BB_OP_GROUP_NORM: ref_norm(r, op, y, out); break;
        case BB_OP_ATTENTION: ref_attention(r, op, x, r->shapes[op->in[1]], out); break;
        default:
            for (size_t e = 0; e < bb_shape_size(y); e++) out[e] = ref_element(r, op, x, y, e);
        }
    }
}

static inline void ref_open(trainref *r, const bb_graph *g, const bb_bindings *bind)
{
    bb_error err = {.text = ""};
    *r = (trainref){.g = g, .shapes = calloc(g->n_values, sizeof *r->shapes),
                    .value = calloc(g->n_values, sizeof *r->value)};
    CHECK(bb_graph_shapes(g, bind, r->shapes, &err) == BB_OK, "%s", err.text);
    for (uint32_t v = 0; v < g->n_values; v++) r->value[v] = calloc(bb_shape_size(r->shapes[v]), sizeof **r->value);
}

static inline void ref_close(trainref *r)
{
    for (uint32_t v = 0; v < r->g->n_values; v++) free(r->value[v]);
    free(r->value);
    free(r->shapes);
}

#endif
