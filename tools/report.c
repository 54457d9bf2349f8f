#include "report.h"

#include "base/status.h"
#include "io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A layer is known by its module: the weight's name without ".weight". */
static int name_length(const char *name)
{
    size_t n = strlen(name), end = strlen(".weight");
    return (int)(n > end && strcmp(name + n - end, ".weight") == 0 ? n - end : n);
}

/* Names come from the checkpoint: what would break the table or the JSON string is replaced. */
static void put_name(FILE *f, const char *name)
{
    int n = name_length(name);
    for (int i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        fputc(c < 0x20 || c == '"' || c == '\\' || c == '|' || c == 0x7f ? '?' : c, f);
    }
}

static const char *kind(const bb_make_layer *l) { return !l->wbits ? "float" : l->ladder ? "ladder" : "uniform"; }

static void put_json(FILE *f, const bb_make *make)
{
    bb_make_layer l;
    fputs("[", f);
    for (uint32_t i = 0; bb_make_layer_get(make, i, &l) == BB_OK; i++) {
        fprintf(f, "%s\n  {\"layer\":\"", i ? "," : "");
        put_name(f, l.name);
        fprintf(f, "\",\"outputs\":%u,\"inputs\":%u,\"wbits\":%u,\"abits\":%u,\"kind\":\"%s\",\"fewer\":%u,"
                "\"more\":%u,", l.outputs, l.inputs, l.wbits, l.abits, kind(&l), l.fewer, l.more);
        fprintf(f, "\"weight_error\":%.4g,\"output_error\":%.4g,\"bytes\":%llu}", l.weight_error, l.output_error,
                (unsigned long long)l.bytes);
    }
    fputs("\n]\n", f);
}

static void put_markdown(FILE *f, const bb_make *make)
{
    bb_make_layer l;
    fputs("| layer | outputs × inputs | bits (W/A) | one bit less, more | levels | weight error | output error | "
          "bytes |\n"
          "| --- | ---: | --- | ---: | --- | ---: | ---: | ---: |\n", f);
    for (uint32_t i = 0; bb_make_layer_get(make, i, &l) == BB_OK; i++) {
        fputs("| ", f);
        put_name(f, l.name);
        fprintf(f, " | %u × %u | ", l.outputs, l.inputs);
        if (l.wbits) fprintf(f, "%u/%u | %u, %u | ", l.wbits, l.abits, l.fewer, l.more);
        else fprintf(f, "– | – | ");
        fprintf(f, "%s | %.2e | %.2e | %llu |\n", kind(&l), l.weight_error, l.output_error,
                (unsigned long long)l.bytes);
    }
    fputs("\nErrors are squared, relative to the float layer; output error on sampled real inputs, with quantized "
          "activations.\n", f);
}

bb_status bb_report_write(const char *path, const bb_make *make, bb_error *err)
{
    char *text = NULL;
    size_t size = 0, n = strlen(path);
    FILE *f = open_memstream(&text, &size);
    if (!f) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    if (n > 5 && strcmp(path + n - 5, ".json") == 0) put_json(f, make);
    else put_markdown(f, make);
    bool ok = !ferror(f);
    ok = fclose(f) == 0 && ok;
    bb_status status = ok ? bb_file_write(path, text, size, err)
                          : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    free(text);
    return status;
}
