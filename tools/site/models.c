#include "site/site.h"

#include "base/sha256.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char EXTENSION[] = ".safetensors";

/* A name is part of file names and URLs, and of no command that a shell might misread. */
static bool safe(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t n = strlen(name);
    return n && strspn(name, letters) == n && name[0] != '.' && name[0] != '-';
}

static bb_status name_model(bb_site_model *m, bb_error *err)
{
    const char *slash = strrchr(m->path, '/'), *base = slash ? slash + 1 : m->path;
    size_t n = strlen(base), end = sizeof EXTENSION - 1;
    if (n > end && strcmp(base + n - end, EXTENSION) == 0) n -= end;
    int length = snprintf(m->name, sizeof m->name, "%.*s", (int)(n < INT16_MAX ? n : INT16_MAX), base);
    if (length >= (int)sizeof m->name)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the name is longer than %u characters; rename the file", m->path,
                       (uint32_t)BB_SITE_NAME);
    if (!safe(m->name))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the name becomes part of an address and may have only letters, digits, "
                                             "'-', '_' and '.', first a letter or digit; rename the file", m->path);
    return BB_OK;
}

/* Not told apart by case: many file systems do not. */
static bool same_name(const char *a, const char *b)
{
    while (*a && tolower((unsigned char)*a) == tolower((unsigned char)*b)) a++, b++;
    return *a == *b;
}

static void read_group(bb_site_model *m)
{
    bool known = bb_pack_metadata(&m->host.model->pack, "source_sha256", m->group, sizeof m->group);
    if (!known || strlen(m->group) != 16 || strspn(m->group, "0123456789abcdef") != 16) m->group[0] = 0;
}

bb_status bb_site_add_model(bb_site *s, const char *path, bb_error *err)
{
    if (s->n_models == BB_SITE_MODELS)
        return bb_fail(err, BB_ERR_OPTION, "%s: a site has at most %u models", path, (uint32_t)BB_SITE_MODELS);
    bb_site_model *m = &s->models[s->n_models];
    *m = (bb_site_model){.path = path, .artist = BB_NONE};
    if (bb_path_is_dir(path))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: a folder; a site takes model files: make one with bitbrush quantize %s "
                                             "-o NAME.safetensors", path, path);
    BB_TRY(name_model(m, err));
    for (uint32_t i = 0; i < s->n_models; i++)
        if (same_name(s->models[i].name, m->name))
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: has the name of %s, and a site needs different ones; rename a file",
                           path, s->models[i].path);
    s->n_models++; /* from here on bb_site_close closes it */
    bb_host_options options = s->host_options;
    options.threads = 1;
    BB_TRY(bb_host_open(&m->host, path, &options, err));
    bb_sha256(m->host.file.data, m->host.file.size, m->sha256);
    read_group(m);
    if (bb_site_is_split(s, m) && (m->host.file.size - 1) / s->split >= BB_SITE_PARTS)
        return bb_fail(err, BB_ERR_OPTION, "--split: %s would be more than %u parts; choose a larger size", path,
                       (uint32_t)BB_SITE_PARTS);
    return BB_OK;
}

bool bb_site_is_split(const bb_site *s, const bb_site_model *m) { return s->split && m->host.file.size > s->split; }

size_t bb_site_part(const bb_site *s, const bb_site_model *m, size_t at)
{
    return m->host.file.size - at < s->split ? m->host.file.size - at : (size_t)s->split;
}

void bb_site_bits(const bb_site_model *m, char *out, size_t size)
{
    const bb_info *info = &m->host.model->pack.info;
    if (bb_pack_metadata(&m->host.model->pack, "quantization", out, size)) {
        out[strcspn(out, ",")] = 0;
        return;
    }
    const uint32_t tenths = (info->bits_milli + 50) / 100;
    if (info->bits_milli == 16000) snprintf(out, size, "f16");
    else if (info->bits_milli == 32000) snprintf(out, size, "f32");
    else snprintf(out, size, "%u.%u bit", tenths / 10, tenths % 10);
}
