/* A quantized layer forwards and backwards. Work items are blocks of an item's pixels, or of weight rows, so that sums
 * do not depend on the threads. */
#include "train/student/layer.h"

typedef struct block { uint32_t item, first, pixels; } block;

static uint32_t blocks_of(uint32_t pixels) { return (pixels + BB_STUDENT_BLOCK - 1) / BB_STUDENT_BLOCK; }

static block block_of(uint32_t number, uint32_t pixels)
{
    const uint32_t each = blocks_of(pixels), first = number % each * BB_STUDENT_BLOCK;
    return (block){number / each, first, pixels - first < BB_STUDENT_BLOCK ? pixels - first : BB_STUDENT_BLOCK};
}

static uint32_t row_of(const bb_student_steps *q, const bb_layer_pass *pass, uint32_t item)
{
    return q->from->rec->rows == 1 || !pass->timestep ? 0 : bb_step_row(q->from, pass->timestep[item]);
}

static const bb_student_matrix *matrix_of(const bb_student_op *o) { return &o->s->matrices[o->matrix]; }

static const bb_student_steps *steps_of(const bb_student_op *o)
{
    return &o->s->steps[matrix_of(o)->from->rec->quantizer];
}

static size_t operand_bytes(const bb_student *s) { return s->bf16 ? sizeof(uint16_t) : sizeof(float); }

/* Where the operand of segment g begins: segments are dense tensors one after the other. */
static void *segment_operand(const bb_student_op *o, uint32_t g)
{
    const bb_quantizer_rec *q = steps_of(o)->from->rec;
    size_t at = 0;
    for (uint32_t i = 0; i < g; i++)
        at += bb_align_up((size_t)o->items * o->pixels * q->seg_channels[i] * operand_bytes(o->s), BB_ALIGNMENT);
    return (uint8_t *)o->s->operand + at;
}

/* ---- forward ---- */

static void make_block_codes(const bb_student_op *o, const bb_layer_pass *pass, bool keep, block b)
{
    const bb_student_steps *q = steps_of(o);
    const bb_quantizer_rec *rec = q->from->rec;
    const uint32_t row = row_of(q, pass, b.item), channels = q->from->channels;
    const size_t pixel = (size_t)b.item * o->pixels + b.first;
    size_t at = pixel * channels;
    const float *m = q->m + (size_t)row * channels;
    for (uint32_t g = 0; g < rec->segments; g++) {
        const uint32_t c = rec->seg_channels[g];
        o->s->loops->codes(&(bb_codes_args){
            .x = pass->x + at, .x_stride = channels, .pixels = b.pixels, .channels = c, .m = m,
            .zero = q->zero[row * rec->segments + g], .levels = (1u << rec->bits) - 1,
            .code = keep ? o->code + at : NULL, .residual = keep ? o->residual + at : NULL, .stride = channels,
            .operand = (uint8_t *)segment_operand(o, g) + pixel * c * operand_bytes(o->s), .operand_stride = c,
            .bf16 = o->s->bf16});
        at += c;
        m += c;
    }
}

/* Fills the operand, unless the layer before has: q, k and v read the same codes. */
static void make_codes(bb_student_op *o, const bb_layer_pass *pass)
{
    const bool leads = o->leader == o->op;
    if (!leads && o->s->filled == o->leader) return;
    if (leads) {
        o->code = pass->kept;
        o->residual = (int8_t *)o->code + (size_t)o->items * o->pixels * steps_of(o)->from->channels;
    }
    const uint32_t n = o->items * blocks_of(o->pixels);
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++) make_block_codes(o, pass, leads, block_of(i, o->pixels));
    o->s->filled = o->leader;
}

/* y = y·(δ·Δ) of the first segment, + sums·(δ·Δ) of the others; then the bias. */
static void apply_scales(const bb_student_op *o, const bb_layer_pass *pass, uint32_t g)
{
    const bb_student_matrix *m = matrix_of(o);
    const bb_student_steps *q = steps_of(o);
    const uint32_t segments = q->from->rec->segments, n = o->items * blocks_of(o->out_pixels);
    const uint32_t slot = pass->op->weight[1];
    const float *bias = slot == BB_NONE || g + 1 < segments ? NULL : o->s->w + o->s->params.at[slot];
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++) {
        const block b = block_of(i, o->out_pixels);
        const size_t at = ((size_t)b.item * o->out_pixels + b.first) * m->n;
        o->s->loops->scale(&(bb_scale_args){
            .y = pass->y + at, .more = g ? o->s->sums + at : NULL, .pixels = b.pixels, .n = m->n,
            .step = q->delta[row_of(q, pass, b.item) * segments + g], .delta = m->delta, .bias = bias});
    }
}

void bb_student_op_forward(void *self, const bb_layer_pass *pass)
{
    bb_student_op *o = self;
    make_codes(o, pass);
    for (uint32_t g = 0; g < steps_of(o)->from->rec->segments; g++) {
        bb_conv_forward(o->forward[g], segment_operand(o, g), NULL, g ? o->s->sums : pass->y);
        apply_scales(o, pass, g);
    }
}

/* ---- backward ---- */

/* The first op's codes: those of this layer. */
static const bb_student_op *keeper(const bb_student_op *o) { return &o->s->at_op[o->leader]; }

static void make_output_grad(const bb_student_op *o, const bb_layer_pass *pass)
{
    const bb_student_matrix *m = matrix_of(o);
    const uint32_t n = o->items * blocks_of(o->out_pixels);
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++) {
        const block b = block_of(i, o->out_pixels);
        const size_t at = ((size_t)b.item * o->out_pixels + b.first) * m->n;
        o->s->loops->output_grad(&(bb_output_grad_args){
            .dy = pass->dy + at, .delta = m->delta, .pixels = b.pixels, .n = m->n,
            .operand = (uint8_t *)o->s->dy + at * operand_bytes(o->s), .bf16 = o->s->bf16});
    }
}

/* x̂ = δ·(a − z), all segments in one tensor. */
static void make_input(const bb_student_op *o, const bb_layer_pass *pass)
{
    const bb_student_steps *q = steps_of(o);
    const bb_quantizer_rec *rec = q->from->rec;
    const uint32_t n = o->items * blocks_of(o->pixels), channels = q->from->channels;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++) {
        const block b = block_of(i, o->pixels);
        const uint32_t row = row_of(q, pass, b.item);
        size_t at = ((size_t)b.item * o->pixels + b.first) * channels;
        for (uint32_t g = 0; g < rec->segments; g++) {
            const uint32_t entry = row * rec->segments + g;
            o->s->loops->operand(&(bb_operand_args){
                .code = keeper(o)->code + at, .stride = channels, .pixels = b.pixels, .channels = rec->seg_channels[g],
                .zero = q->zero[entry], .scale = q->delta[entry],
                .operand = (uint8_t *)o->s->operand + at * operand_bytes(o->s), .operand_stride = channels,
                .bf16 = o->s->bf16});
            at += rec->seg_channels[g];
        }
    }
    o->s->filled = BB_NONE;
}

/* Latent weights or low-rank factors, and Δ. dw holds Δ·∂L/∂ŵ. */
static void weight_grads(const bb_student_op *o)
{
    bb_student *s = o->s;
    bb_student_matrix *m = &s->matrices[o->matrix];
    const bool full = s->opt.weights == BB_STUDENT_FULL;
    const uint32_t blocks = (m->k + BB_STUDENT_BLOCK - 1) / BB_STUDENT_BLOCK;
    const float *w = bb_student_latent(s, m);
    float *sums = s->block_sums;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < blocks; i++) {
        const size_t first = (size_t)i * BB_STUDENT_BLOCK, at = first * m->n;
        s->loops->weight_grad(&(bb_weight_grad_args){
            .g = s->dw + at, .w = w + at, .code = m->code + at, .n = m->n, .add = full,
            .rows = m->k - first < BB_STUDENT_BLOCK ? m->k - first : BB_STUDENT_BLOCK, .delta = m->delta,
            .low = m->low, .high = m->high,
            .dw = s->opt.weights == BB_STUDENT_FROZEN ? NULL : full ? s->g + m->at + at : s->dw + at,
            .scale = sums + (size_t)i * m->n});
    }
    if (m->rank) bb_student_factors_grad(s, m, s->dw);
    for (uint32_t n = 0; s->opt.train_scales && n < m->n; n++) {
        double sum = 0; /* Δ·∂L/∂Δ; the parameter is Δ/Δ₀ */
        for (uint32_t i = 0; i < blocks; i++) sum += (double)sums[(size_t)i * m->n + n];
        s->g[m->scale_at + n] += (float)(sum / (double)s->w[m->scale_at + n]);
    }
}

static void block_input_grad(const bb_student_op *o, const bb_layer_pass *pass, uint32_t number)
{
    const bb_student_steps *q = steps_of(o);
    const bb_quantizer_rec *rec = q->from->rec;
    const block b = block_of(number, o->pixels);
    const uint32_t row = row_of(q, pass, b.item), channels = q->from->channels;
    size_t at = ((size_t)b.item * o->pixels + b.first) * channels, first = 0;
    float *sums = o->s->block_sums + (size_t)number * 2 * channels;
    for (uint32_t g = 0; g < rec->segments; g++) {
        o->s->loops->input_grad(&(bb_input_grad_args){
            .g = o->s->dx + at, .code = keeper(o)->code + at, .residual = keeper(o)->residual + at, .stride = channels,
            .pixels = b.pixels, .channels = rec->seg_channels[g], .zero = q->zero[row * rec->segments + g],
            .inv_s = q->from->inv_s ? q->from->inv_s + first : NULL, .dx = pass->dx ? pass->dx + at : NULL,
            .step = sums + first, .outside = sums + channels + first});
        at += rec->seg_channels[g];
        first += rec->seg_channels[g];
    }
}

/* Sums of blocks and channels, in order, to the table rows of their items. δ is trained as δ/δ₀. */
static void step_grads(const bb_student_op *o, const bb_layer_pass *pass)
{
    const bb_student_steps *q = steps_of(o);
    const bb_quantizer_rec *rec = q->from->rec;
    const uint32_t each = blocks_of(o->pixels), channels = q->from->channels;
    bb_student *s = o->s;
    for (uint32_t item = 0; item < o->items; item++)
        for (uint32_t g = 0, first = 0; g < rec->segments; first += rec->seg_channels[g++]) {
            const uint32_t entry = row_of(q, pass, item) * rec->segments + g;
            double step = 0, outside = 0;
            for (uint32_t i = item * each; i < (item + 1) * each; i++) {
                const float *sums = s->block_sums + (size_t)i * 2 * channels + first;
                for (uint32_t c = 0; c < rec->seg_channels[g]; c++) {
                    step += (double)sums[c];
                    outside += (double)sums[channels + c];
                }
            }
            s->g[q->step_at + entry] += (float)(step * (double)q->from->delta[entry]);
            s->g[q->zero_at + entry] -= (float)(outside * (double)q->delta[entry]);
        }
}

static void input_grads(const bb_student_op *o, const bb_layer_pass *pass)
{
    const uint32_t n = o->items * blocks_of(o->pixels);
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++) block_input_grad(o, pass, i);
    if (o->s->opt.train_activations) step_grads(o, pass);
}

void bb_student_op_backward(void *self, const bb_layer_pass *pass)
{
    bb_student_op *o = self;
    bb_student *s = o->s;
    const uint32_t bias = pass->op->weight[1];
    if (s->opt.train_float && bias != BB_NONE)
        s->ops->column_sums((size_t)o->items * o->out_pixels, matrix_of(o)->n, pass->dy, s->g + s->params.at[bias]);
    const bool weights = s->opt.weights != BB_STUDENT_FROZEN || s->opt.train_scales;
    const bool inputs = pass->dx || s->opt.train_activations;
    make_output_grad(o, pass);
    if (weights) make_input(o, pass);
    if (weights || inputs)
        bb_conv_backward(o->backward, weights ? s->operand : NULL, s->dy, inputs ? s->dx : NULL, weights ? s->dw : NULL,
                         false);
    if (weights) weight_grads(o);
    if (inputs) input_grads(o, pass);
}
