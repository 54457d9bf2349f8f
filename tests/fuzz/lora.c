/* A LoRA folded into a network of three layers. Input: sections of fuzz_section: the file, its adapter_config.json
 * (none if empty). */
#include "fuzz.h"

#include "base/json.h"
#include "make/lora.h"

static void *take(void *user, size_t bytes)
{
    *(size_t *)user += bytes;
    return malloc(bytes);
}

static void give(void *user, void *block, size_t bytes)
{
    FUZZ_CHECK(*(size_t *)user >= bytes);
    *(size_t *)user -= bytes;
    free(block);
}

enum { SLOTS = 3, STRIDE = 16, MOST = 2 * 9 * STRIDE };

static const char strings[] = "conv_in.weight\0mid_block.attentions.0.to_q.weight\0"
                              "mid_block.attentions.0.to_out.0.weight";
static const bb_weight_slot slots[SLOTS] = {{0, 4, {4, 2, 3, 3}}, {15, 2, {4, 4}}, {50, 4, {4, 4, 1, 1}}};
static const bb_op ops[SLOTS] = {{.kind = BB_OP_CONV2D, .weight = {0, BB_NONE}},
                                 {.kind = BB_OP_LINEAR, .weight = {1, BB_NONE}},
                                 {.kind = BB_OP_CONV2D, .weight = {2, BB_NONE}}};

static void check_folded(const bb_weight *weights, const bb_weight *before, const bb_lora_report *report)
{
    uint32_t changed = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        changed += weights[i].f32 != before[i].f32;
        for (size_t k = 0; k < (i ? 4 : 18) * (size_t)STRIDE; k++) {
            FUZZ_CHECK(weights[i].f32[k] - weights[i].f32[k] == 0);
            FUZZ_CHECK(k % STRIDE < 4 || weights[i].f32[k] == 1); /* padding stays as it was */
        }
    }
    FUZZ_CHECK(changed == report->layers && changed);
}

static void check_metadata(const bb_lora_file *file, bb_blocks *blocks)
{
    const char *text = bb_lora_metadata(bb_lora_metadata(NULL, file, blocks), file, blocks);
    size_t bytes = bb_json_scratch(strlen(text));
    void *scratch = fuzz_block(bytes);
    bb_json j;
    FUZZ_CHECK(bb_json_parse(&j, text, strlen(text), scratch, bytes));
    FUZZ_CHECK(bb_json_is_array(&j, 0) && bb_json_size(&j, 0) == 2);
    free(scratch);
}

FUZZ_TARGET(lora)
{
    float ones[MOST];
    size_t taken = 0;
    bb_error err = {0};
    bb_lora_file file = {.name = "a \"name\"\n", .scale = 0.8f};
    const uint8_t *config = NULL;
    bb_lora_report report;
    bb_blocks blocks = {.memory = {&taken, take, give}};
    if (!fuzz_section(data, n, 0, (const uint8_t **)&file.data, &file.bytes)) return 0;
    if (fuzz_section(data, n, 1, &config, &file.config_bytes) && file.config_bytes)
        file.config = (const char *)config;
    for (size_t i = 0; i < MOST; i++) ones[i] = 1;
    bb_weight before[SLOTS], weights[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++) before[i] = weights[i] = (bb_weight){.f32 = ones, .stride = STRIDE};
    const bb_pack pack = {.graph = {.n_weights = SLOTS, .weights = slots, .n_ops = SLOTS, .ops = ops, .strings = strings,
                                    .string_bytes = sizeof strings}, .weights = before};
    bb_status status = bb_lora_fold(&pack, weights, &file, &blocks, &report, &err);
    fuzz_check_error(status, &err);
    if (status == BB_OK) check_folded(weights, before, &report);
    if (status == BB_OK) check_metadata(&file, &blocks);
    bb_blocks_give(&blocks, NULL);
    FUZZ_CHECK(taken == 0);
    return status;
}

FUZZ_MUTATOR(lora) { return fuzz_mutate_sections(data, n, max, seed, 2, 0); }
