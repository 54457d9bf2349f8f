/* A whole file of torch.save: zip archive, pickle, records. */
#include "fuzz.h"

#include "import/torch_file.h"

FUZZ_TARGET(torch)
{
    bb_torch_file f;
    bb_error err = {0};
    bb_status status = bb_torch_parse(&f, data, n, "input", &err);
    fuzz_check_error(status, &err);
    if (status < 0) return status;
    for (size_t i = 0; i < f.n && i < 256; i++) {
        const bb_tensor *t = &f.tensors[i];
        FUZZ_CHECK(t->name && t->count <= n && (!t->count || (t->data >= data && t->data < data + n)));
        if (t->count > 1 << 16) continue;
        float *x = fuzz_block(t->count * sizeof *x);
        bb_tensor_to_f32(t, x);
        free(x);
    }
    bb_torch_free(&f);
    return status;
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t crc32(const uint8_t *p, size_t n)
{
    uint32_t c = ~0u;
    while (n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
    }
    return ~c;
}

/* After a change inside an entry its checksum is made right again, in the directory, or nothing behind it would be
 * reached; the fields of directory and end records are changed for their own sake. */
FUZZ_MUTATOR(torch)
{
    fuzz_random r = {seed};
    if (n < 64 || !fuzz_next(&r, 4)) return fuzz_mutate(data, n, max);
    if (fuzz_next(&r, 3) == 0) { /* a word of the last kilobyte, where the records are */
        size_t tail = n < 1024 ? n : 1024;
        uint8_t *at = data + n - tail + fuzz_next(&r, (uint32_t)tail - 4);
        put32(at, fuzz_word(&r, get32(at)));
        return n;
    }
    size_t central[64], found = 0;
    for (size_t at = 0; at + 46 <= n && found < 64; at++)
        if (get32(data + at) == 0x02014b50) central[found++] = at;
    if (!found) return fuzz_mutate(data, n, max);
    size_t c = central[fuzz_next(&r, (uint32_t)found)];
    uint64_t local = get32(data + c + 42), size = get32(data + c + 20);
    if (local + 30 > n) return fuzz_mutate(data, n, max);
    uint64_t begin = local + 30 + data[local + 26] + 256u * data[local + 27];
    begin += data[local + 28] + 256u * data[local + 29];
    if (!size || begin + size > n) return fuzz_mutate(data, n, max);
    uint8_t *copy = fuzz_copy(data + begin, (size_t)size);
    size_t now = fuzz_mutate(copy, (size_t)size, (size_t)size); /* the same length: nothing else has to move */
    memcpy(data + begin, copy, now);
    free(copy);
    put32(data + c + 16, crc32(data + begin, (size_t)size));
    return n;
}
