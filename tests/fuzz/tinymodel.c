/* The float model that targets of the quantizer start from: made once, by import of a checkpoint in memory. */
#include "fuzz.h"

#include "api/model.h"
#include "import/import.h"

#include "../checkpoint.h"

bb_model *fuzz_model(void)
{
    static bb_model *model;
    if (model) return model;
    bb_error err = {0};
    size_t weight_bytes, size;
    uint8_t *weights = checkpoint_weights(&weight_bytes), *blob;
    bb_info info;
    fuzz_file("/m/config.json", checkpoint_config, strlen(checkpoint_config));
    fuzz_file("/m/scheduler_config.json", checkpoint_scheduler, strlen(checkpoint_scheduler));
    fuzz_file("/m/labels.json", checkpoint_labels, strlen(checkpoint_labels));
    fuzz_file("/m/diffusion_pytorch_model.safetensors", weights, weight_bytes);
    bb_import_options opt = {.path = "/m", .dtype = BB_F32, .command = "fuzz"};
    FUZZ_CHECK(bb_import(&opt, &blob, &size, &err) == BB_OK);
    fuzz_files_forget();
    free(weights);
    void *scratch = fuzz_block(BB_PROBE_SCRATCH(size));
    FUZZ_CHECK(bb_probe(blob, size, scratch, BB_PROBE_SCRATCH(size), &info, &err) == BB_OK);
    free(scratch);
    FUZZ_CHECK(bb_model_init(blob, size, fuzz_block((size_t)info.model_bytes), (size_t)info.model_bytes, &model, &err) ==
               BB_OK);
    return model; /* for all cases to come; never freed */
}

void *fuzz_stack_take(void *user, size_t bytes)
{
    fuzz_stack *s = user;
    if (++s->taken == s->fail_at || s->n == FUZZ_STACK) return NULL;
    s->blocks[s->n].bytes = bytes;
    return s->blocks[s->n++].at = fuzz_block(bytes);
}

/* Strictly the last one taken, with its own size. */
void fuzz_stack_give(void *user, void *block, size_t bytes)
{
    fuzz_stack *s = user;
    FUZZ_CHECK(s->n && s->blocks[s->n - 1].at == block && s->blocks[s->n - 1].bytes == bytes);
    s->n--;
    free(block);
}
