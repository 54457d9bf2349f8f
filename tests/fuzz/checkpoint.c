/* A whole checkpoint folder through import, and the model it makes through the reader. Input: sections (fuzz.h) for
 * config.json, the weights, scheduler_config.json, labels.json, model_index.json; empty ones are absent. */
#include "fuzz.h"

#include "import/import.h"

static const char *const names[] = {"config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json",
                                    "labels.json", "model_index.json"};

static void import(uint32_t dtype, bb_status *status)
{
    bb_error err = {0};
    uint8_t *out = NULL;
    size_t size = 0;
    bb_import_options opt = {.path = "/c", .dtype = dtype, .command = "fuzz"};
    *status = bb_import(&opt, &out, &size, &err);
    fuzz_check_error(*status, &err);
    FUZZ_CHECK((*status == BB_OK) == (out != NULL));
    free(out);
}

FUZZ_TARGET(checkpoint)
{
    const uint8_t *at;
    size_t bytes;
    bb_status half, whole;
    bool pipeline = fuzz_section(data, n, 4, &at, &bytes) && bytes;
    for (uint32_t k = 0; k < BB_COUNT(names) && fuzz_section(data, n, k, &at, &bytes); k++) {
        char path[64];
        const char *folder = !pipeline || k > 2 ? "" : k == 2 ? "scheduler/" : "unet/";
        snprintf(path, sizeof path, "/c/%s%s", folder, names[k]);
        if (bytes) fuzz_file(path, at, bytes);
    }
    import(BB_F16, &half);
    import(BB_F32, &whole);
    FUZZ_CHECK(half < 0 || whole == BB_OK); /* f16 alone can overflow */
    fuzz_files_forget();
    return half;
}

FUZZ_MUTATOR(checkpoint) { return fuzz_mutate_sections(data, n, max, seed, BB_COUNT(names), 1); }
