/* See weights.h. */
#include "import/weights.h"

#include "base/sha256.h"
#include "import/config.h"
#include "import/safetensors.h"
#include "import/torch_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_MAX_BYTES 4096
#define MAX_SHARDS 1000u

static bb_status out_of_memory(const bb_weights *w, bb_error *err)
{
    return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", w->path ? w->path : "weights");
}

static char *copy_of(const char *s)
{
    char *copy = malloc(strlen(s) + 1);
    return copy ? strcpy(copy, s) : NULL;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const bb_tensor *)a)->name, ((const bb_tensor *)b)->name);
}

/* ---- one file ---- */

/* Room for n more tensors. */
static bb_status reserve(bb_weights *w, size_t n, bb_error *err)
{
    bb_tensor *more = realloc(w->tensors, (w->n + n + 1) * sizeof *more);
    if (!more) return out_of_memory(w, err);
    w->tensors = more;
    return BB_OK;
}

static bb_status add_safetensors(bb_weights *w, const bb_file *file, const char *path, bb_error *err)
{
    bb_st_file f;
    BB_TRY(bb_st_file_parse(&f, file->data, file->size, path, err));
    bb_status status = reserve(w, f.st.n, err);
    for (size_t i = 0; i < f.st.n && status >= 0; i++) {
        const bb_st_tensor *t = &f.st.tensors[i];
        bb_tensor *out = &w->tensors[w->n];
        *out = (bb_tensor){.name = copy_of(t->name), .dtype = t->dtype, .rank = t->rank, .count = t->count,
                           .data = t->data, .file = (uint32_t)w->n_files - 1};
        memcpy(out->shape, t->shape, sizeof out->shape);
        bb_tensor_pack_strides(out);
        if (out->name) w->n++;
        else status = out_of_memory(w, err);
    }
    bb_st_file_close(&f);
    return status;
}

static bb_status add_torch(bb_weights *w, const bb_file *file, const char *path, bb_error *err)
{
    bb_torch_file f;
    BB_TRY(bb_torch_parse(&f, file->data, file->size, path, err));
    bb_status status = reserve(w, f.n, err);
    for (size_t i = 0; i < f.n && status >= 0; i++) {
        w->tensors[w->n] = f.tensors[i]; /* the name changes hands */
        w->tensors[w->n++].file = (uint32_t)w->n_files - 1;
        f.tensors[i].name = NULL;
    }
    bb_torch_free(&f);
    return status;
}

/* A clone without Git LFS has a few lines of text in the place of each large file. */
static bb_status check_fetched(const bb_file *file, const char *path, bb_error *err)
{
    static const char pointer[] = "version https://git-lfs";
    if (file->size < sizeof pointer || memcmp(file->data, pointer, sizeof pointer - 1) != 0) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: not the weights but a pointer to them; run git lfs pull", path);
}

/* Opens the file; w->files has room for it. */
static bb_status add_file(bb_weights *w, const char *path, bb_error *err)
{
    struct bb_weight_file f = {.path = copy_of(path)};
    if (!f.path) return out_of_memory(w, err);
    bb_status status = bb_file_open(&f.file, path, err);
    if (status < 0) {
        free(f.path);
        return status;
    }
    w->files[w->n_files++] = f;
    BB_TRY(check_fetched(&f.file, path, err));
    if (ends_with(path, ".safetensors")) return add_safetensors(w, &f.file, path, err);
    return add_torch(w, &f.file, path, err);
}

/* ---- shards ---- */

/* A member of weight_map. */
typedef struct entry { char *tensor, *shard; } entry;

typedef struct index {
    entry *entries; /* [n], sorted by tensor */
    size_t n;
    const char *shards[MAX_SHARDS]; /* names of entries, sorted */
    size_t n_shards;
} index;

static void free_index(index *x)
{
    for (size_t i = 0; i < x->n; i++) {
        free(x->entries[i].tensor);
        free(x->entries[i].shard);
    }
    free(x->entries);
}

static int entry_by_tensor(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->tensor, ((const entry *)b)->tensor);
}

static int entry_by_shard(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->shard, ((const entry *)b)->shard);
}

/* The string, whole, malloc'd; NULL if it is none. */
static char *whole_string(const bb_json *j, uint32_t tok)
{
    size_t n = 0;
    const char *raw = bb_json_raw(j, tok, &n);
    char *s = raw && bb_json_is_string(j, tok) ? malloc(n + 1) : NULL;
    if (s) bb_json_string(j, tok, s, n + 1);
    return s;
}

/* A plain file name beside the index, of the index' kind. */
static bool shard_name_ok(const char *name, const char *suffix)
{
    return name[0] != '.' && strlen(name) < 256 && !strpbrk(name, "/\\:") && ends_with(name, suffix);
}

static bb_status read_entries(const bb_weights *w, index *x, const bb_json *j, uint32_t map, bb_error *err)
{
    const char *slash = strrchr(w->path, '/'), *name = slash ? slash + 1 : w->path;
    const char *suffix = strstr(name, ".safetensors.index") ? ".safetensors" : ".bin";
    x->entries = calloc((size_t)bb_json_size(j, map) + 1, sizeof *x->entries);
    if (!x->entries) return out_of_memory(w, err);
    for (uint32_t key = bb_json_first(j, map); key != BB_JSON_NONE; key = bb_json_next(j, key)) {
        entry *e = &x->entries[x->n++];
        e->tensor = whole_string(j, key);
        e->shard = whole_string(j, bb_json_value(j, key));
        if (!e->tensor || !e->shard) {
            return bb_fail(err, BB_ERR_CORRUPT, "%s: weight_map must name a file for every tensor", w->path);
        }
        if (!shard_name_ok(e->shard, suffix)) {
            return bb_fail(err, BB_ERR_CORRUPT, "%s: weight_map names %s: must be a %s file of the same folder",
                           w->path, e->shard, suffix);
        }
    }
    return BB_OK;
}

static bb_status sort_index(const bb_weights *w, index *x, bb_error *err)
{
    qsort(x->entries, x->n, sizeof *x->entries, entry_by_shard);
    for (size_t i = 0; i < x->n; i++) {
        if (i && !strcmp(x->entries[i].shard, x->entries[i - 1].shard)) continue;
        if (x->n_shards == MAX_SHARDS) return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: more than 1000 shards", w->path);
        x->shards[x->n_shards++] = x->entries[i].shard;
    }
    qsort(x->entries, x->n, sizeof *x->entries, entry_by_tensor);
    for (size_t i = 1; i < x->n; i++) {
        if (!entry_by_tensor(&x->entries[i - 1], &x->entries[i])) {
            return bb_fail(err, BB_ERR_CORRUPT, "%s: weight_map has tensor %s twice", w->path, x->entries[i].tensor);
        }
    }
    return BB_OK;
}

static bb_status read_index(const bb_weights *w, index *x, bb_error *err)
{
    bb_json_file f;
    BB_TRY(bb_json_file_open(&f, w->path, err));
    uint32_t map = bb_json_member(&f.json, 0, "weight_map");
    bb_status status = BB_OK;
    if (!bb_json_is_object(&f.json, map) || !bb_json_size(&f.json, map)) {
        status = bb_fail(err, BB_ERR_CORRUPT, "%s: has no weight_map", w->path);
    }
    if (status >= 0) status = read_entries(w, x, &f.json, map, err);
    if (status >= 0) status = sort_index(w, x, err);
    bb_json_file_close(&f);
    return status;
}

/* Every tensor of a shard is mapped to it: then none is in two of them. */
static bb_status check_shard(const bb_weights *w, const index *x, const char *shard, size_t first, bb_error *err)
{
    for (size_t i = first; i < w->n; i++) {
        entry key = {.tensor = w->tensors[i].name};
        const entry *e = bsearch(&key, x->entries, x->n, sizeof *x->entries, entry_by_tensor);
        if (e && !strcmp(e->shard, shard)) continue;
        return bb_fail(err, BB_ERR_CORRUPT, "%s: tensor %s is in %s, but weight_map says %s", w->path,
                       w->tensors[i].name, shard, e ? e->shard : "nothing of it");
    }
    return BB_OK;
}

static bb_status shard_path(const bb_weights *w, const char *folder, const char *shard, char out[PATH_MAX_BYTES],
                            bb_error *err)
{
    if (bb_path_join(out, PATH_MAX_BYTES, folder, shard) && bb_path_exists(out)) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: shard %s is missing; fetch it too", w->path, shard);
}

static bb_status add_shards(bb_weights *w, const index *x, const char *folder, bb_error *err)
{
    char path[PATH_MAX_BYTES];
    for (size_t i = 0; i < x->n_shards; i++) BB_TRY(shard_path(w, folder, x->shards[i], path, err));
    w->files = calloc(x->n_shards, sizeof *w->files);
    if (!w->files) return out_of_memory(w, err);
    for (size_t i = 0; i < x->n_shards; i++) {
        size_t first = w->n;
        BB_TRY(shard_path(w, folder, x->shards[i], path, err));
        BB_TRY(add_file(w, path, err));
        BB_TRY(check_shard(w, x, x->shards[i], first, err));
    }
    if (w->n) qsort(w->tensors, w->n, sizeof *w->tensors, by_name);
    for (size_t i = 0; i < x->n; i++) {
        if (bb_weights_find(w, x->entries[i].tensor)) continue;
        return bb_fail(err, BB_ERR_CORRUPT, "%s: tensor %s is not in %s", w->path, x->entries[i].tensor,
                       x->entries[i].shard);
    }
    return BB_OK;
}

static bb_status open_shards(bb_weights *w, const char *folder, bb_error *err)
{
    index *x = calloc(1, sizeof *x);
    if (!x) return out_of_memory(w, err);
    bb_status status = read_index(w, x, err);
    if (status >= 0) status = add_shards(w, x, folder, err);
    free_index(x);
    free(x);
    return status;
}

/* ---- names ---- */

/* The tensor NAME.conv_in.weight whose NAME is the network's; NULL if names are plain. */
static bb_status find_network(const bb_weights *w, const char **out, bb_error *err)
{
    const char *first = NULL, *averaged = NULL;
    size_t n = 0, n_averaged = 0;
    *out = NULL;
    if (bb_weights_find(w, "conv_in.weight")) return BB_OK;
    for (size_t i = 0; i < w->n; i++) {
        const char *name = w->tensors[i].name;
        if (!ends_with(name, ".conv_in.weight")) continue;
        first = name;
        n++;
        if (strncmp(name, "ema", 3) != 0 && !strstr(name, ".ema") && !strstr(name, "_ema")) continue;
        averaged = name;
        n_averaged++;
    }
    *out = n == 1 ? first : n_averaged == 1 ? averaged : NULL;
    if (n < 2 || *out) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: holds %z networks (%s and others); save the one to import by itself",
                   w->path, n, first);
}

/* Cuts the prefix off the network's names and drops the other tensors. The order by name stays. */
static bb_status keep_network(bb_weights *w, bb_error *err)
{
    const char *network = NULL;
    BB_TRY(find_network(w, &network, err));
    if (!network) return BB_OK;
    size_t n = strlen(network) - strlen("conv_in.weight"), kept = 0;
    char *prefix = copy_of(network);
    if (!prefix) return out_of_memory(w, err);
    for (size_t i = 0; i < w->n; i++) {
        bb_tensor *t = &w->tensors[i];
        if (strncmp(t->name, prefix, n) != 0) {
            free(t->name);
            continue;
        }
        memmove(t->name, t->name + n, strlen(t->name + n) + 1);
        w->tensors[kept++] = *t;
    }
    w->n = kept;
    free(prefix);
    return BB_OK;
}

/* ---- life ---- */

/* Sets w->path to the first candidate that exists, w->unused to the second. */
static bb_status find_file(bb_weights *w, const char *folder, bb_error *err)
{
    static const char *const stems[] = {"diffusion_pytorch_model", "pytorch_model", "model"};
    static const char *const variants[] = {"", ".fp16", ".bf16", ".ema"};
    static const char *const formats[] = {"%s%s.safetensors", "%s.safetensors.index%s.json",
                                          "%s%s.safetensors.index.json", "%s%s.bin", "%s.bin.index%s.json",
                                          "%s%s.pth", "%s%s.pt", "%s%s.ckpt"};
    enum { FORMATS = BB_COUNT(formats), NAMES = BB_COUNT(variants) * BB_COUNT(stems) * FORMATS };
    for (size_t i = 0; i < NAMES; i++) { /* formats change fastest, variants slowest */
        char name[96], path[PATH_MAX_BYTES];
        const char *stem = stems[i / FORMATS % BB_COUNT(stems)];
        bb_format(name, sizeof name, formats[i % FORMATS], stem, variants[i / FORMATS / BB_COUNT(stems)]);
        if (!bb_path_join(path, sizeof path, folder, name) || !bb_path_exists(path)) continue;
        if (w->path && !strcmp(w->path, path)) continue; /* an index without variant has two formats */
        char **slot = w->path ? &w->unused : &w->path;
        *slot = copy_of(path);
        if (!*slot) return out_of_memory(w, err);
        if (w->unused) return BB_OK;
    }
    if (w->path) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: no weights here; looked for %s.safetensors, .safetensors.index.json, "
                   ".bin, .pth, .pt and .ckpt, also with .fp16, .bf16 or .ema: fetch one of them", folder, stems[0]);
}

static bb_status open_files(bb_weights *w, const char *folder, bb_error *err)
{
    BB_TRY(find_file(w, folder, err));
    if (ends_with(w->path, ".json")) {
        BB_TRY(open_shards(w, folder, err));
    } else {
        w->files = calloc(1, sizeof *w->files);
        if (!w->files) return out_of_memory(w, err);
        BB_TRY(add_file(w, w->path, err));
    }
    if (w->n) qsort(w->tensors, w->n, sizeof *w->tensors, by_name);
    for (size_t i = 1; i < w->n; i++) {
        if (by_name(&w->tensors[i - 1], &w->tensors[i])) continue;
        return bb_fail(err, BB_ERR_CORRUPT, "%s: tensor %s occurs twice", w->path, w->tensors[i].name);
    }
    return keep_network(w, err);
}

bb_status bb_weights_open(bb_weights *w, const char *folder, bb_error *err)
{
    *w = (bb_weights){0};
    bb_status status = open_files(w, folder, err);
    if (status < 0) bb_weights_close(w);
    return status;
}

void bb_weights_close(bb_weights *w)
{
    for (size_t i = 0; i < w->n; i++) free(w->tensors[i].name);
    for (size_t i = 0; i < w->n_files; i++) {
        bb_file_close(&w->files[i].file);
        free(w->files[i].path);
    }
    free(w->tensors);
    free(w->files);
    free(w->path);
    free(w->unused);
    *w = (bb_weights){0};
}

bb_tensor *bb_weights_find(const bb_weights *w, const char *name)
{
    bb_tensor key = {.name = (char *)(uintptr_t)name};
    return w->n ? bsearch(&key, w->tensors, w->n, sizeof key, by_name) : NULL;
}

const char *bb_weights_path(const bb_weights *w, const bb_tensor *t) { return w->files[t->file].path; }

bb_status bb_weights_sha256(const bb_weights *w, char out[65], bb_error *err)
{
    char *digests = malloc(w->n_files * 65);
    if (!digests) return out_of_memory(w, err);
    for (size_t i = 0; i < w->n_files; i++) {
        bb_sha256(w->files[i].file.data, w->files[i].file.size, digests + 64 * i); /* its NUL is overwritten */
    }
    if (w->n_files == 1) memcpy(out, digests, 65);
    else bb_sha256((const uint8_t *)digests, 64 * w->n_files, out);
    free(digests);
    return BB_OK;
}
