/* See config.h. */
#include "import/config.h"

#include <stdlib.h>
#include <string.h>

/* A copy of the text in which -Infinity is null: Python writes it (a scheduler's lambda_min_clipped), JSON has no such
 * word. What stands there by default means the same as nothing. */
static void copy_text(char *out, const char *text, size_t n)
{
    static const char word[] = "-Infinity", none[] = "null     ";
    bool quoted = false;
    memcpy(out, text, n);
    for (size_t i = 0; i < n; i++) {
        if (quoted && out[i] == '\\') i++;
        else if (out[i] == '"') quoted = !quoted;
        else if (!quoted && n - i >= 9 && !memcmp(out + i, word, 9)) memcpy(out + i, none, 9);
    }
}

bb_status bb_json_file_open(bb_json_file *f, const char *path, bb_error *err)
{
    *f = (bb_json_file){0};
    BB_TRY(bb_file_open(&f->file, path, err));
    size_t n = f->file.size, bytes = bb_json_scratch(n);
    bb_status status = BB_OK;
    if (n > 100000000u || !(f->tokens = malloc(bytes + n))) {
        status = bb_fail(err, BB_ERR_SPACE, "%s: too large", path);
    } else {
        char *text = (char *)f->tokens + bytes;
        if (n) copy_text(text, (const char *)f->file.data, n);
        if (!n || !bb_json_parse(&f->json, text, n, f->tokens, bytes) || !bb_json_is_object(&f->json, 0))
            status = bb_fail(err, BB_ERR_CORRUPT, "%s: not a JSON object; the file is damaged or cut short", path);
    }
    if (status < 0) bb_json_file_close(f);
    return status;
}

void bb_json_file_close(bb_json_file *f)
{
    free(f->tokens);
    bb_file_close(&f->file);
    *f = (bb_json_file){0};
}

bb_config bb_config_init(const bb_json *json, uint32_t object, const char *file, const char *what, bb_error *err)
{
    return (bb_config){.json = json, .object = object, .file = file, .what = what, .err = err};
}

void bb_config_refuse(bb_config *c, const char *name, const char *what)
{
    if (c->status < 0) return;
    c->status = bb_fail(c->err, BB_ERR_UNSUPPORTED, "%s: \"%s\" %s", c->file, name, what);
}

static const char *older(const bb_config *c, const char *name)
{
    for (size_t i = 0; c->aliases && c->aliases[i][0]; i++) {
        if (!strcmp(c->aliases[i][0], name)) return c->aliases[i][1];
    }
    return NULL;
}

uint32_t bb_config_find(const bb_config *c, const char *name)
{
    uint32_t tok = bb_json_member(c->json, c->object, name);
    const char *old = tok == BB_JSON_NONE ? older(c, name) : NULL;
    return old ? bb_json_member(c->json, c->object, old) : tok;
}

static void mark(bb_config *c, const char *name)
{
    BB_ASSERT(c->n_seen < BB_CONFIG_FIELDS);
    c->seen[c->n_seen++] = name;
}

uint32_t bb_config_token(bb_config *c, const char *name)
{
    mark(c, name);
    if (older(c, name)) mark(c, older(c, name));
    if (c->status < 0) return BB_JSON_NONE;
    uint32_t tok = bb_config_find(c, name);
    return bb_json_is_null(c->json, tok) ? BB_JSON_NONE : tok;
}

void bb_config_ignore(bb_config *c, const char *name)
{
    bb_config_token(c, name);
}

uint32_t bb_config_u32(bb_config *c, const char *name, uint32_t fallback, uint32_t min, uint32_t max)
{
    uint32_t tok = bb_config_token(c, name);
    uint64_t v;
    if (tok == BB_JSON_NONE) return fallback;
    if (bb_json_u64(c->json, tok, &v) && v >= min && v <= max) return (uint32_t)v;
    char what[96];
    bb_format(what, sizeof what, "must be a whole number from %u to %u", min, max);
    bb_config_refuse(c, name, what);
    return fallback;
}

double bb_config_number(bb_config *c, const char *name, double fallback)
{
    uint32_t tok = bb_config_token(c, name);
    if (tok == BB_JSON_NONE) return fallback;
    char text[64], *end = text;
    size_t n = 0;
    const char *raw = bb_json_raw(c->json, tok, &n);
    double v = 0;
    if (raw && n < sizeof text && !bb_json_is_string(c->json, tok)) {
        memcpy(text, raw, n);
        text[n] = 0;
        v = strtod(text, &end);
    }
    if (end != text && !*end && v - v == 0) return v; /* finite */
    bb_config_refuse(c, name, "must be a number");
    return fallback;
}

bool bb_config_bool(bb_config *c, const char *name, bool fallback)
{
    uint32_t tok = bb_config_token(c, name);
    bool v = fallback;
    if (tok != BB_JSON_NONE && !bb_json_bool(c->json, tok, &v)) bb_config_refuse(c, name, "must be true or false");
    return v;
}

/* Index of string token tok in choices; refuses others, listing what is supported. */
static uint32_t choose(bb_config *c, const char *name, uint32_t tok, const char *const *choices)
{
    for (uint32_t i = 0; choices[i]; i++) {
        if (bb_json_equals(c->json, tok, choices[i])) return i;
    }
    char value[64], what[320];
    if (!bb_json_string(c->json, tok, value, sizeof value)) bb_format(value, sizeof value, "no string");
    size_t n = bb_format(what, sizeof what, "is %s; supported: ", value);
    for (uint32_t i = 0; choices[i]; i++) {
        n += bb_format(what + n, sizeof what - n, "%s%s", i ? ", " : "", choices[i]);
    }
    bb_config_refuse(c, name, what);
    return 0;
}

uint32_t bb_config_choice(bb_config *c, const char *name, const char *const *choices)
{
    uint32_t tok = bb_config_token(c, name);
    return tok == BB_JSON_NONE ? 0 : choose(c, name, tok, choices);
}

/* The list's token if it has 1..max elements; else refuses and returns BB_JSON_NONE. */
static uint32_t list_token(bb_config *c, const char *name, uint32_t max)
{
    uint32_t tok = bb_config_token(c, name), n = bb_json_size(c->json, tok);
    if (bb_json_is_array(c->json, tok) && n >= 1 && n <= max) return tok;
    char what[64];
    bb_format(what, sizeof what, "must be a list of 1 to %u entries", max);
    bb_config_refuse(c, name, what);
    return BB_JSON_NONE;
}

uint32_t bb_config_choices(bb_config *c, const char *name, const char *const *choices, uint32_t *out, uint32_t max)
{
    uint32_t tok = list_token(c, name, max), n = 0;
    if (tok == BB_JSON_NONE) return 0;
    for (uint32_t e = bb_json_first(c->json, tok); e != BB_JSON_NONE; e = bb_json_next(c->json, e)) {
        out[n++] = choose(c, name, e, choices);
    }
    return n;
}

uint32_t bb_config_numbers(bb_config *c, const char *name, uint32_t *out, uint32_t max)
{
    uint32_t tok = list_token(c, name, max), n = 0;
    if (tok == BB_JSON_NONE) return 0;
    for (uint32_t e = bb_json_first(c->json, tok); e != BB_JSON_NONE; e = bb_json_next(c->json, e)) {
        uint64_t v;
        bool ok = bb_json_u64(c->json, e, &v) && v >= 1 && v <= 65536;
        if (!ok) bb_config_refuse(c, name, "must list whole numbers from 1 to 65536");
        out[n++] = ok ? (uint32_t)v : 1;
    }
    return n;
}

bb_status bb_config_finish(bb_config *c)
{
    for (uint32_t key = bb_json_first(c->json, c->object); key != BB_JSON_NONE && c->status >= 0;
         key = bb_json_next(c->json, key)) {
        char name[96] = "?";
        bb_json_string(c->json, key, name, sizeof name);
        bool known = name[0] == '_', set = true;
        for (uint32_t i = 0; i < c->n_seen; i++) known = known || !strcmp(name, c->seen[i]);
        uint32_t value = bb_json_value(c->json, key);
        if (bb_json_is_null(c->json, value) || (bb_json_bool(c->json, value, &set) && !set)) continue;
        char what[128];
        bb_format(what, sizeof what, "is not a known field of %s; it might change the result", c->what);
        if (!known) bb_config_refuse(c, name, what);
    }
    return c->status;
}
