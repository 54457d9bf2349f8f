/* Files of torch.save: what PyTorch wrote (tests/fixtures/make_torch.py) is read right or refused by name; what nobody
 * should have written, made here, is refused: cut anywhere, any byte changed, entries that overlap, sizes near 2^32 and
 * 2^64, dictionaries that hold themselves. Copies end at the end of their memory, so that a sanitizer sees overruns. */
#define _XOPEN_SOURCE 700 /* mkdtemp */

#include "check.h"

#include "import/pickle.h"
#include "import/safetensors.h"
#include "import/torch_file.h"
#include "import/weights.h"
#include "import/zip.h"
#include "io.h"

#include <unistd.h>

#define FILES BB_TESTS_DIR "/fixtures/torch/"

static bb_st_file reference;

/* A copy in memory of exactly its size. */
static uint8_t *copy_file(const char *name, size_t *n)
{
    char path[512];
    bb_file f;
    snprintf(path, sizeof path, FILES "%s", name);
    CHECK(bb_file_open(&f, path, NULL) == BB_OK, "%s", path);
    uint8_t *copy = malloc(f.size);
    memcpy(copy, f.data, f.size);
    *n = f.size;
    bb_file_close(&f);
    return copy;
}

static bb_status parse(const uint8_t *data, size_t n, bb_error *err)
{
    bb_torch_file t;
    *err = (bb_error){.text = ""};
    bb_status st = bb_torch_parse(&t, data, n, "x.bin", err);
    if (st >= 0) bb_torch_free(&t);
    return st;
}

static void expect(const uint8_t *data, size_t n, bb_status status, const char *what)
{
    bb_error err;
    bb_status st = parse(data, n, &err);
    CHECK(st == status && strstr(err.text, what), "status %d, not %d for \"%s\": %s", st, status, what, err.text);
}

/* ---- what PyTorch wrote ---- */

static void compare(const bb_tensor *t, const char *name)
{
    const bb_st_tensor *want = bb_safetensors_find(&reference.st, name);
    float a[128], b[128];
    CHECK(want && t && t->count == want->count && t->count <= 128 && t->rank == want->rank, "%s", name);
    if (!want || !t || t->count != want->count) return;
    bb_tensor_to_f32(t, a);
    bb_st_to_f32(want, b);
    CHECK(!memcmp(a, b, t->count * sizeof *a), "%s has other numbers", name);
    CHECK(!memcmp(t->shape, want->shape, sizeof t->shape), "%s has another shape", name);
}

/* As the weights of a component: prefixes are gone, and so is all that is not the network. */
static void expect_network(const char *name)
{
    char folder[] = "/tmp/bitbrush-torch-XXXXXX", link[128];
    bb_weights w;
    bb_error err = {.text = ""};
    char path[512];
    CHECK(mkdtemp(folder) != NULL, "mkdtemp");
    snprintf(link, sizeof link, "%s/diffusion_pytorch_model.bin", folder);
    snprintf(path, sizeof path, FILES "%s", name);
    CHECK(symlink(path, link) == 0, "symlink");
    bb_status st = bb_weights_open(&w, folder, &err);
    CHECK(st == BB_OK, "%s: %s", name, err.text);
    if (st >= 0) {
        CHECK(w.n == reference.st.n, "%s: %zu tensors", name, w.n);
        for (size_t i = 0; i < reference.st.n; i++) {
            const char *tensor = reference.st.tensors[i].name;
            compare(bb_weights_find(&w, tensor), tensor);
        }
        bb_weights_close(&w);
    }
    unlink(link);
    rmdir(folder);
}

static void expect_refused(const char *name, bb_status status, const char *what)
{
    size_t n;
    uint8_t *data = copy_file(name, &n);
    expect(data, n, status, what);
    free(data);
}

static void test_files(void)
{
    expect_network("plain.bin");
    expect_network("odd.bin");      /* views, strides, a Parameter, F16, BF16, F64; protocol 5 */
    expect_network("training.bin"); /* the average, not the network beside it */
    expect_network("wrapped.bin");
    expect_refused("legacy.bin", BB_ERR_UNSUPPORTED, "before 1.6");
    expect_refused("evil.bin", BB_ERR_UNSUPPORTED, "names posix.system");
    expect_refused("set.bin", BB_ERR_UNSUPPORTED, "EMPTY_SET");
    expect_refused("module.bin", BB_ERR_UNSUPPORTED, "names torch.nn.modules.module.Module");
    expect_refused("list.bin", BB_ERR_UNSUPPORTED, "state_dict");
    expect_refused("int8.bin", BB_ERR_UNSUPPORTED, "torch.CharStorage");
    expect_refused("reference.safetensors", BB_ERR_CORRUPT, "no zip archive");
}

/* ---- damage ---- */

static void test_truncation(void)
{
    size_t n;
    bb_error err;
    uint8_t *data = copy_file("odd.bin", &n);
    for (size_t length = 0; length < n; length++) {
        uint8_t *cut = malloc(length + 1);
        memcpy(cut + 1, data, length);
        bb_status st = parse(cut + 1, length, &err);
        CHECK(st < 0 && *err.text, "%zu of %zu bytes are taken", length, n);
        free(cut);
    }
    free(data);
}

/* Any byte of the file made any of a few others: refused, or the same numbers (a date, an unused field). */
static void test_changed_bytes(void)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff, 0x5a};
    size_t n, refused = 0;
    bb_error err;
    uint8_t *data = copy_file("odd.bin", &n);
    for (size_t at = 0; at < n; at++) {
        for (size_t i = 0; i < BB_COUNT(masks); i++) {
            data[at] ^= masks[i];
            refused += parse(data, n, &err) < 0;
            data[at] ^= masks[i];
        }
    }
    CHECK(refused > n, "only %zu changes of %zu noticed", refused, 4 * n);
    free(data);
}

/* The pickle alone, which its checksum would protect above: cut, and every byte made every other. */
static void test_pickle(void)
{
    size_t n;
    bb_zip z;
    bb_pickle p;
    bb_error err = {.text = ""};
    uint8_t *data = copy_file("odd.bin", &n);
    CHECK(bb_zip_open(&z, data, n, "odd.bin", &err) == BB_OK, "%s", err.text);
    const bb_zip_entry *e = bb_zip_find(&z, "odd", 3, "data.pkl");
    CHECK(e && e->size > 400, "data.pkl");
    uint8_t *pkl = malloc(e->size);
    memcpy(pkl, e->data, e->size);
    for (size_t length = 0; length < e->size; length++) {
        uint8_t *cut = malloc(length + 1);
        memcpy(cut + 1, pkl, length);
        CHECK(bb_pickle_read(&p, cut + 1, length, "x", &err) < 0, "%zu of %zu bytes", length, e->size);
        free(cut);
    }
    size_t fine = 0;
    for (size_t at = 0; at < e->size; at++) {
        for (int v = 0; v < 256; v++) {
            uint8_t was = pkl[at];
            pkl[at] = (uint8_t)v;
            if (bb_pickle_read(&p, pkl, e->size, "x", &err) >= 0) {
                fine++;
                bb_pickle_free(&p);
            }
            pkl[at] = was;
        }
    }
    CHECK(fine >= e->size, "%zu changes are taken", fine); /* among them all that change nothing */
    free(pkl);
    bb_zip_close(&z);
    free(data);
}

/* ---- archives made here ---- */

typedef struct maker {
    uint8_t bytes[4096], central[2048];
    size_t n, central_n, directory, entries;
} maker;

static void put(uint8_t *at, size_t *n, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) at[(*n)++] = i < 8 ? (uint8_t)(v >> 8 * i) : 0;
}

static uint32_t crc_of(const uint8_t *p, size_t n)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* One stored entry and its line of the directory; with zip64 sizes if asked for. */
static void add(maker *m, const char *name, const void *data, size_t size, bool zip64)
{
    size_t at = m->n, length = strlen(name);
    uint32_t crc = crc_of(data, size);
    put(m->bytes, &m->n, 0x04034b50, 4);
    put(m->bytes, &m->n, 0, 10);
    put(m->bytes, &m->n, crc, 4);
    put(m->bytes, &m->n, size | (uint64_t)size << 32, 8);
    put(m->bytes, &m->n, length, 4);
    memcpy(m->bytes + m->n, name, length);
    memcpy(m->bytes + m->n + length, data, size);
    m->n += length + size;
    put(m->central, &m->central_n, 0x02014b50, 4);
    put(m->central, &m->central_n, 0, 12);
    put(m->central, &m->central_n, crc, 4);
    put(m->central, &m->central_n, zip64 ? ~(uint64_t)0 : size | (uint64_t)size << 32, 8);
    put(m->central, &m->central_n, length | (zip64 ? (uint64_t)28 << 16 : 0), 6);
    put(m->central, &m->central_n, 0, 8);
    put(m->central, &m->central_n, zip64 ? 0xffffffffu : at, 4);
    memcpy(m->central + m->central_n, name, length);
    m->central_n += length;
    if (zip64) {
        put(m->central, &m->central_n, 1 | 24 << 16, 4);
        put(m->central, &m->central_n, size, 8);
        put(m->central, &m->central_n, size, 8);
        put(m->central, &m->central_n, at, 8);
    }
    m->entries++;
}

static void finish(maker *m, bool zip64)
{
    m->directory = m->n;
    memcpy(m->bytes + m->n, m->central, m->central_n);
    m->n += m->central_n;
    size_t at = m->n;
    if (zip64) {
        put(m->bytes, &m->n, 0x06064b50, 4);
        put(m->bytes, &m->n, 44, 8);
        put(m->bytes, &m->n, 0, 8);
        put(m->bytes, &m->n, 0, 4);
        put(m->bytes, &m->n, m->entries, 8);
        put(m->bytes, &m->n, m->entries, 8);
        put(m->bytes, &m->n, m->central_n, 8);
        put(m->bytes, &m->n, m->directory, 8);
        put(m->bytes, &m->n, 0x07064b50, 4);
        put(m->bytes, &m->n, 0, 4);
        put(m->bytes, &m->n, at, 8);
        put(m->bytes, &m->n, 1, 4);
    }
    put(m->bytes, &m->n, 0x06054b50, 4);
    put(m->bytes, &m->n, 0, 4);
    put(m->bytes, &m->n, zip64 ? 0xffffffffu : m->entries | m->entries << 16, 4);
    put(m->bytes, &m->n, zip64 ? ~(uint64_t)0 : m->central_n | (uint64_t)m->directory << 32, 8);
    put(m->bytes, &m->n, 0, 2);
}

/* Offset, sizes and strides of a tensor as pickle instructions; storage of `numel` floats. */
#define STORAGE(numel) "ctorch._utils\n_rebuild_tensor_v2\n((U\7storagectorch\nFloatStorage\nU\0010U\3cpu" numel "tQ"
#define NO_HOOKS "\x89" "N" "tR"
#define TENSOR(numel, offset, size, stride) "}U\1w" STORAGE(numel) offset size stride NO_HOOKS "s."

static const float four[4] = {1, 2, 3, 4};

static void build(maker *m, const char *pickle, size_t n, bool zip64)
{
    *m = (maker){0};
    add(m, "a/data.pkl", pickle, n, zip64);
    add(m, "a/data/0", four, sizeof four, zip64);
    finish(m, zip64);
}

#define EXPECT_PICKLE(pickle, status, what)               \
    do {                                                  \
        maker m_;                                         \
        build(&m_, pickle, sizeof pickle - 1, false);     \
        expect(m_.bytes, m_.n, status, what);             \
    } while (0)

static void test_made_pickles(void)
{
    const bb_status bad = BB_ERR_CORRUPT, no = BB_ERR_UNSUPPORTED;
    EXPECT_PICKLE(TENSOR("K\4", "K\0", "K\2K\2\x86", "K\2K\1\x86"), BB_OK, "");
    EXPECT_PICKLE(TENSOR("K\4", "K\1", "K\3\x85", "K\1\x85"), BB_OK, "");
    EXPECT_PICKLE(TENSOR("K\4", "K\1", "K\4\x85", "K\1\x85"), bad, "larger than its storage");
    EXPECT_PICKLE(TENSOR("K\4", "K\0", "K\3\x85", "K\2\x85"), bad, "larger than its storage");
    EXPECT_PICKLE(TENSOR("K\4", "K\0", "K\5\x85", "K\0\x85"), bad, "larger than its storage"); /* one number, 5 times */
    EXPECT_PICKLE(TENSOR("K\4", "K\4", ")", ")"), bad, "larger than its storage");
    EXPECT_PICKLE(TENSOR("K\4", "K\0", "K\0K\2\x86", "K\2K\1\x86"), BB_OK, "");
    EXPECT_PICKLE(TENSOR("K\5", "K\0", "K\4\x85", "K\1\x85"), bad, "too short"); /* the record has four */
    EXPECT_PICKLE(TENSOR("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\0", "K\4\x85", "K\1\x85"), bad, "too short");
    EXPECT_PICKLE(TENSOR("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\0",
                         "\x8a\x05\0\0\0\0\1\x8a\x05\0\0\0\0\1\x86", "K\1K\1\x86"), bad, "larger than its storage");
    EXPECT_PICKLE(TENSOR("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\0", "K\4\x85",
                         "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"), bad, "larger than its storage");
    EXPECT_PICKLE(TENSOR("K\4", "J\xff\xff\xff\xff", "K\4\x85", "K\1\x85"), bad, "is not (storage");
    EXPECT_PICKLE(TENSOR("K\4", "K\0", "J\xff\xff\xff\xff\x85", "K\1\x85"), bad, "no number");
#define NINE "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"
    EXPECT_PICKLE(TENSOR("K\4", "K\0", NINE, NINE), bad, "is not (storage");
    EXPECT_PICKLE(TENSOR("J\xff\xff\xff\xff", "K\0", "K\4\x85", "K\1\x85"), bad, "no storage");
    /* a dictionary that holds itself under two names; one that is its own key; nothing to find in them */
    EXPECT_PICKLE("}q\0(U\1ah\0U\1bh\0u.", no, "state_dict");
    EXPECT_PICKLE("}q\0h\0h\0s.", no, "state_dict");
    EXPECT_PICKLE("(q\0.", bad, "stack is empty");
    EXPECT_PICKLE("}(.", bad, "other than one value");
    EXPECT_PICKLE("h\0.", bad, "never set");
    EXPECT_PICKLE("}r\xff\xff\xff\xff.", bad, "memo number");
    EXPECT_PICKLE("X\xff\xff\xff\xff" "abc.", bad, "ends outside");
    EXPECT_PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff" "abc.", bad, "ends outside");
    EXPECT_PICKLE("\x8b\xff\xff\xff\xff" "abc.", bad, "64 bits");
    EXPECT_PICKLE("K\1K\2s.", bad, "no pairs");
    EXPECT_PICKLE("}(K\1u.", bad, "no pairs");
    EXPECT_PICKLE("}(K\1K\2s.", bad, "no pairs");
    EXPECT_PICKLE("}K\1\x85R.", bad, "no function");
    EXPECT_PICKLE("ccollections\nOrderedDict\nK\1\x85R.", bad, "other arguments");
    EXPECT_PICKLE("\x80\6}.", no, "protocol 6");
    EXPECT_PICKLE("cos\nsystem\nU\2ls\x85R.", no, "names os.system");
    EXPECT_PICKLE("(ios\nsystem\n.", no, "INST");
    EXPECT_PICKLE("\x82\1.", no, "EXT1");
    EXPECT_PICKLE("c\x1b[31m\n\n.", no, "names ?[31m.");
}

/* Puts v in `bytes` bytes of a small sound archive, at `at` from its end record, directory or begin. */
static void expect_patch(char from, size_t at, uint64_t v, size_t bytes, bb_status status, const char *what)
{
    static const char pickle[] = TENSOR("K\4", "K\0", "K\4\x85", "K\1\x85");
    maker m;
    build(&m, pickle, sizeof pickle - 1, false);
    size_t base = from == 'e' ? m.n - 22 : from == 'd' ? m.directory : 0, where = base + at;
    put(m.bytes, &where, v, bytes);
    expect(m.bytes, m.n, status, what);
}

static void test_made_archives(void)
{
    static const char pickle[] = TENSOR("K\4", "K\0", "K\4\x85", "K\1\x85");
    const bb_status bad = BB_ERR_CORRUPT, no = BB_ERR_UNSUPPORTED;
    maker m;
    build(&m, pickle, sizeof pickle - 1, true);
    expect(m.bytes, m.n, BB_OK, "");
    for (size_t at = m.directory; at < m.n; at++) { /* zip64: any byte of directory and end records */
        bb_error err;
        m.bytes[at] ^= 0xff;
        parse(m.bytes, m.n, &err);
        m.bytes[at] ^= 0xff;
    }
    expect_patch('e', 0, 0x06054b50, 4, BB_OK, "");
    expect_patch('e', 4, 1, 2, no, "several disks");
    expect_patch('e', 10, 0xfffe, 2, bad, "more entries");
    expect_patch('e', 12, 0xffffffff, 4, bad, "outside the file");
    expect_patch('e', 16, 0xffffffff, 4, bad, "outside the file");
    expect_patch('d', 8, 1, 2, no, "encrypted");
    expect_patch('d', 10, 8, 2, no, "compressed");
    expect_patch('d', 16, 0x12345678, 4, bad, "checksum");
    expect_patch('d', 20, 0xfffffff0fffffff0, 8, bad, "outside the file");
    expect_patch('d', 20, 0xffffffffffffffff, 8, bad, "zip64 sizes");
    expect_patch('d', 20, 3, 4, bad, "two different sizes");
    expect_patch('d', 28, 0, 2, bad, "directory entry");
    expect_patch('d', 30, 0xffff, 2, bad, "directory entry");
    expect_patch('d', 42, 0xfffffffe, 4, bad, "not where the directory says");
    expect_patch('d', 46, 'b', 1, bad, "does not agree");
    expect_patch('b', 26, 0xffff, 2, bad, "does not agree");
    expect_patch('b', 30, 'b', 1, bad, "does not agree");
    m = (maker){0};
    add(&m, "a/data.pkl", pickle, sizeof pickle - 1, false);
    add(&m, "a/data.pkl", pickle, sizeof pickle - 1, false);
    finish(&m, false);
    expect(m.bytes, m.n, bad, "twice");
    m = (maker){0}; /* the second entry inside the first */
    uint8_t inner[64];
    maker other = {0};
    add(&other, "a/data/0", four, sizeof four, false);
    memcpy(inner, other.bytes, other.n);
    add(&m, "a/x", inner, other.n, false);
    size_t at = 42, line = m.central_n;
    memcpy(m.central + m.central_n, other.central, other.central_n);
    m.central_n += other.central_n;
    at += line;
    put(m.central, &at, 33, 4);
    m.entries++;
    finish(&m, false);
    expect(m.bytes, m.n, bad, "overlap");
    m = (maker){0};
    add(&m, "b/x", four, 4, false);
    finish(&m, false);
    expect(m.bytes, m.n, no, "without data.pkl");
    m = (maker){0};
    add(&m, "a/data.pkl", pickle, sizeof pickle - 1, false);
    add(&m, "a/byteorder", "big", 3, false);
    finish(&m, false);
    expect(m.bytes, m.n, no, "little-endian");
    m = (maker){0};
    add(&m, "a/data.pkl", pickle, sizeof pickle - 1, false);
    finish(&m, false);
    expect(m.bytes, m.n, bad, "data/0 is missing");
}

int main(void)
{
    bb_error err = {.text = ""};
    CHECK(bb_st_file_open(&reference, FILES "reference.safetensors", &err) == BB_OK, "%s", err.text);
    test_files();
    test_truncation();
    test_changed_bytes();
    test_pickle();
    test_made_pickles();
    test_made_archives();
    bb_st_file_close(&reference);
    return check_done();
}
