/* A thin walk over jsmn tokens: strict, no allocation, no floating point. Every accessor checks types, so hostile
 * text can at worst be "not found". Tokens are numbers into json->tok; BB_JSON_NONE stands for "no such thing" and
 * may be passed to every accessor. */
#ifndef BB_BASE_JSON_H
#define BB_BASE_JSON_H

#include "base/status.h"

#define BB_JSON_NONE 0xffffffffu
typedef struct bb_json_token { int type, start, end, size, parent; } bb_json_token; /* = jsmntok_t with parent links */

typedef struct bb_json {
    const char *text;
    size_t n;
    const bb_json_token *tok;
    uint32_t count;
} bb_json;

/* Bytes of token memory that always suffice for n bytes of text. */
BB_INLINE size_t bb_json_scratch(size_t n) { return (n / 2 + 2) * sizeof(bb_json_token); }

/* Parses the whole text (white space around it allowed). Token 0 is the root, an object or an array. Refuses all that
 * is not RFC 8259 (UTF-8 included), nesting deeper than 32, more than 2^30 bytes. False: not JSON, or scratch too
 * small. out borrows text and scratch. */
bool bb_json_parse(bb_json *out, const char *text, size_t n, void *scratch, size_t scratch_bytes);

bool bb_json_is_object(const bb_json *j, uint32_t tok);
bool bb_json_is_array(const bb_json *j, uint32_t tok);
bool bb_json_is_string(const bb_json *j, uint32_t tok);
bool bb_json_is_null(const bb_json *j, uint32_t tok);
uint32_t bb_json_size(const bb_json *j, uint32_t tok); /* members or elements; 0 otherwise */

/* Iteration: first key of an object (its value: bb_json_value) or first element of an array; next sibling. */
uint32_t bb_json_first(const bb_json *j, uint32_t tok);
uint32_t bb_json_next(const bb_json *j, uint32_t tok);
uint32_t bb_json_value(const bb_json *j, uint32_t key);
uint32_t bb_json_member(const bb_json *j, uint32_t object, const char *key); /* value token of the first such key */
uint32_t bb_json_element(const bb_json *j, uint32_t array, uint32_t index);

bool bb_json_equals(const bb_json *j, uint32_t tok, const char *s);    /* string token, raw (unescaped) compare */
bool bb_json_bool(const bb_json *j, uint32_t tok, bool *out);
bool bb_json_u64(const bb_json *j, uint32_t tok, uint64_t *out);       /* digits only, no overflow */
bool bb_json_i64(const bb_json *j, uint32_t tok, int64_t *out);
/* Unescapes (\\uXXXX to UTF-8) into out, NUL-terminated, cut at a character boundary if too long. Escaped U+0000 and
 * lone surrogates become U+FFFD. False if no string. */
bool bb_json_string(const bb_json *j, uint32_t tok, char *out, size_t size);
/* The token's raw text, not terminated; for numbers in tools (strtod). NULL if none. */
const char *bb_json_raw(const bb_json *j, uint32_t tok, size_t *n);

#endif
