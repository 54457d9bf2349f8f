/* A safetensors file through the reader: what it accepts is found by name and converts to floats. */
#include "fuzz.h"

#include "base/safetensors.h"

static void use(const bb_safetensors *st, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < st->n && i < 256; i++) {
        const bb_st_tensor *t = &st->tensors[i];
        char shape[192];
        FUZZ_CHECK(bb_safetensors_find(st, t->name) == t && t->rank <= BB_ST_MAX_RANK);
        FUZZ_CHECK(t->bytes <= n && (!t->bytes || (t->data >= data + 8 && t->data + t->bytes <= data + n)));
        bb_st_shape_text(shape, sizeof shape, t->shape, t->rank);
        if (t->count > 1 << 16) continue;
        float *x = fuzz_block(t->count * sizeof *x);
        bb_st_to_f32(t, x);
        free(x);
    }
    FUZZ_CHECK(!bb_safetensors_find(st, ""));
}

FUZZ_TARGET(safetensors)
{
    bb_safetensors st;
    bb_error err = {0};
    size_t bytes = 0;
    bb_status status = bb_safetensors_memory(data, n, "input", &bytes, &err);
    fuzz_check_error(status, &err);
    if (status < 0) return status;
    FUZZ_CHECK(bytes <= 16 * n + 4096);
    void *mem = fuzz_block(bytes), *less = fuzz_block(bytes / 2);
    FUZZ_CHECK(bb_safetensors_parse(&st, data, n, "input", less, bytes / 2, &err) < 0);
    status = bb_safetensors_parse(&st, data, n, "input", mem, bytes, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK(status != BB_ERR_SPACE);
    if (status == BB_OK) use(&st, data, n);
    free(less);
    free(mem);
    return status;
}

FUZZ_MUTATOR(safetensors)
{
    fuzz_random r = {seed};
    return fuzz_next(&r, 4) ? fuzz_mutate_header(data, n, max, &r) : fuzz_mutate(data, n, max);
}
