/* Our side of tools/bench-train: updates of `bitbrush train` on random pictures in memory, beginning with a checkpoint.
 *     bench_train_step FOLDER BATCH THREADS
 * After "ready" each line "N" on stdin runs N updates and is answered by their seconds, as JSON. */
#include "cli.h"
#include "progress.h"
#include "train/teach/teach.h"

#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { PICTURES = 256 };

typedef struct job {
    bb_data data;
    bb_pipeline pipe;
    bb_params params;
    bb_teach teach;
} job;

/* As large as Fashion-MNIST's, unless the network wants something else. */
static bb_status make_data(job *j, uint32_t size, uint32_t channels, uint32_t classes, bb_error *err)
{
    bb_data *d = &j->data;
    const size_t each = (size_t)size * size * channels;
    *d = (bb_data){.count = PICTURES, .width = size, .height = size, .channels = channels, .classes = classes,
                   .pixels = malloc(PICTURES * each), .label = malloc(PICTURES * sizeof *d->label)};
    if (!d->pixels || !d->label) return bb_fail(err, BB_ERR_SPACE, "no memory for pictures");
    for (size_t i = 0; i < PICTURES * each; i++) d->pixels[i] = (uint8_t)(256 * bb_uniform(1, BB_STREAM_TOOLS, i));
    for (size_t i = 0; i < PICTURES; i++) d->label[i] = (uint16_t)(i % classes);
    return BB_OK;
}

static bb_status open_job(job *j, const char *folder, uint32_t batch, uint32_t threads, bb_error *err)
{
    const bb_pipeline_options pipeline = {.from = folder};
    const bb_teach_options opt = {
        .noise = {.seed = 1, .dropout = 0.1f, .pad = -1}, .batch = batch, .accumulate = 1, .updates = 1000000, .lr = 1e-4f,
        .last = 1, .decay = BB_DECAY_CONSTANT, .weight_decay = 0.01f, .clip = 1, .ema = 0.999f, .bf16 = true,
        .threads = threads};
    const bb_ranks alone = {0, 1};
    BB_TRY(make_data(j, 28, 1, 10, err));
    BB_TRY(bb_pipeline_open(&j->pipe, &pipeline, &j->data, err));
    BB_TRY(bb_pipeline_params(&j->pipe, &j->params, folder, 1, err));
    BB_TRY(bb_teach_open(&j->teach, &opt, &j->pipe, &j->params, &j->data, NULL, &alone, err));
    return bb_teach_begin(&j->teach, err);
}

static void close_job(job *j)
{
    bb_teach_close(&j->teach);
    bb_params_free(&j->params);
    bb_pipeline_close(&j->pipe);
    bb_data_free(&j->data);
}

static bb_status answer(job *j, uint32_t n, bb_error *err)
{
    bb_update u = {0};
    printf("{\"seconds\":[");
    for (uint32_t i = 0; i < n; i++) {
        const double begun = bb_now();
        BB_TRY(bb_teach_update(&j->teach, &u, err));
        printf("%s%.6f", i ? "," : "", bb_now() - begun);
    }
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("],\"loss\":%.6g,\"peak_bytes\":%llu}\n", u.loss, (unsigned long long)use.ru_maxrss * 1024);
    fflush(stdout);
    return BB_OK;
}

int main(int argc, char **argv)
{
    if (argc != 4 || atoi(argv[2]) < 1 || atoi(argv[3]) < 1) {
        fprintf(stderr, "usage: bench_train_step FOLDER BATCH THREADS\n");
        return BB_EXIT_USAGE;
    }
    job j = {0};
    bb_error err = {0};
    char line[32];
    bb_status status = open_job(&j, argv[1], (uint32_t)atoi(argv[2]), (uint32_t)atoi(argv[3]), &err);
    if (status >= 0) {
        printf("{\"name\":\"bitbrush, %s\",\"ready\":true}\n", bb_dnn_name(j.teach.dnn));
        fflush(stdout);
    }
    while (status >= 0 && fgets(line, sizeof line, stdin)) status = answer(&j, (uint32_t)strtoul(line, NULL, 10), &err);
    close_job(&j);
    if (status >= 0) return BB_EXIT_OK;
    fprintf(stderr, "bench_train_step: %s\n", err.text);
    return BB_EXIT_FAILED;
}
