/* The ops between a student's layers with core's own kernels in the forward pass, bit for bit. A difference in the last
 * place is nothing to a float network, but where it puts one value on the other side of a half, a code flips; at 4 bits
 * that moves everything behind it, and a fifth of that picture's codes with it. */
#include "train/student/layer.h"

#define CHUNK 16384u /* elements of a work item */

/* Of the last student that was bound: ops are plain functions. All kernel sets have the same bits. */
static bb_kernels kernels;
static const bb_student_loops *norm_loops;
static bb_ops others; /* the trainer's own: for what these do not do */

/* As core/run has it: statistics, ((x − mean)·rstd)·scale + shift, then the activation. */
static void norm_item(const bb_norm_args *a, uint32_t item)
{
    const size_t n = (size_t)a->pixels * a->channels, each = a->channels / a->groups;
    float *mean = a->scratch + (size_t)item * 2 * a->channels, *rstd = mean + a->channels;
    const float *x = a->x + item * n;
    float *y = a->y + item * n;
    kernels.norm_stats(&(bb_norm_stats_args){.mean = mean, .rstd = rstd, .x = x, .pixels = a->pixels, .c = a->channels,
                                             .groups = a->groups, .eps = a->eps});
    for (uint32_t g = 0; g < a->groups; g++) {
        a->mean[item * a->groups + g] = mean[g * each];
        a->rstd[item * a->groups + g] = rstd[g * each];
    }
    norm_loops->norm(a->pixels, a->channels, x, mean, rstd, a->scale, a->shift, y);
    if (a->act == BB_ACT_SILU) kernels.silu(y, y, n);
    if (a->act == BB_ACT_GELU) kernels.gelu(y, y, n);
    if (a->act == BB_ACT_MISH) kernels.mish(y, y, n);
}

static void norm_forward(const bb_norm_args *a)
{
    if (!a->y) {
        others.norm_forward(a);
        return;
    }
#pragma omp parallel for schedule(static)
    for (uint32_t item = 0; item < a->items; item++) norm_item(a, item);
    if (a->y16) others.to_bf16((size_t)a->items * a->pixels * a->channels, a->y, a->y16);
}

static void act_forward(uint32_t act, size_t n, const float *x, float *y, uint16_t *y16)
{
    if (!y || act == BB_ACT_NONE) {
        others.act_forward(act, n, x, y, y16);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t count = n - i < CHUNK ? n - i : CHUNK;
        if (act == BB_ACT_SILU) kernels.silu(y + i, x + i, count);
        else if (act == BB_ACT_GELU) kernels.gelu(y + i, x + i, count);
        else kernels.mish(y + i, x + i, count);
    }
    if (y16) others.to_bf16(n, y, y16);
}

static void modulate_forward(uint32_t items, uint32_t pixels, uint32_t channels, const float *x, const float *scale,
                             const float *shift, float *y)
{
    const size_t n = (size_t)pixels * channels;
    for (uint32_t i = 0; i < items; i++)
        kernels.modulate(y + i * n, x + i * n, scale + (size_t)i * channels, shift + (size_t)i * channels, pixels,
                         channels);
}

static void affine_forward(size_t n, float mul, float add, const float *x, float *y)
{
    kernels.affine(y, x, mul, add, n);
}

static void attention_forward(const bb_op *op, bb_shape query, bb_shape key, const float *q, const float *k,
                              const float *v, float *y)
{
    const uint32_t heads = op->attention.heads, lq = query.h * query.w, lk = key.h * key.w;
    const size_t d = query.c / heads, runs = (lq + BB_ATTENTION_QUERIES - 1) / BB_ATTENTION_QUERIES;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < (size_t)query.n * heads; i++) {
        float scratch[BB_ATTENTION_SCRATCH(BB_STUDENT_HEAD)];
        const size_t item = i / heads, head = i % heads * d;
        for (size_t r = 0; r < runs; r++) {
            const size_t first = r * BB_ATTENTION_QUERIES;
            kernels.attention(&(bb_attention_args){
                .o = y + item * lq * query.c + head, .q = q + item * lq * query.c + head,
                .k = k + item * lk * query.c + head, .v = v + item * lk * query.c + head, .scratch = scratch,
                .first_query = first, .queries = lq - first < BB_ATTENTION_QUERIES ? lq - first : BB_ATTENTION_QUERIES,
                .keys = lk, .d = d, .o_stride = query.c, .q_stride = query.c, .kv_stride = query.c,
                .scale = op->attention.scale});
        }
    }
}

void bb_student_exact(bb_ops *out, const bb_ops *ops, const bb_student_loops *loops, const bb_graph *g,
                      const bb_shape *shapes)
{
    bool fits = true;
    uint32_t cpu = bb_cpu_features(); /* no more than --cpu has left to the trainer's ops */
#ifdef BB_STUDENT_X86
    if (loops == &bb_student_loops_avx2) cpu &= ~(uint32_t)BB_CPU_AVX512;
    if (loops == &bb_student_loops_base) cpu = 0;
#endif
    bb_kernels_select(&kernels, cpu);
    others = *ops;
    norm_loops = loops;
    *out = *ops;
    out->norm_forward = norm_forward;
    out->act_forward = act_forward;
    out->modulate_forward = modulate_forward;
    out->affine_forward = affine_forward;
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (g->ops[i].kind == BB_OP_ATTENTION)
            fits = fits && shapes[g->ops[i].in[0]].c / g->ops[i].attention.heads <= BB_STUDENT_HEAD;
    if (fits) out->attention_forward = attention_forward;
}

/* ---- the first convolution ---- */

/* As core/run/conv.c: from 0, taps and then channels in order, nothing contracted; the bias last. */
static void float_pixel(const bb_student_op *o, const bb_layer_pass *pass, uint32_t item, uint32_t pixel)
{
    const bb_student *s = o->s;
    const bb_op *op = pass->op;
    const uint32_t oy = pixel / pass->out.w, ox = pixel % pass->out.w, c = pass->in.c, n = pass->out.c;
    const float *w = s->w + s->params.at[op->weight[0]];
    float *y = pass->y + ((size_t)item * o->out_pixels + pixel) * n;
    memset(y, 0, n * sizeof *y);
    for (uint32_t ky = 0; ky < op->conv.kh; ky++)
        for (uint32_t kx = 0; kx < op->conv.kw; kx++, w += (size_t)c * n) {
            const uint32_t iy = oy * op->conv.stride + ky - op->conv.top;
            const uint32_t ix = ox * op->conv.stride + kx - op->conv.left;
            if (iy >= pass->in.h || ix >= pass->in.w) continue;
            s->loops->combine(c, n, pass->x + (((size_t)item * pass->in.h + iy) * pass->in.w + ix) * c, 1, w, y);
        }
    const float *bias = op->weight[1] == BB_NONE ? NULL : s->w + s->params.at[op->weight[1]];
    for (uint32_t i = 0; bias && i < n; i++) y[i] += bias[i];
}

void bb_student_float_forward(void *self, const bb_layer_pass *pass)
{
    const bb_student_op *o = self;
#pragma omp parallel for schedule(static)
    for (uint32_t p = 0; p < o->items * o->out_pixels; p++) float_pixel(o, pass, p / o->out_pixels, p % o->out_pixels);
}

void bb_student_float_backward(void *self, const bb_layer_pass *pass)
{
    const bb_student_op *o = self;
    bb_student *s = o->s;
    const uint32_t slot = pass->op->weight[0], bias = pass->op->weight[1];
    if (!s->opt.train_float) return;
    bb_conv_grad(o->backward, pass->x, pass->dy, s->g + s->params.at[slot], true);
    if (bias != BB_NONE)
        s->ops->column_sums((size_t)o->items * o->out_pixels, pass->out.c, pass->dy, s->g + s->params.at[bias]);
}
