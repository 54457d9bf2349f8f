/* Mutations that keep a file's frame valid, so that the fuzzer's time goes to what lies inside it. */
#include "fuzz.h"

uint32_t fuzz_next(fuzz_random *r, uint32_t below)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return below ? (uint32_t)(r->state >> 33) % below : 0;
}

uint32_t fuzz_word(fuzz_random *r, uint32_t old)
{
    static const uint32_t words[] = {0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 65, 255, 256, 65535, 65536, 65537, 0x7fffffff,
                                     0x80000000, 0xfffffff0, 0xfffffffe, 0xffffffff,
                                     0x7f800000, 0xff800000, 0x7fc00000, 0x3f800000, 1u << 23, 0x7f7fffff, 1u << 31 | 1};
    switch (fuzz_next(r, 6)) {
    case 0: return old + 1;
    case 1: return old - 1;
    case 2: return old ^ 1u << fuzz_next(r, 32);
    case 3: return old * 2;
    case 4: return fuzz_next(r, 40);
    default: return words[fuzz_next(r, BB_COUNT(words))];
    }
}

size_t fuzz_mutate_header(uint8_t *data, size_t n, size_t max, fuzz_random *r)
{
    uint64_t length;
    if (n < 16) return fuzz_mutate(data, n, max);
    memcpy(&length, data, 8);
    if (length > n - 8 || length > 1 << 20) return fuzz_mutate(data, n, max);
    size_t old = (size_t)length, rest = n - 8 - old, text = old;
    while (text > 2 && data[8 + text - 1] == ' ') text--;
    size_t room = max - 8 - rest < text + 256 ? max - 8 - rest : text + 256;
    uint8_t *copy = fuzz_block(room + 64), *tail = fuzz_copy(data + 8 + old, rest);
    memcpy(copy, data + 8, text);
    text = fuzz_mutate(copy, text, room);
    size_t header = (8 + text + 63) / 64 * 64 - 8;
    if (8 + header + rest <= max) {
        length = header;
        memcpy(data, &length, 8);
        memset(data + 8, ' ', header);
        memcpy(data + 8, copy, text);
        memcpy(data + 8 + header, tail, rest);
        n = 8 + header + rest;
    }
    free(copy);
    free(tail);
    (void)r;
    return n;
}

bool fuzz_section(const uint8_t *data, size_t n, uint32_t k, const uint8_t **at, size_t *bytes)
{
    size_t from = 0;
    for (;; k--) {
        uint32_t length;
        if (n - from < 4) return false;
        memcpy(&length, data + from, 4);
        from += 4;
        if (length > n - from) return false;
        *at = data + from;
        *bytes = length;
        if (!k) return true;
        from += length;
    }
}

size_t fuzz_mutate_sections(uint8_t *data, size_t n, size_t max, unsigned seed, uint32_t sections, uint32_t headed)
{
    fuzz_random r = {seed};
    const uint8_t *at;
    size_t bytes;
    uint32_t k = fuzz_next(&r, sections);
    if (!fuzz_section(data, n, k, &at, &bytes)) return fuzz_mutate(data, n, max);
    size_t from = (size_t)(at - data), rest = n - from - bytes, room = max - (n - bytes);
    if (room > bytes + 256) room = bytes + 256;
    uint8_t *section = fuzz_block(room + 64), *tail = fuzz_copy(at + bytes, rest);
    memcpy(section, at, bytes);
    size_t now = k == headed && fuzz_next(&r, 4) ? fuzz_mutate_header(section, bytes, room, &r)
                                                 : fuzz_mutate(section, bytes, room);
    uint32_t word = (uint32_t)now;
    memcpy(data + from - 4, &word, 4);
    memcpy(data + from, section, now);
    memcpy(data + from + now, tail, rest);
    free(section);
    free(tail);
    return from + now + rest;
}
