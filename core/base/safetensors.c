/* See safetensors.h. Everything is checked before a tensor is handed out, so users of bb_st_tensor need not. */
#include "base/safetensors.h"

#include "base/arena.h"
#include "base/mathf.h"
#include "base/sort.h"

#define MAX_HEADER 100000000u /* the limit of the reference implementation */

/* No tensor is described in less: "a":{"dtype":"U8","shape":[],"data_offsets":[0,0]} */
#define MIN_ENTRY 48u

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

typedef struct reader {
    bb_json json;
    const char *file;
    const uint8_t *data; /* the data part */
    size_t data_bytes;
    bb_st_tensor *tensors;
    size_t n, room;
    char *names;         /* where the next name goes; a name is never longer than its JSON */
    bb_error *err;
} reader;

static int compare(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return (int)(uint8_t)*a - (int)(uint8_t)*b;
}

static bb_status corrupt(const reader *r, const char *tensor, const char *what)
{
    return bb_fail(r->err, BB_ERR_CORRUPT, "%s: tensor %s: %s; the file is damaged", r->file, tensor, what);
}

static bb_status read_dtype(const reader *r, bb_st_tensor *t, uint32_t tok)
{
    char name[16] = "?";
    if (!bb_json_string(&r->json, tok, name, sizeof name)) return corrupt(r, t->name, "has no dtype");
    for (uint32_t i = 0; i < BB_COUNT(dtypes); i++) {
        if (!compare(name, dtypes[i].name)) {
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
    uint64_t count = 1; /* of the dimensions above 0, so that an empty tensor is one whatever size_t holds */
    bool zero = false;
    for (uint32_t e = bb_json_first(&r->json, tok); e != BB_JSON_NONE; e = bb_json_next(&r->json, e)) {
        uint64_t d;
        if (!bb_json_u64(&r->json, e, &d)) return corrupt(r, t->name, "has a dimension that is no number");
        t->shape[t->rank++] = d;
        zero = zero || d == 0;
        if (d && count > UINT64_MAX / 8 / d) return corrupt(r, t->name, "is larger than memory");
        count *= d ? d : 1;
    }
    if (!zero && count > SIZE_MAX / 8) return corrupt(r, t->name, "is larger than memory");
    t->count = zero ? 0 : (size_t)count;
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
        uint64_t behind = end - r->data_bytes;
        return bb_fail(r->err, BB_ERR_SHORT, "%s: tensor %s ends %z bytes behind the end of the file; "
                       "the file is cut short, fetch it again", r->file, t->name,
                       behind < SIZE_MAX ? (size_t)behind : SIZE_MAX);
    }
    t->begin = (size_t)begin;
    t->bytes = (size_t)(end - begin);
    t->data = r->data + begin;
    if (t->bytes != t->count * dtypes[t->dtype].bytes) {
        return corrupt(r, t->name, "has a shape that does not match its data_offsets");
    }
    return BB_OK;
}

static bb_status read_name(reader *r, bb_st_tensor *t, uint32_t key)
{
    size_t length = 0, n = 0;
    (void)bb_json_raw(&r->json, key, &length);
    if (!bb_json_string(&r->json, key, r->names, length + 1) || !*r->names) {
        return bb_fail(r->err, BB_ERR_CORRUPT, "%s: a tensor has no name; the file is damaged", r->file);
    }
    t->name = r->names;
    while (r->names[n]) n++;
    r->names += n + 1; /* at most the key's own bytes with one of its quotes */
    return BB_OK;
}

/* Three members, each found: so there is neither a duplicate nor an unknown one. */
static bb_status read_tensor(reader *r, bb_st_tensor *t, uint32_t key)
{
    BB_TRY(read_name(r, t, key));
    uint32_t o = bb_json_value(&r->json, key);
    if (!bb_json_is_object(&r->json, o) || bb_json_size(&r->json, o) != 3) {
        return corrupt(r, t->name, "its entry is not {dtype, shape, data_offsets}");
    }
    BB_TRY(read_dtype(r, t, bb_json_member(&r->json, o, "dtype")));
    BB_TRY(read_shape(r, t, bb_json_member(&r->json, o, "shape")));
    return read_range(r, t, bb_json_member(&r->json, o, "data_offsets"));
}

/* ---- order ---- */

static bool before_by_begin(const void *tensors, size_t a, size_t b)
{
    const bb_st_tensor *x = (const bb_st_tensor *)tensors + a, *y = (const bb_st_tensor *)tensors + b;
    return x->begin != y->begin ? x->begin < y->begin : x->bytes < y->bytes; /* empty ones first */
}

static bool before_by_name(const void *tensors, size_t a, size_t b)
{
    const bb_st_tensor *t = tensors;
    return compare(t[a].name, t[b].name) < 0;
}

static void swap(void *tensors, size_t a, size_t b)
{
    bb_st_tensor *t = tensors, old = t[a];
    t[a] = t[b];
    t[b] = old;
}

static bb_status check_tensors(const reader *r)
{
    bb_st_tensor *t = r->tensors;
    bb_heapsort(&(bb_sort){t, before_by_begin, swap}, r->n);
    for (size_t i = 1; i < r->n; i++) {
        if (t[i].begin < t[i - 1].begin + t[i - 1].bytes) return corrupt(r, t[i].name, "overlaps another one");
    }
    bb_heapsort(&(bb_sort){t, before_by_name, swap}, r->n);
    for (size_t i = 1; i < r->n; i++) {
        if (!compare(t[i].name, t[i - 1].name)) return corrupt(r, t[i].name, "occurs twice");
    }
    return BB_OK;
}

/* ---- the file ---- */

static bb_status read_header(reader *r, const char *text, size_t n, void *scratch)
{
    if (!n || text[0] != '{' || !bb_json_parse(&r->json, text, n, scratch, bb_json_scratch(n)) ||
        !bb_json_is_object(&r->json, 0)) {
        return bb_fail(r->err, BB_ERR_CORRUPT, "%s: the header is not JSON; not a safetensors file, or damaged",
                       r->file);
    }
    for (uint32_t key = bb_json_first(&r->json, 0); key != BB_JSON_NONE; key = bb_json_next(&r->json, key)) {
        if (bb_json_equals(&r->json, key, "__metadata__")) continue;
        BB_ASSERT(r->n < r->room);
        BB_TRY(read_tensor(r, &r->tensors[r->n], key));
        r->n++;
    }
    return check_tensors(r);
}

static bb_status header_bytes(const uint8_t *data, size_t n, const char *name, size_t *bytes, bb_error *err)
{
    uint64_t header = 0;
    if (n < 8) return bb_fail(err, BB_ERR_SHORT, "%s: only %z bytes; not a safetensors file, or cut short", name, n);
    memcpy(&header, data, 8);
    if (header < 2 || header > MAX_HEADER) {
        return bb_fail(err, BB_ERR_CORRUPT, "%s: header length out of range; not a safetensors file, or damaged", name);
    }
    if (header > n - 8) {
        return bb_fail(err, BB_ERR_SHORT, "%s: the file ends inside its header; it is cut short, fetch it again", name);
    }
    *bytes = (size_t)header;
    return BB_OK;
}

/* The arrays of a header of that many bytes; returns the JSON's scratch. */
static void *take_arrays(reader *r, bb_arena *arena, size_t header)
{
    r->room = header / MIN_ENTRY + 1; /* one more than can be right: the entry that is found wrong */
    r->tensors = bb_arena_take(arena, r->room, sizeof *r->tensors);
    r->names = bb_arena_take(arena, header, 1);
    return bb_arena_take(arena, bb_json_scratch(header), 1);
}

bb_status bb_safetensors_memory(const uint8_t *data, size_t n, const char *name, size_t *bytes, bb_error *err)
{
    size_t header;
    reader r;
    bb_arena arena = bb_arena_init(NULL, 0);
    BB_TRY(header_bytes(data, n, name, &header, err));
    (void)take_arrays(&r, &arena, header);
    *bytes = bb_arena_need(&arena);
    return BB_OK;
}

bb_status bb_safetensors_parse(bb_safetensors *st, const uint8_t *data, size_t n, const char *name, void *mem,
                               size_t size, bb_error *err)
{
    size_t header;
    reader r = {.file = name, .err = err};
    bb_arena arena = bb_arena_init(mem, size);
    *st = (bb_safetensors){0};
    BB_TRY(header_bytes(data, n, name, &header, err));
    void *scratch = mem ? take_arrays(&r, &arena, header) : NULL;
    if (!scratch) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", name);
    r.data = data + 8 + header;
    r.data_bytes = n - 8 - header;
    BB_TRY(read_header(&r, (const char *)data + 8, header, scratch));
    *st = (bb_safetensors){.tensors = r.tensors, .n = r.n, .header = r.json,
                           .metadata = bb_json_member(&r.json, 0, "__metadata__")};
    return BB_OK;
}

const bb_st_tensor *bb_safetensors_find(const bb_safetensors *st, const char *name)
{
    size_t low = 0, high = st->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = compare(name, st->tensors[mid].name);
        if (!order) return &st->tensors[mid];
        if (order < 0) high = mid;
        else low = mid + 1;
    }
    return NULL;
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
