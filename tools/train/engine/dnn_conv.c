/* Convolutions, in slices of the batch: each thread runs primitives of one thread on items of its own. So a thread's
 * values stay in its cache from layer to layer, and nobody spins: oneDNN's own threads meet in busy barriers within a
 * gradient of weights, which take all the time when another program wants a core. */
#include "train/engine/dnn_api.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct slice {
    size_t x, y; /* first element */
    bb_task forward, data, grad;
} slice;

struct bb_conv {
    bb_dnn *d;
    bb_conv_shape shape;
    bool bf16, whole; /* whole: one slice, with oneDNN's threads */
    uint32_t n;
    slice *slices;
    bb_task pack_forward, pack_data, unpack;
    void *w_forward, *w_data; /* the same if forward and data agree on a layout */
    float *no_bias;
    size_t part;              /* bytes of a slice's packed gradient */
    bool tiles;               /* it lies in tiles: see unpack_tiles */
    size_t bytes;
};

/* ---- slices ---- */

enum { SMALL = 1 << 19 }; /* products that a thread does in the time of waking another */

static size_t dense_size(const bb_conv_shape *s) { return (size_t)s->kh * s->kw * s->c * s->out; }

static uint32_t out_size(uint32_t in, uint32_t kernel, uint32_t stride, uint32_t before, uint32_t after)
{
    return (in + before + after - kernel) / stride + 1;
}

/* Items, or rows of a linear layer. */
static uint32_t *divided(bb_conv_shape *s) { return s->n == 1 && s->h == 1 && s->kw == 1 ? &s->w : &s->n; }

/* How many; *whole as in bb_conv. Few items that do not divide evenly leave threads idle: oneDNN divides rows, too. */
static uint32_t slices_of(const bb_conv_shape *shape, uint32_t threads, bool *whole)
{
    bb_conv_shape s = *shape;
    const uint32_t items = *divided(&s);
    const uint64_t products = (uint64_t)s.n * out_size(s.h, s.kh, s.stride, s.top, s.bottom) *
                              out_size(s.w, s.kw, s.stride, s.left, s.right) * s.kh * s.kw * s.c * s.out;
    *whole = false;
    if (threads == 1 || products < SMALL) return 1;
    *whole = items % threads != 0 && items < 4 * threads;
    return *whole ? 1 : threads;
}

/* Whether row (or column) k of the kernel meets one of x, rather than padding, at some output. */
static bool meets(uint32_t k, uint32_t size, uint32_t kernel, uint32_t stride, uint32_t before, uint32_t after)
{
    for (uint32_t at = k; at - k <= size + before + after - kernel; at += stride)
        if (at >= before && at - before < size) return true;
    return false;
}

static bool tap_met(const bb_conv_shape *s, uint32_t i, uint32_t j)
{
    return meets(i, s->h, s->kh, s->stride, s->top, s->bottom) && meets(j, s->w, s->kw, s->stride, s->left, s->right);
}

static bool all_met(const bb_conv_shape *s)
{
    bool all = true;
    for (uint32_t i = 0; i < s->kh; i++)
        for (uint32_t j = 0; j < s->kw; j++) all &= tap_met(s, i, j);
    return all;
}

/* Weights that only ever meet padding: oneDNN 2.6.3 leaves some of their gradients unwritten. */
static void clear_unmet(const bb_conv_shape *s, float *dw)
{
    const size_t tap = (size_t)s->c * s->out;
    for (uint32_t i = 0; i < s->kh; i++)
        for (uint32_t j = 0; j < s->kw; j++, dw += tap)
            if (!tap_met(s, i, j)) memset(dw, 0, tap * sizeof *dw);
}

/* ---- making the primitives ---- */

/* Everything that creating the primitives of a slice needs, and what must be freed afterwards. */
typedef struct conv_plan {
    bb_conv_shape shape;
    bb_layout x, y, w, bias, x32, y32, files; /* x, y as operands; x32, y32 as results; files: weights in our layout */
    dnnl_dims_t strides, before, after;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t hint;
    dnnl_data_type_t type; /* of operands */
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

static dnnl_status_t plan_layouts(conv_plan *p, bool bf16)
{
    const bb_conv_shape *s = &p->shape;
    const uint32_t h = out_size(s->h, s->kh, s->stride, s->top, s->bottom);
    const uint32_t w = out_size(s->w, s->kw, s->stride, s->left, s->right);
    const dnnl_data_type_t type = p->type = bf16 ? dnnl_bf16 : dnnl_f32;
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

static dnnl_status_t plan_make(conv_plan *p, const bb_conv *c, const bb_conv_shape *shape)
{
    *p = (conv_plan){.shape = *shape};
    dnnl_status_t made = plan_layouts(p, c->bf16);
    if (made == dnnl_success) made = dnnl_primitive_attr_create(&p->attr);
    if (made == dnnl_success) made = dnnl_primitive_attr_set_scratchpad_mode(p->attr, dnnl_scratchpad_mode_user);
    if (made == dnnl_success)
        made = bb_conv_desc(&p->hint, c->d, BB_DNN_FORWARD, &p->x, &p->w, &p->bias, &p->y32, p->strides, p->before,
                            p->after, NULL, p->attr, NULL);
    return made;
}

/* A copy from one layout to another. All slots get its scratch: packing may be done for several convolutions at once. */
static dnnl_status_t new_reorder(bb_task *t, bb_dnn *d, bb_layout_ref from, bb_layout_ref to)
{
    static const bb_task_arg args[] = {{DNNL_ARG_FROM, dnnl_query_src_md, 0}, {DNNL_ARG_TO, dnnl_query_dst_md, 0}};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = dnnl_primitive_attr_create(&attr);
    if (made == dnnl_success) made = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (made == dnnl_success) made = dnnl_reorder_primitive_desc_create(&desc, from, d->engine, to, d->engine, attr);
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (made == dnnl_success) made = bb_task_new(t, d, desc, args, BB_COUNT(args), 0);
    if (made != dnnl_success) return made;
    const size_t scratch = dnnl_memory_desc_get_size(bb_task_layout(t, dnnl_query_scratchpad_md, 0));
    for (uint32_t i = 1; i < d->threads && made == dnnl_success; i++)
        made = bb_dnn_grow(&d->scratch[i], &d->scratch_bytes[i], scratch);
    return made;
}

/* Room for weights in the layout that t wants, and the way there. */
static dnnl_status_t new_packed(bb_conv *c, const bb_task *t, const conv_plan *p, void **w, bb_task *pack)
{
    bb_layout_ref layout = bb_task_layout(t, dnnl_query_weights_md, 0);
    const size_t bytes = bb_align_up(dnnl_memory_desc_get_size(layout), BB_ALIGNMENT);
    *w = aligned_alloc(BB_ALIGNMENT, bytes);
    if (!*w) return dnnl_out_of_memory;
    memset(*w, 0, bytes);
    c->bytes += bytes;
    return new_reorder(pack, c->d, bb_layout_of(&p->files), layout);
}

/* The layout of weights (or of their gradient) that the first slice chose; before it has, the choice is the
 * primitive's. */
static dnnl_status_t weight_layout(bb_layout *l, const bb_conv *c, const bb_task *first, dnnl_query_t what,
                                   dnnl_data_type_t type)
{
    const dnnl_dims_t kernel = {c->shape.out, c->shape.c, c->shape.kh, c->shape.kw};
    return first->n ? bb_layout_copy(l, bb_task_layout(first, what, 0))
                    : bb_layout_new(l, BB_DNN_DIMS, kernel, type, NULL);
}

static dnnl_status_t new_forward(bb_conv *c, uint32_t i, const conv_plan *p)
{
    static const bb_task_arg args[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                       {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
                                       {DNNL_ARG_BIAS, dnnl_query_weights_md, 1},
                                       {DNNL_ARG_DST, dnnl_query_dst_md, 0}};
    bb_task *t = &c->slices[i].forward;
    bb_layout w = {0};
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = weight_layout(&w, c, &c->slices[0].forward, dnnl_query_weights_md, p->type);
    if (made == dnnl_success)
        made = bb_conv_desc(&desc, c->d, BB_DNN_FORWARD, &p->x, &w, &p->bias, &p->y32, p->strides, p->before, p->after,
                            NULL, p->attr, NULL);
    bb_layout_free(&w);
    if (made == dnnl_success) made = bb_task_new(t, c->d, desc, args, BB_COUNT(args), i);
    return made == dnnl_success && !c->w_forward ? new_packed(c, t, p, &c->w_forward, &c->pack_forward) : made;
}

static dnnl_status_t new_data(bb_conv *c, uint32_t i, const conv_plan *p)
{
    static const bb_task_arg args[] = {{DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0},
                                       {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
                                       {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md, 0}};
    /* oneDNN's 1x1 kernels (seen in 2.6.3 and 3.2) are wrong in bf16 here: they pair an odd last output's products
     * with another pixel's. */
    const bool odd = c->bf16 && c->shape.kh == 1 && c->shape.kw == 1 && c->shape.out % 2;
    slice *s = &c->slices[i];
    bb_layout w = {0};
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = weight_layout(&w, c, &c->slices[0].data, dnnl_query_weights_md, p->type);
    if (made == dnnl_success)
        made = bb_conv_desc(&desc, c->d, BB_DNN_DATA, &p->x32, &w, NULL, &p->y, p->strides, p->before, p->after,
                            p->hint, p->attr, odd ? "1x1" : NULL);
    bb_layout_free(&w);
    if (made == dnnl_success) made = bb_task_new(&s->data, c->d, desc, args, BB_COUNT(args), i);
    if (made != dnnl_success || c->w_data) return made;
    if (c->w_forward && dnnl_memory_desc_equal(bb_task_layout(&s->data, dnnl_query_weights_md, 0),
                                               bb_task_layout(&s->forward, dnnl_query_weights_md, 0))) {
        c->w_data = c->w_forward;
        return dnnl_success;
    }
    return new_packed(c, &s->data, p, &c->w_data, &c->pack_data);
}

static dnnl_status_t new_grad(bb_conv *c, uint32_t i, const conv_plan *p)
{
    static const bb_task_arg args[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                       {DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0},
                                       {DNNL_ARG_DIFF_WEIGHTS, dnnl_query_diff_weights_md, 0}};
    bb_task *t = &c->slices[i].grad;
    bb_layout w = {0};
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = weight_layout(&w, c, &c->slices[0].grad, dnnl_query_diff_weights_md, dnnl_f32);
    if (made == dnnl_success)
        made = bb_conv_desc(&desc, c->d, BB_DNN_WEIGHTS, &p->x, &w, NULL, &p->y, p->strides, p->before, p->after,
                            p->hint, p->attr, NULL);
    bb_layout_free(&w);
    if (made == dnnl_success) made = bb_task_new(t, c->d, desc, args, BB_COUNT(args), i);
    if (made != dnnl_success || i) return made;
    bb_layout_ref layout = bb_task_layout(t, dnnl_query_diff_weights_md, 0);
    c->part = bb_align_up(dnnl_memory_desc_get_size(layout), BB_ALIGNMENT);
    const dnnl_dims_t kernel = {c->shape.out, c->shape.c, c->shape.kh, c->shape.kw};
    c->tiles = all_met(&c->shape) && c->shape.c % 16 == 0 && c->shape.out % 16 == 0 &&
               bb_layout_is(layout, kernel, dnnl_ABcd16b16a);
    return c->tiles ? made : new_reorder(&c->unpack, c->d, layout, bb_layout_of(&p->files));
}

static dnnl_status_t new_slice(bb_conv *c, uint32_t i, const bb_conv_shape *shape, uint32_t directions)
{
    conv_plan plan;
    dnnl_status_t made = plan_make(&plan, c, shape);
    if (made == dnnl_success && (directions & BB_DNN_FORWARD)) made = new_forward(c, i, &plan);
    if (made == dnnl_success && (directions & BB_DNN_DATA)) made = new_data(c, i, &plan);
    if (made == dnnl_success && (directions & BB_DNN_WEIGHTS)) made = new_grad(c, i, &plan);
    plan_free(&plan);
    return made;
}

/* Equal shares, the first ones larger by an item where it does not divide. */
static dnnl_status_t new_slices(bb_conv *c, uint32_t directions)
{
    bb_conv_shape s = c->shape;
    uint32_t *items = divided(&s), all = *items;
    const uint32_t h = out_size(s.h, s.kh, s.stride, s.top, s.bottom);
    size_t x = 0, y = 0;
    dnnl_status_t made = dnnl_success;
    for (uint32_t i = 0; i < c->n && made == dnnl_success; i++) {
        *items = all / c->n + (i < all % c->n);
        c->slices[i].x = x;
        c->slices[i].y = y;
        made = new_slice(c, i, &s, directions);
        x += (size_t)s.n * s.h * s.w * s.c;
        y += (size_t)s.n * h * out_size(s.w, s.kw, s.stride, s.left, s.right) * s.out;
    }
    return made == dnnl_success ? bb_dnn_grow(&c->d->parts, &c->d->parts_bytes,
                                               c->n * c->part + dense_size(&c->shape) * sizeof(float)) : made;
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
    dnnl_status_t made = dnnl_out_of_memory;
    if (c) {
        *c = (bb_conv){.d = d, .shape = *shape, .bf16 = bf16};
        c->n = slices_of(shape, d->threads, &c->whole);
        c->slices = calloc(c->n, sizeof *c->slices);
        c->no_bias = calloc(shape->out, sizeof *c->no_bias);
        /* How many threads a primitive counts on is settled when it is made. */
        omp_set_num_threads(c->whole ? (int)d->threads : 1);
        if (c->slices && c->no_bias) made = new_slices(c, directions);
        omp_set_num_threads((int)d->threads);
    }
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
    for (uint32_t i = 0; c->slices && i < c->n; i++) {
        bb_task_free(&c->slices[i].forward);
        bb_task_free(&c->slices[i].data);
        bb_task_free(&c->slices[i].grad);
    }
    bb_task_free(&c->pack_forward);
    bb_task_free(&c->pack_data);
    bb_task_free(&c->unpack);
    if (c->w_data != c->w_forward) free(c->w_data);
    free(c->w_forward);
    free(c->slices);
    free(c->no_bias);
    free(c);
}

size_t bb_conv_bytes(const bb_conv *c)
{
    return sizeof *c + c->bytes + c->n * sizeof *c->slices + c->shape.out * sizeof *c->no_bias;
}

/* ---- running them ---- */

typedef struct arguments { const void *x, *dy; const float *bias; float *y, *dx; } arguments;

/* Element i of an operand. */
static const void *operand(const bb_conv *c, const void *x, size_t i)
{
    return (const uint8_t *)x + i * (c->bf16 ? sizeof(uint16_t) : sizeof(float));
}

static void run_slice(bb_conv *c, uint32_t i, uint32_t directions, const arguments *a)
{
    const slice *s = &c->slices[i];
    if (directions & BB_DNN_FORWARD)
        bb_task_run(&s->forward, c->d, (const void *[]){operand(c, a->x, s->x), c->w_forward, a->bias, a->y + s->y}, i);
    if (directions & BB_DNN_DATA)
        bb_task_run(&s->data, c->d, (const void *[]){operand(c, a->dy, s->y), c->w_data, a->dx + s->x}, i);
    if (directions & BB_DNN_WEIGHTS)
        bb_task_run(&s->grad, c->d, (const void *[]){operand(c, a->x, s->x), operand(c, a->dy, s->y),
                                                     (const uint8_t *)c->d->parts + i * c->part}, i);
}

static void run(bb_conv *c, uint32_t directions, arguments a)
{
    if (c->whole) {
        run_slice(c, 0, directions, &a);
        return;
    }
#pragma omp parallel for schedule(static, 1) num_threads(c->n)
    for (uint32_t i = 0; i < c->n; i++) {
        omp_set_num_threads(1); /* of oneDNN in here, even if this region got one thread only */
        run_slice(c, i, directions, &a);
    }
}

void bb_conv_weights(bb_conv *c, const float *w)
{
    const uint32_t slot = (uint32_t)omp_get_thread_num();
    if (c->pack_forward.n) bb_task_run(&c->pack_forward, c->d, (const void *[]){w, c->w_forward}, slot);
    if (c->pack_data.n) bb_task_run(&c->pack_data, c->d, (const void *[]){w, c->w_data}, slot);
}

void bb_conv_forward(bb_conv *c, const void *x, const float *bias, float *y)
{
    run(c, BB_DNN_FORWARD, (arguments){.x = x, .bias = bias ? bias : c->no_bias, .y = y});
}

/* Adds up the slices' parts in their order, from tiles of 16 inputs × 16 outputs, [out/16][in/16][kh][kw][16][16], which
 * is what oneDNN takes for nearly all, to [kh][kw][in][out]. */
static void unpack_tiles(const bb_conv *c, float *dw, bool add)
{
    const ptrdiff_t taps = (ptrdiff_t)c->shape.kh * c->shape.kw, in = c->shape.c, out = c->shape.out;
    const ptrdiff_t next = (ptrdiff_t)(c->part / sizeof *dw), parts = c->n;
#pragma omp parallel for collapse(2) schedule(static) if (parts > 1)
    for (ptrdiff_t tap = 0; tap < taps; tap++)
        for (ptrdiff_t i = 0; i < in; i++)
            for (ptrdiff_t o = 0; o < out; o += 16) {
                const ptrdiff_t tile = ((o / 16) * (in / 16) + i / 16) * taps + tap;
                const float *from = (const float *)c->d->parts + tile * 256 + i % 16 * 16;
                float *to = dw + (tap * in + i) * out + o, sum[16];
                for (ptrdiff_t k = 0; k < 16; k++) sum[k] = add ? to[k] : 0;
                for (ptrdiff_t p = 0; p < parts; p++)
                    for (ptrdiff_t k = 0; k < 16; k++) sum[k] += from[p * next + k];
                for (ptrdiff_t k = 0; k < 16; k++) to[k] = sum[k];
            }
}

/* Any other layout, by oneDNN; dw is the last part's place where it must be added. */
static void unpack_others(const bb_conv *c, float *dw, bool add)
{
    const ptrdiff_t packed = (ptrdiff_t)(c->part / sizeof(float)), n = (ptrdiff_t)dense_size(&c->shape);
    float *sum = c->d->parts, *plain = add ? sum + packed * (ptrdiff_t)c->n : dw;
    for (ptrdiff_t k = 1; k < (ptrdiff_t)c->n; k++)
        for (ptrdiff_t i = 0; i < packed; i++) sum[i] += sum[k * packed + i];
    bb_task_run(&c->unpack, c->d, (const void *[]){sum, plain}, 0);
    clear_unmet(&c->shape, plain);
    for (ptrdiff_t i = 0; add && i < n; i++) dw[i] += plain[i];
}

void bb_conv_backward(bb_conv *c, const void *x, const void *dy, float *dx, float *dw, bool add)
{
    run(c, (dx ? BB_DNN_DATA : 0u) | (dw ? BB_DNN_WEIGHTS : 0u), (arguments){.x = x, .dy = dy, .dx = dx});
    if (!dw) return;
    if (c->tiles) unpack_tiles(c, dw, add);
    else unpack_others(c, dw, add);
}

void bb_conv_data(bb_conv *c, const void *dy, float *dx) { bb_conv_backward(c, NULL, dy, dx, NULL, false); }

void bb_conv_grad(bb_conv *c, const void *x, const void *dy, float *dw, bool add)
{
    bb_conv_backward(c, x, dy, NULL, dw, add);
}
