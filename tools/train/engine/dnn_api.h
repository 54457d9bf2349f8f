/* What dnn.c and dnn_matmul.c share, and the only lines that tell oneDNN's C API 2 (Debian 12) from 3, where memory
 * descriptors became handles and operation descriptors went away. */
#ifndef BB_TRAIN_ENGINE_DNN_API_H
#define BB_TRAIN_ENGINE_DNN_API_H

#include "train/engine/dnn.h"

#include <dnnl.h>
#include <string.h>

struct bb_dnn {
    dnnl_engine_t engine;
    dnnl_stream_t *stream;               /* [threads] */
    uint32_t threads;
    bool bf16;
    char name[64];
    void **scratch; size_t *scratch_bytes; /* [threads] of the primitives that run; as large as the largest needs */
    void *parts; size_t parts_bytes;       /* of bb_conv_grad: a gradient from each slice */
};

enum { BB_DNN_DIMS = 4 }; /* of every descriptor here */

/* Whether `part` is in the name of the implementation that was chosen ("jit_bf16_1x1:avx512_core_bf16"). */
static inline bool bb_desc_named(const_dnnl_primitive_desc_t desc, const char *part)
{
    const char *name = NULL;
    return part && dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           strstr(name, part);
}

#if DNNL_VERSION_MAJOR >= 3

typedef const_dnnl_memory_desc_t bb_layout_ref;
typedef struct bb_layout { dnnl_memory_desc_t desc; } bb_layout;
static inline dnnl_status_t bb_layout_copy(bb_layout *l, bb_layout_ref from)
{
    return dnnl_memory_desc_clone(&l->desc, from);
}
static inline bb_layout_ref bb_layout_of(const bb_layout *l) { return l->desc; }
static inline void bb_layout_free(bb_layout *l)
{
    if (l->desc) dnnl_memory_desc_destroy(l->desc);
    l->desc = NULL;
}
/* strides NULL: the primitive chooses. */
static inline dnnl_status_t bb_layout_new(bb_layout *l, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                                          const dnnl_dims_t strides)
{
    return strides ? dnnl_memory_desc_create_with_strides(&l->desc, rank, dims, type, strides)
                   : dnnl_memory_desc_create_with_tag(&l->desc, rank, dims, type, dnnl_format_tag_any);
}

static inline bool bb_layout_is(bb_layout_ref l, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t made;
    if (dnnl_memory_desc_create_with_tag(&made, BB_DNN_DIMS, dims, dnnl_f32, tag) != dnnl_success) return false;
    const bool same = dnnl_memory_desc_equal(l, made);
    dnnl_memory_desc_destroy(made);
    return same;
}

/* hint: forward's descriptor, for the backward directions (x, y then are gradients where they are results). avoid:
 * a part of the names of implementations that are passed over; NULL: none. */
static inline dnnl_status_t bb_conv_desc(dnnl_primitive_desc_t *out, const bb_dnn *d, uint32_t direction,
                                         const bb_layout *x, const bb_layout *w, const bb_layout *bias,
                                         const bb_layout *y, const dnnl_dims_t strides, const dnnl_dims_t before,
                                         const dnnl_dims_t after, dnnl_primitive_desc_t hint,
                                         dnnl_primitive_attr_t attr, const char *avoid)
{
    const dnnl_dims_t dense = {0, 0};
    const dnnl_alg_kind_t alg = dnnl_convolution_direct;
    dnnl_status_t made =
        direction == BB_DNN_FORWARD
            ? dnnl_convolution_forward_primitive_desc_create(out, d->engine, dnnl_forward_training, alg, x->desc,
                                                             w->desc, bias->desc, y->desc, strides, dense, before,
                                                             after, attr)
        : direction == BB_DNN_DATA
            ? dnnl_convolution_backward_data_primitive_desc_create(out, d->engine, alg, x->desc, w->desc, y->desc,
                                                                   strides, dense, before, after, hint, attr)
            : dnnl_convolution_backward_weights_primitive_desc_create(out, d->engine, alg, x->desc, w->desc, NULL,
                                                                      y->desc, strides, dense, before, after, hint,
                                                                      attr);
    while (made == dnnl_success && bb_desc_named(*out, avoid)) made = dnnl_primitive_desc_next_impl(*out);
    return made;
}

static inline dnnl_status_t bb_matmul_desc(dnnl_primitive_desc_t *out, const bb_dnn *d, const bb_layout *a,
                                           const bb_layout *b, const bb_layout *c, dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(out, d->engine, a->desc, b->desc, NULL, c->desc, attr);
}

static inline dnnl_status_t bb_attr_scale(dnnl_primitive_attr_t attr, dnnl_post_ops_t ops, float alpha)
{
    return alpha == 1 ? dnnl_success : dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, alpha, 0);
}
static inline dnnl_status_t bb_attr_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
}

#else

typedef const dnnl_memory_desc_t *bb_layout_ref;
typedef struct bb_layout { dnnl_memory_desc_t desc; } bb_layout;
static inline dnnl_status_t bb_layout_copy(bb_layout *l, bb_layout_ref from)
{
    l->desc = *from;
    return dnnl_success;
}
static inline bb_layout_ref bb_layout_of(const bb_layout *l) { return &l->desc; }
static inline void bb_layout_free(bb_layout *l) { (void)l; }
static inline dnnl_status_t bb_layout_new(bb_layout *l, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                                          const dnnl_dims_t strides)
{
    return strides ? dnnl_memory_desc_init_by_strides(&l->desc, rank, dims, type, strides)
                   : dnnl_memory_desc_init_by_tag(&l->desc, rank, dims, type, dnnl_format_tag_any);
}

static inline bool bb_layout_is(bb_layout_ref l, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t made;
    return dnnl_memory_desc_init_by_tag(&made, BB_DNN_DIMS, dims, dnnl_f32, tag) == dnnl_success &&
           dnnl_memory_desc_equal(l, &made);
}

static inline dnnl_status_t bb_conv_desc(dnnl_primitive_desc_t *out, const bb_dnn *d, uint32_t direction,
                                         const bb_layout *x, const bb_layout *w, const bb_layout *bias,
                                         const bb_layout *y, const dnnl_dims_t strides, const dnnl_dims_t before,
                                         const dnnl_dims_t after, dnnl_primitive_desc_t hint,
                                         dnnl_primitive_attr_t attr, const char *avoid)
{
    dnnl_convolution_desc_t op;
    const dnnl_alg_kind_t alg = dnnl_convolution_direct;
    dnnl_status_t made =
        direction == BB_DNN_FORWARD
            ? dnnl_convolution_forward_desc_init(&op, dnnl_forward_training, alg, &x->desc, &w->desc, &bias->desc,
                                                 &y->desc, strides, before, after)
        : direction == BB_DNN_DATA
            ? dnnl_convolution_backward_data_desc_init(&op, alg, &x->desc, &w->desc, &y->desc, strides, before, after)
            : dnnl_convolution_backward_weights_desc_init(&op, alg, &x->desc, &w->desc, NULL, &y->desc, strides,
                                                          before, after);
    dnnl_primitive_desc_iterator_t each = NULL;
    if (made == dnnl_success) made = dnnl_primitive_desc_iterator_create(&each, &op, attr, d->engine, hint);
    while (made == dnnl_success) {
        *out = dnnl_primitive_desc_iterator_fetch(each);
        if (!*out) made = dnnl_out_of_memory;
        if (!*out || !bb_desc_named(*out, avoid)) break;
        dnnl_primitive_desc_destroy(*out);
        *out = NULL;
        made = dnnl_primitive_desc_iterator_next(each);
    }
    if (each) dnnl_primitive_desc_iterator_destroy(each);
    return made;
}

static inline dnnl_status_t bb_matmul_desc(dnnl_primitive_desc_t *out, const bb_dnn *d, const bb_layout *a,
                                           const bb_layout *b, const bb_layout *c, dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t op;
    dnnl_status_t made = dnnl_matmul_desc_init(&op, &a->desc, &b->desc, NULL, &c->desc);
    return made == dnnl_success ? dnnl_primitive_desc_create(out, &op, attr, d->engine, NULL) : made;
}

static inline dnnl_status_t bb_attr_scale(dnnl_primitive_attr_t attr, dnnl_post_ops_t ops, float alpha)
{
    return dnnl_primitive_attr_set_output_scales(attr, 1, 0, &alpha);
}
static inline dnnl_status_t bb_attr_sum(dnnl_post_ops_t ops) { return dnnl_post_ops_append_sum(ops, 1); }

#endif

/* One primitive with the memory objects of its arguments; buffers are set when it runs. */
typedef struct bb_task {
    dnnl_primitive_t primitive;
    uint32_t n;
    dnnl_exec_arg_t arg[5]; /* the last is the scratchpad */
} bb_task;

static inline bb_layout_ref bb_task_layout(const bb_task *t, dnnl_query_t what, int index)
{
    const_dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_get_primitive_desc(t->primitive, &desc);
    return dnnl_primitive_desc_query_md(desc, what, index);
}

/* Takes desc over, failed or not. args: DNNL_ARG_… and what to query for its layout. slot: which scratch it will run
 * with. */
typedef struct bb_task_arg { int arg; dnnl_query_t what; int index; } bb_task_arg;
dnnl_status_t bb_task_new(bb_task *t, bb_dnn *d, dnnl_primitive_desc_t desc, const bb_task_arg *args, uint32_t n,
                          uint32_t slot);
/* buffers in the order of args. */
void bb_task_run(const bb_task *t, bb_dnn *d, const void *const *buffers, uint32_t slot);
void bb_task_free(bb_task *t);
/* Makes *buffer at least that large; what it holds is lost. */
dnnl_status_t bb_dnn_grow(void **buffer, size_t *has, size_t bytes);

/* What to do when the library refuses: names the shape. */
bb_status bb_dnn_refused(bb_error *err, const char *what, dnnl_status_t code, uint32_t m, uint32_t n, uint32_t k);

#endif
