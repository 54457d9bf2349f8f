#include "bench/layer.h"

#include "base/mathf.h"
#include "base/rng.h"
#include "pack/layout.h"

#include <stdlib.h>

enum { SEED = 4, GROUPS = 32, HEADS = 4 };

static uint32_t classes_of(const bb_bench_width *w)
{
    uint32_t n = 0;
    while (n < BB_COUNT(w->planes) && w->planes[n]) n++;
    return n;
}

static bool is_product(uint32_t kind) { return kind == BB_OP_CONV2D || kind == BB_OP_LINEAR; }

/* Bytes as random as the planes of a real layer. */
static void fill_bytes(uint8_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        static const uint32_t key[2] = {SEED, 0};
        static uint32_t four[4];
        if (i % 16 == 0) bb_philox((uint32_t[4]){(uint32_t)(i / 16), 0, BB_STREAM_TOOLS, 0}, key, four);
        at[i] = (uint8_t)(four[i % 16 / 4] >> i % 4 * 8);
    }
}

/* ---- the op and its graph ---- */

static void make_op(bb_bench_layer *l)
{
    const bb_bench_shape *s = &l->shape;
    const uint32_t margin = (s->kernel - 1) / 2;
    const bb_dim b = {BB_DIM_B, 1, 1, 0}, h = {BB_DIM_H, 1, 1, 0}, w = {BB_DIM_W, 1, 1, 0};
    l->input = (bb_graph_input){.shape = {b, h, w, {BB_DIM_ONE, s->channels, 1, 0}}, .rate = BB_RATE_SAMPLE};
    l->output = (bb_graph_output){0, 1};
    for (int i = 0; i < 2; i++) l->values[i] = (bb_value){.path = BB_NONE, .rate = BB_RATE_SAMPLE};
    l->op = (bb_op){.kind = s->kind, .in = {0, BB_NONE, BB_NONE, BB_NONE}, .weight = {BB_NONE, BB_NONE},
                    .path = BB_NONE};
    if (s->kind == BB_OP_CONV2D) {
        l->op.conv.kh = l->op.conv.kw = s->kernel;
        l->op.conv.stride = 1;
        l->op.conv.top = l->op.conv.left = l->op.conv.bottom = l->op.conv.right = margin;
    } else if (s->kind == BB_OP_GROUP_NORM) {
        l->op.norm.groups = GROUPS;
        l->op.norm.eps = 1e-5f;
    } else if (s->kind == BB_OP_ATTENTION) {
        l->op.in[1] = l->op.in[2] = 0;
        l->op.attention.heads = HEADS;
        l->op.attention.scale = 1.0f / bb_sqrtf((float)(s->channels / HEADS));
    }
    const uint32_t n = is_product(s->kind) ? s->outputs : s->channels;
    l->slots[0] = (bb_weight_slot){.rank = s->kind == BB_OP_CONV2D ? 4 : is_product(s->kind) ? 2 : 1,
                                   .dim = {n, s->channels, s->kernel, s->kernel}};
    l->slots[1] = (bb_weight_slot){.rank = 1, .dim = {n}};
    if (is_product(s->kind) || s->kind == BB_OP_GROUP_NORM) l->op.weight[0] = 0, l->op.weight[1] = 1;
    l->pack.graph = (bb_graph){.n_inputs = 1, .n_outputs = 1, .n_values = 2, .n_weights = 2, .n_ops = 1,
                               .inputs = &l->input, .outputs = &l->output, .values = l->values, .weights = l->slots,
                               .ops = &l->op, .strings = "", .string_bytes = 1};
    l->pack.weights = l->weights;
}

/* ---- weights; all memory comes from an arena that at first only measures ---- */

static void make_vectors(bb_bench_layer *l, bb_arena *arena, uint64_t taps)
{
    const bb_bench_shape *s = &l->shape;
    const size_t n = l->slots[1].dim[0], k = taps * s->channels;
    float *vector = bb_arena_take(arena, 2 * n, sizeof *vector);
    float *w = is_product(s->kind) && !l->quantizer_rec.bits ? bb_arena_take(arena, k * n, sizeof *w) : NULL;
    if (!arena->base) return;
    bb_normals(vector, 2 * n, SEED, BB_STREAM_TOOLS, 0);
    if (w) bb_normals(w, k * n, SEED, BB_STREAM_TOOLS, 2 * n);
    l->weights[0] = (bb_weight){.f32 = w ? w : vector, .stride = (uint32_t)n};
    l->weights[1] = (bb_weight){.f32 = vector + n};
}

/* Outputs of the classes in turn, 8 at a time, as quantizing by groups of 8 channels leaves them. */
static void make_perm(const bb_layer_rec *rec, uint16_t *perm)
{
    for (uint32_t which = 0; which < rec->n_classes; which++)
        for (uint32_t i = 0; i < bb_align_up(rec->class_rows[which], BB_TILE); i++)
            *perm++ = i < rec->class_rows[which] ? (uint16_t)((i / 8 * rec->n_classes + which) * 8 + i % 8) : 65535;
}

static void make_levels(const bb_layer_rec *rec, bool ladder, int16_t *offset, int16_t *multiplier, float *delta)
{
    static const int16_t steps[BB_PLANES] = {3, 7, 13, 23, 29, 19, 17, 11}; /* sums stay below 128 */
    for (uint32_t which = 0; which < rec->n_classes; which++) {
        const uint32_t planes = rec->class_planes[which];
        for (uint32_t row = 0; row < bb_align_up(rec->class_rows[which], BB_TILE); row++) {
            int32_t span = 0;
            for (uint32_t p = 0; p < planes; p++) {
                const int16_t m = ladder ? steps[p] : (int16_t)(1 << p);
                if (ladder) multiplier[row / BB_TILE * planes * BB_TILE + p * BB_TILE + row % BB_TILE] = m;
                span += m;
            }
            *offset++ = (int16_t)(-(span + 1) / 2);
            *delta++ = 1.0f / (float)(span + 1);
        }
        multiplier += bb_align_up(rec->class_rows[which], BB_TILE) * planes;
    }
}

static bb_status make_layer(bb_bench_layer *l, bool ladder, bb_arena *arena, bb_error *err)
{
    bb_layer_rec *rec = &l->rec;
    const bb_quantizer_rec *q = &l->quantizer_rec;
    size_t rows = 0, plane_bytes = 0, multipliers = 0;
    const size_t blocks = rec->taps * bb_align_up(rec->channels, BB_K_BLOCK) / BB_K_BLOCK;
    for (uint32_t i = 0; i < rec->n_classes; i++) {
        const size_t padded = bb_align_up(rec->class_rows[i], BB_TILE);
        rows += padded;
        plane_bytes += padded * blocks * rec->class_planes[i];
        multipliers += padded * rec->class_planes[i];
    }
    float *delta = bb_arena_take(arena, rows, sizeof *delta), *step = bb_arena_take(arena, 1, sizeof *step);
    int16_t *offset = bb_arena_take(arena, rows, sizeof *offset);
    int16_t *multiplier = bb_arena_take(arena, multipliers, sizeof *multiplier);
    uint16_t *perm = bb_arena_take(arena, rows, sizeof *perm);
    uint8_t *planes = bb_arena_take(arena, plane_bytes, 1), *zero = bb_arena_take(arena, 1, 1);
    int32_t *wsum = bb_arena_take(arena, BB_MAX_SEGMENTS * rows, sizeof *wsum);
    if (!arena->base) return BB_OK;
    rec->multiplier_at = ladder ? 0 : BB_NONE;
    rec->perm_at = rec->n_classes > 1 ? 0 : BB_NONE;
    make_perm(rec, perm);
    make_levels(rec, ladder, offset, multiplier, delta);
    fill_bytes(planes, plane_bytes);
    *step = 3.9f / (float)((1u << q->bits) - 1); /* inputs are as after a SiLU: seldom above 3.6, never below −0.28 */
    *zero = (uint8_t)(0.28f / *step + 0.5f);
    l->quantizer = (bb_quantizer){.rec = q, .key = step, .delta = step, .zero = zero, .channels = rec->channels,
                                  .padded = (uint32_t)bb_align_up(rec->channels, BB_K_BLOCK)};
    const bb_pools pools = {.delta = delta, .offset = offset, .multiplier = multiplier, .perm = perm,
                            .n_rows = (uint32_t)rows, .n_multiplier = (uint32_t)multipliers, .n_perm = (uint32_t)rows};
    BB_TRY(bb_layer_check(&l->layer, rec, &l->quantizer, &l->slots[0], l->shape.name, &pools, planes,
                          bb_align_up(plane_bytes, BB_ALIGNMENT), wsum, err));
    l->weights[0] = (bb_weight){.layer = &l->layer};
    return BB_OK;
}

static bb_status take_weights(bb_bench_layer *l, bool ladder, bb_arena *arena, bb_error *err)
{
    make_vectors(l, arena, (uint64_t)l->shape.kernel * l->shape.kernel);
    return l->quantizer_rec.bits ? make_layer(l, ladder, arena, err) : BB_OK;
}

/* ---- the walk ---- */

static bb_status open_run(bb_bench_layer *l, const bb_kernels *kernels, bb_par *par, bb_error *err)
{
    const bb_bench_shape *s = &l->shape;
    const bb_bindings bind = {{1, s->items, s->height, s->width, 1, 1}};
    bb_shape shapes[2];
    bb_fusion fusion[1];
    size_t offset[BB_LAYOUTS][2];
    uint32_t last[2], live[2];
    bb_plan plan = {.shapes = shapes, .fusion = fusion, .offset = {offset[BB_PLAIN], offset[BB_FUSED]}, .last = last,
                    .live = live};
    BB_TRY(bb_plan_make(&plan, &l->pack, kernels, &bind, 1, err));
    l->macs = plan.macs;
    bb_arena arena = bb_arena_init(NULL, 0);
    bb_run_init(&l->run, &l->pack, kernels, par, &plan, &arena);
    const size_t bytes = bb_arena_need(&arena);
    l->workspace = malloc(bytes);
    if (!l->workspace) return bb_fail(err, BB_ERR_SPACE, "out of memory for %s", s->name);
    arena = bb_arena_init(l->workspace, bytes);
    bb_run_init(&l->run, &l->pack, kernels, par, &plan, &arena);
    const size_t n = bb_shape_size(l->run.shapes[0]);
    bb_normals(l->run.at[0], n, SEED, BB_STREAM_TOOLS + 1, 0);
    kernels->silu(l->run.at[0], l->run.at[0], n);
    return BB_OK;
}

static void make_records(bb_bench_layer *l, const bb_bench_width *width)
{
    const bb_bench_shape *s = &l->shape;
    const uint32_t classes = classes_of(width);
    if (!width->bits || !is_product(s->kind)) return;
    l->quantizer_rec = (bb_quantizer_rec){.kind = BB_QUANTIZER_STATIC, .bits = width->bits, .segments = 1,
                                          .seg_channels = {s->channels}, .rows = 1, .inv_s_at = BB_NONE};
    l->rec = (bb_layer_rec){.outputs = s->outputs, .taps = s->kernel * s->kernel, .channels = s->channels,
                            .n_classes = classes};
    for (uint32_t i = 0; i < classes; i++) {
        l->rec.class_planes[i] = width->planes[i];
        l->rec.class_rows[i] = s->outputs / classes;
    }
}

bb_status bb_bench_layer_make(bb_bench_layer *l, const bb_bench_shape *shape, const bb_bench_width *width,
                              const bb_kernels *kernels, bb_par *par, bb_error *err)
{
    *l = (bb_bench_layer){.shape = *shape};
    make_op(l);
    make_records(l, width);
    bb_arena arena = bb_arena_init(NULL, 0);
    BB_TRY(take_weights(l, width->ladder, &arena, err));
    const size_t bytes = bb_arena_need(&arena);
    l->memory = malloc(bytes);
    if (!l->memory) return bb_fail(err, BB_ERR_SPACE, "out of memory for %s", shape->name);
    arena = bb_arena_init(l->memory, bytes);
    BB_TRY(take_weights(l, width->ladder, &arena, err));
    return open_run(l, kernels, par, err);
}

void bb_bench_layer_free(bb_bench_layer *l)
{
    free(l->memory);
    free(l->workspace);
    l->memory = l->workspace = NULL;
}

void bb_bench_layer_run(void *ctx, uint32_t times)
{
    bb_bench_layer *l = ctx;
    for (uint32_t i = 0; i < times; i++) {
        bb_run_inputs_changed(&l->run); /* else the codes of the last time would do */
        bb_run_op(&l->run, 0);
    }
}
