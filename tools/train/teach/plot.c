/* The loss as an SVG picture: see log.h. Both axes in powers and round numbers; one colour a curve, chosen for light
 * and dark pages alike; text and lines in the page's own. */
#include "train/teach/log.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 760, HEIGHT = 400, LEFT = 64, RIGHT = 16, TOP = 40, BOTTOM = 44, POINTS = 500 };

typedef struct text { char *at; size_t n, room; bool failed; } text;

__attribute__((format(printf, 2, 3))) static void put(text *t, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (t->failed || n < 0 || (size_t)n >= sizeof line) return;
    if (t->n + (size_t)n + 1 > t->room) {
        char *grown = realloc(t->at, t->room = 2 * t->room + sizeof line);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->at = grown;
    }
    memcpy(t->at + t->n, line, (size_t)n + 1);
    t->n += (size_t)n;
}

/* What is shown: images on a linear axis from 0, losses on a logarithmic one. */
typedef struct frame { double images, low, high; } frame;

static double place_x(const frame *f, double images) { return LEFT + (WIDTH - LEFT - RIGHT) * images / f->images; }

static double place_y(const frame *f, double loss)
{
    return TOP + (HEIGHT - TOP - BOTTOM) * (log(f->high) - log(loss)) / (log(f->high) - log(f->low));
}

static bool shown(double loss) { return loss > 0 && isfinite(loss); }

/* 1, 2 or 5 times a power of ten, at least x. */
static double round_up(double x)
{
    double power = pow(10, floor(log10(x)));
    return x <= power * 1.0001 ? power : x <= 2 * power ? 2 * power : x <= 5 * power ? 5 * power : 10 * power;
}

static frame frame_of(const bb_log *l)
{
    frame f = {.low = INFINITY};
    for (size_t i = 0; i < l->n; i++) {
        const double both[] = {l->row[i].loss, l->row[i].held_out};
        f.images = fmax(f.images, (double)l->row[i].images);
        for (int k = 0; k < 2; k++) {
            if (!shown(both[k])) continue;
            f.low = fmin(f.low, both[k]);
            f.high = fmax(f.high, both[k]);
        }
    }
    if (!(f.images > 0)) f.images = 1;
    if (!(f.high > 0)) f.low = 0.1, f.high = 1;
    f.low *= 0.93;
    f.high *= 1.07;
    return f;
}

static void number(char out[32], double x)
{
    if (x >= 1e6) snprintf(out, 32, "%gM", x / 1e6);
    else if (x >= 1e3) snprintf(out, 32, "%gk", x / 1e3);
    else snprintf(out, 32, "%g", x);
}

static void draw_axes(text *t, const frame *f)
{
    char label[32];
    const double step = round_up(f->images / 8);
    for (double x = 0; x <= f->images * 1.0001; x += step) {
        number(label, x);
        put(t, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", place_x(f, x), HEIGHT - BOTTOM + 18,
            label);
    }
    put(t, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">images</text>\n", WIDTH - RIGHT, HEIGHT - 6);
    static const double marks[] = {1, 1.5, 2, 3, 4, 5, 6, 8};
    const bool wide = f->high > 12 * f->low; /* then only 1, 2 and 5 */
    for (double power = pow(10, floor(log10(f->low))); power <= f->high; power *= 10)
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
            const double y = power * marks[i];
            if (y < f->low || y > f->high || (wide && i != 0 && i != 2 && i != 5)) continue;
            put(t, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, place_y(f, y), WIDTH - RIGHT);
            put(t, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>\n", LEFT - 8, place_y(f, y) + 4, y);
        }
    put(t, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT);
}

/* Long logs are thinned by means of neighbours. */
static void draw_loss(text *t, const frame *f, const bb_log *l)
{
    const size_t each = l->n / POINTS + 1;
    bool pen = false;
    put(t, "<path class=\"loss\" d=\"");
    for (size_t i = 0; i < l->n; i += each) {
        double loss = 0, images = 0;
        size_t n = 0;
        for (size_t k = i; k < i + each && k < l->n; k++) {
            if (!shown(l->row[k].loss)) continue;
            loss += l->row[k].loss;
            images += (double)l->row[k].images;
            n++;
        }
        if (!n) continue;
        put(t, "%c%.1f %.1f", pen ? 'L' : 'M', place_x(f, images / (double)n), place_y(f, loss / (double)n));
        pen = true;
    }
    put(t, "\"/>\n");
}

static void draw_held_out(text *t, const frame *f, const bb_log *l)
{
    bool pen = false;
    put(t, "<path class=\"held\" d=\"");
    for (size_t i = 0; i < l->n; i++) {
        if (!shown(l->row[i].held_out)) continue;
        put(t, "%c%.1f %.1f", pen ? 'L' : 'M', place_x(f, (double)l->row[i].images), place_y(f, l->row[i].held_out));
        pen = true;
    }
    put(t, "\"/>\n");
    for (size_t i = 0; i < l->n; i++)
        if (shown(l->row[i].held_out))
            put(t, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>\n", place_x(f, (double)l->row[i].images),
                place_y(f, l->row[i].held_out));
}

static void draw_legend(text *t, const char *title)
{
    put(t, "<text class=\"title\" x=\"%d\" y=\"24\">%s</text>\n", LEFT, title);
    put(t, "<path class=\"loss\" d=\"M%d 20h24\"/><text x=\"%d\" y=\"24\">loss</text>\n", WIDTH - 290, WIDTH - 260);
    put(t, "<path class=\"held\" d=\"M%d 20h24\"/><text x=\"%d\" y=\"24\">held-out loss, average</text>\n", WIDTH - 205,
        WIDTH - 175);
}

char *bb_log_svg(const bb_log *l, const char *title)
{
    text t = {0};
    const frame f = frame_of(l);
    put(&t, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
        "role=\"img\">\n", WIDTH, HEIGHT, WIDTH, HEIGHT);
    put(&t, "<title>%s: loss over images</title>\n<style>\nsvg { color: #222; background: #fff; font: 12px system-ui, "
        "sans-serif }\n", title);
    put(&t, "text { fill: currentColor } .title { font-weight: 600; font-size: 14px }\npath { fill: none; stroke: "
        "currentColor }\n.grid { opacity: .15 } .axis { opacity: .6 }\n");
    put(&t, ".loss { stroke: #4a7fd0; stroke-width: 1.5 } .held { stroke: #d9722e; stroke-width: 2 }\n"
        ".dot { fill: #d9722e }\n");
    put(&t, "@media (prefers-color-scheme: dark) { svg { color: #ddd; background: #181818 } }\n</style>\n");
    draw_axes(&t, &f);
    draw_loss(&t, &f, l);
    draw_held_out(&t, &f, l);
    draw_legend(&t, title);
    put(&t, "</svg>\n");
    if (!t.failed) return t.at;
    free(t.at);
    return NULL;
}
