/* A tiny network with pictures to learn, in a folder of its own: for the tests of training. */
#ifndef BB_TESTS_TEACHING_H
#define BB_TESTS_TEACHING_H

#include "check.h"
#include "checkpoint.h"

#include "train/teach/checkpoint.h"
#include "train/teach/streams.h"

#include <unistd.h>

enum { SIZE = 8, PICTURE = 6, COUNT = 24, VALUES = SIZE * SIZE, BATCH = 8, UPDATES = 60 };

static const char teaching_config[] =
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

static inline const char *in_dir(const char *name)
{
    static char at[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(at[turn], sizeof at[turn], "%s/%s", dir, name);
    return at[turn];
}

static inline void must(bb_status status, const bb_error *err)
{
    if (status >= 0) return;
    printf("FAIL %s\n", err->text);
    abort();
}

static inline void open_pipeline(bb_pipeline *p, uint32_t prediction, uint32_t betas)
{
    bb_error err = {0};
    const bb_pipeline_options opt = {.config = in_dir("config.json"), .new_schedule = true, .prediction = prediction,
                                     .betas = betas};
    must(bb_pipeline_open(p, &opt, &data, &err), &err);
}

static inline void open_teach(bb_teach *t, const bb_teach_options *opt, const bb_pipeline *p, const char *from)
{
    bb_error err = {0};
    bb_params params;
    must(bb_pipeline_params(p, &params, from, opt->noise.seed, &err), &err);
    must(bb_teach_open(t, opt, p, &params, &data, &data, &alone, &err), &err);
    must(bb_teach_begin(t, &err), &err);
}

static inline void update(bb_teach *t, uint32_t times, double *losses)
{
    bb_error err = {0};
    bb_update u;
    for (uint32_t i = 0; i < times; i++) {
        must(bb_teach_update(t, &u, &err), &err);
        if (losses) losses[i] = u.loss;
    }
}

/* Makes the folder with its configuration, and the pictures: left or right half white. */
static inline void open_teaching(void)
{
    if (!mkdtemp(dir)) abort();
    for (uint32_t i = 0; i < COUNT; i++) {
        labels[i] = (uint16_t)(i % 2);
        for (uint32_t k = 0; k < PICTURE * PICTURE; k++)
            pixels[i * PICTURE * PICTURE + k] = (k % PICTURE < PICTURE / 2) == (i % 2) ? 255 : 0;
    }
    checkpoint_put_text(dir, "config.json", teaching_config);
}

static inline void close_teaching(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK(system(command) == 0, "%s", command);
}

#endif
