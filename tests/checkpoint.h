/* A diffusers checkpoint folder of next to nothing, written to disk by the builder's own list of weights: for tests that
 * run whole commands many times. */
#ifndef BB_TESTS_CHECKPOINT_H
#define BB_TESTS_CHECKPOINT_H

#include "base/rng.h"
#include "check.h"
#include "import/safetensors.h"
#include "import/unet2d.h"

#include <sys/stat.h>

static const char checkpoint_config[] =
    "{\"_class_name\":\"UNet2DModel\",\"sample_size\":4,\"in_channels\":1,\"out_channels\":1,"
    "\"block_out_channels\":[4,8],\"down_block_types\":[\"DownBlock2D\",\"AttnDownBlock2D\"],"
    "\"up_block_types\":[\"AttnUpBlock2D\",\"UpBlock2D\"],\"layers_per_block\":1,\"norm_num_groups\":2,"
    "\"attention_head_dim\":4,\"num_class_embeds\":3}";
static const char checkpoint_scheduler[] =
    "{\"_class_name\":\"DDIMScheduler\",\"num_train_timesteps\":20,\"beta_schedule\":\"squaredcos_cap_v2\"}";
static const char checkpoint_labels[] = "{\"null\":2,\"names\":[\"one\",\"two\"]}";
static const char checkpoint_card[] = "---\nlicense: mit\n---\nA model card.\n";

static inline void checkpoint_put(const char *dir, const char *name, const void *data, size_t n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
}

static inline void checkpoint_put_text(const char *dir, const char *name, const char *text)
{
    checkpoint_put(dir, name, text, strlen(text));
}

/* The weights of the network that the configuration describes, uniform in ±0.3; malloc'd. */
static inline uint8_t *checkpoint_weights(size_t *bytes)
{
    bb_error err = {0};
    bb_json j;
    bb_builder b;
    bb_unet2d_facts facts;
    size_t scratch_bytes = bb_json_scratch(sizeof checkpoint_config);
    void *scratch = malloc(scratch_bytes);
    if (!bb_json_parse(&j, checkpoint_config, strlen(checkpoint_config), scratch, scratch_bytes)) abort();
    bb_config c = bb_config_init(&j, 0, "config.json", "UNet2DModel", &err);
    bb_builder_init(&b, "denoiser", &err);
    if (bb_unet2d_build(&b, &c, &facts) < 0 || bb_builder_finish(&b) < 0) abort();
    bb_st_out *list = calloc(b.graph.n_weights, sizeof *list);
    uint8_t *out = NULL;
    size_t n = 0;
    uint64_t drawn = 0;
    for (uint32_t i = 0; i < b.graph.n_weights; i++) {
        const bb_weight_slot *w = &b.graph.weights[i];
        size_t count = 1;
        if (b.constants[i]) continue;
        for (uint32_t k = 0; k < w->rank; k++) count *= w->dim[k];
        float *x = malloc(count * sizeof *x);
        for (size_t k = 0; k < count; k++) x[k] = (float)(0.6 * bb_uniform(7, BB_STREAM_TOOLS, drawn++) - 0.3);
        list[n] = (bb_st_out){.name = bb_graph_string(&b.graph, w->name), .rank = w->rank, .data = x};
        memcpy(list[n++].shape, w->dim, sizeof w->dim);
    }
    if (bb_safetensors_write(list, n, &out, bytes, &err) < 0) abort();
    for (size_t i = 0; i < n; i++) free((void *)(uintptr_t)list[i].data);
    free(list);
    bb_builder_free(&b);
    free(scratch);
    return out;
}

/* Makes dir (its parent exists) a checkpoint: a bare component with scheduler, labels and card. */
static inline void checkpoint_make(const char *dir)
{
    size_t bytes;
    uint8_t *weights = checkpoint_weights(&bytes);
    if (mkdir(dir, 0777)) abort();
    checkpoint_put_text(dir, "config.json", checkpoint_config);
    checkpoint_put_text(dir, "scheduler_config.json", checkpoint_scheduler);
    checkpoint_put_text(dir, "labels.json", checkpoint_labels);
    checkpoint_put_text(dir, "README.md", checkpoint_card);
    checkpoint_put(dir, "diffusion_pytorch_model.safetensors", weights, bytes);
    free(weights);
}

#endif
