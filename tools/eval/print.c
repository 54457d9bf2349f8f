#include "eval/print.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool bb_figure_grows(bb_figure figure)
{
    return figure == BB_FIGURE_PSNR || figure == BB_FIGURE_SSIM || figure == BB_FIGURE_PRECISION ||
           figure == BB_FIGURE_RECALL || figure == BB_FIGURE_ACCURACY;
}

/* ---- numbers ---- */

static void number(char out[32], bb_figure figure, double x)
{
    if (isnan(x)) snprintf(out, 32, "?");
    else if (isinf(x)) snprintf(out, 32, "same");
    else if (figure == BB_FIGURE_EPS || figure == BB_FIGURE_FIRST5) snprintf(out, 32, "%.2e", x);
    else if (figure == BB_FIGURE_SSIM || figure >= BB_FIGURE_PRECISION) snprintf(out, 32, "%.3f", x);
    else snprintf(out, 32, "%.2f", x);
}

/* "23.10 [22.40, 23.80]", or – where nothing was measured. */
static const char *interval(char out[128], bb_figure figure, const bb_interval *x)
{
    char value[32], low[32], high[32];
    number(value, figure, x->value);
    number(low, figure, x->low);
    number(high, figure, x->high);
    if (isnan(x->value)) snprintf(out, 128, "-");
    else if (isnan(x->low)) snprintf(out, 128, "%s", value);
    else snprintf(out, 128, "%s [%s, %s]", value, low, high);
    return out;
}

static const char *verdict(bb_figure figure, const bb_interval *x)
{
    if (!(x->low > 0 || x->high < 0)) return "tie";
    return (x->value > 0) == bb_figure_grows(figure) ? "better" : "worse";
}

static bool measured(const bb_evaluation *e, uint32_t figure)
{
    for (uint32_t c = 0; c < e->columns; c++)
        if (!isnan(e->column[c].of[figure].value)) return true;
    return false;
}

/* ---- text and Markdown ---- */

/* Columns a terminal takes for a text: bytes that begin a character. */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

static void pad(const char *text, int width)
{
    const int left = width - width_of(text);
    printf("%s%*s", text, left > 0 ? left : 0, "");
}

static void head_line(const bb_evaluation *e)
{
    printf("%s against %s, pictures: %u, steps: %u, guidance: %g\n", e->model, e->against, e->images, e->steps,
           (double)e->guidance);
}

static void sources(const bb_evaluation *e)
{
    if (e->resamples) printf("[95 %% intervals of a bootstrap over pictures, %u resamples]\n", e->resamples);
    if (e->network.classes)
        printf("Features, classes: %s, sha256 %.16s…, %.1f %% of real test pictures right\n",
               e->classifier ? e->classifier : "models/fashion-classifier.safetensors", e->network.sha256,
               100 * e->network.accuracy);
}

void bb_print_text(const bb_evaluation *e, const bb_versus *v)
{
    char text[128];
    const bb_column *c = &e->column[BB_COLUMN_MODEL];
    head_line(e);
    printf("PSNR %.2f dB\n", c->of[BB_FIGURE_PSNR].value);
    if (e->traced) printf("relative epsilon error by step:");
    for (uint32_t i = 0; i < e->paint_reference.evaluations && e->traced; i++) printf(" %.2e", e->step_error[i]);
    printf("%s", e->traced ? "\n\n" : "\n");
    pad("", 41);
    for (uint32_t k = 0; k < e->columns; k++) pad(bb_column_text[k], 30);
    printf("%s\n", v ? "difference" : "");
    for (uint32_t f = 0; f < BB_FIGURES; f++) {
        if (!measured(e, f)) continue;
        pad(bb_figure_text[f], 41);
        for (uint32_t k = 0; k < e->columns; k++) pad(interval(text, f, &e->column[k].of[f]), 30);
        if (v && !isnan(v->of[f].value)) printf("%s %s", interval(text, f, &v->of[f]), verdict(f, &v->of[f]));
        printf("\n");
    }
    if (v) printf("difference: to %s of %s\n", v->model, v->path);
    sources(e);
}

void bb_print_markdown(const bb_evaluation *e, const bb_versus *v)
{
    char text[128];
    head_line(e);
    printf("\n| figure |");
    for (uint32_t k = 0; k < e->columns; k++) printf(" %s |", bb_column_text[k]);
    printf("%s\n| --- |", v ? " difference |" : "");
    for (uint32_t k = 0; k < e->columns + (v != NULL); k++) printf(" ---: |");
    printf("\n");
    for (uint32_t f = 0; f < BB_FIGURES; f++) {
        if (!measured(e, f)) continue;
        printf("| %s |", bb_figure_text[f]);
        for (uint32_t k = 0; k < e->columns; k++) printf(" %s |", interval(text, f, &e->column[k].of[f]));
        if (v) printf(" %s %s |", interval(text, f, &v->of[f]), isnan(v->of[f].value) ? "" : verdict(f, &v->of[f]));
        printf("\n");
    }
    printf("\n");
    sources(e);
}

/* ---- JSON ---- */

/* JSON knows no infinities and no NaN. */
static void put_number(FILE *f, double x)
{
    if (isfinite(x)) fprintf(f, "%.6g", x);
    else fprintf(f, "null");
}

/* As it is, so that the difference of a model to itself is 0. */
static void put_exact(FILE *f, double x)
{
    if (isfinite(x)) fprintf(f, "%.17g", x);
    else fprintf(f, "null");
}

static void put_figures(FILE *f, const bb_interval of[BB_FIGURES], void (*put)(FILE *f, double x))
{
    bool first = true;
    fputc('{', f);
    for (uint32_t k = 0; k < BB_FIGURES; k++) {
        if (isnan(of[k].value)) continue;
        fprintf(f, "%s\"%s\":[", first ? "" : ",", bb_figure_key[k]);
        put(f, of[k].value);
        fputc(',', f);
        put(f, of[k].low);
        fputc(',', f);
        put(f, of[k].high);
        fputc(']', f);
        first = false;
    }
    fputc('}', f);
}

static void put_draws(FILE *f, const bb_evaluation *e, const bb_column *c)
{
    bool first = true;
    fputc('{', f);
    for (uint32_t k = 0; k < BB_FIGURES; k++) {
        if (isnan(c->of[k].value)) continue;
        fprintf(f, "%s\"%s\":[", first ? "" : ",", bb_figure_key[k]);
        for (uint32_t r = 0; r < e->resamples; r++) {
            if (r) fputc(',', f);
            put_exact(f, c->draws[r * BB_FIGURES + k]);
        }
        fputc(']', f);
        first = false;
    }
    fputc('}', f);
}

static void put_network(FILE *f, const bb_evaluation *e)
{
    fprintf(f, ",\"real\":%u,\"classifier\":{\"sha256\":\"%s\",\"test_accuracy\":", e->real_n, e->network.sha256);
    put_number(f, e->network.accuracy);
    fputc('}', f);
}

void bb_print_json(FILE *f, const bb_evaluation *e, const bb_versus *v, bool draws)
{
    char sha[65];
    fprintf(f, "{\"model\":");
    bb_cli_put_json(f, e->model);
    fprintf(f, ",\"against\":");
    bb_cli_put_json(f, e->against);
    fprintf(f, ",\"images\":%u,\"steps\":%u,\"guidance\":%g,\"psnr\":", e->images, e->steps, (double)e->guidance);
    put_number(f, e->column[BB_COLUMN_MODEL].of[BB_FIGURE_PSNR].value); /* null for identical pictures */
    fprintf(f, ",\"eps_error\":[");
    for (uint32_t i = 0; i < e->paint_reference.evaluations && e->traced; i++) {
        if (i) fputc(',', f);
        put_number(f, e->step_error[i]);
    }
    fprintf(f, "],\"seed\":%" PRIu64 ",\"sampler\":\"%s\",\"traced\":%u,\"resamples\":%u", e->seed,
            bb_sampler_name(e->sampler), e->traced, e->resamples);
    for (uint32_t k = 0; k < e->columns; k++) {
        fprintf(f, ",\"%s\":", k ? bb_column_key[k] : "figures");
        put_figures(f, e->column[k].of, draws ? put_exact : put_number);
    }
    if (e->network.classes) put_network(f, e);
    if (v) {
        fprintf(f, ",\"versus\":{\"file\":");
        bb_cli_put_json(f, v->path);
        fprintf(f, ",\"difference\":");
        put_figures(f, v->of, draws ? put_exact : put_number);
        fputc('}', f);
    }
    if (draws) { /* what changes from run to run and what only -o is for */
        bb_painter_model_sha256(&e->packed, sha);
        fprintf(f, ",\"model_sha256\":\"%s\",\"bytes\":%" PRIu64, sha, e->packed.model->pack.info.blob_bytes);
        bb_painter_model_sha256(&e->reference, sha);
        fprintf(f, ",\"against_sha256\":\"%s\",\"kernels\":\"%s\",\"seconds\":%.1f", sha,
                bb_model_kernels(e->packed.model), e->seconds);
        for (uint32_t k = 0; k < e->columns; k++) {
            fprintf(f, ",\n\"%s%s\":", k ? bb_column_key[k] : "", k ? "_draws" : "draws");
            put_draws(f, e, &e->column[k]);
        }
    }
    fprintf(f, "}\n");
}

bb_status bb_write_json(const bb_evaluation *e, const bb_versus *v, bb_error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", e->out);
    bb_print_json(f, e, v, true);
    bool ok = !ferror(f);
    ok = fclose(f) == 0 && ok;
    bb_status status = ok ? bb_file_write(e->out, text, size, err)
                          : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", e->out);
    free(text);
    return status;
}
