/* JSON for untrusted text: a strict check of the whole text first (RFC 8259, depth ≤ 32), then jsmn cuts it into
 * tokens. jsmn alone accepts missing separators, several roots and any word that starts like a number, and walks up
 * the nesting at every bracket; after the check none of that can happen. */
#include "base/json.h"

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#include <jsmn.h>

#define MAX_DEPTH 32
#define MAX_BYTES ((size_t)1 << 30) /* jsmn's positions are ints */

_Static_assert(sizeof(bb_json_token) == sizeof(jsmntok_t), "same layout");
_Static_assert(offsetof(bb_json_token, type) == offsetof(jsmntok_t, type), "same layout");
_Static_assert(offsetof(bb_json_token, start) == offsetof(jsmntok_t, start), "same layout");
_Static_assert(offsetof(bb_json_token, end) == offsetof(jsmntok_t, end), "same layout");
_Static_assert(offsetof(bb_json_token, size) == offsetof(jsmntok_t, size), "same layout");
_Static_assert(offsetof(bb_json_token, parent) == offsetof(jsmntok_t, parent), "same layout");

/* ---- the strict check: a cursor over the text; each function moves it past what it names or says no ---- */

typedef struct cursor {
    const uint8_t *s;
    size_t i, n;
} cursor;

static int peek(const cursor *c) { return c->i < c->n ? c->s[c->i] : -1; }
static bool is_digit(int ch) { return ch >= '0' && ch <= '9'; }

static int hex_value(int ch)
{
    if (is_digit(ch)) return ch - '0';
    if (ch >= 'a' && ch <= 'f') return ch - 'a' + 10;
    if (ch >= 'A' && ch <= 'F') return ch - 'A' + 10;
    return -1;
}

static bool accept(cursor *c, int ch)
{
    if (peek(c) != ch) return false;
    c->i++;
    return true;
}

static void skip_space(cursor *c)
{
    for (int ch = peek(c); ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r'; ch = peek(c)) c->i++;
}

static bool accept_digits(cursor *c)
{
    size_t from = c->i;
    while (is_digit(peek(c))) c->i++;
    return c->i > from;
}

static bool accept_number(cursor *c)
{
    (void)accept(c, '-');
    if (!accept(c, '0') && !accept_digits(c)) return false;
    if (accept(c, '.') && !accept_digits(c)) return false;
    if (accept(c, 'e') || accept(c, 'E')) {
        if (!accept(c, '+')) (void)accept(c, '-');
        if (!accept_digits(c)) return false;
    }
    return true;
}

static bool accept_word(cursor *c, const char *word)
{
    for (; *word; word++) {
        if (!accept(c, *word)) return false;
    }
    return true;
}

/* One well-formed UTF-8 sequence of two to four bytes (Unicode table 3-7: no overlong forms, no surrogates). */
static bool accept_multibyte(cursor *c)
{
    int lead = peek(c), low = 0x80, high = 0xbf, more;
    if (lead >= 0xc2 && lead <= 0xdf) more = 1;
    else if (lead >= 0xe0 && lead <= 0xef) more = 2;
    else if (lead >= 0xf0 && lead <= 0xf4) more = 3;
    else return false;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    for (c->i++; more; more--, c->i++) {
        int ch = peek(c);
        if (ch < low || ch > high) return false;
        low = 0x80;
        high = 0xbf;
    }
    return true;
}

static bool accept_escape(cursor *c)
{
    int ch = peek(c);
    c->i++;
    switch (ch) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't': return true;
    case 'u':
        for (int k = 0; k < 4; k++, c->i++) {
            if (hex_value(peek(c)) < 0) return false;
        }
        return true;
    default: return false;
    }
}

static bool accept_string(cursor *c)
{
    if (!accept(c, '"')) return false;
    for (;;) {
        int ch = peek(c);
        if (ch < 0x20) return false; /* also the end of the text */
        if (ch >= 0x80) {
            if (!accept_multibyte(c)) return false;
            continue;
        }
        c->i++;
        if (ch == '"') return true;
        if (ch == '\\' && !accept_escape(c)) return false;
    }
}

static bool accept_scalar(cursor *c)
{
    switch (peek(c)) {
    case '"': return accept_string(c);
    case 't': return accept_word(c, "true");
    case 'f': return accept_word(c, "false");
    case 'n': return accept_word(c, "null");
    default: return accept_number(c);
    }
}

static bool accept_key(cursor *c)
{
    skip_space(c);
    if (!accept_string(c)) return false;
    skip_space(c);
    return accept(c, ':');
}

/* One object or array and nothing after it. */
static bool strict(cursor *c)
{
    bool object[MAX_DEPTH + 1] = {false}; /* kind of the container at each depth, 1 = the root */
    size_t depth = 0;
    do {
        /* a value is due */
        skip_space(c);
        int ch = peek(c);
        if (ch == '{' || ch == '[') {
            if (depth == MAX_DEPTH) return false;
            object[++depth] = ch == '{';
            c->i++;
            skip_space(c);
            if (peek(c) != (ch == '{' ? '}' : ']')) {
                if (object[depth] && !accept_key(c)) return false;
                continue;
            }
        } else if (depth == 0 || !accept_scalar(c)) {
            return false;
        }
        /* a value has ended (or an empty container waits for its bracket): close what closes, then a comma */
        skip_space(c);
        while (depth && accept(c, object[depth] ? '}' : ']')) {
            depth--;
            skip_space(c);
        }
        if (depth && (!accept(c, ',') || (object[depth] && !accept_key(c)))) return false;
    } while (depth);
    return c->i == c->n;
}

/* ---- parsing ---- */

bool bb_json_parse(bb_json *out, const char *text, size_t n, void *scratch, size_t scratch_bytes)
{
    *out = (bb_json){0};
    cursor c = {(const uint8_t *)text, 0, n};
    if (!text || n > MAX_BYTES || !strict(&c)) return false;

    size_t skip = (size_t)(-(uintptr_t)scratch & (_Alignof(jsmntok_t) - 1));
    if (!scratch || scratch_bytes < skip) return false;
    unsigned char *mem = (unsigned char *)scratch + skip;
    size_t room = (scratch_bytes - skip) / sizeof(jsmntok_t);
    if (room > MAX_BYTES) room = MAX_BYTES;

    jsmn_parser parser;
    jsmn_init(&parser);
    int count = jsmn_parse(&parser, text, n, (jsmntok_t *)(void *)mem, (unsigned int)room);
    if (count < 1) return false;
    /* The same bytes under our type's name, without breaking the aliasing rules; compiles to nothing. */
    for (size_t i = 0; i < (size_t)count; i++) {
        bb_json_token t;
        memcpy(&t, mem + i * sizeof t, sizeof t);
        memcpy(mem + i * sizeof t, &t, sizeof t);
    }
    *out = (bb_json){text, n, (const bb_json_token *)(const void *)mem, (uint32_t)count};
    return true;
}

/* ---- access ---- */

static bool has_type(const bb_json *j, uint32_t tok, int type) { return tok < j->count && j->tok[tok].type == type; }

static bool is_key(const bb_json *j, uint32_t tok)
{
    return has_type(j, tok, JSMN_STRING) && j->tok[tok].parent >= 0 &&
           has_type(j, (uint32_t)j->tok[tok].parent, JSMN_OBJECT);
}

static bool primitive_is(const bb_json *j, uint32_t tok, const char *word)
{
    if (!has_type(j, tok, JSMN_PRIMITIVE)) return false;
    const char *s = j->text + j->tok[tok].start, *end = j->text + j->tok[tok].end;
    while (s < end && *word && *s == *word) s++, word++;
    return s == end && !*word;
}

bool bb_json_is_object(const bb_json *j, uint32_t tok) { return has_type(j, tok, JSMN_OBJECT); }
bool bb_json_is_array(const bb_json *j, uint32_t tok) { return has_type(j, tok, JSMN_ARRAY); }
bool bb_json_is_string(const bb_json *j, uint32_t tok) { return has_type(j, tok, JSMN_STRING); }
bool bb_json_is_null(const bb_json *j, uint32_t tok) { return primitive_is(j, tok, "null"); }

uint32_t bb_json_size(const bb_json *j, uint32_t tok)
{
    return bb_json_is_object(j, tok) || bb_json_is_array(j, tok) ? (uint32_t)j->tok[tok].size : 0;
}

uint32_t bb_json_first(const bb_json *j, uint32_t tok) { return bb_json_size(j, tok) ? tok + 1 : BB_JSON_NONE; }

uint32_t bb_json_next(const bb_json *j, uint32_t tok)
{
    if (tok >= j->count || j->tok[tok].parent < 0) return BB_JSON_NONE;
    uint32_t last = is_key(j, tok) ? tok + 1 : tok, next = last + 1;
    int end = j->tok[last].end; /* tokens come in text order: skip those inside */
    while (next < j->count && j->tok[next].start < end) next++;
    return next < j->count && j->tok[next].parent == j->tok[tok].parent ? next : BB_JSON_NONE;
}

uint32_t bb_json_value(const bb_json *j, uint32_t key) { return is_key(j, key) ? key + 1 : BB_JSON_NONE; }

uint32_t bb_json_member(const bb_json *j, uint32_t object, const char *key)
{
    if (!bb_json_is_object(j, object)) return BB_JSON_NONE;
    for (uint32_t k = bb_json_first(j, object); k != BB_JSON_NONE; k = bb_json_next(j, k)) {
        if (bb_json_equals(j, k, key)) return bb_json_value(j, k);
    }
    return BB_JSON_NONE;
}

uint32_t bb_json_element(const bb_json *j, uint32_t array, uint32_t index)
{
    if (!bb_json_is_array(j, array) || index >= bb_json_size(j, array)) return BB_JSON_NONE;
    uint32_t e = bb_json_first(j, array);
    while (index-- && e != BB_JSON_NONE) e = bb_json_next(j, e);
    return e;
}

bool bb_json_equals(const bb_json *j, uint32_t tok, const char *s)
{
    if (!bb_json_is_string(j, tok)) return false;
    const char *p = j->text + j->tok[tok].start, *end = j->text + j->tok[tok].end;
    while (p < end && *s && *p == *s) p++, s++;
    return p == end && !*s;
}

bool bb_json_bool(const bb_json *j, uint32_t tok, bool *out)
{
    bool yes = primitive_is(j, tok, "true");
    if (!yes && !primitive_is(j, tok, "false")) return false;
    *out = yes;
    return true;
}

bool bb_json_u64(const bb_json *j, uint32_t tok, uint64_t *out)
{
    if (!has_type(j, tok, JSMN_PRIMITIVE)) return false;
    uint64_t v = 0;
    for (int i = j->tok[tok].start; i < j->tok[tok].end; i++) {
        if (!is_digit(j->text[i])) return false;
        uint64_t digit = (uint64_t)(j->text[i] - '0');
        if (v > (UINT64_MAX - digit) / 10) return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

bool bb_json_i64(const bb_json *j, uint32_t tok, int64_t *out)
{
    if (!has_type(j, tok, JSMN_PRIMITIVE)) return false;
    const bb_json_token *t = &j->tok[tok];
    bool minus = j->text[t->start] == '-';
    bb_json_token digits = *t;
    digits.start += minus;
    bb_json one = {j->text, j->n, &digits, 1};
    uint64_t v;
    if (!bb_json_u64(&one, 0, &v) || v > (uint64_t)INT64_MAX + minus) return false;
    *out = minus ? (v ? -(int64_t)(v - 1) - 1 : 0) : (int64_t)v;
    return true;
}

/* Four hex digits at s; the check has seen them. */
static uint32_t hex4(const char *s)
{
    uint32_t v = 0;
    for (int k = 0; k < 4; k++) v = v << 4 | (uint32_t)hex_value(s[k]);
    return v;
}

/* Reads one character (escaped or not) at *s, moves on, writes its UTF-8 to u and returns the length. Lone surrogates
 * and U+0000, which a C string cannot hold, become U+FFFD. */
static size_t take_character(const char **s, const char *end, char u[4])
{
    const char *p = *s;
    if (*p != '\\') {
        size_t len = 0;
        do u[len++] = *p++;
        while (p < end && len < 4 && ((uint8_t)*p & 0xc0) == 0x80);
        *s = p;
        return len;
    }
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    if (p[1] != 'u') {
        u[0] = p[1];
        for (size_t k = 0; from[k]; k++) {
            if (p[1] == from[k]) u[0] = to[k];
        }
        *s = p + 2;
        return 1;
    }
    uint32_t v = hex4(p + 2);
    p += 6;
    if (v >= 0xd800 && v < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
        uint32_t low = hex4(p + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
    }
    *s = p;
    if ((v >= 0xd800 && v < 0xe000) || v == 0) v = 0xfffd;
    if (v < 0x80) {
        u[0] = (char)v;
        return 1;
    }
    size_t more = v < 0x800 ? 1 : v < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    u[0] = (char)(lead[more] | v >> 6 * more);
    for (size_t k = 1; k <= more; k++) u[k] = (char)(0x80 | (v >> 6 * (more - k) & 0x3f));
    return more + 1;
}

bool bb_json_string(const bb_json *j, uint32_t tok, char *out, size_t size)
{
    if (!bb_json_is_string(j, tok) || size == 0) return false;
    const char *s = j->text + j->tok[tok].start, *end = j->text + j->tok[tok].end;
    size_t n = 0;
    while (s < end) {
        char u[4];
        size_t len = take_character(&s, end, u);
        if (len >= size - n) break;
        for (size_t k = 0; k < len; k++) out[n++] = u[k];
    }
    out[n] = 0;
    return true;
}

const char *bb_json_raw(const bb_json *j, uint32_t tok, size_t *n)
{
    if (tok >= j->count) return NULL;
    *n = (size_t)(j->tok[tok].end - j->tok[tok].start);
    return j->text + j->tok[tok].start;
}
