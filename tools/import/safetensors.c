/* See safetensors.h. Everything is checked before a tensor is handed out, so users of bb_st_tensor need not. */
#include "import/safetensors.h"

#include "base/json.h"
#include "base/mathf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER 100000000u /* the limit of the reference implementation */

static const struct { const char *name; uint32_t bytes; } dtypes[] = {
    [BB_ST_F32] = {"F32", 4}, [BB_ST_F16] = {"F16", 2}, [BB_ST_BF16] = {"BF16", 2},
    [BB_ST_I64] = {"I64", 8}, [BB_ST_I32] = {"I32", 4}, [BB_ST_U8] = {"U8", 1},
};

const char *bb_st_dtype_name(uint32_t dtype)
{
    return dtype < BB_COUNT(dtypes) ? dtypes[dtype].name : "?";
}

void bb_st_shape_text(char *out, size_t size, const uint64_t *shape, uint32_t rank)
{
    size_t n = bb_format(out, size, "[");
    for (uint32_t i = 0; i < rank; i++) {
        n += bb_format(out + n, size - n, "%s%z", i ? ", " : "", (size_t)shape[i]);
    }
    bb_format(out + n, size - n, "]");
}

/* ---- reading ---- */

typedef struct reader {
    bb_safetensors *st;
    bb_json json;
    const char *file;
    const uint8_t *data; /* the data part */
    size_t data_bytes;
    bb_error *err;
} reader;

static bb_status corrupt(const reader *r, const char *tensor, const char *what)
{
    return bb_fail(r->err, BB_ERR_CORRUPT, "%s: tensor %s: %s; the file is damaged", r->file, tensor, what);
}

static bb_status read_dtype(const reader *r, bb_st_tensor *t, uint32_t tok)
{
    char name[16] = "?";
    if (!bb_json_string(&r->json, tok, name, sizeof name)) return corrupt(r, t->name, "has no dtype");
    for (uint32_t i = 0; i < BB_COUNT(dtypes); i++) {
        if (!strcmp(name, dtypes[i].name)) {
            t->dtype = i;
            return BB_OK;
        }
    }
    return bb_fail(r->err, BB_ERR_UNSUPPORTED, "%s: tensor %s has dtype %s; supported are F32, F16, BF16, I64, I32, U8",
                   r->file, t->name, name);
}

static bb_status read_shape(const reader *r, bb_st_tensor *t, uint32_t tok)
{
    if (!bb_json_is_array(&r->json, tok)) return corrupt(r, t->name, "has no shape");
    if (bb_json_size(&r->json, tok) > BB_ST_MAX_RANK) {
        return bb_fail(r->err, BB_ERR_UNSUPPORTED, "%s: tensor %s has more than 8 dimensions", r->file, t->name);
    }
    t->count = 1;
    bool zero = false;
    for (uint32_t e = bb_json_first(&r->json, tok); e != BB_JSON_NONE; e = bb_json_next(&r->json, e)) {
        uint64_t d;
        if (!bb_json_u64(&r->json, e, &d)) return corrupt(r, t->name, "has a dimension that is no number");
        t->shape[t->rank++] = d;
        zero = zero || d == 0;
        if (d && t->count > SIZE_MAX / 8 / d) return corrupt(r, t->name, "is larger than memory");
        t->count *= d ? (size_t)d : 1;
    }
    if (zero) t->count = 0;
    return BB_OK;
}

static bb_status read_range(const reader *r, bb_st_tensor *t, uint32_t tok)
{
    uint64_t begin, end;
    if (bb_json_size(&r->json, tok) != 2 || !bb_json_u64(&r->json, bb_json_element(&r->json, tok, 0), &begin) ||
        !bb_json_u64(&r->json, bb_json_element(&r->json, tok, 1), &end) || end < begin) {
        return corrupt(r, t->name, "has no valid data_offsets");
    }
    if (end > r->data_bytes) {
        return bb_fail(r->err, BB_ERR_SHORT, "%s: tensor %s ends %z bytes behind the end of the file; "
                       "the file is cut short, fetch it again", r->file, t->name, (size_t)(end - r->data_bytes));
    }
    t->begin = (size_t)begin;
    t->bytes = (size_t)(end - begin);
    t->data = r->data + begin;
    if (t->bytes != t->count * dtypes[t->dtype].bytes) {
        return corrupt(r, t->name, "has a shape that does not match its data_offsets");
    }
    return BB_OK;
}

/* Three members, each found: so there is neither a duplicate nor an unknown one. */
static bb_status read_tensor(const reader *r, bb_st_tensor *t, uint32_t key)
{
    size_t length;
    const char *raw = bb_json_raw(&r->json, key, &length);
    t->name = raw ? malloc(length + 1) : NULL;
    if (!t->name) return bb_fail(r->err, BB_ERR_SPACE, "%s: out of memory", r->file);
    if (!bb_json_string(&r->json, key, t->name, length + 1) || !*t->name) {
        return bb_fail(r->err, BB_ERR_CORRUPT, "%s: a tensor has no name; the file is damaged", r->file);
    }
    uint32_t o = bb_json_value(&r->json, key);
    if (!bb_json_is_object(&r->json, o) || bb_json_size(&r->json, o) != 3) {
        return corrupt(r, t->name, "its entry is not {dtype, shape, data_offsets}");
    }
    BB_TRY(read_dtype(r, t, bb_json_member(&r->json, o, "dtype")));
    BB_TRY(read_shape(r, t, bb_json_member(&r->json, o, "shape")));
    return read_range(r, t, bb_json_member(&r->json, o, "data_offsets"));
}

static int by_begin(const void *a, const void *b)
{
    const bb_st_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const bb_st_tensor *)a)->name, ((const bb_st_tensor *)b)->name);
}

static bb_status check_tensors(const reader *r)
{
    bb_st_tensor *t = r->st->tensors;
    size_t n = r->st->n;
    if (n) qsort(t, n, sizeof *t, by_begin);
    for (size_t i = 1; i < n; i++) {
        if (t[i].begin < t[i - 1].begin + t[i - 1].bytes) return corrupt(r, t[i].name, "overlaps another one");
    }
    if (n) qsort(t, n, sizeof *t, by_name);
    for (size_t i = 1; i < n; i++) {
        if (!strcmp(t[i].name, t[i - 1].name)) return corrupt(r, t[i].name, "occurs twice");
    }
    return BB_OK;
}

static bb_status read_header(reader *r, const char *text, size_t n, void *scratch)
{
    if (!n || text[0] != '{' || !bb_json_parse(&r->json, text, n, scratch, bb_json_scratch(n)) ||
        !bb_json_is_object(&r->json, 0)) {
        return bb_fail(r->err, BB_ERR_CORRUPT, "%s: the header is not JSON; not a safetensors file, or damaged",
                       r->file);
    }
    r->st->tensors = calloc((size_t)bb_json_size(&r->json, 0) + 1, sizeof *r->st->tensors);
    if (!r->st->tensors) return bb_fail(r->err, BB_ERR_SPACE, "%s: out of memory", r->file);
    for (uint32_t key = bb_json_first(&r->json, 0); key != BB_JSON_NONE; key = bb_json_next(&r->json, key)) {
        if (bb_json_equals(&r->json, key, "__metadata__")) continue;
        r->st->n++; /* first, so that a failure frees the name */
        BB_TRY(read_tensor(r, &r->st->tensors[r->st->n - 1], key));
    }
    return check_tensors(r);
}

bb_status bb_safetensors_parse(bb_safetensors *st, const uint8_t *data, size_t n, const char *name, bb_error *err)
{
    *st = (bb_safetensors){0};
    uint64_t header = 0;
    if (n >= 8) memcpy(&header, data, 8);
    if (n < 8) return bb_fail(err, BB_ERR_SHORT, "%s: only %z bytes; not a safetensors file, or cut short", name, n);
    if (header < 2 || header > MAX_HEADER) {
        return bb_fail(err, BB_ERR_CORRUPT, "%s: header length out of range; not a safetensors file, or damaged", name);
    }
    if (header > n - 8) {
        return bb_fail(err, BB_ERR_SHORT, "%s: the file ends inside its header; it is cut short, fetch it again", name);
    }
    void *scratch = malloc(bb_json_scratch((size_t)header));
    if (!scratch) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", name);
    reader r = {.st = st, .file = name, .data = data + 8 + header, .data_bytes = n - 8 - (size_t)header, .err = err};
    bb_status status = read_header(&r, (const char *)data + 8, (size_t)header, scratch);
    free(scratch);
    if (status < 0) bb_safetensors_close(st);
    return status;
}

bb_status bb_safetensors_open(bb_safetensors *st, const char *path, bb_error *err)
{
    *st = (bb_safetensors){0};
    bb_file file;
    BB_TRY(bb_file_open(&file, path, err));
    bb_status status = bb_safetensors_parse(st, file.data, file.size, path, err);
    if (status < 0) bb_file_close(&file);
    else st->file = file;
    return status;
}

void bb_safetensors_close(bb_safetensors *st)
{
    for (size_t i = 0; i < st->n; i++) free(st->tensors[i].name);
    free(st->tensors);
    bb_file_close(&st->file);
    *st = (bb_safetensors){0};
}

const bb_st_tensor *bb_safetensors_find(const bb_safetensors *st, const char *name)
{
    bb_st_tensor key = {.name = (char *)(uintptr_t)name};
    return st->n ? bsearch(&key, st->tensors, st->n, sizeof key, by_name) : NULL;
}

void bb_st_to_f32(const bb_st_tensor *t, float *out)
{
    for (size_t i = 0; i < t->count; i++) {
        const uint8_t *p = t->data + i * dtypes[t->dtype].bytes;
        uint16_t half;
        int64_t i64;
        int32_t i32;
        switch (t->dtype) {
        case BB_ST_F32: memcpy(&out[i], p, 4); break;
        case BB_ST_F16: memcpy(&half, p, 2); out[i] = bb_f16_to_f32(half); break;
        case BB_ST_BF16: memcpy(&half, p, 2); out[i] = bb_bf16_to_f32(half); break;
        case BB_ST_I64: memcpy(&i64, p, 8); out[i] = (float)i64; break;
        case BB_ST_I32: memcpy(&i32, p, 4); out[i] = (float)i32; break;
        default: out[i] = *p;
        }
    }
}

/* ---- writing ---- */

/* Appends s as a JSON string; out NULL only measures. */
static size_t put_string(char *out, const char *s)
{
    size_t n = 0;
    char code[8];
    if (out) out[n] = '"';
    n++;
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') snprintf(code, sizeof code, "\\%c", *s);
        else if ((unsigned char)*s < 0x20) snprintf(code, sizeof code, "\\u%04x", (unsigned)*s);
        else snprintf(code, sizeof code, "%c", *s);
        if (out) memcpy(out + n, code, strlen(code));
        n += strlen(code);
    }
    if (out) out[n] = '"';
    return n + 1;
}

static size_t count_of(const bb_st_out *t)
{
    size_t count = 1;
    for (uint32_t i = 0; i < t->rank; i++) count *= t->shape[i];
    return count;
}

/* The header's JSON; out NULL only measures. */
static size_t put_header(char *out, const bb_st_out *list, size_t n)
{
    size_t at = 0, begin = 0;
    for (size_t i = 0; i < n; i++) {
        char shape[64], entry[192];
        uint64_t dims[4];
        for (uint32_t d = 0; d < list[i].rank; d++) dims[d] = list[i].shape[d];
        bb_st_shape_text(shape, sizeof shape, dims, list[i].rank);
        size_t end = begin + count_of(&list[i]) * 4;
        int length = snprintf(entry, sizeof entry, ":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                              shape, begin, end);
        if (out) out[at] = i ? ',' : '{';
        at++;
        at += put_string(out ? out + at : NULL, list[i].name);
        if (out) memcpy(out + at, entry, (size_t)length);
        at += (size_t)length;
        begin = end;
    }
    if (out) memcpy(out + at, n ? "}" : "{}", n ? 1 : 2);
    return at + (n ? 1 : 2);
}

bb_status bb_safetensors_write(const bb_st_out *list, size_t n, uint8_t **out, size_t *out_size, bb_error *err)
{
    size_t length = put_header(NULL, list, n), header = (length + 7) / 8 * 8, size = 8 + header;
    for (size_t i = 0; i < n; i++) size += count_of(&list[i]) * 4;
    uint8_t *p = malloc(size);
    if (!p) return bb_fail(err, BB_ERR_SPACE, "out of memory for %z bytes of tensors", size);
    uint64_t word = header;
    memcpy(p, &word, 8);
    memset(p + 8, ' ', header);
    put_header((char *)p + 8, list, n);
    size_t at = 8 + header;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = count_of(&list[i]) * 4;
        if (bytes) memcpy(p + at, list[i].data, bytes);
        at += bytes;
    }
    *out = p;
    *out_size = size;
    return BB_OK;
}
