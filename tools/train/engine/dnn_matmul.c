#include "train/engine/dnn_api.h"

#include <stdlib.h>

struct bb_matmul {
    bb_dnn *d;
    bb_task multiply;
};

/* outer × batch × rows × columns with a matrix's strides. */
static dnnl_status_t matrix(bb_layout *l, const bb_matmul_shape *s, const bb_matrix *m, uint32_t rows, uint32_t columns,
                            bool bf16)
{
    const dnnl_dims_t dims = {s->outer, s->batch, rows, columns};
    const dnnl_dims_t strides = {(dnnl_dim_t)m->outer, (dnnl_dim_t)m->batch, (dnnl_dim_t)m->row, (dnnl_dim_t)m->column};
    return bb_layout_new(l, BB_DNN_DIMS, dims, bf16 ? dnnl_bf16 : dnnl_f32, strides);
}

static dnnl_status_t attributes(dnnl_primitive_attr_t *attr, const bb_matmul_shape *s)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t made = dnnl_primitive_attr_create(attr);
    if (made == dnnl_success) made = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (made == dnnl_success) made = dnnl_post_ops_create(&ops);
    if (made == dnnl_success) made = bb_attr_scale(*attr, ops, s->alpha);
    if (made == dnnl_success && s->add) made = bb_attr_sum(ops);
    if (made == dnnl_success) made = dnnl_primitive_attr_set_post_ops(*attr, ops);
    if (ops) dnnl_post_ops_destroy(ops);
    return made;
}

static dnnl_status_t describe(dnnl_primitive_desc_t *desc, const bb_dnn *d, const bb_matmul_shape *s)
{
    bb_layout a = {0}, b = {0}, c = {0};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t made = attributes(&attr, s);
    if (made == dnnl_success) made = matrix(&a, s, &s->a, s->m, s->k, s->bf16);
    if (made == dnnl_success) made = matrix(&b, s, &s->b, s->k, s->n, s->bf16);
    if (made == dnnl_success) made = matrix(&c, s, &s->c, s->m, s->n, false);
    if (made == dnnl_success) made = bb_matmul_desc(desc, d, &a, &b, &c, attr);
    bb_layout_free(&a);
    bb_layout_free(&b);
    bb_layout_free(&c);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return made;
}

bb_status bb_matmul_new(bb_matmul **out, bb_dnn *d, const bb_matmul_shape *shape, bb_error *err)
{
    static const bb_task_arg args[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                       {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
                                       {DNNL_ARG_DST, dnnl_query_dst_md, 0}};
    bb_matmul *m = calloc(1, sizeof *m);
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t made = m ? describe(&desc, d, shape) : dnnl_out_of_memory;
    if (made == dnnl_success) made = bb_task_new(&m->multiply, d, desc, args, BB_COUNT(args), 0);
    *out = NULL;
    if (made != dnnl_success) {
        bb_matmul_free(m);
        return bb_dnn_refused(err, "matrix product", made, shape->m, shape->n, shape->k);
    }
    m->d = d;
    *out = m;
    return BB_OK;
}

void bb_matmul_free(bb_matmul *m)
{
    if (!m) return;
    bb_task_free(&m->multiply);
    free(m);
}

void bb_matmul_run(bb_matmul *m, const void *a, const void *b, float *c)
{
    bb_task_run(&m->multiply, m->d, (const void *[]){a, b, c}, 0);
}
