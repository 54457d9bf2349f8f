/* A PNG request: sizes, row lengths, text chunks, scratch of exactly the size that is asked for. The file is checked
 * chunk by chunk. Input: width, height, padding of rows (u16 each), texts, flags; then the texts, NUL-terminated; then
 * the pixels, repeated. */
#include "fuzz.h"

enum { HEAD = 8, MAX_TEXTS = 8, MAX_SCRATCH = 13 << 19, HUGE_SIZE = 1 };

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t crc(const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffffu;
    while (n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
    }
    return ~c;
}

static void check_file(const uint8_t *png, size_t n, const bb_image *image, uint32_t texts)
{
    FUZZ_CHECK(n > 57 && !memcmp(png, "\x89PNG\r\n\x1a\n", 8));
    uint32_t found = 0;
    bool end = false;
    for (size_t at = 8; at < n;) {
        FUZZ_CHECK(!end && n - at >= 12);
        uint32_t length = be32(png + at);
        const uint8_t *type = png + at + 4;
        FUZZ_CHECK(length <= n - at - 12 && crc(type, length + 4) == be32(type + 4 + length));
        if (at == 8) {
            FUZZ_CHECK(!memcmp(type, "IHDR", 4));
            FUZZ_CHECK(be32(type + 4) == image->width && be32(type + 8) == image->height);
        }
        found += !memcmp(type, "tEXt", 4) || !memcmp(type, "iTXt", 4);
        end = !memcmp(type, "IEND", 4);
        at += 12 + length;
    }
    FUZZ_CHECK(end && found == texts);
}

FUZZ_TARGET(png)
{
    const char *text[2 * MAX_TEXTS + 1] = {NULL};
    uint16_t size[3];
    uint32_t pairs = 0;
    if (n < HEAD) return 0;
    memcpy(size, data, sizeof size);
    bool huge = data[7] & HUGE_SIZE;
    bb_image image = {.width = huge ? size[0] * 65537u : size[0], .height = huge ? size[1] * 65537u : size[1]};
    if (size[2]) image.stride = 4 * image.width + size[2] - 1;
    char *copy = fuzz_copy(data + HEAD, n - HEAD), *at = copy, *last = copy + (n - HEAD);
    for (uint32_t k = 0; k < 2u * (data[6] % (MAX_TEXTS + 1)); k++) {
        char *end = memchr(at, 0, (size_t)(last - at));
        if (!end) break;
        text[k] = at;
        pairs = (k + 1) / 2;
        at = end + 1;
    }
    if (text[2 * pairs]) text[2 * pairs] = data[7] & 2 ? text[2 * pairs] : NULL; /* a key without value */

    size_t need = bb_png_scratch(&image), bytes = need > MAX_SCRATCH || !need ? 4096 : need, png_bytes = 0;
    size_t stride = image.stride ? image.stride : (size_t)4 * image.width;
    bool real = need && need <= MAX_SCRATCH && stride * image.height <= MAX_SCRATCH;
    size_t pixel_bytes = real ? stride * (image.height - 1) + (size_t)4 * image.width : 0;
    image.rgba = fuzz_block(pixel_bytes);
    for (size_t i = 0; i < pixel_bytes; i++) image.rgba[i] = data[i % n];
    const uint8_t *png = NULL;
    static uint8_t *most; /* one block for all cases, used from its end: allocating megabytes each time is slow */
    if (!most) most = fuzz_block(MAX_SCRATCH);
    uint8_t *scratch = most + MAX_SCRATCH - bytes;
    bb_status status = BB_ERR_SPACE;
    if (real) {
        FUZZ_CHECK(bb_png(&image, text, scratch + 1, bytes - 1, &png, &png_bytes) < 0);
        status = bb_png(&image, text, scratch, bytes, &png, &png_bytes);
    } else if (!need || need > bytes) {
        status = bb_png(&image, text, scratch, bytes, &png, &png_bytes);
        FUZZ_CHECK(status < 0);
    }
    if (status == BB_OK) {
        FUZZ_CHECK(png >= scratch && png + png_bytes <= scratch + bytes);
        check_file(png, png_bytes, &image, pairs);
    }
    free(image.rgba);
    free(copy);
    return status;
}
