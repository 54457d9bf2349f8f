/* See torch_file.h. */
#include "import/torch_file.h"

#include "import/pickle.h"
#include "import/zip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 4u
#define MAX_NAME 512u

typedef struct reader {
    bb_torch_file *out;
    bb_zip zip;
    const char *prefix; /* the folder of all records in the archive */
    size_t prefix_length;
    bb_pickle pickle;
    bool *seen;     /* [nodes]: dictionaries that were walked, so that none is twice, not even one that holds itself */
    bool *verified; /* [zip entries] */
    const char *file;
    bb_error *err;
} reader;

static bb_status out_of_memory(const reader *r) { return bb_fail(r->err, BB_ERR_SPACE, "%s: out of memory", r->file); }

/* The archive's data.pkl, whose folder names all others. */
static const bb_zip_entry *find_pickle(reader *r)
{
    static const char end[] = "/data.pkl";
    for (size_t i = 0; i < r->zip.n; i++) {
        const bb_zip_entry *e = &r->zip.entries[i];
        size_t folder = e->name_length - (sizeof end - 1);
        if (e->name_length < sizeof end || memcmp(e->name + folder, end, sizeof end - 1) != 0) continue;
        if (memchr(e->name, '/', folder)) continue;
        r->prefix = e->name;
        r->prefix_length = folder;
        return e;
    }
    return NULL;
}

static const bb_zip_entry *find(const reader *r, const char *name)
{
    return bb_zip_find(&r->zip, r->prefix, r->prefix_length, name);
}

static bb_status check_records(const reader *r)
{
    const bb_zip_entry *order = find(r, "byteorder");
    if (find(r, "constants.pkl")) {
        return bb_fail(r->err, BB_ERR_UNSUPPORTED, "%s: a TorchScript program, not plain tensors; save the model's "
                       "state_dict with safetensors", r->file);
    }
    if (order && (order->size != 6 || memcmp(order->data, "little", 6) != 0)) {
        return bb_fail(r->err, BB_ERR_UNSUPPORTED, "%s: not in little-endian byte order; save it again with "
                       "safetensors", r->file);
    }
    return BB_OK;
}

/* The storage's bytes: record data/KEY, checked against its checksum once. */
static bb_status storage_data(const reader *r, const bb_pickle_storage *s, const uint8_t **out)
{
    char name[128] = "data/";
    if (s->key.n >= sizeof name - 5 || memchr(s->key.at, 0, s->key.n)) {
        return bb_fail(r->err, BB_ERR_CORRUPT, "%s: a storage has no proper key; the file is damaged", r->file);
    }
    memcpy(name + 5, s->key.at, s->key.n);
    const bb_zip_entry *e = find(r, name);
    if (!e || e->size / bb_tensor_dtype_bytes(s->dtype) < s->numel) {
        return bb_fail(r->err, BB_ERR_CORRUPT, "%s: record %s is missing or too short; the file is damaged", r->file,
                       name);
    }
    bool *verified = &r->verified[e - r->zip.entries];
    if (!*verified) BB_TRY(bb_zip_verify(&r->zip, e, r->err));
    *verified = true;
    *out = e->data;
    return BB_OK;
}

static bb_status add_tensor(const reader *r, const char *name, const bb_pickle_tensor *p)
{
    bb_tensor t = {.dtype = p->storage.dtype, .rank = p->rank, .count = p->count};
    memcpy(t.shape, p->shape, sizeof t.shape);
    memcpy(t.stride, p->stride, sizeof t.stride);
    BB_TRY(storage_data(r, &p->storage, &t.data));
    t.data += p->offset * bb_tensor_dtype_bytes(t.dtype);
    size_t length = strlen(name) + 1;
    t.name = malloc(length);
    if (!t.name) return out_of_memory(r);
    memcpy(t.name, name, length);
    r->out->tensors[r->out->n++] = t; /* one for each pair of the pickle at most */
    return BB_OK;
}

/* Appends ".key" to the name; false if it is no text or does not fit. */
static bool extend(char *name, size_t length, const bb_pickle_node *key)
{
    size_t dot = length ? 1 : 0;
    if (key->kind != BB_PICKLE_STRING || memchr(key->text.at, 0, key->text.n)) return false;
    if (length + dot + key->text.n >= MAX_NAME) return false;
    if (dot) name[length] = '.';
    memcpy(name + length + dot, key->text.at, key->text.n);
    name[length + dot + key->text.n] = 0;
    return true;
}

/* What has no name made of texts (an optimizer's state), or lies deeper, is no weight and left out. */
static bb_status walk(const reader *r, uint32_t dict, char name[MAX_NAME], uint32_t depth)
{
    const bb_pickle_node *nodes = bb_pickle_nodes(&r->pickle);
    size_t length = strlen(name);
    if (r->seen[dict] || depth == MAX_DEPTH) return BB_OK;
    r->seen[dict] = true;
    for (uint32_t i = nodes[dict].first; i != BB_PICKLE_NO_PAIR;) {
        const bb_pickle_pair *pair = &bb_pickle_pairs(&r->pickle)[i];
        const bb_pickle_node *value = &nodes[pair->value];
        if (extend(name, length, &nodes[pair->key])) {
            if (value->kind == BB_PICKLE_DICT) BB_TRY(walk(r, pair->value, name, depth + 1));
            if (value->kind == BB_PICKLE_TENSOR) {
                BB_TRY(add_tensor(r, name, &bb_pickle_tensors(&r->pickle)[value->first]));
            }
        }
        name[length] = 0;
        i = pair->next;
    }
    return BB_OK;
}

static bb_status read(reader *r)
{
    const bb_zip_entry *pkl = find_pickle(r);
    if (!pkl) {
        return bb_fail(r->err, BB_ERR_UNSUPPORTED, "%s: a zip archive without data.pkl; torch.save did not write it",
                       r->file);
    }
    BB_TRY(check_records(r));
    BB_TRY(bb_zip_verify(&r->zip, pkl, r->err));
    BB_TRY(bb_pickle_read(&r->pickle, pkl->data, pkl->size, r->file, r->err));
    r->seen = calloc(r->pickle.nodes.n + 1, sizeof *r->seen);
    r->verified = calloc(r->zip.n + 1, sizeof *r->verified);
    r->out->tensors = calloc(r->pickle.pairs.n + 1, sizeof *r->out->tensors);
    if (!r->seen || !r->verified || !r->out->tensors) return out_of_memory(r);
    char name[MAX_NAME] = "";
    if (bb_pickle_nodes(&r->pickle)[r->pickle.root].kind == BB_PICKLE_DICT) BB_TRY(walk(r, r->pickle.root, name, 0));
    if (r->out->n) return BB_OK;
    return bb_fail(r->err, BB_ERR_UNSUPPORTED, "%s: holds no dictionary of named tensors; save model.state_dict()",
                   r->file);
}

/* The magic number that the old format begins with, as its first pickle. */
static bool is_legacy(const uint8_t *data, size_t n)
{
    static const uint8_t magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    return n >= 2 + sizeof magic && data[0] == 0x80 && !memcmp(data + 2, magic, sizeof magic);
}

bb_status bb_torch_parse(bb_torch_file *t, const uint8_t *data, size_t n, const char *file, bb_error *err)
{
    *t = (bb_torch_file){0};
    if (is_legacy(data, n)) {
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: in the format of PyTorch before 1.6; load it there and save it "
                       "again, best with safetensors.torch.save_file", file);
    }
    if (!bb_zip_looks_like(data, n)) {
        return bb_fail(err, BB_ERR_CORRUPT, "%s: not a file of torch.save (no zip archive), or damaged", file);
    }
    reader r = {.out = t, .file = file, .err = err};
    BB_TRY(bb_zip_open(&r.zip, data, n, file, err));
    bb_status status = read(&r);
    bb_pickle_free(&r.pickle);
    bb_zip_close(&r.zip);
    free(r.seen);
    free(r.verified);
    if (status < 0) bb_torch_free(t);
    return status;
}

void bb_torch_free(bb_torch_file *t)
{
    for (size_t i = 0; i < t->n; i++) free(t->tensors[i].name);
    free(t->tensors);
    *t = (bb_torch_file){0};
}
