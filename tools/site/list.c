/* site.json and .parts.json: what the page reads, exactly as JSON.stringify(…, null, 2) writes it. */
#include "site/site.h"

#include "base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_string(FILE *f, const char *text)
{
    static const char escapes[] = "btn?fr"; /* of the characters 8 to 13 */
    fputc('"', f);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else if (c >= 8 && c <= 13 && c != 11) fprintf(f, "\\%c", escapes[c - 8]);
        else if (c < 0x20) fprintf(f, "\\u%04x", c);
        else fputc(c, f);
    }
    fputc('"', f);
}

static void put_member(FILE *f, const char *key, const char *text)
{
    fprintf(f, ",\n      \"%s\": ", key);
    put_string(f, text);
}

/* scratch: as long as the model's header. */
static void put_labels(FILE *f, const bb_host *h, char *scratch, size_t size)
{
    const uint32_t classes = h->model->pack.info.classes;
    uint32_t name = bb_json_first(&h->labels, 0);
    fprintf(f, ",\n      \"labels\": [");
    for (uint32_t i = 0; i < classes; i++) {
        fprintf(f, "%s\n        ", i ? "," : "");
        if (bb_json_string(&h->labels, name, scratch, size)) put_string(f, scratch);
        else fprintf(f, "null");
        name = bb_json_next(&h->labels, name);
    }
    fprintf(f, classes ? "\n      ]" : "]");
}

static void put_model(FILE *f, const bb_site *s, const bb_site_model *m, char *scratch, size_t size)
{
    const bb_info *info = &m->host.model->pack.info;
    fprintf(f, "    {\n      \"name\": \"%s\",\n      \"file\": \"models/%s.safetensors%s\",\n", m->name, m->name,
            bb_site_is_split(s, m) ? ".parts.json" : "");
    fprintf(f, "      \"bytes\": %zu,\n      \"sha256\": \"%s\"", m->host.file.size, m->sha256);
    bb_site_bits(m, scratch, size);
    put_member(f, "bits", scratch);
    put_member(f, "group", m->group);
    fprintf(f, ",\n      \"width\": %u,\n      \"height\": %u,\n      \"trainSteps\": %u", info->width, info->height,
            info->train_steps);
    if (info->null_label < 0) fprintf(f, ",\n      \"nullLabel\": null");
    else fprintf(f, ",\n      \"nullLabel\": %d", info->null_label);
    put_labels(f, &m->host, scratch, size);
    if (m->artist != BB_NONE) fprintf(f, ",\n      \"pictures\": \"models/%s.classes.png\"", s->models[m->artist].name);
    fprintf(f, "\n    }");
}

/* Closes the text and adds it as a file. */
static bb_status finish(bb_site *s, const char *name, FILE *f, char **text, const size_t *n, bb_error *err)
{
    bool ok = f && !ferror(f);
    if (f && fclose(f)) ok = false;
    if (ok) return bb_site_add_file(s, name, (const uint8_t *)*text, *n, NULL, *text, err);
    free(*text);
    return bb_fail(err, BB_ERR_SPACE, "out of memory for %s", name);
}

static size_t longest_header(const bb_site *s)
{
    size_t n = 64;
    for (uint32_t i = 0; i < s->n_models; i++)
        if (s->models[i].host.model->pack.header.n + 1 > n) n = s->models[i].host.model->pack.header.n + 1;
    return n;
}

bb_status bb_site_add_list(bb_site *s, bb_error *err)
{
    const size_t size = longest_header(s);
    char *scratch = malloc(size), *text = NULL;
    size_t n = 0;
    FILE *f = scratch ? open_memstream(&text, &n) : NULL;
    if (f) {
        fprintf(f, "{\n  \"title\": ");
        put_string(f, s->title);
        fprintf(f, ",\n  \"isolate\": %s,\n  \"models\": [", s->isolate ? "true" : "false");
        for (uint32_t i = 0; i < s->n_models; i++) {
            fprintf(f, i ? ",\n" : "\n");
            put_model(f, s, &s->models[i], scratch, size);
        }
        fprintf(f, "\n  ]\n}\n");
    }
    free(scratch);
    return finish(s, "site.json", f, &text, &n, err);
}

bb_status bb_site_add_parts_list(bb_site *s, const bb_site_model *m, bb_error *err)
{
    const bb_file *file = &m->host.file;
    char name[BB_SITE_NAME + 40], sha256[65], *text = NULL;
    size_t n = 0;
    snprintf(name, sizeof name, "models/%s.safetensors.parts.json", m->name);
    FILE *f = open_memstream(&text, &n);
    if (f) {
        fprintf(f, "{\n  \"bytes\": %zu,\n  \"sha256\": \"%s\",\n  \"parts\": [", file->size, m->sha256);
        for (size_t at = 0, part = 0; at < file->size; at += (size_t)s->split, part++) {
            const size_t bytes = bb_site_part(s, m, at);
            bb_sha256(file->data + at, bytes, sha256);
            fprintf(f, "%s\n    {\n      \"file\": \"%s.safetensors.%03zu\",\n      \"bytes\": %zu,\n", part ? "," : "",
                    m->name, part, bytes);
            fprintf(f, "      \"sha256\": \"%s\"\n    }", sha256);
        }
        fprintf(f, "\n  ]\n}\n");
    }
    return finish(s, name, f, &text, &n, err);
}
