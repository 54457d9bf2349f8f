#include "base/status.h"

#include <stdarg.h>

const char *bb_strerror(bb_status status)
{
    switch (status) {
#define BB_STATUS(name, value, text) case BB_##name: return text;
#include "base/status.inc"
#undef BB_STATUS
    }
    return "unknown status";
}

static void put(char *out, size_t size, size_t *n, char c)
{
    if (*n + 1 < size) out[(*n)++] = c;
}

static void put_unsigned(char *out, size_t size, size_t *n, uint64_t v)
{
    char digits[20];
    size_t k = 0;
    do {
        digits[k++] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    while (k) put(out, size, n, digits[--k]);
}

static size_t format(char *out, size_t size, const char *fmt, va_list args)
{
    size_t n = 0;
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            put(out, size, &n, *fmt);
            continue;
        }
        switch (*++fmt) {
        case 's': {
            const char *s = va_arg(args, const char *);
            for (s = s ? s : "?"; *s; s++) put(out, size, &n, *s);
            break;
        }
        case 'u': put_unsigned(out, size, &n, va_arg(args, uint32_t)); break;
        case 'z': put_unsigned(out, size, &n, va_arg(args, size_t)); break;
        case 'l': put_unsigned(out, size, &n, va_arg(args, uint64_t)); break;
        case 'd': {
            int64_t v = va_arg(args, int32_t);
            if (v < 0) put(out, size, &n, '-');
            put_unsigned(out, size, &n, (uint64_t)(v < 0 ? -v : v));
            break;
        }
        case '%': put(out, size, &n, '%'); break;
        default: BB_ASSERT(false);
        }
    }
    if (size) out[n] = 0;
    return n;
}

size_t bb_format(char *out, size_t size, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    size_t n = format(out, size, fmt, args);
    va_end(args);
    return n;
}

bb_status bb_fail(bb_error *err, bb_status code, const char *fmt, ...)
{
    if (err) {
        va_list args;
        err->code = code;
        va_start(args, fmt);
        format(err->text, sizeof err->text, fmt, args);
        va_end(args);
    }
    return code;
}
