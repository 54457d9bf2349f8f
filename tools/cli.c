#include "cli.h"

#include "io.h"
#include "platform.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes of the control character at p, 0 if it is none: C0, DELETE, or C1 as UTF-8 writes it. */
static size_t control(const char *p)
{
    unsigned char a = (unsigned char)p[0], b = (unsigned char)(a ? p[1] : 0);
    if (a == 0xc2 && b >= 0x80 && b < 0xa0) return 2;
    return (a && a < 0x20) || a == 0x7f;
}

void bb_cli_plain(char *text)
{
    for (char *c = text; *c; c++)
        for (size_t k = control(c); k; k--) c[k - 1] = '?';
}

int bb_cli_fail(const bb_error *err)
{
    char text[sizeof err->text];
    snprintf(text, sizeof text, "%s", err->text[0] ? err->text : bb_strerror(err->code));
    bb_cli_plain(text); /* names from files could forge lines, too */
    fprintf(stderr, "bitbrush: %s\n", text);
    bool usage = err->code == BB_ERR_LABEL || err->code == BB_ERR_STEPS || err->code == BB_ERR_GUIDANCE ||
                 err->code == BB_ERR_OPTION;
    return usage ? BB_EXIT_USAGE : BB_EXIT_FAILED;
}

int bb_cli_usage_error(const bb_command *c, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "bitbrush %s: ", c->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (bitbrush %s --help lists the options)\n", c->name);
    return BB_EXIT_USAGE;
}

/* Words with | between, one after the other in lines of their own. */
static void print_words(const char *words)
{
    enum { INDENT = 33, WIDTH = 110 };
    for (size_t column = 0; *words;) {
        size_t n = strcspn(words, "|");
        if (column && column + n + 1 > WIDTH) {
            putchar('\n');
            column = 0;
        }
        column += (size_t)printf("%*s%.*s", column ? 1 : INDENT, "", (int)n, words);
        words += n + (words[n] != 0);
    }
    putchar('\n');
}

static void print_help(const bb_command *c, const bb_option *options, size_t n)
{
    printf("usage: bitbrush %s %s [options]\n%s\n\n", c->name, c->arguments, c->summary);
    for (size_t i = 0; i < n; i++) {
        const char *value = options[i].value ? options[i].value : "";
        char left[64];
        bool list = strlen(value) > 40;
        snprintf(left, sizeof left, "%s %s", options[i].name, list ? "NAME" : value);
        printf("  %-30s %s\n", left, options[i].help);
        if (list) print_words(value);
    }
}

static bool parse_unsigned(const char *text, uint64_t *out)
{
    char *end;
    if (*text < '0' || *text > '9') return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && !*end;
}

static bool parse_choice(const char *words, const char *text, uint32_t *out)
{
    size_t n = strlen(text);
    for (uint32_t i = 0;; i++) {
        size_t len = strcspn(words, "|");
        if (len == n && memcmp(words, text, n) == 0) { *out = i; return true; }
        if (!words[len]) return false;
        words += len + 1;
    }
}

static bool parse_grid(const bb_option *o, const char *text)
{
    uint64_t part[2];
    char left[16];
    const char *x = strchr(text, 'x');
    if (!x || (size_t)(x - text) >= sizeof left) return false;
    memcpy(left, text, (size_t)(x - text));
    left[x - text] = 0;
    uint32_t *out = o->out;
    for (int i = 0; i < 2; i++) {
        if (!parse_unsigned(i ? x + 1 : left, &part[i]) || (double)part[i] < o->low || (double)part[i] > o->high)
            return false;
        out[i] = (uint32_t)part[i];
    }
    return true;
}

/* False: the value does not fit the option. */
static bool parse_value(const bb_option *o, const char *text)
{
    uint64_t u;
    char *end;
    switch (o->kind) {
    case BB_OPTION_STRING: *(const char **)o->out = text; return true;
    case BB_OPTION_LIST: {
        bb_list *list = o->out;
        if (list->n == BB_COUNT(list->item)) return false;
        list->item[list->n++] = text;
        return true;
    }
    case BB_OPTION_U32:
        if (!parse_unsigned(text, &u) || (double)u < o->low || (double)u > o->high) return false;
        *(uint32_t *)o->out = (uint32_t)u;
        return true;
    case BB_OPTION_U64:
        if (!parse_unsigned(text, &u)) return false;
        *(uint64_t *)o->out = u;
        return true;
    case BB_OPTION_FLOAT: {
        double v = strtod(text, &end);
        if (end == text || *end || !isfinite(v) || v < o->low || v > o->high) return false;
        *(float *)o->out = (float)v;
        return true;
    }
    case BB_OPTION_CHOICE: return parse_choice(o->value, text, o->out);
    case BB_OPTION_GRID: return parse_grid(o, text);
    case BB_OPTION_FLAG: break;
    }
    return false;
}

static int value_error(const bb_command *c, const bb_option *o, const char *text)
{
    switch (o->kind) {
    case BB_OPTION_CHOICE: return bb_cli_usage_error(c, "%s %s: must be one of %s", o->name, text, o->value);
    case BB_OPTION_U32: case BB_OPTION_FLOAT:
        return bb_cli_usage_error(c, "%s %s: must be a number from %g to %g", o->name, text, o->low, o->high);
    case BB_OPTION_GRID:
        return bb_cli_usage_error(c, "%s %s: must be ROWSxCOLUMNS, each from %g to %g", o->name, text, o->low, o->high);
    case BB_OPTION_U64: return bb_cli_usage_error(c, "%s %s: must be a number from 0 to 2^64-1", o->name, text);
    case BB_OPTION_LIST: return bb_cli_usage_error(c, "%s may be given %zu times at most", o->name,
                                                   BB_COUNT(((bb_list *)0)->item));
    default: return bb_cli_usage_error(c, "%s %s: not a usable value", o->name, text);
    }
}

/* Consumes one option at argv[*i]; BB_EXIT_OK to go on. */
static int parse_option(const bb_command *c, const bb_option *options, size_t n, int argc, char **argv, int *i)
{
    const char *word = argv[*i], *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    for (size_t k = 0; k < n; k++) {
        const bb_option *o = &options[k];
        if (strlen(o->name) != len || memcmp(o->name, word, len) != 0) continue;
        if (o->given) *o->given = true;
        if (o->kind == BB_OPTION_FLAG) {
            if (equals) return bb_cli_usage_error(c, "%s takes no value", o->name);
            *(bool *)o->out = true;
            return BB_EXIT_OK;
        }
        const char *text = equals ? equals + 1 : ++*i < argc ? argv[*i] : NULL;
        if (!text) return bb_cli_usage_error(c, "%s needs a value: %s", o->name, o->value);
        return parse_value(o, text) ? BB_EXIT_OK : value_error(c, o, text);
    }
    return bb_cli_usage_error(c, "unknown option %s", word);
}

bool bb_cli_parse(const bb_command *c, const bb_option *options, size_t n, int argc, char **argv,
                  const char **positional, uint32_t n_positional, int *code)
{
    uint32_t found = 0, least = c->arguments[0] == '[' ? 0 : strstr(c->arguments, "…") ? 1 : n_positional;
    *code = BB_EXIT_OK;
    for (int i = 0; i < argc && *code == BB_EXIT_OK; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(c, options, n);
            return false;
        }
        if (argv[i][0] == '-' && argv[i][1]) *code = parse_option(c, options, n, argc, argv, &i);
        else if (found < n_positional) positional[found++] = argv[i];
        else *code = bb_cli_usage_error(c, "unexpected argument %s", argv[i]);
    }
    if (*code == BB_EXIT_OK && found < least) *code = bb_cli_usage_error(c, "expected %s", c->arguments);
    return *code == BB_EXIT_OK;
}

void bb_cli_join(char *out, size_t size, const bb_command *c, int argc, char **argv)
{
    size_t n = (size_t)snprintf(out, size, "bitbrush %s", c->name);
    for (int i = 0; i < argc && n < size; i++) {
        char word[256];
        snprintf(word, sizeof word, "%s", argv[i]);
        size_t len = strlen(word);
        while (len > 1 && word[len - 1] == '/') word[--len] = 0;
        const char *slash = strrchr(word, '/'), *equals = strchr(word, '=');
        bool option = word[0] == '-' && equals;
        n += (size_t)snprintf(out + n, size - n, " %.*s%s", option ? (int)(equals - word + 1) : 0, word,
                              slash ? slash + 1 : option ? equals + 1 : word);
    }
}

void bb_cli_put_json(FILE *f, const char *text)
{
    putc('"', f);
    for (; *text; text++) {
        size_t bytes = control(text);
        if (*text == '"' || *text == '\\') fprintf(f, "\\%c", *text);
        else if (bytes) fprintf(f, "\\u%04x", (unsigned char)text[bytes - 1]);
        else putc(*text, f);
        text += bytes == 2;
    }
    putc('"', f);
}

void bb_cli_print_json(const char *text) { bb_cli_put_json(stdout, text); }

void bb_cli_print_made(const char *path, size_t bytes, bool json)
{
    if (!json) {
        printf("%s: %zu bytes\n", path, bytes);
        return;
    }
    printf("{\"out\":");
    bb_cli_print_json(path);
    printf(",\"bytes\":%zu}\n", bytes);
}

static _Atomic int held, caught;

static void end_by(int number)
{
    bb_io_cleanup();
    _exit(128 + number);
}

static void on_signal(int number)
{
    if (!held || caught) end_by(number);
    caught = number;
}

void bb_cli_hold_signals(void) { held = 1; }
bool bb_cli_interrupted(void) { return caught; }

void bb_cli_release_signals(void)
{
    held = 0;
    if (caught) end_by(caught);
}

void bb_cli_catch_signals(void) { bb_catch_signals(on_signal); }
