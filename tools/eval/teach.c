/* Recipe: 8 passes in batches of 100, each picture mirrored in half of the cases and moved by up to 2 pixels; cross
 * entropy; AdamW, rate 3e-3 after 100 updates of warm-up, falling to 0 along a cosine, decay 0.05 on matrices only. */
#include "eval/teach.h"

#include "base/rng.h"
#include "eval/classifier.h"
#include "host.h"
#include "idx.h"
#include "platform.h"
#include "progress.h"
#include "train/engine/optim.h"
#include "train/engine/tape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 100, PASSES = 8, WARMUP = 100, SIDE = BB_CLASSIFIER_SIDE, PIXELS = SIDE * SIDE, MOVED = 2 };
enum { STREAM_ORDER = BB_STREAM_TOOLS + 700, STREAM_START, STREAM_MOVES };
static const float RATE = 3e-3f, DECAY = .05f;

typedef struct school {
    const bb_teaching *t;
    bb_idx_set train;
    uint8_t *padded;       /* [train.n][SIDE][SIDE] */
    uint32_t *order;       /* [train.n]: of this pass */
    bb_builder builder;
    bb_params params;
    bb_optim optim;
    bb_dnn *dnn;
    const bb_ops *ops;
    bb_tape *tape;
    uint32_t logits;       /* value */
} school;

static bb_status load(school *s, bb_error *err)
{
    BB_TRY(bb_idx_open(&s->train, s->t->data, false, err));
    s->padded = malloc((size_t)s->train.n * PIXELS);
    s->order = malloc(s->train.n * sizeof *s->order);
    if (!s->padded || !s->order) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", s->t->data);
    for (uint32_t i = 0; i < s->train.n; i++)
        if (!bb_idx_picture(&s->train, i, SIDE, SIDE, s->padded + (size_t)i * PIXELS))
            return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: its pictures are larger than %u×%u pixels", s->t->data,
                           (uint32_t)SIDE, (uint32_t)SIDE);
    return s->train.n >= BATCH && s->train.classes >= 2
               ? BB_OK
               : bb_fail(err, BB_ERR_UNSUPPORTED, "%s: too few pictures or classes to learn from", s->t->data);
}

/* Normals of variance 2 / inputs (He et al. 2015); norms begin at scale 1. */
static void start_weights(school *s)
{
    const bb_graph *g = &s->builder.graph;
    for (uint32_t i = 0; i < g->n_weights; i++) {
        float *w = s->params.w + s->params.at[i];
        const bb_weight_slot *slot = &g->weights[i];
        const char *name = bb_graph_string(g, slot->name);
        if (slot->rank == 1) {
            for (size_t k = 0; strstr(name, "norm.weight") && k < s->params.count[i]; k++) w[k] = 1;
            continue;
        }
        const float deviation = sqrtf(2.0f * (float)slot->dim[0] / (float)s->params.count[i]);
        bb_normals(w, s->params.count[i], s->t->seed, STREAM_START, (uint64_t)s->params.at[i]);
        for (size_t k = 0; k < s->params.count[i]; k++) w[k] *= deviation;
    }
}

static bb_status open_optim(school *s, bb_error *err)
{
    enum { MOST = 32 };
    bb_optim_group groups[MOST];
    const bb_graph *g = &s->builder.graph;
    BB_ASSERT(g->n_weights <= MOST);
    for (uint32_t i = 0; i < g->n_weights; i++)
        groups[i] = (bb_optim_group){s->params.at[i], s->params.count[i], 1, g->weights[i].rank > 1 ? DECAY : 0};
    return bb_optim_new(&s->optim, s->ops, s->params.n, groups, g->n_weights, err);
}

static bb_status open_all(school *s, bb_error *err)
{
    const uint32_t threads = s->t->threads ? s->t->threads : bb_core_count();
    bb_kernels kernels;
    BB_TRY(bb_host_kernels(&kernels, s->t->cpu, err)); /* refuses what this CPU does not have */
    BB_TRY(load(s, err));
    BB_TRY(bb_dnn_open(&s->dnn, threads, s->t->cpu, err));
    s->ops = bb_ops_select(s->t->cpu, threads);
    BB_TRY(bb_classifier_graph(&s->builder, s->train.classes, err));
    BB_TRY(bb_params_new(&s->params, &s->builder.graph, NULL, true, err));
    start_weights(s);
    BB_TRY(open_optim(s, err));
    s->logits = bb_graph_find_output(&s->builder.graph, "logits");
    const bb_tape_options opt = {.graph = &s->builder.graph, .bind = {{1, BATCH, SIDE, SIDE, 1, 1}},
                                 .params = &s->params,
                                 .dnn = s->dnn, .ops = s->ops, .bf16 = true, .last_f32 = true, .backward = true};
    BB_TRY(bb_tape_new(&s->tape, &opt, err));
    bb_tape_weights(s->tape);
    return BB_OK;
}

static void close_all(school *s)
{
    bb_tape_free(s->tape);
    bb_optim_free(&s->optim);
    bb_params_free(&s->params);
    bb_builder_free(&s->builder);
    bb_dnn_close(s->dnn);
    bb_idx_close(&s->train);
    free(s->padded);
    free(s->order);
}

/* A new order for each pass (Fisher and Yates). */
static void shuffle(school *s, uint32_t pass)
{
    const uint32_t n = s->train.n;
    for (uint32_t i = 0; i < n; i++) s->order[i] = i;
    for (uint32_t i = n - 1; i > 0; i--) {
        const uint32_t j = (uint32_t)(bb_uniform(s->t->seed, STREAM_ORDER, (uint64_t)pass * n + i) * (i + 1));
        const uint32_t swapped = s->order[i];
        s->order[i] = s->order[j];
        s->order[j] = swapped;
    }
}

/* Picture number `draw` of the training, mirrored and moved; what moves in is black. */
static void fill_picture(const school *s, uint32_t picture, uint64_t draw, float *x)
{
    const uint64_t seed = s->t->seed;
    const bool mirror = bb_uniform(seed, STREAM_MOVES, 3 * draw) < .5;
    const int down = (int)(bb_uniform(seed, STREAM_MOVES, 3 * draw + 1) * (2 * MOVED + 1)) - MOVED;
    const int right = (int)(bb_uniform(seed, STREAM_MOVES, 3 * draw + 2) * (2 * MOVED + 1)) - MOVED;
    const uint8_t *from = s->padded + (size_t)picture * PIXELS;
    for (int row = 0; row < SIDE; row++)
        for (int column = 0; column < SIDE; column++) {
            const int y = row - down, seen = column - right, c = mirror ? SIDE - 1 - seen : seen;
            const bool inside = y >= 0 && y < SIDE && seen >= 0 && seen < SIDE;
            x[row * SIDE + column] = (inside ? from[y * SIDE + c] : 0) / 127.5f - 1;
        }
}

/* Softmax of one row in place, minus 1 at the label, divided by the batch: the gradient of the mean cross entropy. */
static double cross_entropy(const float *logit, uint32_t classes, uint32_t label, float *gradient)
{
    float largest = logit[0];
    double sum = 0;
    for (uint32_t k = 1; k < classes; k++) largest = logit[k] > largest ? logit[k] : largest;
    for (uint32_t k = 0; k < classes; k++) sum += exp((double)(logit[k] - largest));
    for (uint32_t k = 0; k < classes; k++)
        gradient[k] = (float)((exp((double)(logit[k] - largest)) / sum - (k == label)) / BATCH);
    return log(sum) - (double)(logit[label] - largest);
}

static double update(school *s, uint32_t pass, uint32_t batch, float rate)
{
    float *x = bb_tape_input(s->tape, "sample");
    const uint32_t *picture = s->order + (size_t)batch * BATCH, classes = s->train.classes;
    double loss = 0;
    for (uint32_t i = 0; i < BATCH; i++)
        fill_picture(s, picture[i], (uint64_t)pass * s->train.n + (uint64_t)batch * BATCH + i, x + (size_t)i * PIXELS);
    bb_tape_forward(s->tape);
    const float *logits = bb_tape_value(s->tape, s->logits);
    float *gradient = bb_tape_grad(s->tape, s->logits);
    for (uint32_t i = 0; i < BATCH; i++)
        loss += cross_entropy(logits + (size_t)i * classes, classes, bb_idx_label(&s->train, picture[i]),
                              gradient + (size_t)i * classes);
    memset(s->params.g, 0, s->params.n * sizeof *s->params.g);
    bb_tape_backward(s->tape);
    bb_optim_update(&s->optim, s->params.w, s->params.g, rate, 1, bb_optim_norm(&s->optim, s->params.g));
    bb_tape_weights(s->tape);
    return loss / BATCH;
}

static bb_status learn(school *s, bb_error *err)
{
    const uint32_t passes = s->t->passes ? s->t->passes : PASSES, batches = s->train.n / BATCH;
    bb_progress progress = bb_progress_start("learning (updates)", (size_t)passes * batches, s->t->quiet);
    for (uint32_t pass = 0, done = 0; pass < passes; pass++) {
        shuffle(s, pass);
        for (uint32_t batch = 0; batch < batches; batch++, done++) {
            const float rate = RATE * bb_rate_at(BB_DECAY_COSINE, done, (uint64_t)passes * batches, WARMUP, 0);
            const double loss = update(s, pass, batch, rate);
            if (!isfinite(loss)) return bb_fail(err, BB_ERR_CORRUPT, "training of the classifier diverged");
            bb_progress_step(&progress, done + 1);
        }
    }
    return BB_OK;
}

static bb_status write(const school *s, double accuracy, bb_error *err)
{
    uint8_t *bytes;
    size_t n;
    BB_TRY(bb_classifier_write(&s->builder.graph, s->params.w, s->params.at, accuracy, &bytes, &n, err));
    bb_status status = bb_file_write(s->t->out, bytes, n, err);
    free(bytes);
    return status;
}

/* Of the file as written, run as every evaluation runs it. */
static bb_status test(const bb_teaching *t, const bb_classifier *c, double *accuracy, bb_error *err)
{
    bb_idx_set set;
    bb_kernels kernels;
    BB_TRY(bb_host_kernels(&kernels, t->cpu, err));
    BB_TRY(bb_idx_open(&set, t->data, true, err));
    uint8_t *pictures = malloc((size_t)set.n * PIXELS), *found = malloc(set.n);
    bb_status status = pictures && found ? BB_OK : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", t->data);
    bool fits = true;
    for (uint32_t i = 0; status == BB_OK && fits && i < set.n; i++)
        fits = bb_idx_picture(&set, i, SIDE, SIDE, pictures + (size_t)i * PIXELS);
    if (!fits) status = bb_fail(err, BB_ERR_UNSUPPORTED, "%s: test pictures are larger than the others", t->data);
    if (status == BB_OK) {
        bb_par *par = bb_par_start(t->threads ? t->threads : bb_core_count());
        status = bb_classifier_run(c, &kernels, par, pictures, set.n, NULL, found, err);
        bb_par_stop(par);
    }
    uint32_t right = 0;
    for (uint32_t i = 0; status == BB_OK && i < set.n; i++) right += found[i] == bb_idx_label(&set, i);
    *accuracy = set.n ? (double)right / set.n : 0;
    free(pictures);
    free(found);
    bb_idx_close(&set);
    return status;
}

bb_status bb_teach_classifier(const bb_teaching *t, double *accuracy, bb_error *err)
{
    school s = {.t = t};
    bb_classifier c = {0};
    BB_TRY(bb_file_check_writable(t->out, err));
    bb_status status = open_all(&s, err);
    if (status == BB_OK) status = learn(&s, err);
    if (status == BB_OK) status = write(&s, NAN, err);
    if (status == BB_OK) status = bb_classifier_open(&c, t->out, err);
    if (status == BB_OK) status = test(t, &c, accuracy, err);
    if (status == BB_OK) status = write(&s, *accuracy, err);
    bb_classifier_close(&c);
    close_all(&s);
    return status;
}
