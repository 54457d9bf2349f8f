#include "make_door.h"

#include "base/compiler.h"
#include "bitbrush_make.h"
#include "door.h"

#define PAGE 65536u
#define GROW 64u /* pages at least: growing may cost a copy of everything */

static size_t top;
static bb_make *make;
static bb_make_options options;
static bb_make_progress progress;
static bb_lora_report lora;
static const uint8_t *result;
static size_t result_bytes;

/* ---- memory: a stack above all else, as bb_make_memory promises to use it ---- */

static void *take(void *user, size_t bytes)
{
    size_t have = __builtin_wasm_memory_size(0), need = bb_align_up(bytes, 16);
    if (bytes > SIZE_MAX - 2 * PAGE || need > SIZE_MAX - 2 * PAGE - top) return NULL;
    size_t pages = (top + need + PAGE - 1) / PAGE, more = pages > have ? pages - have : 0;
    if (more && (more >= GROW || __builtin_wasm_memory_grow(0, GROW) == SIZE_MAX) &&
        __builtin_wasm_memory_grow(0, more) == SIZE_MAX)
        return NULL;
    void *block = (void *)top;
    top += need;
    return block;
}

static void give(void *user, void *block, size_t bytes) { top = (size_t)block; }

/* ---- making ---- */

double bbw_build(void) { return BBW_BUILD; }

void bbm_start(size_t heap)
{
    bb_make_end(make);
    make = NULL;
    top = bb_align_up(heap, BB_ALIGNMENT);
    bb_make_defaults(&options);
    progress = (bb_make_progress){0};
    lora = (bb_lora_report){0};
    result = NULL;
    result_bytes = 0;
}

void bbm_option(uint32_t field, double value)
{
    uint32_t *const words[] = {&options.wbits, &options.abits, NULL, &options.layers, &options.range, &options.ladder,
                               &options.mixed, &options.tables, &options.refit, NULL, &options.images, &options.steps};
    if (field == 2) options.budget = (uint64_t)value;
    else if (field == 9) options.smoothing = (float)value;
    else if (field == 12) options.guidance = (float)value;
    else if (field == 13) options.compensation = (float)value;
    else if (field < BB_COUNT(words)) *words[field] = (uint32_t)value;
}

void bbm_seed(uint32_t low, uint32_t high) { options.seed = (uint64_t)high << 32 | low; }

int32_t bbm_begin(const char *command)
{
    bb_error *err = bbw_fresh();
    options.command = command;
    const bb_make_memory memory = {.take = take, .give = give};
    if (make || !bbw_loaded()) return bbw_report(BB_ERR_ORDER);
    bb_status status = bb_make_begin(bbw_loaded(), &options, &memory, &make, err);
    if (status < 0) make = NULL;
    return bbw_report(status);
}

int32_t bbm_lora(const char *name, const void *data, size_t bytes, const char *config, size_t config_bytes, float scale)
{
    bb_error *err = bbw_fresh();
    const bb_lora_file file = {.name = name, .data = data, .bytes = bytes, .config = config,
                               .config_bytes = config_bytes, .scale = scale};
    return bbw_report(make ? bb_make_lora(make, &file, &lora, err) : BB_ERR_ORDER);
}

int32_t bbm_step(void)
{
    bb_error *err = bbw_fresh();
    bb_status status = make ? bb_make_step(make, &progress, err) : BB_ERR_ORDER;
    if (status == BB_DONE && bb_make_result(make, &result, &result_bytes) < 0) result = NULL;
    return bbw_report(status);
}

uint32_t bbm_progress(uint32_t field)
{
    const uint32_t all[] = {progress.phase, progress.done, progress.total, lora.layers, lora.skipped};
    return field < BB_COUNT(all) ? all[field] : 0;
}

const uint8_t *bbm_result(void) { return result; }
size_t bbm_result_bytes(void) { return result_bytes; }
