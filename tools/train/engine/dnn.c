#include "train/engine/dnn_api.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the library ---- */

static bool choose_isa(uint32_t cpu)
{
    static const dnnl_cpu_isa_t isa[] = {(dnnl_cpu_isa_t)0, dnnl_cpu_isa_sse41, dnnl_cpu_isa_avx2};
    return cpu >= BB_COUNT(isa) || cpu == 0 || dnnl_set_max_cpu_isa(isa[cpu]) == dnnl_success ||
           dnnl_get_effective_cpu_isa() <= isa[cpu];
}

static void name_library(bb_dnn *d, dnnl_cpu_isa_t isa)
{
    static const struct { dnnl_cpu_isa_t isa; const char *name; } names[] = {
        {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"}, {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
        {dnnl_cpu_isa_avx512_core, "avx512_core"}, {dnnl_cpu_isa_avx2, "avx2"}, {dnnl_cpu_isa_avx, "avx"},
        {dnnl_cpu_isa_sse41, "sse41"}};
    const dnnl_version_t *v = dnnl_version();
    const char *level = "baseline";
    for (size_t i = BB_COUNT(names); i-- > 0;)
        if (((unsigned)isa & (unsigned)names[i].isa) == (unsigned)names[i].isa) level = names[i].name;
    snprintf(d->name, sizeof d->name, "oneDNN %d.%d.%d, %s", v->major, v->minor, v->patch, level);
    d->bf16 = ((unsigned)isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

bb_status bb_dnn_open(bb_dnn **out, uint32_t threads, uint32_t cpu, bb_error *err)
{
    *out = NULL;
    if (!choose_isa(cpu))
        return bb_fail(err, BB_ERR_ORDER, "oneDNN was in use before its instruction set was chosen");
    bb_dnn *d = calloc(1, sizeof *d);
    if (!d) return bb_fail(err, BB_ERR_SPACE, "no memory for oneDNN");
    d->threads = threads;
    omp_set_num_threads((int)threads);
    if (dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags) != dnnl_success) {
        bb_dnn_close(d);
        return bb_fail(err, BB_ERR_SPACE, "oneDNN does not start");
    }
    name_library(d, dnnl_get_effective_cpu_isa());
    *out = d;
    return BB_OK;
}

void bb_dnn_close(bb_dnn *d)
{
    if (!d) return;
    if (d->stream) dnnl_stream_destroy(d->stream);
    if (d->engine) dnnl_engine_destroy(d->engine);
    free(d->scratch);
    free(d);
}

bool bb_dnn_bf16(const bb_dnn *d) { return d->bf16; }
const char *bb_dnn_name(const bb_dnn *d) { return d->name; }

/* ---- tasks ---- */

static void *aligned(size_t bytes)
{
    return aligned_alloc(BB_ALIGNMENT, bb_align_up(bytes ? bytes : 1, BB_ALIGNMENT));
}

static dnnl_status_t task_argument(bb_task *t, bb_dnn *d, int arg, bb_layout_ref layout)
{
    t->arg[t->n].arg = arg;
    dnnl_status_t made = dnnl_memory_create(&t->arg[t->n].memory, layout, d->engine, DNNL_MEMORY_NONE);
    if (made == dnnl_success) t->n++;
    return made;
}

static dnnl_status_t task_scratch(bb_task *t, bb_dnn *d)
{
    bb_layout_ref layout = bb_task_layout(t, dnnl_query_scratchpad_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(layout);
    if (bytes > d->scratch_bytes) {
        void *more = aligned(bytes);
        if (!more) return dnnl_out_of_memory;
        free(d->scratch);
        d->scratch = more;
        d->scratch_bytes = bytes;
    }
    dnnl_status_t made = task_argument(t, d, DNNL_ARG_SCRATCHPAD, layout);
    if (made == dnnl_success) t->scratch = t->arg[t->n - 1].memory;
    return made;
}

dnnl_status_t bb_task_new(bb_task *t, bb_dnn *d, dnnl_primitive_desc_t desc, const bb_task_arg *args, uint32_t n)
{
    dnnl_status_t made = dnnl_primitive_create(&t->primitive, desc);
    dnnl_primitive_desc_destroy(desc);
    for (uint32_t i = 0; made == dnnl_success && i < n; i++)
        made = task_argument(t, d, args[i].arg, bb_task_layout(t, args[i].what, args[i].index));
    return made == dnnl_success ? task_scratch(t, d) : made;
}

dnnl_status_t bb_task_reorder(bb_task *t, bb_dnn *d, bb_layout_ref from, bb_layout_ref to)
{
    const bb_task_arg args[] = {{DNNL_ARG_FROM, dnnl_query_src_md, 0}, {DNNL_ARG_TO, dnnl_query_dst_md, 0}};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = dnnl_primitive_attr_create(&attr);
    if (made == dnnl_success) made = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (made == dnnl_success) made = dnnl_reorder_primitive_desc_create(&desc, from, d->engine, to, d->engine, attr);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return made == dnnl_success ? bb_task_new(t, d, desc, args, BB_COUNT(args)) : made;
}

void bb_task_run(bb_task *t, bb_dnn *d, const void *const *buffers)
{
    for (uint32_t i = 0; i < t->n; i++) {
        void *buffer = t->arg[i].memory == t->scratch ? d->scratch : (void *)(uintptr_t)buffers[i];
        dnnl_status_t set = dnnl_memory_set_data_handle(t->arg[i].memory, buffer);
        BB_ASSERT(set == dnnl_success);
    }
    dnnl_status_t ran = dnnl_primitive_execute(t->primitive, d->stream, (int)t->n, t->arg);
    BB_ASSERT(ran == dnnl_success);
    dnnl_stream_wait(d->stream);
}

void bb_task_free(bb_task *t)
{
    for (uint32_t i = 0; i < t->n; i++) dnnl_memory_destroy(t->arg[i].memory);
    if (t->primitive) dnnl_primitive_destroy(t->primitive);
    *t = (bb_task){0};
}

bb_status bb_dnn_refused(bb_error *err, const char *what, dnnl_status_t code, uint32_t m, uint32_t n, uint32_t k)
{
    if (code == dnnl_out_of_memory)
        return bb_fail(err, BB_ERR_SPACE, "no memory for a %s (%u × %u × %u): make the batch smaller", what, m, n, k);
    return bb_fail(err, BB_ERR_UNSUPPORTED, "oneDNN refuses a %s (%u × %u × %u): status %u", what, m, n, k,
                   (uint32_t)code);
}

/* ---- convolutions ---- */

struct bb_conv {
    bb_dnn *d;
    bb_conv_shape shape;
    bool bf16;
    bb_task forward, data, grad;
    bb_task pack_forward, pack_data, unpack_grad; /* n = 0: the layout is ours already */
    void *w_forward, *w_data; /* the same if forward and data agree on a layout */
    void *dw;                 /* packed gradient */
    float *no_bias;
    size_t bytes;
};

/* Everything that creating the primitives needs, and what must be freed afterwards. */
typedef struct conv_plan {
    bb_layout x, y, w, bias, x32, y32, files; /* x, y as operands; x32, y32 as results; files: weights in our layout */
    dnnl_dims_t strides, before, after;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t hint;
} conv_plan;

static void plan_free(conv_plan *p)
{
    bb_layout *all[] = {&p->x, &p->y, &p->w, &p->bias, &p->x32, &p->y32, &p->files};
    for (size_t i = 0; i < BB_COUNT(all); i++) bb_layout_free(all[i]);
    if (p->attr) dnnl_primitive_attr_destroy(p->attr);
    if (p->hint) dnnl_primitive_desc_destroy(p->hint);
}

/* Dimensions are always told as N, C, H, W; NHWC is a matter of strides. */
static dnnl_status_t nhwc(bb_layout *l, uint32_t n, uint32_t c, uint32_t h, uint32_t w, dnnl_data_type_t type)
{
    const dnnl_dims_t dims = {n, c, h, w};
    const dnnl_dims_t strides = {(dnnl_dim_t)h * w * c, 1, (dnnl_dim_t)w * c, c};
    return bb_layout_new(l, BB_DNN_DIMS, dims, type, strides);
}

static dnnl_status_t plan_layouts(conv_plan *p, const bb_conv_shape *s, bool bf16)
{
    const uint32_t h = (s->h + s->top + s->bottom - s->kh) / s->stride + 1;
    const uint32_t w = (s->w + s->left + s->right - s->kw) / s->stride + 1;
    const dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dims_t kernel = {s->out, s->c, s->kh, s->kw}, bias = {s->out}, one = {1};
    const dnnl_dims_t hwio = {1, s->out, (dnnl_dim_t)s->kw * s->c * s->out, (dnnl_dim_t)s->c * s->out};
    const dnnl_status_t made[] = {nhwc(&p->x, s->n, s->c, s->h, s->w, type),
                                  nhwc(&p->x32, s->n, s->c, s->h, s->w, dnnl_f32),
                                  nhwc(&p->y, s->n, s->out, h, w, type),
                                  nhwc(&p->y32, s->n, s->out, h, w, dnnl_f32),
                                  bb_layout_new(&p->w, BB_DNN_DIMS, kernel, type, NULL),
                                  bb_layout_new(&p->files, BB_DNN_DIMS, kernel, dnnl_f32, hwio),
                                  bb_layout_new(&p->bias, 1, bias, dnnl_f32, one)};
    for (size_t i = 0; i < BB_COUNT(made); i++)
        if (made[i] != dnnl_success) return made[i];
    p->strides[0] = p->strides[1] = s->stride;
    p->before[0] = s->top, p->before[1] = s->left;
    p->after[0] = s->bottom, p->after[1] = s->right;
    return dnnl_success;
}

static dnnl_status_t plan_conv(conv_plan *p, bb_conv *c)
{
    dnnl_status_t made = plan_layouts(p, &c->shape, c->bf16);
    if (made == dnnl_success) made = dnnl_primitive_attr_create(&p->attr);
    if (made == dnnl_success) made = dnnl_primitive_attr_set_scratchpad_mode(p->attr, dnnl_scratchpad_mode_user);
    if (made == dnnl_success)
        made = bb_conv_desc(&p->hint, c->d, BB_DNN_FORWARD, &p->x, &p->w, &p->bias, &p->y32, p->strides, p->before,
                            p->after, NULL, p->attr, NULL);
    return made;
}

static dnnl_status_t packed(bb_conv *c, const bb_task *t, dnnl_query_t what, int index, void **buffer)
{
    size_t bytes = dnnl_memory_desc_get_size(bb_task_layout(t, what, index));
    *buffer = aligned(bytes);
    if (!*buffer) return dnnl_out_of_memory;
    memset(*buffer, 0, bytes);
    c->bytes += bytes;
    return dnnl_success;
}

static dnnl_status_t new_forward(bb_conv *c, conv_plan *p)
{
    static const bb_task_arg args[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                       {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
                                       {DNNL_ARG_BIAS, dnnl_query_weights_md, 1},
                                       {DNNL_ARG_DST, dnnl_query_dst_md, 0}};
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = bb_conv_desc(&desc, c->d, BB_DNN_FORWARD, &p->x, &p->w, &p->bias, &p->y32, p->strides,
                                      p->before, p->after, NULL, p->attr, NULL);
    if (made == dnnl_success) made = bb_task_new(&c->forward, c->d, desc, args, BB_COUNT(args));
    if (made == dnnl_success) made = packed(c, &c->forward, dnnl_query_weights_md, 0, &c->w_forward);
    if (made != dnnl_success) return made;
    return bb_task_reorder(&c->pack_forward, c->d, bb_layout_of(&p->files),
                           bb_task_layout(&c->forward, dnnl_query_weights_md, 0));
}

static dnnl_status_t new_data(bb_conv *c, conv_plan *p)
{
    static const bb_task_arg args[] = {{DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0},
                                       {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
                                       {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md, 0}};
    /* oneDNN's 1x1 kernels (seen in 2.6.3 and 3.2) are wrong in bf16 here: they pair an odd last output's products
     * with another pixel's. */
    const bool odd = c->bf16 && c->shape.kh == 1 && c->shape.kw == 1 && c->shape.out % 2;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = bb_conv_desc(&desc, c->d, BB_DNN_DATA, &p->x32, &p->w, NULL, &p->y, p->strides, p->before,
                                      p->after, p->hint, p->attr, odd ? "1x1" : NULL);
    if (made == dnnl_success) made = bb_task_new(&c->data, c->d, desc, args, BB_COUNT(args));
    if (made != dnnl_success) return made;
    bb_layout_ref layout = bb_task_layout(&c->data, dnnl_query_weights_md, 0);
    if (c->forward.n && dnnl_memory_desc_equal(layout, bb_task_layout(&c->forward, dnnl_query_weights_md, 0))) {
        c->w_data = c->w_forward;
        return dnnl_success;
    }
    made = packed(c, &c->data, dnnl_query_weights_md, 0, &c->w_data);
    return made == dnnl_success ? bb_task_reorder(&c->pack_data, c->d, bb_layout_of(&p->files), layout) : made;
}

static dnnl_status_t new_grad(bb_conv *c, conv_plan *p)
{
    static const bb_task_arg args[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                       {DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0},
                                       {DNNL_ARG_DIFF_WEIGHTS, dnnl_query_diff_weights_md, 0}};
    const dnnl_dims_t kernel = {c->shape.out, c->shape.c, c->shape.kh, c->shape.kw};
    bb_layout w = {0};
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = bb_layout_new(&w, BB_DNN_DIMS, kernel, dnnl_f32, NULL);
    if (made == dnnl_success)
        made = bb_conv_desc(&desc, c->d, BB_DNN_WEIGHTS, &p->x, &w, NULL, &p->y, p->strides, p->before, p->after,
                            p->hint, p->attr, NULL);
    bb_layout_free(&w);
    if (made == dnnl_success) made = bb_task_new(&c->grad, c->d, desc, args, BB_COUNT(args));
    if (made != dnnl_success) return made;
    bb_layout_ref layout = bb_task_layout(&c->grad, dnnl_query_diff_weights_md, 0);
    if (dnnl_memory_desc_equal(layout, bb_layout_of(&p->files))) return dnnl_success;
    made = packed(c, &c->grad, dnnl_query_diff_weights_md, 0, &c->dw);
    return made == dnnl_success ? bb_task_reorder(&c->unpack_grad, c->d, layout, bb_layout_of(&p->files)) : made;
}

static bool shape_fits(const bb_conv_shape *s)
{
    return s->n && s->h && s->w && s->c && s->out && s->kh && s->kw && s->stride &&
           s->h + s->top + s->bottom >= s->kh && s->w + s->left + s->right >= s->kw;
}

bb_status bb_conv_new(bb_conv **out, bb_dnn *d, const bb_conv_shape *shape, bool bf16, uint32_t directions,
                      bb_error *err)
{
    *out = NULL;
    BB_ASSERT(shape_fits(shape) && (!bf16 || d->bf16));
    bb_conv *c = calloc(1, sizeof *c);
    conv_plan plan = {0};
    dnnl_status_t made = c ? dnnl_success : dnnl_out_of_memory;
    if (c) {
        *c = (bb_conv){.d = d, .shape = *shape, .bf16 = bf16};
        c->no_bias = calloc(shape->out, sizeof *c->no_bias);
        made = c->no_bias ? plan_conv(&plan, c) : dnnl_out_of_memory;
    }
    if (made == dnnl_success && (directions & BB_DNN_FORWARD)) made = new_forward(c, &plan);
    if (made == dnnl_success && (directions & BB_DNN_DATA)) made = new_data(c, &plan);
    if (made == dnnl_success && (directions & BB_DNN_WEIGHTS)) made = new_grad(c, &plan);
    plan_free(&plan);
    if (made != dnnl_success) {
        bb_conv_free(c);
        return bb_dnn_refused(err, "convolution (rows, inputs, outputs)", made, shape->n * shape->h * shape->w,
                              shape->c, shape->out);
    }
    *out = c;
    return BB_OK;
}

void bb_conv_free(bb_conv *c)
{
    if (!c) return;
    bb_task *all[] = {&c->forward, &c->data, &c->grad, &c->pack_forward, &c->pack_data, &c->unpack_grad};
    for (size_t i = 0; i < BB_COUNT(all); i++) bb_task_free(all[i]);
    if (c->w_data != c->w_forward) free(c->w_data);
    free(c->w_forward);
    free(c->dw);
    free(c->no_bias);
    free(c);
}

size_t bb_conv_bytes(const bb_conv *c) { return sizeof *c + c->bytes + c->shape.out * sizeof *c->no_bias; }

void bb_conv_weights(bb_conv *c, const float *w)
{
    if (c->pack_forward.n) bb_task_run(&c->pack_forward, c->d, (const void *[]){w, c->w_forward});
    if (c->pack_data.n) bb_task_run(&c->pack_data, c->d, (const void *[]){w, c->w_data});
}

void bb_conv_forward(bb_conv *c, const void *x, const float *bias, float *y)
{
    bb_task_run(&c->forward, c->d, (const void *[]){x, c->w_forward, bias ? bias : c->no_bias, y});
}

void bb_conv_data(bb_conv *c, const void *dy, float *dx)
{
    bb_task_run(&c->data, c->d, (const void *[]){dy, c->w_data, dx});
}

/* Whether row (or column) k of the kernel meets one of x, rather than padding, at some output. */
static bool meets(uint32_t k, uint32_t size, uint32_t kernel, uint32_t stride, uint32_t before, uint32_t after)
{
    for (uint32_t at = k; at - k <= size + before + after - kernel; at += stride)
        if (at >= before && at - before < size) return true;
    return false;
}

/* Weights that only ever meet padding: oneDNN 2.6.3 leaves some of their gradients unwritten. */
static void clear_unmet(const bb_conv_shape *s, float *dw)
{
    const size_t tap = (size_t)s->c * s->out;
    for (uint32_t i = 0; i < s->kh; i++)
        for (uint32_t j = 0; j < s->kw; j++, dw += tap)
            if (!meets(i, s->h, s->kh, s->stride, s->top, s->bottom) ||
                !meets(j, s->w, s->kw, s->stride, s->left, s->right))
                memset(dw, 0, tap * sizeof *dw);
}

void bb_conv_grad(bb_conv *c, const void *x, const void *dy, float *dw)
{
    const bool direct = !c->unpack_grad.n;
    bb_task_run(&c->grad, c->d, (const void *[]){x, dy, direct ? dw : c->dw});
    if (!direct) bb_task_run(&c->unpack_grad, c->d, (const void *[]){c->dw, dw});
    clear_unmet(&c->shape, dw);
}
