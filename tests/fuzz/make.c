/* The quantizer with options from the input, on a small network, with one of its requests for memory refused: whatever
 * happens, all memory is given back in order; without a refusal the file it makes has been proven readable. */
#include "fuzz.h"

#include "bitbrush_make.h"

typedef struct request {
    uint8_t wbits, abits, layers, range, ladder, mixed, tables, refit;
    uint8_t images, steps, smoothing, guidance;
    uint16_t fail_at;
    uint16_t budget; /* in units of 16 bytes */
} request;

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
    do status = bb_make_step(make, &at, &err);
    while (status == BB_AGAIN);
    fuzz_check_error(status, &err);
    const uint8_t *file;
    size_t bytes = 0;
    FUZZ_CHECK((bb_make_result(make, &file, &bytes) == BB_OK) == (status == BB_DONE));
    for (uint32_t i = 0; i < bb_make_layer_count(make); i++) {
        bb_make_layer layer;
        FUZZ_CHECK(bb_make_layer_get(make, i, &layer) == BB_OK && layer.name && layer.wbits <= 8);
    }
    bb_make_end(make);
    FUZZ_CHECK(stack.n == 0);
    return status;
}
