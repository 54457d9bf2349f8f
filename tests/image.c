/* core/image: rounding to bytes, and PNG files read back by another decoder (stb_image), chunk by chunk. */
#include "image/image.h"
#include "base/rng.h"
#include "check.h"

#define STBI_NO_STDIO
#define STBI_ONLY_PNG
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-function" /* formats left out; gcc asks at the file's end, so no pop */
#include <stb/stb_image.h>

static void test_rgba(void)
{
    enum { W = 4, H = 3 };
    const float grey[W * H] = {-1, 1, 0, -2, 2, NAN, INFINITY, -INFINITY, -0.99999f, 0.99999f, 1.0f / 255, -1.0f / 255};
    const uint8_t want[W * H] = {0, 255, 128, 0, 255, 0, 255, 0, 0, 255, 128, 127};
    uint8_t rgba[H][W * 4 + 5]; /* rows further apart than they are long */
    memset(rgba, 77, sizeof rgba);
    bb_image img = {W, H, sizeof rgba[0], rgba[0]};
    bb_rgba(grey, 1, &img);
    for (size_t i = 0; i < W * H; i++) {
        const uint8_t *p = &rgba[i / W][i % W * 4];
        CHECK(p[0] == want[i] && p[1] == want[i] && p[2] == want[i] && p[3] == 255, "%g → %u", grey[i], p[0]);
    }
    for (size_t row = 0; row < H; row++) {
        CHECK(rgba[row][W * 4] == 77 && rgba[row][W * 4 + 4] == 77, "row %zu ran over", row);
    }

    /* 127.5·x + 127.5 hits k + ½ exactly for x = (k + ½)/127.5 − 1 where representable: x = 0 → 127.5 → 128 (even);
     * all other bytes b come back from their own centre. */
    for (int b = 0; b < 256; b++) {
        const float colour[4] = {(float)((b - 127.5) / 127.5), -1, 1, 0.5f}; /* the fourth channel is not looked at */
        uint8_t out[4];
        bb_image one = {1, 1, 0, out};
        bb_rgba(colour, 4, &one);
        bool right = out[0] == b && out[1] == 0 && out[2] == 255 && out[3] == 255;
        CHECK(right, "byte %d → %u %u %u", b, out[0], out[1], out[2]);
    }
}

/* ---- PNG ---- */

static uint32_t crc32_of(const uint8_t *p, size_t n) /* bit by bit, as PNG's annex D defines it */
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Checks every chunk's CRC and writes their types, one after the other, to order. found: body of the chunk number
 * `number`. */
static void walk(const uint8_t *png, size_t n, char *order, size_t number, const uint8_t **found, size_t *found_bytes)
{
    static const uint8_t signature[8] = {137, 80, 78, 71, 13, 10, 26, 10};
    CHECK(n > 8 && !memcmp(png, signature, 8), "signature");
    size_t at = 8, count = 0;
    while (at + 12 <= n) {
        size_t bytes = get_u32(png + at);
        if (bytes > n - at - 12) break;
        memcpy(order + 4 * count, png + at + 4, 4);
        CHECK(get_u32(png + at + 8 + bytes) == crc32_of(png + at + 4, bytes + 4), "CRC of chunk %zu", count);
        if (count == number) *found = png + at + 8, *found_bytes = bytes;
        count++;
        at += 12 + bytes;
    }
    order[4 * count] = 0;
    CHECK(at == n, "%zu bytes after the last chunk", n - at);
}

typedef enum pattern { FLAT, STRIPES, NOISE, GREY_NOISE, FEW_COLOURS, PATTERNS } pattern;

static uint8_t colour(pattern kind, uint32_t x, uint32_t y, uint32_t c, double u)
{
    switch (kind) {
    case FLAT: return 200;
    case STRIPES: return (uint8_t)(x * 3 + y * 7 * c);
    case FEW_COLOURS: return (uint8_t)(u * 2);
    default: return (uint8_t)(u * 256);
    }
}

static void paint(const bb_image *img, uint32_t stride, pattern kind)
{
    for (uint32_t y = 0; y < img->height; y++) {
        for (uint32_t x = 0; x < img->width; x++) {
            uint8_t *p = img->rgba + (size_t)y * stride + 4 * x;
            uint64_t number = 4 * ((uint64_t)y * img->width + x);
            for (uint32_t c = 0; c < 4; c++) {
                double u = bb_uniform(1, kind, number + (kind == GREY_NOISE ? 0 : c));
                p[c] = colour(kind, x, y, c, u);
            }
            if (kind == GREY_NOISE) p[3] = 255;
        }
    }
}

/* Scratch in a heap block of exactly the documented size, at every alignment: a sanitizer sees a step too far. */
static void test_png(uint32_t width, uint32_t height, uint32_t extra, pattern kind, const char *const *text)
{
    uint32_t stride = 4 * width + extra;
    bb_image img = {width, height, extra ? stride : 0, malloc((size_t)stride * height)};
    memset(img.rgba, 99, (size_t)stride * height);
    paint(&img, stride, kind);
    size_t need = bb_png_scratch(&img), offset = (width + height) % 16;
    uint8_t *block = malloc(need + offset);
    const uint8_t *png = NULL;
    size_t bytes = 0;
    bb_status status = bb_png(&img, text, block + offset, need, &png, &bytes);
    CHECK(status == BB_OK, "%ux%u: %d", width, height, status);
    CHECK(bb_png(&img, text, block + offset, need - 1, &png, &bytes) == BB_ERR_SPACE, "one byte less");
    int w = 0, h = 0, channels = 0;
    uint8_t *back = status == BB_OK ? stbi_load_from_memory(png, (int)bytes, &w, &h, &channels, 0) : NULL;
    bool size_right = back && (uint32_t)w == width && (uint32_t)h == height && channels == 4;
    CHECK(size_right, "%ux%u came back as %dx%d", width, height, w, h);
    size_t wrong = 0;
    for (uint32_t y = 0; size_right && y < height; y++) {
        wrong += memcmp(back + (size_t)y * 4 * width, img.rgba + (size_t)y * stride, 4 * width) != 0;
    }
    CHECK(wrong == 0, "%ux%u, pattern %d: %zu rows differ", width, height, kind, wrong);
    char order[256];
    const uint8_t *body = NULL;
    size_t body_bytes = 0;
    if (back) walk(png, bytes, order, 1, &body, &body_bytes);
    CHECK(!back || !strcmp(order, text ? "IHDRtEXtiTXtIDATIEND" : "IHDRIDATIEND"), "chunks %s", order);
    stbi_image_free(back);
    free(block);
    free(img.rgba);
}

static void test_text(void)
{
    const char *const text[] = {"Software", "bitbrush 0.1.0", "bitbrush", "{\"label\":\"Stiefel \xc3\xbc\"}",
                                NULL};
    test_png(3, 5, 0, STRIPES, text);
    uint8_t pixel[4] = {1, 2, 3, 4};
    bb_image img = {1, 1, 0, pixel};
    size_t need = bb_png_scratch(&img), bytes = 0, n = 0;
    uint8_t *scratch = malloc(need);
    const uint8_t *png = NULL, *body = NULL;
    char order[256];
    CHECK(bb_png(&img, text, scratch, need, &png, &bytes) == BB_OK, "text");
    walk(png, bytes, order, 1, &body, &n);
    CHECK(n == 23 && !memcmp(body, "Software\0bitbrush 0.1.0", n), "tEXt body of %zu bytes", n);
    walk(png, bytes, order, 2, &body, &n);
    CHECK(n == 35 && !memcmp(body, "bitbrush\0\0\0\0\0{\"label\":\"Stiefel \xc3\xbc\"}", n), "iTXt of %zu bytes", n);

    char key[81], *long_text = malloc(BB_PNG_TEXT + 1);
    memset(key, 'k', 80);
    key[80] = 0;
    const char *const bad[] = {"", " a", "a ", "\xc3\xbc", "a\nb", key};
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        const char *const pair[] = {bad[i], "value", NULL};
        CHECK(bb_png(&img, pair, scratch, need, &png, &bytes) == BB_ERR_ARGUMENT, "key \"%s\"", bad[i]);
    }
    const char *const odd[] = {"key", NULL};
    CHECK(bb_png(&img, odd, scratch, need, &png, &bytes) == BB_ERR_ARGUMENT, "no value");
    key[79] = 0;
    const char *const longest[] = {key, long_text, NULL};
    for (size_t over = 0; over < 2; over++) { /* the allowance is exact */
        memset(long_text, 'x', BB_PNG_TEXT);
        long_text[BB_PNG_TEXT - 12 - 79 - 1 + over] = 0;
        bb_status status = bb_png(&img, longest, scratch, need, &png, &bytes);
        CHECK(status == (over ? BB_ERR_SPACE : BB_OK), "%zu bytes too much: %d", over, status);
    }
    free(long_text);
    free(scratch);
}

static void test_arguments(void)
{
    uint8_t pixels[16] = {0}, scratch[16];
    const uint8_t *png;
    size_t bytes;
    const bb_image bad[] = {{0, 1, 0, pixels}, {1, 0, 0, pixels}, {2, 1, 7, pixels},
                            {1u << 31, 1u << 31, 0, pixels},
                            {1u << 26, 2, 0, pixels}, {0xffffffffu, 1, 0, pixels}};
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        CHECK(bb_png(&bad[i], NULL, scratch, sizeof scratch, &png, &bytes) == BB_ERR_ARGUMENT, "picture %zu", i);
        CHECK(i == 2 || bb_png_scratch(&bad[i]) == 0, "scratch of picture %zu", i);
    }
    const bb_image good = {1, 1, 0, pixels};
    CHECK(bb_png(&good, NULL, NULL, 0, &png, &bytes) == BB_ERR_SPACE, "no scratch");
}

/* The same file on every target: FNV-1a of one picture's bytes. The wasm tests hold the module to the same number. */
static void test_golden(void)
{
    enum { SIDE = 48 };
    static uint8_t pixels[SIDE * SIDE * 4];
    bb_image img = {SIDE, SIDE, 0, pixels};
    paint(&img, 4 * SIDE, STRIPES);
    const char *const text[] = {"Software", "bitbrush", NULL};
    size_t need = bb_png_scratch(&img), bytes = 0;
    uint8_t *scratch = malloc(need);
    const uint8_t *png = NULL;
    CHECK(bb_png(&img, text, scratch, need, &png, &bytes) == BB_OK, "golden picture");
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ png[i]) * 0x100000001b3u;
    CHECK(hash == 0x059c6ffa4b438cffu, "hash of the PNG is 0x%016llx", (unsigned long long)hash);
    free(scratch);
}

int main(void)
{
    test_rgba();
    static const uint32_t sizes[][2] = {{1, 1}, {1, 2}, {2, 1}, {3, 1}, {1, 7}, {5, 3}, {17, 31}, {32, 32}, {64, 64},
                                        {255, 3}, {3, 255}, {257, 129}};
    for (size_t i = 0; i < BB_COUNT(sizes); i++) {
        for (int kind = 0; kind < PATTERNS; kind++) {
            test_png(sizes[i][0], sizes[i][1], 0, (pattern)kind, NULL);
            test_png(sizes[i][0], sizes[i][1], 5, (pattern)kind, NULL);
        }
    }
    test_png(432, 432, 0, NOISE, NULL); /* all hash chains full, and compressed bytes just over a buffer's doubling */
    test_text();
    test_arguments();
    test_golden();
    return check_done();
}
