/* See labels.h. */
#include "import/labels.h"

#include "import/config.h"

#include <stdlib.h>
#include <string.h>

static bb_status check_null(int64_t null_label, uint32_t classes, const char *where, bb_error *err)
{
    if (null_label >= 0 && null_label < (int64_t)classes) return BB_OK;
    return bb_fail(err, BB_ERR_LABEL, "%s is out of range; the model's classes are 0 to %u", where, classes - 1);
}

/* A number, or "none" = -1. */
static bb_status read_option(const char *text, uint32_t classes, int32_t *out, bb_error *err)
{
    *out = -1;
    if (!strcmp(text, "none")) return BB_OK;
    size_t digits = strspn(text, "0123456789");
    if (!digits || text[digits] || digits > 9) {
        return bb_fail(err, BB_ERR_LABEL, "--null-label %s: give the number of a class, or none", text);
    }
    char where[64];
    bb_format(where, sizeof where, "--null-label %s", text);
    *out = (int32_t)strtol(text, NULL, 10);
    return check_null(*out, classes, where, err);
}

static bb_status read_null(const bb_json *j, const char *path, uint32_t classes, int32_t *out, bb_error *err)
{
    uint32_t tok = bb_json_member(j, 0, "null");
    int64_t v;
    *out = -1;
    if (tok == BB_JSON_NONE || bb_json_is_null(j, tok)) return BB_OK;
    if (!bb_json_i64(j, tok, &v))
        return bb_fail(err, BB_ERR_CORRUPT, "%s: \"null\" must be the number of a class", path);
    char where[512];
    bb_format(where, sizeof where, "%s: \"null\"", path);
    BB_TRY(check_null(v, classes, where, err));
    *out = (int32_t)v;
    return BB_OK;
}

/* The names as compact JSON; their text stays escaped as it is in the file. */
static bb_status read_names(bb_labels *out, const bb_json *j, const char *path, size_t file_size, bb_error *err)
{
    uint32_t list = bb_json_member(j, 0, "names");
    if (!bb_json_is_array(j, list)) return bb_fail(err, BB_ERR_CORRUPT, "%s: has no list \"names\"", path);
    char *p = out->names = malloc(file_size + 3); /* never longer than the file */
    if (!p) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    *p++ = '[';
    for (uint32_t e = bb_json_first(j, list); e != BB_JSON_NONE; e = bb_json_next(j, e)) {
        size_t n = 0;
        const char *raw = bb_json_raw(j, e, &n);
        if (!bb_json_is_string(j, e) || !raw) {
            return bb_fail(err, BB_ERR_CORRUPT, "%s: every entry of \"names\" must be a string", path);
        }
        if (p[-1] != '[') *p++ = ',';
        *p++ = '"';
        memcpy(p, raw, n);
        p += n;
        *p++ = '"';
    }
    memcpy(p, "]", 2);
    return BB_OK;
}

static bb_status read_file(bb_labels *out, const bb_json *j, const char *path, size_t file_size, const char *null_label,
                           uint32_t classes, bb_error *err)
{
    for (uint32_t key = bb_json_first(j, 0); key != BB_JSON_NONE; key = bb_json_next(j, key)) {
        char name[64] = "?";
        if (bb_json_equals(j, key, "null") || bb_json_equals(j, key, "names")) continue;
        bb_json_string(j, key, name, sizeof name);
        return bb_fail(err, BB_ERR_CORRUPT, "%s: unknown field \"%s\"; known are null and names", path, name);
    }
    int32_t own;
    BB_TRY(read_null(j, path, classes, &own, err));
    if (null_label) BB_TRY(read_option(null_label, classes, &out->null_label, err));
    else out->null_label = own;
    BB_TRY(read_names(out, j, path, file_size, err));
    uint32_t names = bb_json_size(j, bb_json_member(j, 0, "names"));
    bool null_is_last = own == (int32_t)classes - 1 || out->null_label == (int32_t)classes - 1;
    if (names == classes || (null_is_last && names == classes - 1)) return BB_OK;
    return bb_fail(err, BB_ERR_CORRUPT, "%s: %u names for %u classes; there must be one per class, "
                   "and only a null class that is the last may go without", path, names, classes);
}

bb_status bb_labels_read(bb_labels *out, const char *path, const char *null_label, uint32_t classes, bb_error *err)
{
    *out = (bb_labels){.null_label = -1};
    if (!classes) {
        if (*path) return bb_fail(err, BB_ERR_LABEL, "%s: the model has no classes to name", path);
        if (null_label && strcmp(null_label, "none") != 0) {
            return bb_fail(err, BB_ERR_LABEL, "--null-label %s: the model has no classes", null_label);
        }
        return BB_OK;
    }
    if (!*path) return null_label ? read_option(null_label, classes, &out->null_label, err) : BB_OK;
    bb_json_file f;
    BB_TRY(bb_json_file_open(&f, path, err));
    bb_status status = read_file(out, &f.json, path, f.file.size, null_label, classes, err);
    bb_json_file_close(&f);
    if (status < 0) bb_labels_free(out);
    return status;
}

void bb_labels_free(bb_labels *l)
{
    free(l->names);
    *l = (bb_labels){.null_label = -1};
}
