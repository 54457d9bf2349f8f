/* The quantizer with options from the input, on a small network, with one of its requests for memory refused: whatever
 * happens, all memory is given back in order; without a refusal the file it makes has been proven readable. Behind the
 * request: a byte, which picture a second maker goes on from, and changes to that state, which must be refused or do no
 * harm: offset and bits to turn, 5 bytes each. */
#include "fuzz.h"

#include "bitbrush_make.h"

typedef struct request {
    uint8_t wbits, abits, layers, range, ladder, mixed, tables, refit;
    uint8_t images, steps, smoothing, guidance;
    uint16_t fail_at;
    uint16_t budget; /* in units of 16 bytes */
} request;

/* The same file from a state as it was saved, and from one that is refused. */
static void go_on(const bb_make_options *opt, uint8_t *state, size_t size, const uint8_t *changes, size_t n,
                  const uint8_t *expected, size_t bytes)
{
    bb_make *make;
    bb_error err = {0};
    fuzz_stack stack = {0};
    const bb_make_memory memory = {&stack, fuzz_stack_take, fuzz_stack_give};
    FUZZ_CHECK(bb_make_begin(fuzz_model(), opt, &memory, &make, &err) == BB_OK);
    for (size_t i = 0; i + 5 <= n; i += 5) {
        uint32_t at;
        memcpy(&at, changes + i, sizeof at);
        state[at % size] ^= changes[i + 4];
    }
    bb_status status = bb_make_state_load(make, state, size, &err);
    bool whole = status == BB_ERR_CORRUPT || n < 5;
    FUZZ_CHECK(status == BB_OK || (status == BB_ERR_CORRUPT && n >= 5));
    FUZZ_CHECK(bb_make_state_load(make, state, size, &err) == BB_ERR_ORDER);
    do status = bb_make_step(make, NULL, &err);
    while (status == BB_AGAIN);
    const uint8_t *file;
    size_t made;
    if (whole)
        FUZZ_CHECK(bb_make_result(make, &file, &made) == BB_OK && made == bytes && !memcmp(file, expected, made));
    bb_make_end(make);
    FUZZ_CHECK(stack.n == 0);
}

FUZZ_TARGET(make)
{
    request r = {0};
    bb_error err = {0};
    bb_make *make;
    bb_make_options opt;
    bb_make_progress at;
    fuzz_stack stack = {0};
    const bb_make_memory memory = {&stack, fuzz_stack_take, fuzz_stack_give};
    memcpy(&r, data, n < sizeof r ? n : sizeof r);
    stack.fail_at = r.fail_at;
    bb_make_defaults(&opt);
    opt.wbits = r.wbits % 10;
    opt.abits = r.abits % 10;
    opt.layers = r.layers % 5;
    opt.range = r.range % 5;
    opt.ladder = r.ladder % 5;
    opt.mixed = r.mixed % 5;
    opt.tables = r.tables % 4;
    opt.refit = r.refit % 4;
    opt.images = r.images % 3;
    opt.steps = 1 + r.steps % 2; /* 0 would be 20 of them */
    opt.smoothing = (float)(r.smoothing % 128) / 100;
    opt.guidance = (float)r.guidance / 64;
    opt.budget = (uint64_t)r.budget * 16;
    bb_status status = bb_make_begin(fuzz_model(), &opt, &memory, &make, &err);
    fuzz_check_error(status, &err);
    if (status < 0) {
        FUZZ_CHECK(stack.n == 0);
        return status;
    }
    const uint8_t *more = n > sizeof r ? data + sizeof r : data, *file;
    uint8_t *state = NULL;
    size_t size = 0, bytes = 0, skip = n > sizeof r ? *more % 4 : SIZE_MAX;
    do {
        status = bb_make_step(make, &at, &err);
        if (state || !bb_make_state_bytes(make) || skip--) continue;
        state = fuzz_block(size = bb_make_state_bytes(make));
        bb_make_state_save(make, state);
    } while (status == BB_AGAIN);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((bb_make_result(make, &file, &bytes) == BB_OK) == (status == BB_DONE));
    for (uint32_t i = 0; i < bb_make_layer_count(make); i++) {
        bb_make_layer layer;
        FUZZ_CHECK(bb_make_layer_get(make, i, &layer) == BB_OK && layer.name && layer.wbits <= 8);
    }
    if (state && status == BB_DONE) go_on(&opt, state, size, more + 1, n - sizeof r - 1, file, bytes);
    free(state);
    bb_make_end(make);
    FUZZ_CHECK(stack.n == 0);
    return status;
}
