/* See noise.h. */
#include "train/teach/noise.h"

#include "train/teach/streams.h"

#include <math.h>
#include <stdlib.h>

static const uint64_t NO_EPOCH = UINT64_MAX;

bb_status bb_noise_open(bb_noise *z, const bb_noise_options *opt, const bb_pipeline *pipe, const bb_data *data,
                        bb_error *err)
{
    *z = (bb_noise){.opt = *opt, .pipe = pipe, .data = data, .width = pipe->facts.width, .height = pipe->facts.height,
                    .channels = pipe->facts.channels, .epoch = NO_EPOCH};
    z->order = malloc(data->count * sizeof *z->order);
    return z->order ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory for the order of %u pictures", data->count);
}

void bb_noise_close(bb_noise *z)
{
    free(z->order);
    z->order = NULL;
}

size_t bb_noise_values(const bb_noise *z) { return (size_t)z->width * z->height * z->channels; }

/* R. Durstenfeld's shuffle (1964) by numbers of the epoch alone. */
static void shuffle(bb_noise *z, uint64_t epoch)
{
    const uint32_t n = z->data->count;
    if (z->epoch == epoch) return;
    for (uint32_t i = 0; i < n; i++) z->order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = (uint32_t)(bb_uniform(z->opt.seed, BB_STREAM_ORDER, epoch * n + i - 1) * i), kept = z->order[k];
        z->order[k] = z->order[i - 1];
        z->order[i - 1] = kept;
    }
    z->epoch = epoch;
}

/* One item: where its noise comes from, what picture, how noisy. */
typedef struct item {
    const bb_data *data;
    uint32_t picture, timestep, stream;
    int32_t label;
    bool mirror;
    uint64_t number; /* of its noise */
} item;

static float loss_weight(const bb_noise *z, double alpha)
{
    if (z->opt.weighting == BB_WEIGHTING_NONE) return 1;
    double snr = alpha / (1 - alpha), least = fmin(snr, (double)z->opt.gamma);
    switch (z->pipe->schedule.prediction) {
    case BB_PREDICT_EPSILON: return (float)(snr > 0 ? least / snr : 1);
    case BB_PREDICT_V: return (float)(least / (snr + 1));
    default: return (float)least;
    }
}

/* x_t = √ᾱ·x0 + √(1−ᾱ)·ε. The answer: ε, v = √ᾱ·ε − √(1−ᾱ)·x0 (T. Salimans, J. Ho 2022), or x0. */
static void put_item(const bb_noise *z, const item *it, const bb_noised *out, uint32_t i)
{
    const size_t n = bb_noise_values(z);
    const double alpha = (double)z->pipe->schedule.alphas_cumprod[it->timestep];
    const float a = (float)sqrt(alpha), b = (float)sqrt(1 - alpha);
    float *x = out->sample + i * n, *y = out->target + i * n;
    bb_data_item(it->data, it->picture, it->mirror, z->opt.pad, z->height, z->width, x);
    bb_normals(y, n, z->opt.seed, it->stream, it->number * n);
    for (size_t k = 0; k < n; k++) {
        const float x0 = x[k], eps = y[k];
        x[k] = a * x0 + b * eps;
        if (z->pipe->schedule.prediction == BB_PREDICT_V) y[k] = a * eps - b * x0;
        else if (z->pipe->schedule.prediction == BB_PREDICT_SAMPLE) y[k] = x0;
    }
    out->timestep[i] = (float)it->timestep;
    if (out->label) out->label[i] = (float)it->label;
    out->weight[i] = loss_weight(z, alpha);
}

static uint32_t timestep_at(const bb_noise *z, double share)
{
    const uint32_t steps = z->pipe->schedule.train_steps, t = (uint32_t)(share * steps);
    return t < steps ? t : steps - 1;
}

void bb_noise_fill(bb_noise *z, uint64_t update, uint32_t whole, uint32_t first, const bb_noised *out)
{
    const uint64_t begin = update * whole + first;
    const int32_t null = z->pipe->labels.null_label;
    for (uint32_t done = 0; done < out->n;) { /* in parts of one epoch */
        const uint64_t at = begin + done, place = at % z->data->count;
        const uint64_t left = z->data->count - place;
        const uint32_t part = left < out->n - done ? (uint32_t)left : out->n - done;
        shuffle(z, at / z->data->count);
#pragma omp parallel for schedule(static)
        for (uint32_t k = 0; k < part; k++) {
            const uint64_t number = at + k, seed = z->opt.seed;
            const uint32_t i = done + k;
            item it = {.data = z->data, .picture = z->order[place + k], .number = number, .stream = BB_STREAM_NOISE};
            it.timestep = timestep_at(z, (first + i + bb_uniform(seed, BB_STREAM_TIME, number)) / whole);
            it.label = z->data->label[it.picture];
            if (null >= 0 && bb_uniform(seed, BB_STREAM_DROP, number) < (double)z->opt.dropout) it.label = null;
            it.mirror = z->opt.mirror && bb_uniform(seed, BB_STREAM_MIRROR, number) < 0.5;
            put_item(z, &it, out, i);
        }
        done += part;
    }
}

void bb_noise_fill_held_out(const bb_noise *z, const bb_data *held_out, uint32_t whole, uint32_t first,
                            const bb_noised *out)
{
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < out->n; i++) {
        const uint32_t number = first + i;
        item it = {.data = held_out, .number = number, .stream = BB_STREAM_HELD_OUT};
        it.picture = (uint32_t)((uint64_t)number * held_out->count / whole);
        it.timestep = timestep_at(z, (number + 0.5) / whole);
        it.label = held_out->label[it.picture];
        put_item(z, &it, out, i);
    }
}

double bb_noise_loss(const bb_noise *z, const bb_noised *b, const float *answer, double scale, double *losses,
                     float *gradient)
{
    const size_t values = bb_noise_values(z);
    double sum = 0;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < b->n; i++) {
        const float factor = (float)(2 * scale * (double)b->weight[i] / (double)values);
        double square = 0;
        for (size_t k = i * values; k < (i + 1) * values; k++) {
            const float d = answer[k] - b->target[k];
            square += (double)d * (double)d;
            if (gradient) gradient[k] = factor * d;
        }
        losses[i] = (double)b->weight[i] * square / (double)values;
    }
    for (uint32_t i = 0; i < b->n; i++) sum += losses[i];
    return sum * scale;
}
