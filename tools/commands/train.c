#include "host.h"
#include "base/sha256.h"
#include "platform.h"
#include "train/teach/loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS = 24 };

typedef struct job {
    const bb_command *command;
    const char *out, *data, *held_out, *every, *budget;
    bb_pipeline_options pipeline;
    bb_teach_options teach;
    uint64_t images;
    float epochs;
    bool schedule_given[3], images_given, epochs_given, flip, warm_ema, no_bf16, restart, json, quiet;
    uint32_t dtype;
    double budget_seconds, every_seconds;
    uint64_t every_images;
    bb_data train, test;
    bb_pipeline pipe;
    bb_params params;
    bb_teach t;
    bb_loop loop;
    bb_course_option options[OPTIONS];
} job;

/* ---- texts of options ---- */

/* "90s", "30m", "1.5h" as seconds. */
static bool parse_duration(const char *text, double *seconds)
{
    char *end;
    double number = strtod(text, &end);
    double unit = !strcmp(end, "s") ? 1 : !strcmp(end, "m") ? 60 : !strcmp(end, "h") ? 3600 : 0;
    *seconds = number * unit;
    return end != text && *seconds >= 1 && *seconds <= 1e8;
}

/* A duration, or a number of images. */
static bool parse_every(job *j)
{
    char *end;
    if (parse_duration(j->every, &j->every_seconds)) return true;
    j->every_seconds = 0;
    double images = strtod(j->every, &end);
    j->every_images = images >= 1 && images < 0x1p53 ? (uint64_t)images : 0;
    return !*end && j->every_images > 0;
}

/* BB_EXIT_OK, or the code of a usage error that was printed. */
static int check_usage(job *j)
{
    const bb_command *c = j->command;
    if (!j->out) return bb_cli_usage_error(c, "-o FOLDER is missing");
    if (!j->data) return bb_cli_usage_error(c, "--data is missing: a folder of IDX files, or a CSV file of pictures");
    if (!j->pipeline.config == !j->pipeline.from)
        return bb_cli_usage_error(c, "either --config FILE (a new network) or --from FOLDER (a trained one) is needed");
    if (j->images_given + j->epochs_given + (j->budget != NULL) != 1)
        return bb_cli_usage_error(c, "one of --images, --epochs and --budget must tell how long to train");
    if (j->budget && !parse_duration(j->budget, &j->budget_seconds))
        return bb_cli_usage_error(c, "--budget %s: must be a time, such as 90m or 2h", j->budget);
    if (!parse_every(j))
        return bb_cli_usage_error(c, "--every %s: must be a time, such as 10m, or a number of images", j->every);
    if (j->warm_ema && !j->pipeline.from) return bb_cli_usage_error(c, "--warm-start-ema needs --from");
    return BB_EXIT_OK;
}

__attribute__((format(printf, 4, 5)))
static void note(job *j, uint32_t *n, const char *name, const char *format, ...)
{
    va_list args;
    bb_course_option *o = &j->options[(*n)++];
    BB_ASSERT(*n <= OPTIONS);
    o->name = name;
    va_start(args, format);
    vsnprintf(o->text, sizeof o->text, format, args);
    va_end(args);
}

/* Everything that the weights depend on. */
static void note_options(job *j)
{
    const bb_teach_options *o = &j->teach;
    const bb_noise_options *z = &o->noise;
    uint32_t n = 0;
    char sum[65];
    if (j->budget) note(j, &n, "--budget", "%g s", j->budget_seconds);
    else note(j, &n, "--images", "%" PRIu64, o->updates * bb_teach_whole(&j->t));
    bb_data_sha256(&j->train, sum);
    note(j, &n, "--data", "%s", sum);
    bb_sha256((const uint8_t *)j->pipe.config, strlen(j->pipe.config), sum);
    note(j, &n, "--config", "%s", sum);
    bb_sha256((const uint8_t *)j->pipe.scheduler, strlen(j->pipe.scheduler), sum);
    note(j, &n, "--prediction and --schedule", "%s", sum);
    note(j, &n, "--from", "%s", j->pipeline.from ? "a checkpoint" : "nothing");
    note(j, &n, "null class", "%d", j->pipe.labels.null_label);
    note(j, &n, "--seed", "%" PRIu64, z->seed);
    note(j, &n, "pictures an update (--batch, --accumulate, ranks)", "%u", bb_teach_whole(&j->t));
    note(j, &n, "--weighting", "%s %g", z->weighting ? "min-snr" : "none", (double)z->gamma);
    note(j, &n, "--dropout", "%g", (double)z->dropout);
    note(j, &n, "--flip", "%s", z->mirror ? "on" : "off");
    note(j, &n, "--pad", "%g", (double)z->pad);
    note(j, &n, "--lr", "%g", (double)o->lr);
    note(j, &n, "--warmup", "%u", o->warmup);
    note(j, &n, "--decay", "%u", o->decay);
    note(j, &n, "--last", "%g", (double)o->last);
    note(j, &n, "--weight-decay", "%g", (double)o->weight_decay);
    note(j, &n, "--clip", "%g", (double)o->clip);
    note(j, &n, "--ema", "%g%s", (double)o->ema, o->ema_warm ? " warm" : "");
    note(j, &n, "--bf16", "%s", o->bf16 ? "auto" : "off");
    j->loop.run.options = j->options;
    j->loop.run.n_options = n;
}

/* ---- the work ---- */

static bb_status open_data(job *j, bb_error *err)
{
    BB_TRY(bb_data_open(&j->train, j->data, false, NULL, err));
    const char *path = j->held_out ? j->held_out : bb_data_has_test_part(j->data) ? j->data : NULL;
    return path ? bb_data_open(&j->test, path, bb_data_has_test_part(path), &j->train, err) : BB_OK;
}

static void set_length(job *j)
{
    const double each = (double)j->teach.batch * j->teach.accumulate * j->t.ranks.count;
    const double images = j->epochs_given ? (double)j->epochs * j->train.count : (double)j->images;
    j->teach.updates = images > each ? (uint64_t)ceil(images / each) : 1;
}

static bb_status resume(job *j, bb_error *err)
{
    char path[4096];
    if (!bb_teach_state_path(path, sizeof path, j->out) || j->restart || !bb_path_exists(path)) return BB_OK;
    BB_TRY(bb_state_load(path, &j->t, &j->loop.run, err));
    j->loop.resumed = true;
    if (!j->quiet)
        fprintf(stderr, "going on at image %" PRIu64 " of %" PRIu64 "\n", j->t.optim.step * bb_teach_whole(&j->t),
                j->t.opt.updates * bb_teach_whole(&j->t));
    return BB_OK;
}

static bb_status train(job *j, const bb_ranks *ranks, bool *stopped, bb_error *err)
{
    bb_kernels kernels;
    BB_TRY(bb_teach_check_folder(j->out, err));
    BB_TRY(bb_host_kernels(&kernels, j->teach.cpu, err)); /* refuses a --cpu that this one is not */
    BB_TRY(open_data(j, err));
    BB_TRY(bb_pipeline_open(&j->pipe, &j->pipeline, &j->train, err));
    BB_TRY(bb_pipeline_params(&j->pipe, &j->params, j->pipeline.from, j->teach.noise.seed, err));
    j->t.ranks = *ranks;
    set_length(j);
    BB_TRY(bb_teach_open(&j->t, &j->teach, &j->pipe, &j->params, &j->train, j->test.count ? &j->test : NULL, ranks,
                         err));
    if (!j->quiet) fprintf(stderr, "memory: about %.0f MiB, and the data\n", (double)j->t.bytes / 0x1p20);
    BB_TRY(bb_teach_begin(&j->t, err));
    j->loop = (bb_loop){.teach = &j->t, .folder = j->out, .dtype = j->dtype ? BB_ST_F16 : BB_ST_F32,
                        .budget = j->budget_seconds, .every_seconds = j->every_seconds, .every_images = j->every_images,
                        .quiet = j->quiet};
    note_options(j);
    BB_TRY(resume(j, err));
    return bb_loop_run(&j->loop, stopped, err);
}

static void report(const job *j)
{
    const bb_loop *l = &j->loop;
    const bb_log *log = &l->run.log;
    const bb_log_row last = log->n ? log->row[log->n - 1] : (bb_log_row){.held_out = NAN};
    const double speed = l->run.seconds > 0 ? (double)last.images / l->run.seconds : 0;
    if (!j->json) {
        printf("%s: %" PRIu64 " images in %.0f s (%.0f images/s), loss %.5f", j->out, last.images, l->run.seconds,
               speed, last.loss);
        if (!isnan(last.held_out)) printf(", held-out %.5f", last.held_out);
        printf("\n");
        return;
    }
    printf("{\"out\":");
    bb_cli_print_json(j->out);
    printf(",\"updates\":%" PRIu64 ",\"images\":%" PRIu64 ",\"loss\":%.9g,\"held_out_loss\":", last.update, last.images,
           last.loss);
    if (isnan(last.held_out)) printf("null");
    else printf("%.9g", last.held_out);
    printf(",\"seconds\":%.1f,\"images_per_second\":%.4g,\"threads\":%u,\"ranks\":%u,\"seed\":\"%" PRIu64
           "\",\"engine\":\"%s\",\"ops\":\"%s\"}\n", l->run.seconds, speed, j->teach.threads, j->t.ranks.count,
           j->teach.noise.seed, bb_dnn_name(j->t.dnn), j->t.ops->name);
}

static void close_all(job *j)
{
    bb_log_free(&j->loop.run.log);
    bb_teach_close(&j->t);
    bb_params_free(&j->params);
    bb_pipeline_close(&j->pipe);
    bb_data_free(&j->test);
    bb_data_free(&j->train);
}

static int work(job *j)
{
    bb_error err = {0};
    bb_ranks ranks;
    bool stopped = false;
    bb_status status = bb_ranks_begin(&ranks, &err);
    if (status < 0) return bb_cli_fail(&err);
    if (ranks.rank) j->quiet = true;
    if (!j->teach.threads) j->teach.threads = bb_core_count() / bb_ranks_here();
    if (!j->teach.threads) j->teach.threads = 1;
    bb_cli_hold_signals();
    status = train(j, &ranks, &stopped, &err);
    int code = status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
    if (status < 0) bb_ranks_abort(code);
    if (status >= 0 && stopped && !ranks.rank && !j->quiet)
        fprintf(stderr, "bitbrush: stopped; the same command goes on from %s\n", j->out);
    if (status >= 0 && !stopped && !ranks.rank) report(j);
    close_all(j);
    if (status >= 0) bb_ranks_end();
    bb_cli_release_signals();
    return code;
}

static int run(const bb_command *c, int argc, char **argv)
{
    job j = {.command = c, .every = "10m",
             .pipeline = {.prediction = BB_PREDICT_V, .betas = BB_BETAS_COSINE, .spacing = BB_SPACING_TRAILING},
             .teach = {.noise = {.seed = 1, .weighting = BB_WEIGHTING_MIN_SNR, .gamma = 5, .dropout = 0.1f, .pad = -1},
                       .batch = 64, .accumulate = 1, .lr = 5e-4f, .last = 0.01f, .warmup = 500,
                       .decay = BB_DECAY_COSINE,
                       .weight_decay = 0.01f, .clip = 1, .ema = 0.999f, .held_out = 1024}};
    bb_pipeline_options *p = &j.pipeline;
    bb_teach_options *t = &j.teach;
    uint32_t bf16 = 0;
    bool spacing = false;
    const bb_option options[] = {
        {"-o", BB_OPTION_STRING, &j.out, "FOLDER", "the model as a diffusers folder; the run's state is in its train/",
         0, 0, NULL},
        {"--data", BB_OPTION_STRING, &j.data, "PATH", "a folder of IDX files (MNIST's format), or of PNG files with "
         "labels.csv of lines file,label, or such a CSV file", 0, 0, NULL},
        {"--held-out", BB_OPTION_STRING, &j.held_out, "PATH",
         "pictures to measure the loss on (default: t10k-… of --data)", 0, 0, NULL},
        {"--labels", BB_OPTION_STRING, &p->labels, "FILE",
         "class names: a labels.json (default: the data's names or numbers)", 0, 0, NULL},
        {"--config", BB_OPTION_STRING, &p->config, "FILE", "a UNet2DModel's config.json: begin with random weights", 0,
         0, NULL},
        {"--from", BB_OPTION_STRING, &p->from, "FOLDER", "a checkpoint: begin with its weights and schedule", 0, 0,
         NULL},
        {"--prediction", BB_OPTION_CHOICE, &p->prediction, "epsilon|v|sample", "what the network predicts (default v)",
         0, 0, &j.schedule_given[0]},
        {"--schedule", BB_OPTION_CHOICE, &p->betas, "linear|cosine", "noise levels (default cosine)", 0, 0,
         &j.schedule_given[1]},
        {"--spacing", BB_OPTION_CHOICE, &p->spacing, "leading|trailing|linspace", "steps that drawing takes (default "
         "trailing for v, else leading)", 0, 0, &spacing},
        {"--weighting", BB_OPTION_CHOICE, &t->noise.weighting, "none|min-snr",
         "of the loss by noise level (default min-snr)", 0, 0, NULL},
        {"--gamma", BB_OPTION_FLOAT, &t->noise.gamma, "G", "of min-snr (default 5)", 0.01, 1000, NULL},
        {"--dropout", BB_OPTION_FLOAT, &t->noise.dropout, "P", "share of pictures without a class (default 0.1)", 0, 1,
         NULL},
        {"--flip", BB_OPTION_FLAG, &t->noise.mirror, NULL, "exchange left and right in half of the pictures", 0, 0,
         NULL},
        {"--pad", BB_OPTION_FLOAT, &t->noise.pad, "V", "around smaller pictures: -1 black … 1 white (default -1)", -1,
         1, NULL},
        {"--images", BB_OPTION_U64, &j.images, "N", "length: pictures seen", 0, 0, &j.images_given},
        {"--epochs", BB_OPTION_FLOAT, &j.epochs, "N", "length: passes over the data", 0.001, 1e6, &j.epochs_given},
        {"--budget", BB_OPTION_STRING, &j.budget, "TIME", "length: as many updates as will take so long, such as 2h", 0,
         0, NULL},
        {"--batch", BB_OPTION_U32, &t->batch, "N", "pictures at a time (default 64), in each rank", 1, 65536, NULL},
        {"--accumulate", BB_OPTION_U32, &t->accumulate, "N", "so many batches an update (default 1)", 1, 65536, NULL},
        {"--lr", BB_OPTION_FLOAT, &t->lr, "R", "highest learning rate of AdamW (default 5e-4)", 0, 10, NULL},
        {"--warmup", BB_OPTION_U32, &t->warmup, "N", "updates until it is reached (default 500)", 0, 1e9, NULL},
        {"--decay", BB_OPTION_CHOICE, &t->decay, "constant|linear|cosine", "of the rate after that (default cosine)", 0,
         0, NULL},
        {"--last", BB_OPTION_FLOAT, &t->last, "S", "share of the rate that is left at the end (default 0.01)", 0, 1,
         NULL},
        {"--weight-decay", BB_OPTION_FLOAT, &t->weight_decay, "D", "of convolutions and linear layers (default 0.01)",
         0, 10, NULL},
        {"--clip", BB_OPTION_FLOAT, &t->clip, "N", "largest norm of the gradient (default 1; 0 = any)", 0, 1e9, NULL},
        {"--ema", BB_OPTION_FLOAT, &t->ema, "D", "decay of the averaged weights, at most (default 0.999)", 0, 0.999999,
         NULL},
        {"--warm-start-ema", BB_OPTION_FLAG, &j.warm_ema, NULL,
         "with --from: the average decays at that from the start", 0, 0, NULL},
        {"--bf16", BB_OPTION_CHOICE, &bf16, "auto|off", "products in bfloat16 where the CPU has them (default auto)", 0,
         0, NULL},
        {"--every", BB_OPTION_STRING, &j.every, "TIME|N",
         "checkpoint, samples and held-out loss, each 10m (default) or so many pictures", 0, 0, NULL},
        {"--held-out-images", BB_OPTION_U32, &t->held_out, "N", "pictures of the held-out loss (default 1024)", 0, 1e6,
         NULL},
        {"--dtype", BB_OPTION_CHOICE, &j.dtype, "f32|f16", "storage of the folder's weights (default f32)", 0, 0, NULL},
        {"--restart", BB_OPTION_FLAG, &j.restart, NULL, "begin anew where a run was begun", 0, 0, NULL},
        {"--seed", BB_OPTION_U64, &t->noise.seed, "N", "of everything random (default 1)", 0, 0, NULL},
        BB_REPORT_OPTIONS(j),
        BB_HOST_OPTIONS(*t),
    };
    int code;
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, NULL, 0, &code)) return code;
    code = check_usage(&j);
    if (code != BB_EXIT_OK) return code;
    if (!spacing) p->spacing = p->prediction == BB_PREDICT_V ? BB_SPACING_TRAILING : BB_SPACING_LEADING;
    p->new_schedule = j.schedule_given[0] || j.schedule_given[1] || spacing;
    t->bf16 = !bf16;
    t->ema_warm = j.warm_ema;
    return work(&j);
}

const bb_command bb_command_train = {"train", "-o FOLDER --data PATH --config FILE",
                                     "a diffusion model from pictures, as a diffusers folder", run};
