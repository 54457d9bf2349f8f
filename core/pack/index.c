/* The safetensors header: length, JSON, tensor ranges. Everything here is untrusted until checked. */
#include "pack/layout.h"

static const struct { const char *name; uint32_t size; } dtypes[BB_FILE_DTYPES] = {
    [BB_F32] = {"F32", 4}, [BB_F16] = {"F16", 2}, [BB_U8] = {"U8", 1},
    [BB_I16] = {"I16", 2}, [BB_U16] = {"U16", 2}, [BB_U32] = {"U32", 4},
};

uint32_t bb_dtype_size(uint32_t dtype) { return dtype < BB_FILE_DTYPES ? dtypes[dtype].size : 0; }
const char *bb_dtype_name(uint32_t dtype) { return dtypes[dtype].name; }

bb_status bb_pack_head_bytes(const void *head, size_t n, uint64_t *bytes, bb_error *err)
{
    uint64_t length;
    *bytes = 8;
    if (n < 8) return bb_fail(err, BB_ERR_SHORT, "the file is cut short: it has not even a header length");
    memcpy(&length, head, 8);
    if (length < 2 || length > BB_MAX_HEADER_BYTES - 8 || (n > 8 && ((const char *)head)[8] != '{'))
        return bb_fail(err, BB_ERR_MAGIC, "not a bitbrush model (no safetensors header)");
    *bytes = 8 + length;
    return n < *bytes ? bb_fail(err, BB_ERR_SHORT, "the file is cut short inside its header") : BB_OK;
}

static bool metadata_u64(const bb_json *j, uint32_t object, const char *key, int64_t low, int64_t high, int64_t *out)
{
    char text[24];
    uint32_t tok = bb_json_member(j, object, key);
    if (!bb_json_string(j, tok, text, sizeof text)) return false;
    const char *p = text;
    bool negative = *p == '-';
    int64_t v = 0;
    if (negative) p++;
    if (!*p) return false;
    for (; *p; p++) {
        if (*p < '0' || *p > '9' || v > high) return false;
        v = v * 10 + (*p - '0');
    }
    *out = negative ? -v : v;
    return *out >= low && *out <= high;
}

bb_status bb_index_info(const bb_file_index *index, bb_info *info, bb_error *err)
{
    const bb_json *j = &index->json;
    int64_t width, height, channels, classes, null_label, train_steps, bits;
    bool ok = metadata_u64(j, index->metadata, "width", 1, 16384, &width) &&
              metadata_u64(j, index->metadata, "height", 1, 16384, &height) &&
              metadata_u64(j, index->metadata, "channels", 1, 64, &channels) &&
              metadata_u64(j, index->metadata, "classes", 0, 1 << 20, &classes) &&
              metadata_u64(j, index->metadata, "null_label", -1, 1 << 20, &null_label) &&
              metadata_u64(j, index->metadata, "train_steps", 1, 65536, &train_steps) &&
              metadata_u64(j, index->metadata, "bits_milli", 0, 64000, &bits);
    if (!ok || null_label >= (classes ? classes : 1))
        return bb_fail(err, BB_ERR_CORRUPT, "the metadata lacks a size, class count, step count or bit width, "
                                            "or holds one out of range");
    if (!classes && null_label != -1) return bb_fail(err, BB_ERR_CORRUPT, "a null label without classes");
    info->width = (uint32_t)width;
    info->height = (uint32_t)height;
    info->channels = (uint32_t)channels;
    info->classes = (uint32_t)classes;
    info->null_label = (int32_t)null_label;
    info->train_steps = (uint32_t)train_steps;
    info->bits_milli = (uint32_t)bits;
    return BB_OK;
}

bool bb_tensor_is(const bb_file_tensor *t, const char *name)
{
    for (uint32_t i = 0; i < t->name_bytes; i++)
        if (!name[i] || name[i] != t->name[i]) return false;
    return !name[t->name_bytes];
}

/* Shape, dtype and size of one tensor; begin and end relative to the data section. */
bb_status bb_index_tensor(const bb_file_index *index, uint32_t key, bb_file_tensor *t, bb_error *err)
{
    const bb_json *j = &index->json;
    uint32_t object = bb_json_value(j, key), shape = bb_json_member(j, object, "shape");
    uint32_t range = bb_json_member(j, object, "data_offsets"), dtype = bb_json_member(j, object, "dtype");
    size_t name_bytes = 0;
    t->name = bb_json_raw(j, key, &name_bytes);
    t->name_bytes = (uint32_t)name_bytes;
    t->dtype = BB_FILE_DTYPES;
    for (uint32_t d = 0; d < BB_FILE_DTYPES; d++)
        if (bb_json_equals(j, dtype, dtypes[d].name)) t->dtype = d;
    uint64_t begin, end, elements = 1, dim = 0;
    uint32_t rank = bb_json_size(j, shape);
    bool ok = t->dtype < BB_FILE_DTYPES && rank >= 1 && rank <= 8 && bb_json_size(j, range) == 2 &&
              bb_json_u64(j, bb_json_element(j, range, 0), &begin) &&
              bb_json_u64(j, bb_json_element(j, range, 1), &end);
    for (uint32_t i = 0; ok && i < rank; i++) {
        ok = bb_json_u64(j, bb_json_element(j, shape, i), &dim) && dim >= 1 && dim <= ((uint64_t)1 << 40) / elements;
        elements *= ok ? dim : 1;
    }
    ok = ok && end >= begin && end - begin == elements * dtypes[t->dtype].size && (end - begin) % BB_ALIGNMENT == 0 &&
         dim <= UINT32_MAX;
    if (!ok) {
        char name[64];
        if (!bb_json_string(j, key, name, sizeof name)) name[0] = 0;
        return bb_fail(err, BB_ERR_CORRUPT, "tensor %s: bad dtype, shape or range in the header", name);
    }
    t->last = (uint32_t)dim;
    t->begin = begin;
    t->bytes = end - begin;
    return BB_OK;
}

static bb_status check_format(const bb_file_index *index, bb_error *err)
{
    int64_t version = 0;
    if (!bb_json_equals(&index->json, bb_json_member(&index->json, index->metadata, "format"), "bitbrush"))
        return bb_fail(err, BB_ERR_MAGIC, "not a bitbrush model (a safetensors file without format \"bitbrush\" in its "
                                          "metadata: make a model with bitbrush quantize)");
    if (!metadata_u64(&index->json, index->metadata, "format_version", 1, 1 << 20, &version))
        return bb_fail(err, BB_ERR_CORRUPT, "the metadata has no format_version");
    if (version > (int64_t)BB_FORMAT_VERSION)
        return bb_fail(err, BB_ERR_VERSION, "the model has format version %u, this bitbrush reads up to %u: "
                                            "update bitbrush", (uint32_t)version, BB_FORMAT_VERSION);
    return BB_OK;
}

bb_status bb_index_parse(bb_file_index *index, const void *head, size_t n, void *tokens, size_t token_bytes,
                         bb_file_tensor *tensors, bb_error *err)
{
    uint64_t head_bytes;
    BB_TRY(bb_pack_head_bytes(head, n, &head_bytes, err));
    bb_json *j = &index->json;
    if (!bb_json_parse(j, (const char *)head + 8, (size_t)head_bytes - 8, tokens, token_bytes) ||
        !bb_json_is_object(j, 0))
        return bb_fail(err, BB_ERR_CORRUPT, "the file header is not valid JSON");
    index->metadata = bb_json_member(j, 0, "__metadata__");
    BB_TRY(check_format(index, err));
    if (head_bytes % BB_ALIGNMENT) return bb_fail(err, BB_ERR_CORRUPT, "the data does not start at a multiple of 64");
    uint64_t at = 0;
    index->n_tensors = 0;
    for (uint32_t key = bb_json_first(j, 0); key != BB_JSON_NONE; key = bb_json_next(j, key)) {
        bb_file_tensor t;
        if (bb_json_value(j, key) == index->metadata) continue;
        BB_TRY(bb_index_tensor(index, key, &t, err));
        if (t.begin != at || t.bytes > ((uint64_t)1 << 42) - at)
            return bb_fail(err, BB_ERR_CORRUPT, "the header's tensor ranges leave a gap or overlap");
        at += t.bytes;
        t.begin += head_bytes;
        if (tensors) tensors[index->n_tensors] = t;
        index->n_tensors++;
    }
    index->file_bytes = head_bytes + at;
    return BB_OK;
}

bool bb_pack_metadata(const bb_pack *pack, const char *key, char *out, size_t size)
{
    const bb_json *j = &pack->header;
    return bb_json_string(j, bb_json_member(j, bb_json_member(j, 0, "__metadata__"), key), out, size);
}
