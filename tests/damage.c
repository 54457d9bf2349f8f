/* Damage to files, one place after the other: a checkpoint cut at every byte; every number of a header, every word of
 * the tables and every scale of a packed model replaced by those at which arithmetic goes wrong. Headers must be refused;
 * tables are refused or, where the value means something, the model draws to the end. Sanitizers see the rest. */
#include "checkpoint.h"
#include "fuzz/fuzz.h"
#include "import/import.h"
#include "tiny.h"

/* ---- a checkpoint, in memory (fuzz/files.c) ---- */

typedef struct part { const char *name; const void *data; size_t n; } part;

static bb_status import(const part *parts, size_t n)
{
    uint8_t *out = NULL;
    size_t size;
    bb_error err = {0};
    for (size_t i = 0; i < n; i++) {
        char path[64];
        snprintf(path, sizeof path, "/c/%s", parts[i].name);
        fuzz_file(path, parts[i].data, parts[i].n);
    }
    bb_import_options opt = {.path = "/c", .dtype = BB_F16, .command = "test"};
    bb_status status = bb_import(&opt, &out, &size, &err);
    fuzz_files_forget();
    free(out);
    CHECK(status >= 0 || (err.code == status && strstr(err.text, "/c")), "%s", err.text);
    return status;
}

static void test_checkpoint(void)
{
    size_t bytes;
    uint8_t *weights = checkpoint_weights(&bytes);
    part parts[] = {{"config.json", checkpoint_config, strlen(checkpoint_config)},
                    {"scheduler_config.json", checkpoint_scheduler, strlen(checkpoint_scheduler)},
                    {"labels.json", checkpoint_labels, strlen(checkpoint_labels)},
                    {"diffusion_pytorch_model.safetensors", weights, bytes}};
    CHECK(import(parts, BB_COUNT(parts)) == BB_OK, "the whole checkpoint is read");
    for (size_t i = 0; i < BB_COUNT(parts); i++) {
        size_t whole = parts[i].n, step = whole > 4096 ? 37 : 1; /* the weights at every byte below */
        for (size_t cut = 0; cut < whole; cut += step) {
            parts[i].n = cut;
            CHECK(import(parts, BB_COUNT(parts)) < 0, "%s cut at %zu", parts[i].name, cut);
        }
        parts[i].n = whole;
    }
    for (size_t cut = 0; cut < bytes; cut++) {
        uint8_t *copy = fuzz_copy(weights, cut);
        bb_st_file f;
        bb_error err;
        CHECK(bb_st_file_parse(&f, copy, cut, "cut", &err) == BB_ERR_SHORT, "weights cut at %zu", cut);
        free(copy);
    }
    free(weights);
}

/* ---- numbers of headers ---- */

typedef bb_status read_fn(const uint8_t *data, size_t n);

/* The file with the JSON token tok of its header replaced; malloc'd, 64-aligned. */
static uint8_t *with_token(const uint8_t *file, size_t n, const bb_json_token *tok, const char *text, size_t *size)
{
    uint64_t header, old;
    memcpy(&old, file, 8);
    size_t length = (size_t)old - (size_t)(tok->end - tok->start) + strlen(text);
    header = (8 + length + 63) / 64 * 64 - 8;
    *size = 8 + (size_t)header + n - 8 - (size_t)old;
    uint8_t *out = fuzz_block(*size);
    memcpy(out, &header, 8);
    memset(out + 8, ' ', (size_t)header);
    memcpy(out + 8, file + 8, (size_t)tok->start);
    memcpy(out + 8 + tok->start, text, strlen(text));
    memcpy(out + 8 + (size_t)tok->start + strlen(text), file + 8 + tok->end, (size_t)old - (size_t)tok->end);
    memcpy(out + 8 + header, file + 8 + old, n - 8 - (size_t)old);
    return out;
}

static void test_header(const char *name, const uint8_t *file, size_t n, read_fn *read)
{
    static const char *const texts[] = {"0", "1", "-1", "64", "4294967232", "4294967295", "4294967296", "4294967360",
                                        "9223372036854775807", "9223372036854775808", "18446744073709551552",
                                        "18446744073709551615", "18446744073709551616", "1e3", "0.5", "null", "[]", "\"64\""};
    uint64_t header;
    bb_json j;
    memcpy(&header, file, 8);
    size_t bytes = bb_json_scratch((size_t)header);
    void *scratch = malloc(bytes);
    CHECK(bb_json_parse(&j, (const char *)file + 8, (size_t)header, scratch, bytes), "%s: header", name);
    CHECK(read(file, n) == BB_OK, "%s is whole", name);
    uint32_t numbers = 0;
    for (uint32_t t = 0; t < j.count; t++) {
        uint64_t old;
        char nearby[2][24];
        if (!bb_json_u64(&j, t, &old)) continue;
        numbers++;
        snprintf(nearby[0], sizeof nearby[0], "%llu", (unsigned long long)old + 64);
        snprintf(nearby[1], sizeof nearby[1], "%llu", (unsigned long long)(old - 64)); /* wraps where it is smaller */
        for (size_t i = 0; i < BB_COUNT(texts) + 2; i++) {
            const char *text = i < BB_COUNT(texts) ? texts[i] : nearby[i - BB_COUNT(texts)];
            if (strlen(text) == (size_t)(j.tok[t].end - j.tok[t].start) &&
                !memcmp(text, j.text + j.tok[t].start, strlen(text))) continue;
            size_t size;
            uint8_t *damaged = with_token(file, n, &j.tok[t], text, &size);
            CHECK(read(damaged, size) < 0, "%s: %s in place of %.*s at %d", name, text, j.tok[t].end - j.tok[t].start,
                  j.text + j.tok[t].start, j.tok[t].start);
            free(damaged);
        }
    }
    CHECK(numbers > 50, "%s has %u numbers", name, numbers);
    free(scratch);
}

static bb_status read_weights(const uint8_t *data, size_t n)
{
    bb_st_file f;
    bb_error err;
    bb_status status = bb_st_file_parse(&f, data, n, "weights", &err);
    if (status >= 0) bb_st_file_close(&f);
    return status;
}

/* ---- a packed model ---- */

typedef struct opened { void *mem; bb_model *model; } opened;

static bb_status open_pack(opened *o, const uint8_t *data, size_t n)
{
    bb_info info = {0};
    bb_error err;
    void *scratch = malloc(BB_PROBE_SCRATCH(n));
    *o = (opened){NULL, NULL};
    bb_status status = bb_probe(data, n, scratch, BB_PROBE_SCRATCH(n), &info, &err);
    free(scratch);
    if (status < 0) return status;
    o->mem = malloc((size_t)info.model_bytes);
    return bb_model_init(data, n, o->mem, (size_t)info.model_bytes, &o->model, &err);
}

static bb_status read_pack(const uint8_t *data, size_t n)
{
    opened o;
    bb_status status = open_pack(&o, data, n);
    free(o.mem);
    return status;
}

/* What was accepted draws; sizes of the picture and the batch are its own. */
static void draw(const bb_model *model, const char *what)
{
    bb_request req = {.size_of = sizeof req, .steps = 1, .guidance = 1};
    bb_session *s;
    bb_error err;
    size_t bytes = 0;
    uint64_t seed = 1;
    if (bb_session_size(model, &req, &bytes, &err) < 0 || bytes > 32 << 20) return;
    void *ws = malloc(bytes);
    bb_status status = bb_session_init(model, &req, ws, bytes, &s, &err);
    if (status >= 0 && model->pack.info.classes) status = bb_condition(s, 0, &(bb_cond){0});
    if (status >= 0) status = bb_begin(s, &seed, NULL);
    if (status >= 0) status = bb_step(s, 0);
    CHECK(status == BB_DONE, "%s: %s", what, bb_strerror(status));
    free(ws);
}

/* Where the data of a tensor of models/tiny.safetensors begins, and its bytes. */
static size_t tensor(const uint8_t *file, const char *name, size_t *bytes)
{
    char key[64];
    uint64_t header;
    memcpy(&header, file, 8);
    snprintf(key, sizeof key, "\"%s\":{", name);
    const char *at = strstr((const char *)file + 8, key);
    at = at ? strstr(at, "\"data_offsets\":[") : NULL;
    if (!at) abort();
    char *end;
    size_t begin = strtoull(at + 16, &end, 10);
    *bytes = (size_t)strtoull(end + 1, NULL, 10) - begin;
    return 8 + (size_t)header + begin;
}

/* Every word of a table, at values near 0, near its own, near 2^31 and 2^32, and at ids that point ahead. */
static void test_words(uint8_t *file, size_t n, const char *name)
{
    static const uint32_t words[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffff0, 0xfffffffe, 0xffffffff};
    size_t bytes, begin = tensor(file, name, &bytes);
    uint32_t accepted = 0, refused = 0;
    for (size_t at = begin; at < begin + bytes; at += 4) {
        uint32_t old;
        memcpy(&old, file + at, 4);
        for (size_t i = 0; i < BB_COUNT(words) + 2; i++) {
            uint32_t word = i < BB_COUNT(words) ? words[i] : i == BB_COUNT(words) ? old + 1 : old + 40;
            opened o;
            memcpy(file + at, &word, 4);
            bool ok = word == old || open_pack(&o, file, n) == BB_OK;
            if (word == old) continue;
            if (ok && accepted % 16 == 0) draw(o.model, name); /* every 16th bounds the time */
            free(o.mem);
            if (ok) accepted++; else refused++;
        }
        memcpy(file + at, &old, 4);
    }
    printf("%s: %u refused, %u mean something else\n", name, refused, accepted);
    CHECK(refused > accepted, "%s: %u refused, %u accepted", name, refused, accepted);
}

/* Every element of a pool of scales: no infinity and no NaN is let in; subnormals and huge ones draw. */
static void test_scales(uint8_t *file, size_t n, const char *name, bool positive, size_t used)
{
    static const struct { uint32_t bits; bool finite, above_zero; } values[] = {
        {0x7fc00000, false, false}, {0xffc00000, false, false}, {0x7f800001, false, false}, {0x7f800000, false, true},
        {0xff800000, false, false}, {0, true, false}, {0x80000000, true, false}, {1, true, true}, {0x80000001, true, false},
        {0x007fffff, true, true}, {0x7f7fffff, true, true}, {0xff7fffff, true, false}};
    size_t bytes, begin = tensor(file, name, &bytes);
    for (size_t e = 0; e < used; e++) {
        size_t at = begin + 4 * e;
        uint32_t old;
        memcpy(&old, file + at, 4);
        for (size_t i = 0; i < BB_COUNT(values); i++) {
            opened o;
            memcpy(file + at, &values[i].bits, 4);
            bool may = values[i].finite && (!positive || values[i].above_zero);
            bb_status status = open_pack(&o, file, n);
            CHECK((status == BB_OK) == may, "%s[%zu] = %08x: status %d", name, e, values[i].bits, (int)status);
            if (status == BB_OK && e % 8 == i % 8) draw(o.model, name);
            free(o.mem);
        }
        memcpy(file + at, &old, 4);
    }
}

int main(void)
{
    static tiny t;
    bb_error err = {0};
    size_t bytes;
    uint8_t *weights = checkpoint_weights(&bytes);
    test_checkpoint();
    test_header("the checkpoint's weights", weights, bytes, read_weights);
    free(weights);

    tiny_build(&t);
    CHECK(mm_open(&t.m, &err) == BB_OK, "%s", err.text);
    size_t n = (size_t)bb_pack_write_size(&t.m.out);
    uint8_t *file = fuzz_copy(t.m.blob, n);
    test_header("the packed model", file, n, read_pack);
    static const char *const tables[] = {"graph", "weights", "layers", "quantizers", "schedule"};
    for (size_t i = 0; i < BB_COUNT(tables); i++) test_words(file, n, tables[i]);
    test_scales(file, n, "pool.step_delta", true, t.m.out.n_step);
    test_scales(file, n, "pool.inv_s", true, t.m.out.n_inv_s);
    test_scales(file, n, "pool.delta", false, t.m.out.n_rows);
    free(file);
    tiny_free(&t);
    return check_done();
}
