/* A packed model: probe, check, and a bounded piece of a drawing with whatever was accepted. */
#include "fuzz.h"

#include "api/model.h"
#include "pack/layout.h"

/* What an accepted file may ask for before this target stops following: the caller decides about memory and time,
 * the file only says what it needs. */
enum { MAX_WORKSPACE = 32 << 20, MAX_MACS = 4000000, MAX_PIXELS = 1 << 16 };

static void decode(bb_session *s, const bb_request *req)
{
    bb_image image = {.width = req->width, .height = req->height};
    image.rgba = fuzz_block((size_t)4 * image.width * image.height);
    FUZZ_CHECK(bb_decode(s, 0, &image) == BB_OK);
    free(image.rgba);
}

/* One step of a request, in exactly the memory it asked for. */
static bb_status draw(const bb_model *model, bb_request req)
{
    bb_error err = {0};
    size_t bytes = 0;
    bb_session *s;
    bb_stats stats;
    const uint64_t seeds[2] = {1, 2};
    bb_info info;
    bb_model_info(model, &info);
    req.size_of = sizeof req;
    if (!req.width) req.width = info.width;
    if (!req.height) req.height = info.height;
    if (req.width > MAX_PIXELS / req.height) return BB_ERR_SPACE;
    bb_status status = bb_session_size(model, &req, &bytes, &err);
    fuzz_check_error(status, &err);
    if (status < 0 || bytes > MAX_WORKSPACE) return status < 0 ? status : BB_ERR_SPACE;
    void *ws = fuzz_block(bytes);
    memset(ws, 0xff, bytes); /* NaNs */
    FUZZ_CHECK(bb_session_init(model, &req, ws, bytes - 128, &s, &err) < 0);
    status = bb_session_init(model, &req, ws, bytes, &s, &err);
    FUZZ_CHECK(status == BB_OK);
    bb_stats_get(s, &stats);
    for (uint32_t i = 0; req.steps && info.classes && i < req.batch; i++)
        FUZZ_CHECK(bb_condition(s, i, &(bb_cond){(int32_t)(i % info.classes)}) == BB_OK);
    status = bb_begin(s, seeds, NULL);
    FUZZ_CHECK(status == BB_OK);
    while (stats.macs_per_step < MAX_MACS && status != BB_DONE) {
        status = bb_step(s, 0);
        FUZZ_CHECK(status >= 0);
    }
    if (status == BB_DONE && req.steps) decode(s, &req);
    free(ws);
    return status;
}

FUZZ_TARGET(pack)
{
    bb_info info = {0};
    bb_error err = {0};
    bb_model *model = NULL;
    void *blob = fuzz_copy(data, n), *scratch = fuzz_block(BB_PROBE_SCRATCH(n)), *mem = NULL;
    bb_status status = bb_probe(blob, n, scratch, BB_PROBE_SCRATCH(n), &info, &err);
    fuzz_check_error(status, &err);
    /* A head that is whole probes without the rest of the file; memory is bounded by the file's size all the same. */
    if (status == BB_OK && info.blob_bytes == n) {
        FUZZ_CHECK(info.model_bytes <= 64 * (uint64_t)n + 4096);
        mem = fuzz_block((size_t)info.model_bytes);
        status = bb_model_init(blob, n, mem, (size_t)info.model_bytes, &model, &err);
        fuzz_check_error(status, &err);
        FUZZ_CHECK(status != BB_ERR_SPACE); /* what the probe says suffices */
    } else if (status == BB_OK) {
        status = BB_ERR_SHORT;
    }
    if (status == BB_OK) {
        bool guided = info.null_label >= 0;
        bb_model_select(model, n & 1 ? 0 : bb_cpu_features());
        draw(model, (bb_request){.steps = 2, .batch = 1, .guidance = guided ? 2 : 1});
        draw(model, (bb_request){.steps = 1, .batch = 2, .guidance = 1, .sampler = BB_SAMPLER_DDPM});
        draw(model, (bb_request){.batch = 1, .width = 5, .height = 7});
    }
    free(mem);
    free(scratch);
    free(blob);
    return status;
}

/* Where the tensor called name lies; false if the header does not say. */
static bool tensor_range(const uint8_t *data, size_t n, const char *name, size_t *begin, size_t *bytes)
{
    bb_file_index index;
    bb_error err;
    bool found = false;
    size_t token_bytes = BB_PROBE_SCRATCH(n);
    void *tokens = fuzz_block(token_bytes);
    uint64_t head = 0;
    bool ok = n >= 8 && bb_pack_head_bytes(data, n, &head, &err) == BB_OK &&
              bb_index_parse(&index, data, n, tokens, token_bytes, NULL, &err) == BB_OK;
    for (uint32_t key = ok ? bb_json_first(&index.json, 0) : BB_JSON_NONE; key != BB_JSON_NONE && !found;
         key = bb_json_next(&index.json, key)) {
        bb_file_tensor t;
        if (bb_json_value(&index.json, key) == index.metadata || bb_index_tensor(&index, key, &t, &err) < 0) continue;
        found = bb_tensor_is(&t, name) && head + t.begin <= n && t.bytes <= n - head - t.begin;
        *begin = (size_t)(head + t.begin);
        *bytes = (size_t)t.bytes;
    }
    free(tokens);
    return found;
}

/* Mostly words of the tables that hold counts, ids and scales; sometimes the header; planes hold nothing to break. */
FUZZ_MUTATOR(pack)
{
    static const char *const names[] = {"graph", "graph", "graph", "weights", "layers", "layers", "quantizers",
                                        "quantizers", "schedule", "pool.step_key", "pool.step_delta", "pool.delta",
                                        "pool.perm", "pool.multiplier", "pool.offset", "pool.inv_s", "strings"};
    fuzz_random r = {seed};
    size_t begin = 0, bytes = 0;
    if (fuzz_next(&r, 10) == 0) return fuzz_mutate(data, n, max);
    if (fuzz_next(&r, 5) == 0) return fuzz_mutate_header(data, n, max, &r);
    if (!tensor_range(data, n, names[fuzz_next(&r, BB_COUNT(names))], &begin, &bytes) || bytes < 8)
        return fuzz_mutate_header(data, n, max, &r);
    for (uint32_t times = 1 + fuzz_next(&r, 3); times; times--) {
        uint32_t word, other;
        uint8_t *at = data + begin + (size_t)fuzz_next(&r, (uint32_t)(bytes / 4)) * 4;
        memcpy(&word, at, 4);
        memcpy(&other, data + begin + (size_t)fuzz_next(&r, (uint32_t)(bytes / 4)) * 4, 4);
        word = fuzz_next(&r, 5) ? fuzz_word(&r, word) : other;
        memcpy(at, &word, 4);
    }
    return n;
}
