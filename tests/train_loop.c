/* Training of a tiny network: how weights begin, what batches hold, that the loss falls. */
#include "teaching.h"

/* ---- how weights begin ---- */

static void begins_as_pytorch(const bb_pipeline *p)
{
    bb_params a, b;
    bb_error err = {0};
    must(bb_pipeline_params(p, &a, NULL, 5, &err), &err);
    must(bb_pipeline_params(p, &b, NULL, 6, &err), &err);
    for (uint32_t i = 0; i < p->graph->n_ops; i++) {
        const bb_op *op = &p->graph->ops[i];
        if (op->weight[0] == BB_NONE) continue;
        const bb_weight_slot *slot = &p->graph->weights[op->weight[0]];
        const char *name = bb_graph_string(p->graph, slot->name);
        const float *w = a.w + a.at[op->weight[0]];
        const size_t n = a.count[op->weight[0]];
        double sum = 0, squares = 0, most = 0;
        for (size_t k = 0; k < n; k++) {
            sum += w[k];
            squares += (double)w[k] * w[k];
            most = fmax(most, fabs((double)w[k]));
        }
        const double mean = sum / (double)n, variance = squares / (double)n - mean * mean, root = 1 / sqrt((double)n);
        if (op->kind == BB_OP_GROUP_NORM) CHECK(mean == 1 && variance == 0, "%s: not all ones", name);
        if (op->kind == BB_OP_EMBEDDING) /* 4.5 standard errors of mean and variance of normals */
            CHECK(fabs(mean) < 4.5 * root && fabs(variance - 1) < 4.5 * sqrt(2) * root, "%s: %g %g", name, mean,
                  variance);
        if (op->kind != BB_OP_CONV2D && op->kind != BB_OP_LINEAR) continue;
        double bound = 1 / sqrt((double)slot->dim[1] * (slot->rank == 4 ? slot->dim[2] * slot->dim[3] : 1));
        double expected = bound * bound / 3; /* the variance's own standard deviation is 2/√5 of it, by √n */
        CHECK(most <= bound && most > bound * (1 - 12 / (double)n), "%s: at most %g of %g", name, most, bound);
        CHECK(fabs(mean) < 4.5 * bound / sqrt(3) * root && fabs(variance / expected - 1) < 4.5 * 0.8945 * root,
              "%s: mean %g, variance %g of %g", name, mean, variance, expected);
        CHECK(n < 8 || memcmp(w, b.w + b.at[op->weight[0]], n * sizeof *w) != 0, "%s: alike for two seeds", name);
    }
    bb_params_free(&a);
    bb_params_free(&b);
}

/* ---- batches ---- */

typedef struct batch {
    float sample[2 * COUNT * VALUES], target[2 * COUNT * VALUES];
    float timestep[2 * COUNT], label[2 * COUNT], weight[2 * COUNT];
} batch;

static bb_noised part_of(batch *b, uint32_t first, uint32_t n)
{
    return (bb_noised){n, b->sample + first * VALUES, b->timestep + first, b->label + first, b->target + first * VALUES,
                       b->weight + first};
}

/* x_t and target lead back to picture and noise. */
static void check_item(const bb_pipeline *p, const batch *b, uint32_t i)
{
    const double alpha = p->schedule.alphas_cumprod[(int)b->timestep[i]], a = sqrt(alpha), s = sqrt(1 - alpha);
    const double snr = alpha / (1 - alpha), least = fmin(snr, 5);
    const uint32_t prediction = p->schedule.prediction;
    double squares = 0, worst = 0;
    for (int k = 0; k < VALUES; k++) {
        const double x = b->sample[i * VALUES + k], y = b->target[i * VALUES + k];
        const double x0 = prediction == BB_PREDICT_V ? a * x - s * y
            : prediction == BB_PREDICT_SAMPLE ? y : (x - s * y) / a;
        const double eps = (x - a * x0) / s;
        squares += eps * eps;
        /* Pictures are black and white; f32 rounding of x and y, 2^-24 of values up to 5, grows by 1/ᾱ. */
        worst = fmax(worst, fabs(fabs(x0) - 1));
    }
    CHECK(worst < 1e-6 / a, "item %u at %g: x0 is off by %g", i, (double)b->timestep[i], worst);
    /* The mean square of 64 normals: standard deviation √(2/64). */
    CHECK(fabs(squares / VALUES - 1) < 5 * sqrt(2.0 / VALUES), "item %u: noise of variance %g", i, squares / VALUES);
    const double weight = prediction == BB_PREDICT_EPSILON ? least / snr
        : prediction == BB_PREDICT_V ? least / (snr + 1) : least;
    CHECK(fabs(b->weight[i] / weight - 1) < 1e-6, "item %u: weight %g, not %g", i, (double)b->weight[i], weight);
}

static void batches(const bb_pipeline *p)
{
    static batch b, c;
    bb_noise z;
    bb_error err = {0};
    must(bb_noise_open(&z, &defaults.noise, p, &data, &err), &err);
    uint32_t dropped = 0, seen[COUNT] = {0};
    for (uint64_t u = 0; u < 3; u++) { /* 16 of 24 pictures: the second batch lies in two epochs */
        const bb_noised whole = part_of(&b, 0, 16);
        bb_noise_fill(&z, u, 16, 0, &whole);
        for (uint32_t i = 0; i < 16; i++) {
            check_item(p, &b, i);
            const double t = b.timestep[i];
            CHECK(t >= floor(1000.0 * i / 16) && t <= 1000.0 * (i + 1) / 16, "item %u at %g: not in its stratum", i, t);
            dropped += b.label[i] == 2;
        }
        for (uint32_t first = 0; first < 16; first += 4) {
            const bb_noised part = part_of(&c, first, 4);
            bb_noise_fill(&z, u, 16, first, &part);
        }
        CHECK(!memcmp(b.sample, c.sample, 16 * VALUES * sizeof *b.sample) &&
              !memcmp(b.label, c.label, 16 * sizeof *b.label) &&
              !memcmp(b.target, c.target, 16 * VALUES * sizeof *b.target), "a batch in four parts is another");
    }
    CHECK(dropped > 2 && dropped < 24, "%u of 48 classes dropped, not a quarter", dropped);
    for (uint32_t i = 0; i < COUNT; i++) seen[z.order[i]]++;
    for (uint32_t i = 0; i < COUNT; i++) CHECK(seen[i] == 1, "picture %u comes %u times an epoch", i, seen[i]);
    const bb_noised held = part_of(&b, 0, 16), again = part_of(&c, 0, 16);
    bb_noise_fill_held_out(&z, &data, 16, 0, &held);
    bb_noise_fill_held_out(&z, &data, 16, 0, &again);
    CHECK(!memcmp(&b, &c, 16 * VALUES * sizeof *b.sample), "held-out items change");
    for (uint32_t i = 0; i < 16; i++) check_item(p, &b, i);
    bb_noise_close(&z);
}

/* The loss's gradient against its differences; a quadratic has no error of its own but rounding. */
static void loss_gradient(const bb_pipeline *p)
{
    static batch b;
    static float answer[4 * VALUES], gradient[4 * VALUES];
    double losses[4];
    bb_noise z;
    bb_error err = {0};
    must(bb_noise_open(&z, &defaults.noise, p, &data, &err), &err);
    const bb_noised part = part_of(&b, 0, 4);
    bb_noise_fill(&z, 0, 4, 0, &part);
    bb_normals(answer, 4 * VALUES, 9, BB_STREAM_TOOLS, 0);
    bb_noise_loss(&z, &part, answer, 0.25, losses, gradient);
    for (int k = 0; k < 4 * VALUES; k += 17) {
        const float kept = answer[k], step = 0.25f;
        answer[k] = kept + step;
        const double up = bb_noise_loss(&z, &part, answer, 0.25, losses, NULL);
        answer[k] = kept - step;
        const double down = bb_noise_loss(&z, &part, answer, 0.25, losses, NULL);
        answer[k] = kept;
        CHECK(fabs((up - down) / 0.5 - gradient[k]) < 1e-6, "value %d: %g, differences %g", k, (double)gradient[k],
              (up - down) / 0.5);
    }
    bb_noise_close(&z);
}

/* ---- updates ---- */

static void loss_falls(const bb_pipeline *p)
{
    bb_teach t;
    double losses[UPDATES], first = 0, last = 0;
    open_teach(&t, &defaults, p, NULL);
    const double before = bb_teach_held_out(&t);
    update(&t, UPDATES, losses);
    for (int i = 0; i < 10; i++) first += losses[i], last += losses[UPDATES - 1 - i];
    CHECK(last < 0.7 * first, "the loss went from %g to %g", first / 10, last / 10);
    const double after = bb_teach_held_out(&t), same = bb_teach_held_out(&t);
    CHECK(after < 0.8 * before && after == same, "held-out loss %g, %g, %g", before, after, same);
    bb_teach_close(&t);
}

/* 2 · 4 pictures are 8 pictures, but for rounding: sums of some 1000 products each, 2^-24 · √1000. */
static void accumulates(const bb_pipeline *p)
{
    bb_teach a, b;
    bb_update ua, ub;
    bb_error err = {0};
    bb_teach_options two = defaults;
    two.batch /= 2;
    two.accumulate = 2;
    open_teach(&a, &defaults, p, NULL);
    open_teach(&b, &two, p, NULL);
    must(bb_teach_update(&a, &ua, &err), &err);
    must(bb_teach_update(&b, &ub, &err), &err);
    CHECK(fabs(ua.loss / ub.loss - 1) < 1e-5 && fabs(ua.norm / ub.norm - 1) < 1e-4, "loss %.9g, %.9g, norm %.9g, %.9g",
          ua.loss, ub.loss, ua.norm, ub.norm);
    bb_teach_close(&a);
    bb_teach_close(&b);
}

/* ema ← ema + (1 − d)(w − ema) with d = min(0.9, (1 + n)/(10 + n)): 0.1 first, 2/11 then. */
static void averages(const bb_pipeline *p)
{
    bb_teach t;
    open_teach(&t, &defaults, p, NULL);
    double ema[4];
    for (int i = 0; i < 4; i++) ema[i] = t.ema[i];
    for (int n = 0; n < 3; n++) {
        update(&t, 1, NULL);
        for (int i = 0; i < 4; i++) ema[i] += (1 - (1.0 + n) / (10 + n)) * (t.params.w[i] - ema[i]);
    }
    for (int i = 0; i < 4; i++)
        CHECK(fabs(ema[i] - t.ema[i]) < 1e-6, "average %d: %g, not %g", i, (double)t.ema[i], ema[i]);
    bb_teach_close(&t);
}

static void diverges(const bb_pipeline *p)
{
    bb_teach t;
    bb_update u;
    bb_error err = {0};
    bb_status status = BB_OK;
    open_teach(&t, &defaults, p, NULL);
    t.params.w[t.params.at[0]] = NAN;
    bb_teach_changed(&t);
    const float untouched = t.params.w[t.params.at[1]];
    int n = 0;
    while (n < 100 && (status = bb_teach_update(&t, &u, &err)) == BB_OK) n++;
    CHECK(status < 0 && n == 19 && strstr(err.text, "--lr"), "after %d updates: %s", n, err.text);
    CHECK(t.params.w[t.params.at[1]] == untouched, "an update by gradients that are not finite");
    bb_teach_close(&t);
}
int main(void)
{
    open_teaching();
    bb_pipeline p;
    for (uint32_t prediction = BB_PREDICT_EPSILON; prediction <= BB_PREDICT_SAMPLE; prediction++) {
        open_pipeline(&p, prediction, prediction == BB_PREDICT_EPSILON ? BB_BETAS_LINEAR : BB_BETAS_COSINE);
        batches(&p);
        loss_gradient(&p);
        loss_falls(&p);
        bb_pipeline_close(&p);
    }
    open_pipeline(&p, BB_PREDICT_V, BB_BETAS_COSINE);
    begins_as_pytorch(&p);
    accumulates(&p);
    averages(&p);
    diverges(&p);
    bb_pipeline_close(&p);
    close_teaching();
    return check_done();
}
