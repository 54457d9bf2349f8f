/* core/base/json: what is JSON and what is not, and the accessors on odd tokens. */
#include "base/json.h"
#include "check.h"

/* Text and scratch in heap blocks of exactly their size, so that a sanitizer sees any step outside. */
static bool parses(const char *text, size_t n)
{
    char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    void *scratch = malloc(bb_json_scratch(n));
    bb_json j;
    bool ok = bb_json_parse(&j, copy, n, scratch, bb_json_scratch(n));
    free(scratch);
    free(copy);
    return ok;
}

static void test_grammar(void)
{
    static const char *const good[] = {
        "{}", "[]", " \t\r\n[ ] \n", "{\"a\":1}", "[1,2,3]", "[[],{},[{}]]", "{\"a\":{\"b\":[1,{\"c\":null}]},\"d\":2}",
        "[true,false,null]", "[0,-0,1.5,-1e9,2E+3,0.1e-5,10]", "[\"\",\"\\u00e9\\n\\\"\\\\\\/\\b\\f\\r\\t\"]",
        "[\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x8e\xa8\"]", "{\"\":\"\"}", "{ \"a\" : 1 , \"b\" : [ 1 , 2 ] }", "[{},{}]",
    };
    static const char *const bad[] = {
        "", " ", "1", "\"a\"", "null", "{", "}", "[", "]", "[}", "{]", "[1", "{\"a\":1", "[1]]", "[1]{}", "[1] x",
        "{}{}", "[1,]", "[,1]", "[,]", "[1,,2]", "[1 2]", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\" 1}",
        "{\"a\"::1}", "{\"a\":1:2}", "{\"a\":1 \"b\":2}", "{\"a\",1}", "{a:1}", "{1:2}", "{null:1}", "{[]:1}",
        "[\"a\":1]", "[tru]", "[truex]",
        "[nul]", "[none]", "[True]", "[NaN]", "[Infinity]", "[-]", "[+1]", "[01]", "[-01]", "[1.]", "[.5]", "[1e]",
        "[1e+]",
        "[0x10]", "[1-2]", "[t]", "['a']", "[\"a]", "[\"\\x\"]", "[\"\\u12g4\"]", "[\"\\u123\"]", "[\"a\nb\"]",
        "[\"\x80\"]", "[\"\xc0\xaf\"]", "[\"\xe0\x80\x80\"]", "[\"\xed\xa0\x80\"]", "[\"\xf4\x90\x80\x80\"]",
        "[\"\xc3\"]", "[1]//", "/**/[]",
        "\xef\xbb\xbf[]", "{\"a\":1]", "[1}", "[\"\\", "[\"\\u", "[\"\\u00",
    };
    for (size_t i = 0; i < BB_COUNT(good); i++) CHECK(parses(good[i], strlen(good[i])), "%s", good[i]);
    for (size_t i = 0; i < BB_COUNT(bad); i++) CHECK(!parses(bad[i], strlen(bad[i])), "%s", bad[i]);
    CHECK(!parses("[1]\0", 4), "a NUL after the root");
    CHECK(!parses("[\"a\0b\"]", 7), "a NUL in a string");
    /* Every proper prefix of a good text is bad: the last bracket is missing. */
    const char *text = good[6];
    for (size_t n = 0; n < strlen(text); n++) CHECK(!parses(text, n), "first %zu bytes of %s", n, text);
}

static void test_depth_and_scratch(void)
{
    char text[80];
    for (size_t depth = 1; depth <= 40; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        CHECK(parses(text, 2 * depth) == (depth <= 32), "depth %zu", depth);
    }
    /* The densest text, one token per two bytes, fits the promised scratch; one token less does not. */
    enum { VALUES = 5000, BYTES = 2 * VALUES + 1 };
    char *dense = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++) dense[i] = i % 2 ? '1' : ',';
    dense[0] = '[';
    dense[BYTES - 1] = ']';
    CHECK(parses(dense, BYTES), "the densest array");
    bb_json j;
    size_t need = (VALUES + 1) * sizeof(bb_json_token);
    char *scratch = malloc(need);
    CHECK(bb_json_parse(&j, dense, BYTES, scratch, need) && bb_json_size(&j, 0) == VALUES, "exact scratch");
    CHECK(!bb_json_parse(&j, dense, BYTES, scratch, need - 1), "one byte less");
    CHECK(!bb_json_parse(&j, dense, BYTES, scratch + 1, need - 1), "unaligned and too small");
    CHECK(!bb_json_parse(&j, dense, BYTES, NULL, 0), "no scratch");
    free(scratch);
    free(dense);
}

static void test_walk(void)
{
    static const char text[] = "{\"a\":[1,[2,{\"a\":9}],3],\"b\":{\"a\":5,\"c\":{}},\"a\":7,\"n\":null,"
                               "\"t\":true,\"s\":\"x\"}";
    char scratch[2048];
    bb_json j;
    CHECK(bb_json_parse(&j, text, sizeof text - 1, scratch, sizeof scratch), "parse");
    CHECK(bb_json_is_object(&j, 0) && bb_json_size(&j, 0) == 6, "root");
    static const char *const keys[] = {"a", "b", "a", "n", "t", "s"};
    uint32_t k = bb_json_first(&j, 0);
    for (size_t i = 0; i < BB_COUNT(keys); i++, k = bb_json_next(&j, k)) {
        CHECK(bb_json_equals(&j, k, keys[i]), "key %zu", i);
    }
    CHECK(k == BB_JSON_NONE, "six keys only");

    uint32_t a = bb_json_member(&j, 0, "a");
    CHECK(bb_json_is_array(&j, a) && bb_json_size(&j, a) == 3, "the first of two members named a");
    uint64_t v = 0;
    CHECK(bb_json_u64(&j, bb_json_element(&j, a, 2), &v) && v == 3, "element after a nested one");
    CHECK(bb_json_element(&j, a, 3) == BB_JSON_NONE, "no fourth element");
    uint32_t inner = bb_json_element(&j, bb_json_element(&j, a, 1), 1);
    CHECK(bb_json_u64(&j, bb_json_member(&j, inner, "a"), &v) && v == 9, "nested member");
    uint32_t b = bb_json_member(&j, 0, "b");
    CHECK(bb_json_u64(&j, bb_json_member(&j, b, "a"), &v) && v == 5, "member of b");
    CHECK(bb_json_first(&j, bb_json_member(&j, b, "c")) == BB_JSON_NONE, "empty object");
    CHECK(bb_json_next(&j, bb_json_value(&j, bb_json_first(&j, 0))) == BB_JSON_NONE, "a member's value has no sibling");
    CHECK(bb_json_is_null(&j, bb_json_member(&j, 0, "n")), "null");
    bool t = false;
    CHECK(bb_json_bool(&j, bb_json_member(&j, 0, "t"), &t) && t, "true");

    /* Nothing is everything's answer to the wrong question. */
    uint32_t s = bb_json_member(&j, 0, "s");
    CHECK(bb_json_member(&j, 0, "missing") == BB_JSON_NONE, "no such member");
    CHECK(bb_json_member(&j, a, "a") == BB_JSON_NONE, "an array has no members");
    CHECK(bb_json_value(&j, s) == BB_JSON_NONE && bb_json_size(&j, s) == 0, "a string value is no key");
    CHECK(bb_json_element(&j, 0, 0) == BB_JSON_NONE, "an object is no array");
    const uint32_t none = BB_JSON_NONE;
    size_t n;
    int64_t i64;
    char buf[4];
    CHECK(!bb_json_is_object(&j, none) && !bb_json_is_array(&j, none) && !bb_json_is_string(&j, none), "none");
    CHECK(!bb_json_is_null(&j, none) && bb_json_size(&j, none) == 0 && bb_json_first(&j, none) == none, "none");
    CHECK(bb_json_next(&j, none) == none && bb_json_value(&j, none) == none, "none");
    CHECK(bb_json_member(&j, none, "a") == none && bb_json_element(&j, none, 0) == none, "none");
    CHECK(!bb_json_equals(&j, none, "") && !bb_json_bool(&j, none, &t) && !bb_json_u64(&j, none, &v), "none");
    CHECK(!bb_json_i64(&j, none, &i64) && !bb_json_string(&j, none, buf, 4) && !bb_json_raw(&j, none, &n), "none");
}

static void test_numbers(void)
{
    static const char text[] = "[18446744073709551615,18446744073709551616,9223372036854775807,9223372036854775808,"
                               "-9223372036854775808,-9223372036854775809,-0,1.0,1e3,\"5\",-7]";
    static const struct { bool u_ok, i_ok; uint64_t u; int64_t i; } want[] = {
        {true, false, UINT64_MAX, 0}, {false, false, 0, 0}, {true, true, INT64_MAX, INT64_MAX},
        {true, false, (uint64_t)INT64_MAX + 1, 0}, {false, true, 0, INT64_MIN}, {false, false, 0, 0},
        {false, true, 0, 0}, {false, false, 0, 0}, {false, false, 0, 0}, {false, false, 0, 0}, {false, true, 0, -7},
    };
    char scratch[4096];
    bb_json j;
    CHECK(bb_json_parse(&j, text, sizeof text - 1, scratch, sizeof scratch), "parse");
    for (uint32_t k = 0; k < BB_COUNT(want); k++) {
        uint64_t u = 0;
        int64_t i = 0;
        uint32_t e = bb_json_element(&j, 0, k);
        CHECK(bb_json_u64(&j, e, &u) == want[k].u_ok && u == want[k].u, "u64 %u", k);
        CHECK(bb_json_i64(&j, e, &i) == want[k].i_ok && i == want[k].i, "i64 %u", k);
    }
}

static void test_strings(void)
{
    static const char text[] = "[\"a\\n\\u00e9\\u20ac\\ud83c\\udfa8\\/\",\"\\u0000\\ud83c\\ud83cx\\udfa8\","
                               "\"\xc3\xa9\xc3\xa9\",\"\"]";
    char scratch[4096], out[32];
    bb_json j;
    CHECK(bb_json_parse(&j, text, sizeof text - 1, scratch, sizeof scratch), "parse");
    CHECK(bb_json_string(&j, 1, out, sizeof out) &&
          !strcmp(out, "a\n\xc3\xa9\xe2\x82\xac\xf0\x9f\x8e\xa8/"), "%s", out);
    CHECK(bb_json_string(&j, 2, out, sizeof out) &&
          !strcmp(out, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx\xef\xbf\xbd"), "%s", out);
    CHECK(bb_json_string(&j, 3, out, 5) && !strcmp(out, "\xc3\xa9\xc3\xa9"), "fits exactly");
    CHECK(bb_json_string(&j, 3, out, 4) && !strcmp(out, "\xc3\xa9"), "cut between characters");
    CHECK(bb_json_string(&j, 1, out, 7) && !strcmp(out, "a\n\xc3\xa9"), "cut before an escape that does not fit");
    CHECK(bb_json_string(&j, 4, out, 1) && !*out, "empty");
    CHECK(!bb_json_string(&j, 1, out, 0) && !bb_json_string(&j, 0, out, 8), "no room; no string");
    CHECK(!bb_json_equals(&j, 3, "\xc3\xa9") && bb_json_equals(&j, 4, ""), "whole strings are compared");
}

/* Random texts over JSON's own alphabet: nothing may read outside (run under sanitizers), and whatever passes has
 * sound tokens. xorshift, fixed seed. */
static void test_random(void)
{
    static const char alphabet[] = "{}[],:\"\\ 01-.etrufalsn\n";
    uint64_t state = 88172645463325252u;
    size_t passed = 0;
    for (int round = 0; round < 300000; round++) {
        char text[16];
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        size_t n = 2 + state % 9;
        for (size_t i = 0; i < n; i++) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            text[i] = alphabet[(state >> 20) % (i % 2 ? 7 : sizeof alphabet - 1)];
        }
        text[0] = state >> 60 & 1 ? '{' : '[';
        text[n - 1] = text[0] == '{' ? '}' : ']';
        char scratch[1024];
        bb_json j;
        if (!bb_json_parse(&j, text, n, scratch, bb_json_scratch(n))) continue;
        passed++;
        uint32_t members = 0;
        for (uint32_t k = bb_json_first(&j, 0); k != BB_JSON_NONE; k = bb_json_next(&j, k)) members++;
        if (members != bb_json_size(&j, 0)) CHECK(false, "%.*s: %u members", (int)n, text, members);
    }
    CHECK(passed > 1000, "only %zu of the random texts were JSON", passed);
}

int main(void)
{
    test_grammar();
    test_depth_and_scratch();
    test_walk();
    test_numbers();
    test_strings();
    test_random();
    return check_done();
}
