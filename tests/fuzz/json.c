/* JSON text through the parser and every accessor. */
#include "fuzz.h"

#include "base/json.h"

/* Children of a container: as many as its size says, each with this parent; first, next and element agree. */
static void check_children(const bb_json *j, uint32_t tok)
{
    uint32_t n = 0, last = BB_JSON_NONE;
    for (uint32_t c = bb_json_first(j, tok); c != BB_JSON_NONE; c = bb_json_next(j, c)) {
        FUZZ_CHECK(c < j->count && j->tok[c].parent == (int)tok);
        if (bb_json_is_object(j, tok)) FUZZ_CHECK(bb_json_is_string(j, c) && bb_json_value(j, c) < j->count);
        last = c;
        n++;
    }
    FUZZ_CHECK(n == bb_json_size(j, tok));
    if (n && bb_json_is_array(j, tok)) FUZZ_CHECK(bb_json_element(j, tok, n - 1) == last);
    FUZZ_CHECK(bb_json_element(j, tok, n) == BB_JSON_NONE);
}

static void check_scalars(const bb_json *j, uint32_t tok)
{
    uint64_t u = 0;
    int64_t i = 0;
    bool b;
    size_t raw_bytes = 0, small = tok % 5;
    const char *raw = bb_json_raw(j, tok, &raw_bytes);
    char *text = fuzz_block(raw_bytes + 1), *cut = fuzz_block(small + 1);
    FUZZ_CHECK(raw && raw >= j->text && raw_bytes <= j->n && raw + raw_bytes <= j->text + j->n);
    /* Unescaping never makes a string longer: \u00XX is 6 bytes for 2, a surrogate pair 12 for 4. */
    if (bb_json_string(j, tok, text, raw_bytes + 1)) {
        FUZZ_CHECK(bb_json_is_string(j, tok) && strlen(text) <= raw_bytes);
        FUZZ_CHECK(bb_json_string(j, tok, cut, small + 1) && strlen(cut) <= small && !strncmp(text, cut, strlen(cut)));
        bb_json_equals(j, tok, text);
    }
    if (bb_json_u64(j, tok, &u) && bb_json_i64(j, tok, &i)) FUZZ_CHECK((uint64_t)i == u);
    bb_json_bool(j, tok, &b);
    bb_json_is_null(j, tok);
    free(text);
    free(cut);
}

FUZZ_TARGET(json)
{
    bb_json j;
    size_t bytes = bb_json_scratch(n);
    void *scratch = fuzz_block(bytes), *half = fuzz_block(bytes / 2);
    bool ok = bb_json_parse(&j, (const char *)data, n, scratch, bytes);
    if (ok) FUZZ_CHECK(j.count >= 1 && (bb_json_is_object(&j, 0) || bb_json_is_array(&j, 0)));
    for (uint32_t tok = 0; ok && tok < j.count && tok < 4096; tok++) {
        check_children(&j, tok);
        check_scalars(&j, tok);
    }
    bb_json_member(&j, 0, "a");
    bb_json_next(&j, j.count);
    if (!ok) FUZZ_CHECK(j.count == 0);
    bool less = bb_json_parse(&j, (const char *)data, n, half, bytes / 2);
    FUZZ_CHECK(ok || !less);
    free(scratch);
    free(half);
    return ok;
}
