/* Files in and out: the safetensors reader on hostile headers and cut files, the writer, SHA-256, atomic writing. */
#define _XOPEN_SOURCE 700 /* mkdtemp, nftw */

#include "check.h"

#include "base/sha256.h"
#include "import/safetensors.h"
#include "io.h"

#include <ftw.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#define FIXTURE BB_TESTS_DIR "/golden/unet2d-class/diffusion_pytorch_model.safetensors"

/* Every cut is refused by the reader; the copy is exactly as long as the cut, so that sanitizers see a read behind. */
static void test_truncated(void)
{
    bb_error err = {.text = ""};
    bb_file f;
    uint64_t header;
    CHECK(bb_file_open(&f, FIXTURE, &err) == BB_OK, "%s", err.text);
    memcpy(&header, f.data, 8);
    for (size_t cut = 0; cut < f.size; cut += cut < 64 ? 1 : cut < header + 64 ? 97 : 9973) {
        uint8_t *copy = malloc(cut + !cut);
        bb_st_file st;
        memcpy(copy, f.data, cut);
        bb_status s = bb_st_file_parse(&st, copy, cut, "cut.safetensors", &err);
        CHECK(s == BB_ERR_SHORT, "cut at %zu: status %d: %s", cut, s, err.text);
        CHECK(strstr(err.text, "cut.safetensors"), "cut at %zu: %s", cut, err.text);
        free(copy);
    }
    bb_file_close(&f);
}

/* The header with `data` bytes behind it. */
static bb_status parse(const char *header, size_t data, bb_error *err)
{
    uint64_t n = strlen(header);
    uint8_t *file = calloc(8 + (size_t)n + data, 1);
    bb_st_file st;
    *err = (bb_error){.text = ""};
    memcpy(file, &n, 8);
    memcpy(file + 8, header, (size_t)n);
    bb_status s = bb_st_file_parse(&st, file, 8 + (size_t)n + data, "x.safetensors", err);
    if (s == BB_OK) bb_st_file_close(&st);
    free(file);
    return s;
}

static void test_headers(void)
{
    static const struct { const char *header; size_t data; bb_status status; const char *needle; } cases[] = {
        {"{}", 0, BB_OK, ""},
        {"{\"__metadata__\":{\"a\":\"b\"}}   ", 0, BB_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, BB_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 24, BB_OK, ""}, /* gaps are fine */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, BB_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, BB_OK, ""},
        {"[]", 0, BB_ERR_CORRUPT, "JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", 8, BB_ERR_CORRUPT, "JSON"},
        {"{\"a\":3}", 8, BB_ERR_CORRUPT, "tensor a"},
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, BB_ERR_CORRUPT, "no name"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, BB_ERR_CORRUPT, "tensor a"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2]}}", 8, BB_ERR_CORRUPT, "tensor a"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"b\":1}}", 8, BB_ERR_CORRUPT, "tensor a"},
        {"{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, BB_ERR_CORRUPT, "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, BB_ERR_CORRUPT, "dimension"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, BB_ERR_CORRUPT, "dimension"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, BB_ERR_CORRUPT, "does not match"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, BB_ERR_CORRUPT, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, BB_ERR_CORRUPT, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, BB_ERR_SHORT, "1 bytes behind"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[18446744073709551608,18446744073709551615]}}", 8,
         BB_ERR_SHORT, "tensor a"},
        /* 2^62·4 elements of 4 bytes are 0 modulo 2^64 */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 8, BB_ERR_CORRUPT,
         "larger than memory"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, BB_ERR_UNSUPPORTED,
         "8 dimensions"},
        {"{\"a\":{\"dtype\":\"F8\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, BB_ERR_UNSUPPORTED, "F8"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}", 8, BB_ERR_CORRUPT, "tensor b: overlaps"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, BB_ERR_CORRUPT, "tensor a: occurs twice"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, BB_ERR_CORRUPT, "occurs twice"},
    };
    bb_error err;
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        bb_status st = parse(cases[i].header, cases[i].data, &err);
        CHECK(st == cases[i].status, "%s: status %d: %s", cases[i].header, st, err.text);
        CHECK(strstr(err.text, cases[i].needle), "%s: %s", cases[i].header, err.text);
    }
    bb_st_file st;
    static const uint8_t huge[16] = {255, 255, 255, 255, 255, 255, 255, 255}, none[16] = {0};
    CHECK(bb_st_file_parse(&st, huge, 16, "x", &err) == BB_ERR_CORRUPT, "huge header length");
    CHECK(bb_st_file_parse(&st, none, 16, "x", &err) == BB_ERR_CORRUPT, "empty header");
}

/* Many tensors in the worst order, described as shortly as can be: each is found, and the memory suffices. */
static void test_many(void)
{
    enum { N = 3000, EACH = 64 };
    uint8_t *file = calloc(N * EACH + N, 1);
    char *header = (char *)file + 8, *end = header;
    bb_error err = {.text = ""};
    bb_st_file st;
    for (int i = N; i-- > 0;)
        end += sprintf(end, "%c\"%x\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[%d,%d]}",
                       end == header ? '{' : ',', (unsigned)i, i, i + 1);
    *end++ = '}';
    uint64_t n = (uint64_t)(end - header);
    memcpy(file, &n, 8);
    CHECK(bb_st_file_parse(&st, file, 8 + (size_t)n + N, "x", &err) == BB_OK && st.st.n == N, "%s", err.text);
    for (unsigned i = 0; i < N; i++) {
        char name[8];
        snprintf(name, sizeof name, "%x", i);
        const bb_st_tensor *t = bb_safetensors_find(&st.st, name);
        CHECK(t && t->begin == i, "%s", name);
    }
    bb_st_file_close(&st);
    size_t need;
    void *mem = malloc(64);
    CHECK(bb_safetensors_memory(file, 8 + (size_t)n + N, "x", &need, &err) == BB_OK && need > 64, "%zu", need);
    CHECK(bb_safetensors_parse(&st.st, file, 8 + (size_t)n + N, "x", mem, 64, &err) == BB_ERR_SPACE, "%s", err.text);
    free(mem);
    free(file);
}

static void test_round_trip(void)
{
    static const float a[6] = {1, -2, 3.5f, 0, 1e-40f, 6e30f}, b[1] = {7};
    const bb_st_out list[] = {
        {"plain", 2, {2, 3}, a, 0}, {"q\"uo\\te\n", 0, {0}, b, 0}, {"empty", 1, {0}, NULL, 0},
        {"é", 1, {1}, b, BB_ST_F32}, {"halves", 1, {3}, a, BB_ST_F16}, {"bytes", 2, {5, 1}, a, BB_ST_U8},
        {"counts", 1, {2}, a, BB_ST_I64}};
    bb_error err = {.text = ""};
    bb_st_file st;
    uint8_t *bytes;
    size_t n;
    CHECK(bb_safetensors_write(list, BB_COUNT(list), &bytes, &n, &err) == BB_OK, "%s", err.text);
    CHECK(bb_st_file_parse(&st, bytes, n, "x", &err) == BB_OK, "%s", err.text);
    CHECK(st.st.n == BB_COUNT(list), "%zu tensors", st.st.n);
    for (size_t i = 0; i < BB_COUNT(list); i++) {
        const bb_st_tensor *t = bb_safetensors_find(&st.st, list[i].name);
        CHECK(t && t->rank == list[i].rank && t->dtype == list[i].dtype, "%s", list[i].name);
        if (t && t->count) CHECK(!memcmp(t->data, list[i].data, t->bytes), "%s", list[i].name);
    }
    CHECK(!bb_safetensors_find(&st.st, "absent"), "found what is not there");
    bb_st_file_close(&st);
    free(bytes);
    CHECK(bb_safetensors_write(NULL, 0, &bytes, &n, &err) == BB_OK && n == 16, "an empty file has %zu bytes", n);
    CHECK(bb_st_file_parse(&st, bytes, n, "x", &err) == BB_OK && st.st.n == 0, "%s", err.text);
    bb_st_file_close(&st);
    free(bytes);
}

static void test_dtypes(void)
{
    static const uint8_t data[] = {0x00, 0x3e, 0xc0, 0x3f, 0xfb, 255,  255, 255, 255,
                                   255,  255,  255,  0xfe, 255,  255,  255, 200};
    static const struct { uint32_t dtype; size_t at; float value; } cases[] = {
        {BB_ST_F16, 0, 1.5f}, {BB_ST_BF16, 2, 1.5f}, {BB_ST_I64, 4, -5}, {BB_ST_I32, 12, -2}, {BB_ST_U8, 16, 200},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        float x = 0;
        bb_st_to_f32(&(bb_st_tensor){.dtype = cases[i].dtype, .count = 1, .data = data + cases[i].at}, &x);
        CHECK(x == cases[i].value, "%s: %g", bb_st_dtype_name(cases[i].dtype), (double)x);
    }
}

/* FIPS 180-4 examples, and lengths at which the padding changes its block count (from another implementation). */
static void test_sha256(void)
{
    static const struct { const char *text, *digest; } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"0123456789012345678901234567890123456789012345678901234",
         "f34d5a0f80c0cbf84c8c0b90218c22637abd199965249da736a20143c8c9c9d9"},
        {"0123456789012345678901234567890123456789012345678901234567890123",
         "9674d9e078535b7cec43284387a6ee39956188e735a85452b0050b55341cda56"},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        char digest[65];
        bb_sha256((const uint8_t *)cases[i].text, strlen(cases[i].text), digest);
        CHECK(!strcmp(digest, cases[i].digest), "\"%s\": %s", cases[i].text, digest);
    }
}

/* nftw stops with 1 at a temporary file. */
static int find_temporary(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return strstr(path, ".tmp.") != NULL;
}

/* A disk that fills up in the middle, played by a limit on file sizes: the old file stays, nothing else is left. */
static void test_full_disk(const char *path)
{
    static const uint8_t much[100000];
    bb_error err = {.text = ""};
    bb_file f;
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    bb_status st = bb_file_write(path, much, sizeof much, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(st == BB_ERR_ARGUMENT && strstr(err.text, path) && strstr(err.text, "cannot write"), "%d %s", st, err.text);
    CHECK(bb_file_open(&f, path, &err) == BB_OK && f.size == 6, "the old file is gone: %s", err.text);
    bb_file_close(&f);
}

static void test_writing(const char *folder)
{
    bb_error err = {.text = ""};
    bb_file f;
    char path[300], inner[320];
    snprintf(path, sizeof path, "%s/a", folder);
    snprintf(inner, sizeof inner, "%s/no/such/place", folder);
    CHECK(bb_file_write(path, "first", 5, &err) == BB_OK, "%s", err.text);
    CHECK(bb_file_write(path, "second", 6, &err) == BB_OK, "%s", err.text);
    CHECK(bb_file_open(&f, path, &err) == BB_OK, "%s", err.text);
    CHECK(f.size == 6 && !memcmp(f.data, "second", 6), "%zu bytes", f.size);
    bb_file_close(&f);
    test_full_disk(path);
    CHECK(bb_file_write(inner, "x", 1, &err) == BB_ERR_ARGUMENT, "wrote into no folder");
    CHECK(strstr(err.text, inner) && strstr(err.text, "No such file"), "%s", err.text);
    CHECK(bb_file_write(folder, "x", 1, &err) == BB_ERR_ARGUMENT, "wrote over a folder");
    CHECK(strstr(err.text, folder) && strstr(err.text, "is a folder"), "%s", err.text);
    CHECK(bb_file_open(&f, folder, &err) == BB_ERR_ARGUMENT, "a folder is no file");
    CHECK(nftw(folder, find_temporary, 8, FTW_PHYS) == 0, "a temporary file was left behind");
    remove(path);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    char folder[200];
    snprintf(folder, sizeof folder, "%s/bitbrush-files-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) return 1;
    test_truncated();
    test_headers();
    test_many();
    test_round_trip();
    test_dtypes();
    test_sha256();
    test_writing(folder);
    rmdir(folder);
    return check_done();
}
