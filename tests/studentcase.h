/* What the tests of the student share: a packed model and the float model it was made from. Two of them: a small
 * checkpoint that bb_make quantizes, with everything that it can do switched on; and models/tiny.safetensors, which has
 * what bb_make never writes (eight planes of free multipliers, five width classes in a layer), with floats near it. */
#ifndef BB_TESTS_STUDENTCASE_H
#define BB_TESTS_STUDENTCASE_H

#include "check.h"

#include "base/rng.h"
#include "import/import.h"
#include "io.h"
#include "make.h"
#include "train/student/layer.h"

typedef struct packed_model { uint8_t *blob; size_t bytes; void *memory; bb_model *model; } packed_model;

typedef struct student_case {
    const char *name;
    packed_model packed, imported;
    bb_model teacher;
    bb_weight *weights; /* of the teacher, if made here */
    float **made;       /* [n_weights] */
} student_case;

static inline void *block(size_t bytes) { return aligned_alloc(64, bb_align_up(bytes ? bytes : 1, 64)); }

/* Takes the blob. */
static inline bool read_model(packed_model *m)
{
    bb_error err = {.text = ""};
    bb_info info;
    void *scratch = block(BB_PROBE_SCRATCH(m->bytes));
    bb_status status = bb_probe(m->blob, m->bytes, scratch, BB_PROBE_SCRATCH(m->bytes), &info, &err);
    free(scratch);
    if (status >= 0) {
        m->memory = block((size_t)info.model_bytes);
        status = bb_model_init(m->blob, m->bytes, m->memory, (size_t)info.model_bytes, &m->model, &err);
    }
    CHECK(status >= 0, "%s", err.text);
    return status >= 0;
}

static inline bool quantize_case(student_case *c, const bb_make_options *opt)
{
    bb_error err = {.text = ""};
    bb_make *make = NULL;
    const uint8_t *bytes = NULL;
    bb_status status = bb_make_begin(c->imported.model, opt, &bb_tools_memory, &make, &err);
    while (status >= 0 && (status = bb_make_step(make, NULL, &err)) == BB_AGAIN) {}
    CHECK(status == BB_DONE, "%s: %s", c->name, err.text);
    if (status == BB_DONE) {
        bb_make_result(make, &bytes, &c->packed.bytes);
        c->packed.blob = block(c->packed.bytes);
        memcpy(c->packed.blob, bytes, c->packed.bytes);
    }
    bb_make_end(make);
    return status == BB_DONE && read_model(&c->packed);
}

/* A checkpoint at W3A4 with ladders, three width classes, compensated rounding, segments and step tables. */
static inline bool open_made(student_case *c)
{
    *c = (student_case){.name = "made"};
    bb_error err = {.text = ""};
    const bb_import_options import = {.path = BB_TESTS_DIR "/golden/unet2d-class", .dtype = BB_F32, .null_label = "10"};
    bb_status status = bb_import(&import, &c->imported.blob, &c->imported.bytes, &err);
    CHECK(status >= 0, "%s", err.text);
    if (status < 0 || !read_model(&c->imported)) return false;
    c->teacher = *c->imported.model;
    bb_make_options opt;
    bb_make_defaults(&opt);
    opt.wbits = 3, opt.abits = 4, opt.images = 2, opt.steps = 5;
    opt.ladder = BB_LADDER_ALWAYS, opt.mixed = BB_MIXED_GAIN, opt.range = BB_RANGE_MSE, opt.refit = 3;
    return quantize_case(c, &opt);
}

/* Weights that are the levels of the packed ones, moved by up to 0.8 Δ. */
static inline float *near_levels(const bb_layer *l, const int8_t *level, const bb_student_matrix *m, uint32_t stride)
{
    float *w = block((size_t)m->k * stride * sizeof *w);
    for (size_t i = 0; i < (size_t)m->k * m->n; i++) {
        const double moved = level[i] + 1.6 * bb_uniform(9, BB_STREAM_TOOLS + m->slot, i) - 0.8;
        const float smooth = l->quantizer->inv_s ? l->quantizer->inv_s[i / m->n % l->rec->channels] : 1;
        w[i / m->n * stride + i % m->n] = (float)(moved * (double)m->grid[i % m->n].delta) * smooth;
    }
    return w;
}

/* The levels come from a student whose teacher is all zeros: unpacking asks the teacher for nothing. */
static inline bool open_tiny(student_case *c)
{
    *c = (student_case){.name = "tiny"};
    bb_error err = {.text = ""};
    bb_file file;
    bb_status status = bb_file_open(&file, BB_MODELS_DIR "/tiny.safetensors", &err);
    CHECK(status >= 0, "%s", err.text);
    if (status < 0) return false;
    c->packed.bytes = file.size;
    c->packed.blob = block(file.size);
    memcpy(c->packed.blob, file.data, file.size);
    bb_file_close(&file);
    if (!read_model(&c->packed)) return false;
    const bb_pack *p = &c->packed.model->pack;
    c->teacher = *c->packed.model;
    c->weights = calloc(p->graph.n_weights, sizeof *c->weights);
    c->made = calloc(p->graph.n_weights, sizeof *c->made);
    memcpy(c->weights, p->weights, p->graph.n_weights * sizeof *c->weights);
    for (uint32_t i = 0; i < p->n_layers; i++) {
        const bb_layer_rec *rec = p->layers[i].rec;
        const uint32_t stride = (uint32_t)bb_align_up(rec->outputs, 16);
        c->made[rec->weight] = calloc((size_t)rec->taps * rec->channels * stride, sizeof(float));
        c->weights[rec->weight] = (bb_weight){.f32 = c->made[rec->weight], .stride = stride};
    }
    c->teacher.pack.weights = c->weights;
    bb_student *s = NULL;
    const bb_student_options opt = {.packed = c->packed.model, .blob = c->packed.blob, .blob_bytes = c->packed.bytes,
                                    .teacher = &c->teacher, .weights = BB_STUDENT_FROZEN};
    status = bb_student_new(&s, &opt, &err);
    CHECK(status >= 0, "%s", err.text);
    for (uint32_t i = 0; s && i < p->n_layers; i++) {
        const bb_student_matrix *m = &s->matrices[i];
        free(c->made[m->slot]);
        c->made[m->slot] = near_levels(m->from, m->start, m, c->weights[m->slot].stride);
        c->weights[m->slot].f32 = c->made[m->slot];
    }
    bb_student_free(s);
    return status >= 0;
}

static inline void close_model(packed_model *m)
{
    free(m->blob);
    free(m->memory);
}

static inline void close_case(student_case *c)
{
    for (uint32_t i = 0; c->made && i < c->packed.model->pack.graph.n_weights; i++) free(c->made[i]);
    free(c->made);
    free(c->weights);
    close_model(&c->packed);
    close_model(&c->imported);
}

/* A student of a case; what: changes to the defaults (full weights, everything trained). */
static inline bb_student *new_student(const student_case *c, bb_student_options opt)
{
    bb_error err = {.text = ""};
    bb_student *s = NULL;
    opt.packed = c->packed.model;
    opt.blob = c->packed.blob;
    opt.blob_bytes = c->packed.bytes;
    opt.teacher = &c->teacher;
    const bb_status status = bb_student_new(&s, &opt, &err);
    CHECK(status == BB_OK, "%s: %s", c->name, err.text);
    return s;
}

static const bb_student_options train_all = {.weights = BB_STUDENT_FULL, .rank = 8, .seed = 3, .train_scales = true,
                                             .train_activations = true, .train_float = true};

#endif
