/* PNG through stb_image_write, working in the caller's memory, with text chunks (PNG 1.2, 4.2.3) put between IHDR and
 * IDAT. stb decides by counts only, never by addresses or time, so the bytes are the same everywhere. */
#include "base/status.h"

/* stb's heap during one call: a bump allocator that never takes back. How much it can ask for is worked out below. */
typedef struct bump {
    uint8_t *at;
    size_t left;
} bump;
static _Thread_local bump heap;

#define GRAIN 16 /* every block is a multiple of it */

static void *bump_take(size_t n)
{
    n = bb_align_up(n, GRAIN);
    if (n > heap.left) return NULL;
    void *p = heap.at;
    heap.at += n;
    heap.left -= n;
    return p;
}

static void *bump_grow(void *p, size_t old, size_t n)
{
    void *q = bump_take(n);
    if (p && q) memcpy(q, p, old);
    return q;
}

/* Of PNG's chunks (annex D), half a byte at a time: stb's own table is a kilobyte that modules would carry. */
static uint32_t crc32(const uint8_t *data, int n)
{
    static const uint32_t table[16] = {0, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158,
                                       0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0,
                                       0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = ~0u;
    for (int i = 0; i < n; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#define STBIW_MALLOC(n) bump_take((size_t)(n))
#define STBIW_REALLOC_SIZED(p, old, n) bump_grow(p, (size_t)(old), (size_t)(n))
#define STBIW_FREE(p) ((void)(p))
#define STBIW_ASSERT(x) BB_ASSERT(x)
#define STBIW_CRC32(data, n) crc32((data), (n))
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-function" /* formats left out; gcc asks at the file's end, so no pop */
#include <stb/stb_image_write.h>

#define MAX_BYTES ((size_t)1 << 28) /* of filtered pixels: far below where stb's ints end */
#define HEAD_BYTES 33               /* signature and IHDR */

/* Bytes after filtering: one more per row. 0: empty or too large. */
static size_t filtered_bytes(const bb_image *img)
{
    uint64_t row = (uint64_t)4 * img->width + 1;
    if (!img->width || !img->height || row > MAX_BYTES || row * img->height > MAX_BYTES) return 0;
    return (size_t)row * img->height;
}

/* A stretchy buffer grown push by push has room for 2, 5, 11, 23 … elements (twice and one more), plus two ints. */
static size_t stretchy(size_t room, size_t each) { return bb_align_up(room * each + 2 * sizeof(int), GRAIN); }

/* All that stb takes for n filtered bytes, none of it ever given back:
 * - the filtered bytes and one row;
 * - the hash table: chains of at most 16 (twice the quality 8) pointers, so rooms 2, 5, 11, 23 at the most each. A
 *   chain costs most per push at two pushes, so n pushes cannot need more than n/2 times rooms 2 and 5 either;
 * - the compressed bytes: no more than p = n + n/8 + 12, as a byte costs at most 9 bits (a match of three 25); rooms
 *   below 2p + 1 add up to less than 4p + 4, and there are fewer than 32 of them;
 * - the file: p and 57 bytes of chunks. */
size_t bb_png_scratch(const bb_image *img)
{
    size_t n = filtered_bytes(img);
    if (!n) return 0;
    size_t two = stretchy(2, sizeof(void *)) + stretchy(5, sizeof(void *));
    size_t chains = stbiw__ZHASH * (two + stretchy(11, sizeof(void *)) + stretchy(23, sizeof(void *)));
    size_t by_pushes = (n / 2 + 1) * two;
    size_t p = n + n / 8 + 12;
    return bb_align_up(n, GRAIN) + bb_align_up((size_t)4 * img->width, GRAIN) +
           stbiw__ZHASH * sizeof(void *) + (chains < by_pushes ? chains : by_pushes) +
           4 * p + 4 + 32 * (2 * sizeof(int) + GRAIN) + bb_align_up(p + 57, GRAIN) + BB_PNG_TEXT + GRAIN;
}

/* ---- text chunks ---- */

static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n]) n++;
    return n;
}

/* Keywords: 1 to 79 printable characters, no space at the ends; we take ASCII only. */
static bool good_key(const char *key)
{
    size_t n = length(key);
    for (size_t i = 0; i < n; i++) {
        if (key[i] < 32 || key[i] > 126) return false;
    }
    return n >= 1 && n <= 79 && key[0] != ' ' && key[n - 1] != ' ';
}

static bool is_ascii(const char *s)
{
    while (*s && (uint8_t)*s < 128) s++;
    return !*s;
}

static uint8_t *put_u32(uint8_t *to, uint32_t v)
{
    for (int shift = 24; shift >= 0; shift -= 8) *to++ = (uint8_t)(v >> shift);
    return to;
}

/* tEXt is Latin-1, iTXt is UTF-8: plain ASCII goes into the first, as more readers know it. Five zeros after iTXt's
 * key: end of key, uncompressed, method, no language, no translated key. */
static size_t chunk_bytes(const char *key, const char *value)
{
    return 12 + length(key) + (is_ascii(value) ? 1 : 5) + length(value);
}

static uint8_t *put_chunk(uint8_t *to, const char *key, const char *value)
{
    size_t key_bytes = length(key), value_bytes = length(value), zeros = is_ascii(value) ? 1 : 5;
    to = put_u32(to, (uint32_t)(key_bytes + zeros + value_bytes));
    uint8_t *body = to;
    memcpy(to, zeros == 1 ? "tEXt" : "iTXt", 4);
    memcpy(to + 4, key, key_bytes);
    memset(to + 4 + key_bytes, 0, zeros);
    memcpy(to + 4 + key_bytes + zeros, value, value_bytes);
    to += 4 + key_bytes + zeros + value_bytes;
    return put_u32(to, crc32(body, (int)(to - body)));
}

bb_status bb_png(const bb_image *img, const char *const *text, void *scratch, size_t size, const uint8_t **png,
                 size_t *png_bytes)
{
    size_t stride = img->stride ? img->stride : (size_t)4 * img->width, need = bb_png_scratch(img), text_bytes = 0;
    if (!need || stride < (size_t)4 * img->width || stride > MAX_BYTES) return BB_ERR_ARGUMENT;
    for (const char *const *t = text; t && t[0]; t += 2) {
        if (!t[1] || !good_key(t[0])) return BB_ERR_ARGUMENT;
        text_bytes += chunk_bytes(t[0], t[1]);
        if (text_bytes > BB_PNG_TEXT) return BB_ERR_SPACE;
    }
    if (!scratch || size < need) return BB_ERR_SPACE;

    size_t skip = (size_t)(-(uintptr_t)scratch & (GRAIN - 1));
    heap = (bump){(uint8_t *)scratch + skip, size - skip};
    int len = 0;
    uint8_t *out = stbi_write_png_to_mem(img->rgba, (int)stride, (int)img->width, (int)img->height, 4, &len);
    heap = (bump){0};
    BB_ASSERT(out);

    /* The file is the last block taken and the room for text lies behind it. */
    memmove(out + HEAD_BYTES + text_bytes, out + HEAD_BYTES, (size_t)len - HEAD_BYTES);
    uint8_t *to = out + HEAD_BYTES;
    for (const char *const *t = text; t && t[0]; t += 2) to = put_chunk(to, t[0], t[1]);
    *png = out;
    *png_bytes = (size_t)len + text_bytes;
    return BB_OK;
}
