#include "run/fuse.h"

/* The quantizer that all layers reading a value share; BB_NONE: no layer reads it. */
#define MIXED (BB_NONE - 1)

typedef struct fuser {
    const bb_pack *pack;
    const bb_graph *g;
    const bb_shape *shapes;
    bb_fusion *fusion;
    uint32_t *others; /* [n_values] readers that are not quantized layers: ops and the graph's outputs */
    uint32_t *wanted; /* [n_values] */
} fuser;

/* Only at sample rate: what runs once for many steps is little work. */
static const bb_layer *layer_of(const fuser *f, uint32_t op)
{
    const bb_op *o = &f->g->ops[op];
    bool is_layer = o->kind == BB_OP_CONV2D || o->kind == BB_OP_LINEAR;
    return is_layer && f->g->values[bb_op_value(f->g, op)].rate == BB_RATE_SAMPLE
               ? f->pack->weights[o->weight[0]].layer : NULL;
}

/* The op that makes v if it is of that kind, else BB_NONE. */
static uint32_t maker(const fuser *f, uint32_t v, uint32_t kind)
{
    return v >= f->g->n_inputs && f->g->ops[v - f->g->n_inputs].kind == kind ? v - f->g->n_inputs : BB_NONE;
}

static void count_readers(const fuser *f)
{
    for (uint32_t v = 0; v < f->g->n_values; v++) {
        f->others[v] = 0;
        f->wanted[v] = BB_NONE;
    }
    for (uint32_t i = 0; i < f->g->n_ops; i++) {
        const bb_layer *layer = layer_of(f, i);
        for (uint32_t k = 0; k < 4; k++) {
            uint32_t v = f->g->ops[i].in[k];
            if (v == BB_NONE) continue;
            if (!layer) f->others[v]++;
            else if (f->wanted[v] == BB_NONE) f->wanted[v] = layer->rec->quantizer;
            else if (f->wanted[v] != layer->rec->quantizer) f->wanted[v] = MIXED;
        }
    }
    for (uint32_t i = 0; i < f->g->n_outputs; i++) f->others[f->g->outputs[i].value]++;
}

/* Wanted as codes of one quantizer only, which are made once for all readers. */
static bool only_codes(const fuser *f, uint32_t v) { return !f->others[v] && f->wanted[v] < MIXED; }

/* Read by one op, no layer, or one output. */
static bool read_once(const fuser *f, uint32_t v) { return f->others[v] == 1 && f->wanted[v] == BB_NONE; }

/* x → [group norm] → [SiLU] → codes. */
static void fuse_front(const fuser *f, uint32_t op)
{
    bb_fusion *it = &f->fusion[op];
    uint32_t silu = BB_NONE, norm = BB_NONE;
    if (!only_codes(f, it->x)) return;
    silu = maker(f, it->x, BB_OP_SILU);
    if (silu != BB_NONE) {
        it->silu = true;
        it->x = f->g->ops[silu].in[0];
        f->fusion[silu].skipped = true;
    }
    if (silu == BB_NONE || read_once(f, it->x)) norm = maker(f, it->x, BB_OP_GROUP_NORM);
    if (norm != BB_NONE) {
        it->norm = norm;
        it->x = f->g->ops[norm].in[0];
        f->fusion[norm].skipped = true;
    }
}

/* layer → sum, if the other addend is made by then. */
static void fuse_sum(const fuser *f, uint32_t op)
{
    const uint32_t a = f->g->ops[op].in[0], b = f->g->ops[op].in[1];
    const bb_shape sa = f->shapes[a], sb = f->shapes[b];
    const bool spread = sa.h != sb.h || sa.w != sb.w;
    const uint32_t from = spread || a > b ? a : b, other = from == a ? b : a;
    if (from < f->g->n_inputs || !read_once(f, from) || !layer_of(f, from - f->g->n_inputs)) return;
    if (f->g->values[other].rate == BB_RATE_SAMPLE && other > from) return;
    bb_fusion *it = &f->fusion[from - f->g->n_inputs];
    it->add = other;
    it->y = bb_op_value(f->g, op);
    f->fusion[op].skipped = true;
}

bb_fusion bb_fusion_none(const bb_graph *g, uint32_t i)
{
    return (bb_fusion){.x = g->ops[i].in[0], .norm = BB_NONE, .y = bb_op_value(g, i), .add = BB_NONE};
}

void bb_fuse(bb_fusion *fusion, const bb_pack *pack, const bb_shape *shapes, uint32_t *others, uint32_t *wanted)
{
    const fuser f = {pack, &pack->graph, shapes, fusion, others, wanted};
    for (uint32_t i = 0; i < f.g->n_ops; i++) fusion[i] = bb_fusion_none(f.g, i);
    count_readers(&f);
    for (uint32_t i = 0; i < f.g->n_ops; i++) {
        if (layer_of(&f, i)) fuse_front(&f, i);
        if (f.g->ops[i].kind == BB_OP_ADD) fuse_sum(&f, i);
    }
}
