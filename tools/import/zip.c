/* See zip.h. The central directory at the end is what counts; local headers only say where data begins. */
#include "import/zip.h"

#include <stdlib.h>
#include <string.h>

#define END_BYTES 22u
#define END64_LOCATOR_BYTES 20u
#define END64_BYTES 56u
#define CENTRAL_BYTES 46u
#define LOCAL_BYTES 30u
#define MAX_COMMENT 65535u

static uint64_t word(const uint8_t *p, uint32_t bytes)
{
    uint64_t v = 0;
    for (uint32_t i = bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static uint32_t u16(const uint8_t *p) { return (uint32_t)word(p, 2); }
static uint32_t u32(const uint8_t *p) { return (uint32_t)word(p, 4); }

static bb_status damaged(const bb_zip *z, const char *what, bb_error *err)
{
    return bb_fail(err, BB_ERR_CORRUPT, "%s: zip archive: %s; the file is damaged or cut short", z->file, what);
}

static bb_status unsupported(const bb_zip *z, const char *what, bb_error *err)
{
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: zip archive: %s; torch.save does not write such files", z->file, what);
}

bool bb_zip_looks_like(const uint8_t *data, size_t size) { return size >= 4 && u32(data) == 0x04034b50; }

/* ---- the end records ---- */

typedef struct directory { uint64_t entries, size, at; } directory;

/* [at, at + n) lies in the first `limit` bytes. */
static bool inside(uint64_t at, uint64_t n, uint64_t limit) { return n <= limit && at <= limit - n; }

/* The record behind which only its comment follows; the last one that fits. */
static const uint8_t *find_end(const bb_zip *z)
{
    for (size_t back = END_BYTES; back <= z->size && back <= END_BYTES + MAX_COMMENT; back++) {
        const uint8_t *p = z->data + z->size - back;
        if (u32(p) == 0x06054b50 && u16(p + 20) == back - END_BYTES) return p;
    }
    return NULL;
}

/* limit: the directory must end there or before. */
static bb_status read_end(const bb_zip *z, directory *d, uint64_t *limit, bb_error *err)
{
    const uint8_t *end = find_end(z);
    if (!end) return damaged(z, "it has no end record", err);
    *d = (directory){u16(end + 10), u32(end + 12), u32(end + 16)};
    bool one_disk = !u16(end + 4) && !u16(end + 6);
    *limit = (uint64_t)(end - z->data);
    const uint8_t *locator = *limit >= END64_LOCATOR_BYTES ? end - END64_LOCATOR_BYTES : NULL;
    if (locator && u32(locator) == 0x07064b50) {
        uint64_t at = word(locator + 8, 8);
        *limit -= END64_LOCATOR_BYTES;
        if (!inside(at, END64_BYTES, *limit) || u32(z->data + at) != 0x06064b50) {
            return damaged(z, "its zip64 end record is not where it should be", err);
        }
        const uint8_t *end64 = z->data + at;
        *limit = at;
        *d = (directory){word(end64 + 32, 8), word(end64 + 40, 8), word(end64 + 48, 8)};
        one_disk = !u32(end64 + 16) && !u32(end64 + 20) && u32(locator + 16) <= 1;
    }
    if (!one_disk) return unsupported(z, "it is spread over several disks", err);
    if (!inside(d->at, d->size, *limit)) return damaged(z, "its directory lies outside the file", err);
    if (d->entries > d->size / CENTRAL_BYTES) return damaged(z, "it claims more entries than its directory holds", err);
    return BB_OK;
}

/* ---- entries ---- */

/* Sizes and offset of 0xffffffff are 8-byte numbers in extra field 1, in this order. False if it is too short. */
static bool read_zip64(const uint8_t *extra, size_t n, uint64_t *size, uint64_t *packed, uint64_t *at)
{
    uint64_t *const wanted[] = {size, packed, at};
    const uint8_t *p = NULL;
    size_t left = 0;
    while (n >= 4 && !p) {
        size_t length = u16(extra + 2);
        if (length > n - 4) return false;
        if (u16(extra) == 1) p = extra + 4, left = length;
        extra += 4 + length;
        n -= 4 + length;
    }
    for (size_t i = 0; i < BB_COUNT(wanted); i++) {
        if (*wanted[i] != 0xffffffffu) continue;
        if (left < 8) return false;
        *wanted[i] = word(p, 8);
        p += 8;
        left -= 8;
    }
    return true;
}

/* One directory entry at p, with n bytes left there; limit: where data must end. Advances *used. */
static bb_status read_entry(const bb_zip *z, bb_zip_entry *e, const uint8_t *p, size_t n, uint64_t limit, size_t *used,
                            bb_error *err)
{
    if (n < CENTRAL_BYTES || u32(p) != 0x02014b50) return damaged(z, "a directory entry is broken", err);
    size_t name = u16(p + 28), extra = u16(p + 30), comment = u16(p + 32);
    *used = CENTRAL_BYTES + name + extra + comment;
    if (*used > n || !name) return damaged(z, "a directory entry is broken", err);
    uint64_t packed = u32(p + 20), size = u32(p + 24), at = u32(p + 42);
    if (!read_zip64(p + CENTRAL_BYTES + name, extra, &size, &packed, &at)) {
        return damaged(z, "a directory entry lacks its zip64 sizes", err);
    }
    if (u16(p + 8) & 0x41) return unsupported(z, "an entry is encrypted", err);
    if (u16(p + 10) != 0) return unsupported(z, "an entry is compressed", err);
    if (size != packed) return damaged(z, "a stored entry has two different sizes", err);
    if (!inside(at, LOCAL_BYTES, limit) || u32(z->data + at) != 0x04034b50) {
        return damaged(z, "an entry is not where the directory says", err);
    }
    const uint8_t *local = z->data + at;
    uint64_t begin = at + LOCAL_BYTES + u16(local + 26) + u16(local + 28);
    if (u16(local + 26) != name || !inside(begin, size, limit) ||
        memcmp(local + LOCAL_BYTES, p + CENTRAL_BYTES, name) != 0) {
        return damaged(z, "an entry does not agree with the directory, or ends outside the file", err);
    }
    *e = (bb_zip_entry){.name = (const char *)p + CENTRAL_BYTES, .name_length = name, .data = z->data + begin,
                        .size = (size_t)size, .crc = u32(p + 16), .begin = (size_t)at};
    return BB_OK;
}

static int by_place(const void *a, const void *b)
{
    const bb_zip_entry *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int compare_names(const char *a, size_t n, const char *b, size_t m)
{
    int order = memcmp(a, b, n < m ? n : m);
    return order ? order : n < m ? -1 : n > m;
}

static int by_name(const void *a, const void *b)
{
    const bb_zip_entry *x = a, *y = b;
    return compare_names(x->name, x->name_length, y->name, y->name_length);
}

static bb_status check_entries(bb_zip *z, bb_error *err)
{
    bb_zip_entry *e = z->entries;
    if (z->n) qsort(e, z->n, sizeof *e, by_place);
    for (size_t i = 1; i < z->n; i++) {
        if (e[i].begin < (size_t)(e[i - 1].data - z->data) + e[i - 1].size) return damaged(z, "entries overlap", err);
    }
    if (z->n) qsort(e, z->n, sizeof *e, by_name);
    for (size_t i = 1; i < z->n; i++) {
        if (!by_name(&e[i - 1], &e[i])) return damaged(z, "an entry occurs twice", err);
    }
    return BB_OK;
}

static bb_status read_directory(bb_zip *z, bb_error *err)
{
    directory d = {0};
    uint64_t limit = 0;
    BB_TRY(read_end(z, &d, &limit, err));
    z->entries = calloc((size_t)d.entries + 1, sizeof *z->entries);
    if (!z->entries) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", z->file);
    const uint8_t *p = z->data + d.at;
    size_t left = (size_t)d.size, used = 0;
    for (; z->n < d.entries; z->n++, p += used, left -= used) {
        BB_TRY(read_entry(z, &z->entries[z->n], p, left, d.at, &used, err));
    }
    return check_entries(z, err);
}

bb_status bb_zip_open(bb_zip *z, const uint8_t *data, size_t size, const char *name, bb_error *err)
{
    *z = (bb_zip){.data = data, .size = size, .file = name};
    bb_status status = read_directory(z, err);
    if (status < 0) bb_zip_close(z);
    return status;
}

void bb_zip_close(bb_zip *z)
{
    free(z->entries);
    *z = (bb_zip){0};
}

/* ---- looking up and checking ---- */

typedef struct wanted { const char *prefix; size_t prefix_length; const char *name; } wanted;

static int by_wanted(const void *key, const void *entry)
{
    const wanted *w = key;
    const bb_zip_entry *e = entry;
    size_t n = w->prefix_length, length = strlen(w->name), rest = e->name_length;
    int order = compare_names(w->prefix, n, e->name, rest < n ? rest : n);
    if (order) return order;
    rest -= n;
    if (!rest || e->name[n] != '/') return rest ? '/' - (int)(unsigned char)e->name[n] : 1;
    return compare_names(w->name, length, e->name + n + 1, rest - 1);
}

const bb_zip_entry *bb_zip_find(const bb_zip *z, const char *prefix, size_t prefix_length, const char *name)
{
    wanted w = {prefix, prefix_length, name};
    return z->n ? bsearch(&w, z->entries, z->n, sizeof *z->entries, by_wanted) : NULL;
}

/* CRC-32 of IEEE 802.3, reflected, a nibble at a time: tables of 16 for each of 8 nibbles of a word. */
static uint32_t crc32(const uint8_t *p, size_t n)
{
    uint32_t table[8][16], crc = ~0u;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 4; bit++) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
        table[0][i] = c;
    }
    for (uint32_t t = 1; t < 8; t++) {
        for (uint32_t i = 0; i < 16; i++) table[t][i] = table[t - 1][i] >> 4 ^ table[0][table[t - 1][i] & 15];
    }
    for (; n >= 4; n -= 4, p += 4) {
        uint32_t w = crc ^ u32(p);
        crc = 0;
        for (uint32_t t = 0; t < 8; t++) crc ^= table[7 - t][w >> 4 * t & 15];
    }
    for (; n; n--, p++) {
        crc ^= *p;
        crc = crc >> 4 ^ table[0][crc & 15];
        crc = crc >> 4 ^ table[0][crc & 15];
    }
    return ~crc;
}

bb_status bb_zip_verify(const bb_zip *z, const bb_zip_entry *e, bb_error *err)
{
    if (crc32(e->data, e->size) == e->crc) return BB_OK;
    char name[97] = "";
    memcpy(name, e->name, e->name_length < 96 ? e->name_length : 96);
    return bb_fail(err, BB_ERR_CORRUPT, "%s: zip archive: entry %s does not have its checksum; the file is damaged, "
                   "fetch it again", z->file, name);
}
