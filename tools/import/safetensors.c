/* See safetensors.h. */
#include "import/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bb_status bb_st_file_parse(bb_st_file *f, const uint8_t *data, size_t n, const char *name, bb_error *err)
{
    size_t bytes;
    *f = (bb_st_file){0};
    BB_TRY(bb_safetensors_memory(data, n, name, &bytes, err));
    f->memory = malloc(bytes);
    bb_status status = bb_safetensors_parse(&f->st, data, n, name, f->memory, bytes, err);
    if (status < 0) bb_st_file_close(f);
    return status;
}

bb_status bb_st_file_open(bb_st_file *f, const char *path, bb_error *err)
{
    *f = (bb_st_file){0};
    bb_file file;
    BB_TRY(bb_file_open(&file, path, err));
    bb_status status = bb_st_file_parse(f, file.data, file.size, path, err);
    if (status < 0) bb_file_close(&file);
    else f->file = file;
    return status;
}

void bb_st_file_close(bb_st_file *f)
{
    free(f->memory);
    bb_file_close(&f->file);
    *f = (bb_st_file){0};
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

static size_t bytes_of(const bb_st_out *t)
{
    static const uint8_t sizes[] = {[BB_ST_F32] = 4, [BB_ST_F16] = 2, [BB_ST_BF16] = 2, [BB_ST_I64] = 8, [BB_ST_I32] = 4,
                                    [BB_ST_U8] = 1};
    size_t bytes = sizes[t->dtype];
    for (uint32_t i = 0; i < t->rank; i++) bytes *= t->shape[i];
    return bytes;
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
        size_t end = begin + bytes_of(&list[i]);
        int length = snprintf(entry, sizeof entry, ":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                              bb_st_dtype_name(list[i].dtype), shape, begin, end);
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
    for (size_t i = 0; i < n; i++) size += bytes_of(&list[i]);
    uint8_t *p = malloc(size);
    if (!p) return bb_fail(err, BB_ERR_SPACE, "out of memory for %z bytes of tensors", size);
    uint64_t word = header;
    memcpy(p, &word, 8);
    memset(p + 8, ' ', header);
    put_header((char *)p + 8, list, n);
    size_t at = 8 + header;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = bytes_of(&list[i]);
        if (bytes) memcpy(p + at, list[i].data, bytes);
        at += bytes;
    }
    *out = p;
    *out_size = size;
    return BB_OK;
}
