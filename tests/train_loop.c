/* Training of a tiny network: how weights begin, what batches hold, that the loss falls, that a broken run goes on to
 * the same bits, and that the folder it writes is read back. */
#include "check.h"
#include "checkpoint.h"

#include "batch.h"
#include "import/import.h"
#include "train/teach/checkpoint.h"
#include "train/teach/streams.h"

#include <unistd.h>

enum { SIZE = 8, PICTURE = 6, COUNT = 24, VALUES = SIZE * SIZE, BATCH = 8, UPDATES = 60 };

static const char config[] =
    "{\"_class_name\":\"UNet2DModel\",\"sample_size\":8,\"in_channels\":1,\"out_channels\":1,"
    "\"block_out_channels\":[8,16],\"down_block_types\":[\"DownBlock2D\",\"AttnDownBlock2D\"],"
    "\"up_block_types\":[\"AttnUpBlock2D\",\"UpBlock2D\"],\"layers_per_block\":1,\"norm_num_groups\":2,"
    "\"attention_head_dim\":8,\"num_class_embeds\":3}";
static const bb_teach_options defaults = {
    .noise = {.seed = 3, .weighting = BB_WEIGHTING_MIN_SNR, .gamma = 5, .dropout = 0.25f, .pad = -1},
    .batch = BATCH, .accumulate = 1, .updates = UPDATES, .lr = 2e-3f, .last = 0.1f, .warmup = 5,
    .decay = BB_DECAY_COSINE,
    .weight_decay = 0.01f, .clip = 1, .ema = 0.9f, .threads = 2, .held_out = 16};
static char dir[] = "/tmp/bitbrush-train-XXXXXX";
static uint8_t pixels[COUNT * PICTURE * PICTURE];
static uint16_t labels[COUNT];
static const bb_data data = {.count = COUNT, .width = PICTURE, .height = PICTURE, .channels = 1, .classes = 2,
                             .pixels = pixels, .label = labels};
static const bb_ranks alone = {0, 1};

static const char *in_dir(const char *name)
{
    static char at[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(at[turn], sizeof at[turn], "%s/%s", dir, name);
    return at[turn];
}

static void must(bb_status status, const bb_error *err)
{
    if (status >= 0) return;
    printf("FAIL %s\n", err->text);
    abort();
}

static void open_pipeline(bb_pipeline *p, uint32_t prediction, uint32_t betas)
{
    bb_error err = {0};
    const bb_pipeline_options opt = {.config = in_dir("config.json"), .new_schedule = true, .prediction = prediction,
                                     .betas = betas};
    must(bb_pipeline_open(p, &opt, &data, &err), &err);
}

static void open_teach(bb_teach *t, const bb_teach_options *opt, const bb_pipeline *p, const char *from)
{
    bb_error err = {0};
    bb_params params;
    must(bb_pipeline_params(p, &params, from, opt->noise.seed, &err), &err);
    must(bb_teach_open(t, opt, p, &params, &data, &data, &alone, &err), &err);
    must(bb_teach_begin(t, &err), &err);
}

static void update(bb_teach *t, uint32_t times, double *losses)
{
    bb_error err = {0};
    bb_update u;
    for (uint32_t i = 0; i < times; i++) {
        must(bb_teach_update(t, &u, &err), &err);
        if (losses) losses[i] = u.loss;
    }
}

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

/* ---- state ---- */

static const bb_course_option options[] = {{"--lr", "0.002", NULL}, {"--new", "no", "no"}};
static const bb_course_option others[] = {{"--lr", "0.003", NULL}};
static const bb_course_option newer[] = {{"--lr", "0.002", NULL}, {"--newer", "yes", "no"}};

static void put_log(bb_course *run, uint64_t n)
{
    bb_error err = {0};
    const bb_log_row row = {.update = n, .images = n * BATCH, .loss = 0.1 / (double)n, .held_out = n % 2 ? 0.25 : NAN,
                            .rate = 1e-3, .norm = 0.5, .speed = 100, .seconds = (double)n};
    must(bb_log_add(&run->log, &row, &err), &err);
}

static void refused(const char *path, const bb_pipeline *p, const bb_course_option *list, uint32_t n, const char *word)
{
    bb_teach t;
    bb_error err = {0};
    bb_course run = {.options = list, .n_options = n};
    open_teach(&t, &defaults, p, NULL);
    CHECK(bb_state_load(path, &t, &run, &err) < 0 && strstr(err.text, word) && strstr(err.text, path), "%s: %s", word,
          err.text);
    bb_log_free(&run.log);
    bb_teach_close(&t);
}

static void goes_on(const bb_pipeline *p)
{
    bb_teach a, b;
    bb_error err = {0};
    bb_course run = {.options = options, .n_options = 2, .seconds = 12.5}, back = {.options = options, .n_options = 2};
    const char *path = in_dir("state.safetensors");
    open_teach(&a, &defaults, p, NULL);
    update(&a, 7, NULL);
    put_log(&run, 3);
    put_log(&run, 6);
    must(bb_state_save(path, &a, &run, &err), &err);
    update(&a, 6, NULL);
    open_teach(&b, &defaults, p, NULL);
    b.opt.updates = 1; /* the state knows */
    must(bb_state_load(path, &b, &back, &err), &err);
    CHECK(b.optim.step == 7 && b.opt.updates == UPDATES && back.seconds == 12.5, "how far it was");
    CHECK(back.log.n == 2 && back.log.row[0].held_out == 0.25 && isnan(back.log.row[1].held_out) &&
          back.log.row[1].images == 6 * BATCH, "its log");
    update(&b, 6, NULL);
    const size_t bytes = a.params.n * sizeof(float);
    CHECK(!memcmp(a.params.w, b.params.w, bytes) && !memcmp(a.ema, b.ema, bytes) &&
          !memcmp(a.optim.m, b.optim.m, bytes) && !memcmp(a.optim.v, b.optim.v, bytes),
          "a run with a break has other weights");
    bb_log_free(&run.log);
    bb_log_free(&back.log);
    bb_teach_close(&a);
    bb_teach_close(&b);
    refused(path, p, others, 1, "--lr 0.002, not 0.003");
    refused(path, p, newer, 2, "--newer no, not yes");
}

/* Cut anywhere, or with a bit turned in its header, in a number, in its texts: refused, or read; never a crash. */
static void damaged_state(const bb_pipeline *p)
{
    bb_file f;
    bb_error err = {0};
    must(bb_file_open(&f, in_dir("state.safetensors"), &err), &err);
    const size_t n = f.size;
    uint8_t *copy = malloc(n);
    memcpy(copy, f.data, n);
    bb_file_close(&f);
    bb_teach t;
    open_teach(&t, &defaults, p, NULL);
    for (uint32_t i = 0; i < 200; i++) {
        const size_t at = (size_t)(bb_uniform(1, BB_STREAM_TOOLS, i) * (i % 2 ? 20000 : (double)n));
        const size_t kept = i < 60 ? at : n;
        bb_course run = {.options = options, .n_options = 2};
        copy[at] ^= 0x40;
        checkpoint_put(dir, "damaged", copy, kept);
        copy[at] ^= 0x40;
        bb_status status = bb_state_load(in_dir("damaged"), &t, &run, &err);
        CHECK(status == BB_OK ? kept == n : strstr(err.text, "damaged") != NULL, "cut or changed at %zu: %s", at,
              err.text);
        bb_log_free(&run.log);
    }
    bb_teach_close(&t);
    free(copy);
    refused(in_dir("config.json"), p, options, 2, "config.json");
}

/* ---- folder ---- */

static void make_folder(const bb_teach *t, const char *path, uint32_t dtype)
{
    bb_error err = {0};
    must(bb_pipeline_put(t->pipe, &t->params, t->ema, dtype, path, &err), &err);
    must(bb_batch_commit(&err), &err);
}

static void folder(const bb_pipeline *p)
{
    bb_teach t, u;
    bb_params back;
    bb_pipeline again;
    bb_error err = {0};
    open_teach(&t, &defaults, p, NULL);
    update(&t, 3, NULL);
    make_folder(&t, in_dir("f32"), BB_ST_F32);
    make_folder(&t, in_dir("f16"), BB_ST_F16);
    must(bb_pipeline_params(p, &back, in_dir("f32"), 0, &err), &err);
    CHECK(!memcmp(back.w, t.ema, t.params.n * sizeof(float)), "the folder has other weights than the average");
    bb_params_free(&back);
    must(bb_pipeline_params(p, &back, in_dir("f16"), 0, &err), &err);
    /* Half a unit in the last place of the largest. */
    CHECK(check_error(back.w, t.ema, t.params.n) < 0x1p-11, "weights in f16");
    bb_params_free(&back);
    const bb_pipeline_options opt = {.from = in_dir("f32")};
    must(bb_pipeline_open(&again, &opt, &data, &err), &err);
    CHECK(again.schedule.prediction == p->schedule.prediction && again.labels.null_label == 2 &&
          !strcmp(again.labels_text, "{\"null\": 2, \"names\": [\"0\",\"1\"]}\n"), "schedule and labels: %s",
          again.labels_text);
    CHECK(!memcmp(again.schedule.alphas_cumprod, p->schedule.alphas_cumprod, 1000 * sizeof(float)), "noise levels");
    bb_teach_options warm = defaults;
    warm.ema_warm = true;
    open_teach(&u, &warm, &again, in_dir("f32"));
    CHECK(!memcmp(u.params.w, t.ema, t.params.n * sizeof(float)) && u.optim.step == 0, "begins where the other ended");
    update(&u, 1, NULL);
    const size_t at = u.params.at[0];
    CHECK(fabs(u.ema[at] - (0.9 * t.ema[at] + 0.1 * u.params.w[at])) < 1e-7, "the average decays slowly at once");
    bb_teach_close(&t);
    bb_teach_close(&u);
    bb_pipeline_close(&again);
}

static void refused_pipelines(void)
{
    static const struct { const char *from, *to, *word; } changes[] = {
        {"\"out_channels\":1", "\"out_channels\":2", "out_channels"},
        {"\"sample_size\":8", "\"sample_size\":4", "sample_size"},
        {"\"in_channels\":1,\"out_channels\":1", "\"in_channels\":3,\"out_channels\":3", "in_channels"},
        {"\"num_class_embeds\":3", "\"num_class_embeds\":1", "num_class_embeds"},
        {"UNet2DModel", "UNet2DConditionModel", "_class_name"},
        {"\"layers_per_block\"", "\"layers_per_block\":1,\"layers_per_clock\"", "layers_per_clock"},
        {"{", "[", "not a JSON object"},
    };
    for (size_t i = 0; i < BB_COUNT(changes); i++) {
        char text[1024];
        const char *at = strstr(config, changes[i].from);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config), config, changes[i].to,
                 at + strlen(changes[i].from));
        checkpoint_put_text(dir, "other.json", text);
        const bb_pipeline_options opt = {.config = in_dir("other.json"), .new_schedule = true};
        bb_pipeline p;
        bb_error err = {0};
        CHECK(bb_pipeline_open(&p, &opt, &data, &err) < 0 && strstr(err.text, changes[i].word) &&
              strstr(err.text, "other.json"),
              "%s: %s", changes[i].to, err.text);
        bb_pipeline_close(&p);
    }
    CHECK(bb_teach_check_folder(in_dir("f32"), NULL) < 0, "a folder with a model would be written over");
    CHECK(bb_teach_check_folder(in_dir("new"), NULL) == BB_OK, "a new folder");
    CHECK(bb_teach_check_folder(in_dir("config.json"), NULL) < 0, "a file for a folder");
}

/* ---- log ---- */

static void plots(void)
{
    bb_course run = {0};
    bb_error err = {0};
    for (uint64_t n = 1; n < 2000; n++) put_log(&run, n);
    char *svg = bb_log_svg(&run.log, "Title"), *csv = bb_log_csv(&run.log);
    CHECK(svg && strstr(svg, "<svg ") == svg && strstr(svg, "</svg>") && strstr(svg, "Title"), "a plot");
    CHECK(svg && strlen(svg) > 1000 && !strstr(svg, "nan") && !strstr(svg, "inf"), "its numbers");
    bb_log back;
    must(bb_log_parse(&back, csv, strlen(csv), "log", &err), &err);
    CHECK(back.n == run.log.n && back.row[1000].update == 1001, "rows of the CSV");
    bb_log_free(&back);
    for (size_t n = 0; n < 300; n++) {
        CHECK(bb_log_parse(&back, csv, n, "log", &err) < 0 || csv[n - 1] == '\n', "cut at %zu", n);
        bb_log_free(&back);
    }
    free(svg);
    free(csv);
    bb_log_free(&run.log);
    svg = bb_log_svg(&run.log, "Empty");
    CHECK(svg && !strstr(svg, "nan"), "an empty plot");
    free(svg);
}

int main(void)
{
    if (!mkdtemp(dir)) abort();
    for (uint32_t i = 0; i < COUNT; i++) { /* left or right half white */
        labels[i] = (uint16_t)(i % 2);
        for (uint32_t k = 0; k < PICTURE * PICTURE; k++)
            pixels[i * PICTURE * PICTURE + k] = (k % PICTURE < PICTURE / 2) == (i % 2) ? 255 : 0;
    }
    checkpoint_put_text(dir, "config.json", config);
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
    goes_on(&p);
    damaged_state(&p);
    folder(&p);
    refused_pipelines();
    plots();
    bb_pipeline_close(&p);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK(system(command) == 0, "%s", command);
    return check_done();
}
