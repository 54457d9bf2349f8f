/* See pickle.h. A stack machine: values are numbers of nodes, and each instruction makes at most one of them. */
#include "import/pickle.h"

#include "import/tensor.h"

#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)16 << 20) /* a thousand tensors take a tenth of a megabyte */
#define REMEDY "; convert the file with safetensors.torch.save_file"

typedef struct machine {
    bb_pickle *p;
    const uint8_t *data;
    size_t n, at;
    const char *file;
    bb_error *err;
} machine;

/* ---- lists ---- */

/* Room for one more; capacities are powers of two. NULL if out of memory. */
static void *push(bb_pickle_list *list, size_t each)
{
    list->each = each;
    if (!(list->n & (list->n - 1))) {
        void *more = realloc(list->at, (list->n ? 2 * list->n : 1) * each);
        if (!more) return NULL;
        list->at = more;
    }
    return (char *)list->at + list->n++ * each;
}

static uint32_t number_at(const bb_pickle_list *list, size_t i) { return ((const uint32_t *)list->at)[i]; }
static bb_pickle_node *node_at(const bb_pickle *p, uint32_t i) { return &((bb_pickle_node *)p->nodes.at)[i]; }

static bb_status out_of_memory(const machine *m) { return bb_fail(m->err, BB_ERR_SPACE, "%s: out of memory", m->file); }

static bb_status damaged(const machine *m, const char *what)
{
    return bb_fail(m->err, BB_ERR_CORRUPT, "%s: data.pkl: %s at byte %z; the file is damaged", m->file, what, m->at);
}

static bb_status push_number(const machine *m, bb_pickle_list *list, uint32_t v)
{
    uint32_t *slot = push(list, sizeof v);
    if (!slot) return out_of_memory(m);
    *slot = v;
    return BB_OK;
}

static bb_status push_node(const machine *m, bb_pickle_node node)
{
    bb_pickle_node *slot = push(&m->p->nodes, sizeof node);
    if (!slot) return out_of_memory(m);
    *slot = node;
    return push_number(m, &m->p->stack, (uint32_t)m->p->nodes.n - 1);
}

static bb_status push_kind(const machine *m, uint32_t kind) { return push_node(m, (bb_pickle_node){.kind = kind}); }

static bb_status push_int(const machine *m, int64_t v)
{
    return push_node(m, (bb_pickle_node){.kind = BB_PICKLE_INT, .number = v});
}

/* The stack above the newest mark belongs to it; below a mark nothing may be popped. */
static size_t floor_of(const bb_pickle *p) { return p->marks.n ? number_at(&p->marks, p->marks.n - 1) : 0; }

static bb_status pop(const machine *m, uint32_t *out)
{
    if (m->p->stack.n <= floor_of(m->p)) return damaged(m, "the stack is empty");
    *out = number_at(&m->p->stack, --m->p->stack.n);
    return BB_OK;
}

static bb_status pop_mark(const machine *m, size_t *first)
{
    if (!m->p->marks.n) return damaged(m, "there is no mark");
    *first = number_at(&m->p->marks, --m->p->marks.n);
    return BB_OK;
}

/* ---- reading ---- */

static bb_status take(machine *m, size_t n, const uint8_t **out)
{
    if (n > m->n - m->at) return damaged(m, "the data ends inside an instruction");
    *out = m->data + m->at;
    m->at += n;
    return BB_OK;
}

static bb_status take_unsigned(machine *m, size_t bytes, uint64_t *out)
{
    const uint8_t *p = NULL;
    BB_TRY(take(m, bytes, &p));
    *out = 0;
    for (size_t i = bytes; i-- > 0;) *out = *out << 8 | p[i];
    return BB_OK;
}

/* Two's complement of 0 to 8 bytes. */
static bb_status take_signed(machine *m, size_t bytes, int64_t *out)
{
    uint64_t v = 0;
    if (bytes > 8) return damaged(m, "a number has more than 64 bits");
    BB_TRY(take_unsigned(m, bytes, &v));
    if (bytes && bytes < 8 && v >> (8 * bytes - 1)) v |= ~(uint64_t)0 << 8 * bytes;
    *out = (int64_t)v;
    return BB_OK;
}

static bb_status take_text(machine *m, size_t length_bytes)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    BB_TRY(take_unsigned(m, length_bytes, &n));
    if (n > m->n - m->at) return damaged(m, "a text ends outside the data");
    BB_TRY(take(m, (size_t)n, &p));
    return push_node(m, (bb_pickle_node){.kind = BB_PICKLE_STRING, .text = {(const char *)p, (size_t)n}});
}

static bb_status take_line(machine *m, bb_pickle_text *out)
{
    const uint8_t *begin = m->data + m->at, *end = memchr(begin, '\n', m->n - m->at);
    if (!end) return damaged(m, "a name does not end");
    *out = (bb_pickle_text){(const char *)begin, (size_t)(end - begin)};
    m->at += out->n + 1;
    return BB_OK;
}

/* ---- the names that are known ---- */

enum { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, STORAGE_TYPES };

static const struct { const char *module, *name; uint32_t dtype; } globals[] = {
    [ORDERED_DICT] = {"collections", "OrderedDict", 0},
    [REBUILD_TENSOR] = {"torch._utils", "_rebuild_tensor_v2", 0},
    [REBUILD_PARAMETER] = {"torch._utils", "_rebuild_parameter", 0},
    [STORAGE_TYPES] = {"torch", "FloatStorage", BB_ST_F32},
    {"torch", "HalfStorage", BB_ST_F16}, {"torch", "BFloat16Storage", BB_ST_BF16},
    {"torch", "DoubleStorage", BB_TENSOR_F64}, {"torch", "LongStorage", BB_ST_I64},
    {"torch", "IntStorage", BB_ST_I32}, {"torch", "ByteStorage", BB_ST_U8}, {"torch", "BoolStorage", BB_ST_U8},
};

static bool equals(bb_pickle_text t, const char *s) { return strlen(s) == t.n && !memcmp(t.at, s, t.n); }

/* For messages: letters, digits and the like, at most 60 of them. */
static const char *shown(bb_pickle_text t, char out[64])
{
    size_t n = 0;
    for (; n < t.n && n < 60; n++) out[n] = t.at[n] > ' ' && t.at[n] < 127 ? t.at[n] : '?';
    out[n] = 0;
    return out;
}

static bb_status push_global(const machine *m, bb_pickle_text module, bb_pickle_text name)
{
    for (uint32_t i = 0; i < BB_COUNT(globals); i++) {
        if (!equals(module, globals[i].module) || !equals(name, globals[i].name)) continue;
        return push_node(m, (bb_pickle_node){.kind = BB_PICKLE_GLOBAL, .first = i});
    }
    char a[64], b[64];
    return bb_fail(m->err, BB_ERR_UNSUPPORTED, "%s: data.pkl names %s.%s, which is no part of plain tensors; it is not "
                   "loaded or run" REMEDY, m->file, shown(module, a), shown(name, b));
}

static bb_status do_global(machine *m)
{
    bb_pickle_text module = {0}, name = {0};
    BB_TRY(take_line(m, &module));
    BB_TRY(take_line(m, &name));
    return push_global(m, module, name);
}

static bb_status do_stack_global(machine *m)
{
    uint32_t name = 0, module = 0;
    BB_TRY(pop(m, &name));
    BB_TRY(pop(m, &module));
    const bb_pickle_node *a = node_at(m->p, module), *b = node_at(m->p, name);
    if (a->kind != BB_PICKLE_STRING || b->kind != BB_PICKLE_STRING) return damaged(m, "a name is no text");
    return push_global(m, a->text, b->text);
}

/* ---- tuples and dictionaries ---- */

/* The stack from first on becomes a tuple. */
static bb_status make_tuple(const machine *m, size_t first)
{
    bb_pickle *p = m->p;
    bb_pickle_node t = {.kind = BB_PICKLE_TUPLE, .first = (uint32_t)p->items.n, .n = (uint32_t)(p->stack.n - first)};
    for (size_t i = first; i < p->stack.n; i++) BB_TRY(push_number(m, &p->items, number_at(&p->stack, i)));
    p->stack.n = first;
    return push_node(m, t);
}

static bb_status do_tuple(const machine *m, size_t n)
{
    if (m->p->stack.n - floor_of(m->p) < n) return damaged(m, "the stack is empty");
    return make_tuple(m, m->p->stack.n - n);
}

static bb_status push_dict(const machine *m)
{
    return push_node(m, (bb_pickle_node){.kind = BB_PICKLE_DICT, .first = BB_PICKLE_NO_PAIR});
}

/* The stack from first on, key and value in turn, into the dictionary below. */
static bb_status set_items(const machine *m, size_t first)
{
    bb_pickle *p = m->p;
    if (first <= floor_of(p) || (p->stack.n - first) % 2) return damaged(m, "a dictionary gets no pairs");
    bb_pickle_node *dict = node_at(p, number_at(&p->stack, first - 1));
    if (dict->kind != BB_PICKLE_DICT) return damaged(m, "an item is set in what is no dictionary");
    for (size_t i = first; i < p->stack.n; i += 2) {
        bb_pickle_pair *pair = push(&p->pairs, sizeof *pair);
        if (!pair) return out_of_memory(m);
        uint32_t number = (uint32_t)p->pairs.n - 1;
        *pair = (bb_pickle_pair){number_at(&p->stack, i), number_at(&p->stack, i + 1), BB_PICKLE_NO_PAIR};
        if (dict->first == BB_PICKLE_NO_PAIR) dict->first = number;
        else ((bb_pickle_pair *)p->pairs.at)[dict->n].next = number;
        dict->n = number;
    }
    p->stack.n = first;
    return BB_OK;
}

/* ---- storages and tensors ---- */

/* Element i of a tuple; NULL if there is no such one, or it is of another kind. */
static const bb_pickle_node *element(const bb_pickle *p, const bb_pickle_node *t, uint32_t i, uint32_t kind)
{
    if (t->kind != BB_PICKLE_TUPLE || i >= t->n) return NULL;
    const bb_pickle_node *e = node_at(p, number_at(&p->items, t->first + i));
    return e->kind == kind ? e : NULL;
}

/* ('storage', TYPE, key, device, elements) */
static bb_status do_persistent_id(const machine *m)
{
    uint32_t id = 0;
    BB_TRY(pop(m, &id));
    bb_pickle *p = m->p;
    const bb_pickle_node *t = node_at(p, id), *word = element(p, t, 0, BB_PICKLE_STRING);
    const bb_pickle_node *type = element(p, t, 1, BB_PICKLE_GLOBAL), *key = element(p, t, 2, BB_PICKLE_STRING);
    const bb_pickle_node *numel = element(p, t, 4, BB_PICKLE_INT);
    if (!word || !equals(word->text, "storage") || !type || type->first < STORAGE_TYPES || !key || !numel ||
        numel->number < 0 || !key->text.n) {
        return damaged(m, "a persistent id is no storage");
    }
    bb_pickle_storage *s = push(&p->storages, sizeof *s);
    if (!s) return out_of_memory(m);
    *s = (bb_pickle_storage){key->text, globals[type->first].dtype, (uint64_t)numel->number};
    return push_node(m, (bb_pickle_node){.kind = BB_PICKLE_STORAGE, .first = (uint32_t)p->storages.n - 1});
}

/* Sizes or strides; false if they are not 0 to 8 numbers from 0 on. */
static bool read_numbers(const bb_pickle *p, const bb_pickle_node *t, uint64_t *out)
{
    for (uint32_t i = 0; i < t->n; i++) {
        const bb_pickle_node *e = i < BB_ST_MAX_RANK ? element(p, t, i, BB_PICKLE_INT) : NULL;
        if (!e || e->number < 0) return false;
        out[i] = (uint64_t)e->number;
    }
    return true;
}

/* Counts the elements; false if some lie outside the storage, or they are more than it has. */
static bool fits_storage(bb_pickle_tensor *t)
{
    uint64_t count = 1, last = t->offset, numel = t->storage.numel;
    for (uint32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0) {
            t->count = 0;
            return t->offset <= numel;
        }
        if (t->shape[i] > numel / count) return false;
        count *= t->shape[i];
        uint64_t steps = t->shape[i] - 1;
        if (last >= numel || (steps && t->stride[i] > (numel - 1 - last) / steps)) return false;
        last += steps * t->stride[i];
    }
    t->count = (size_t)count;
    return last < numel && count <= SIZE_MAX / 8;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks[, metadata]) */
static bb_status rebuild_tensor(const machine *m, const bb_pickle_node *args)
{
    bb_pickle *p = m->p;
    const bb_pickle_node *storage = element(p, args, 0, BB_PICKLE_STORAGE), *at = element(p, args, 1, BB_PICKLE_INT);
    const bb_pickle_node *size = element(p, args, 2, BB_PICKLE_TUPLE), *step = element(p, args, 3, BB_PICKLE_TUPLE);
    if (!storage || !at || !size || !step || at->number < 0 || size->n != step->n || size->n > BB_ST_MAX_RANK) {
        return damaged(m, "a tensor is not (storage, offset, size, stride, …)");
    }
    bb_pickle_tensor t = {.storage = ((bb_pickle_storage *)p->storages.at)[storage->first],
                          .offset = (uint64_t)at->number, .rank = size->n};
    if (!read_numbers(p, size, t.shape) || !read_numbers(p, step, t.stride)) {
        return damaged(m, "a tensor has a size or stride that is no number");
    }
    if (!fits_storage(&t)) return damaged(m, "a tensor is larger than its storage");
    bb_pickle_tensor *slot = push(&p->tensors, sizeof t);
    if (!slot) return out_of_memory(m);
    *slot = t;
    return push_node(m, (bb_pickle_node){.kind = BB_PICKLE_TENSOR, .first = (uint32_t)p->tensors.n - 1});
}

static bb_status do_reduce(const machine *m)
{
    uint32_t args = 0, function = 0;
    BB_TRY(pop(m, &args));
    BB_TRY(pop(m, &function));
    const bb_pickle_node a = *node_at(m->p, args), *f = node_at(m->p, function);
    if (f->kind != BB_PICKLE_GLOBAL || a.kind != BB_PICKLE_TUPLE) return damaged(m, "a call of what is no function");
    if (f->first == REBUILD_TENSOR) return rebuild_tensor(m, &a);
    if (f->first == REBUILD_PARAMETER && a.n) {
        uint32_t data = number_at(&m->p->items, a.first);
        if (node_at(m->p, data)->kind == BB_PICKLE_TENSOR) return push_number(m, &m->p->stack, data);
    }
    if (f->first == ORDERED_DICT && !a.n) return push_dict(m);
    return damaged(m, "a call with other arguments than torch.save writes");
}

/* State of a dictionary is its _metadata: versions of modules. */
static bb_status do_build(const machine *m)
{
    uint32_t state = 0, object = 0;
    BB_TRY(pop(m, &state));
    BB_TRY(pop(m, &object));
    if (node_at(m->p, object)->kind != BB_PICKLE_DICT) return damaged(m, "state is set in what is no dictionary");
    return push_number(m, &m->p->stack, object);
}

/* ---- the memo ---- */

static bb_status put(const machine *m, uint64_t slot)
{
    uint32_t top = 0;
    BB_TRY(pop(m, &top));
    m->p->stack.n++;
    if (slot > m->n) return damaged(m, "a memo number is out of range");
    while (m->p->memo.n <= slot) BB_TRY(push_number(m, &m->p->memo, BB_PICKLE_NO_PAIR));
    ((uint32_t *)m->p->memo.at)[slot] = top;
    return BB_OK;
}

static bb_status get(const machine *m, uint64_t slot)
{
    if (slot >= m->p->memo.n || number_at(&m->p->memo, (size_t)slot) == BB_PICKLE_NO_PAIR) {
        return damaged(m, "a memo number was never set");
    }
    return push_number(m, &m->p->stack, number_at(&m->p->memo, (size_t)slot));
}

/* ---- instructions ---- */

static const char *instruction_name(uint8_t code)
{
    static const struct { uint8_t code; const char *name; } names[] = {
        {'2', "DUP"}, {'F', "FLOAT"}, {'I', "INT"}, {'L', "LONG"}, {'P', "PERSID"}, {'S', "STRING"}, {'V', "UNICODE"},
        {'d', "DICT"}, {'g', "GET"}, {'p', "PUT"}, {'i', "INST"}, {'l', "LIST"}, {'o', "OBJ"},
        {0x81, "NEWOBJ"}, {0x82, "EXT1"},
        {0x83, "EXT2"}, {0x84, "EXT4"}, {0x8f, "EMPTY_SET"}, {0x90, "ADDITEMS"}, {0x91, "FROZENSET"},
        {0x92, "NEWOBJ_EX"}, {0x96, "BYTEARRAY8"}, {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"},
    };
    for (size_t i = 0; i < BB_COUNT(names); i++) {
        if (names[i].code == code) return names[i].name;
    }
    return "unknown";
}

static bb_status refuse(const machine *m, uint8_t code)
{
    return bb_fail(m->err, BB_ERR_UNSUPPORTED, "%s: data.pkl has the instruction %s (%u) at byte %z, which plain "
                   "tensors do not need; it is not run" REMEDY, m->file, instruction_name(code), code, m->at - 1);
}

static bb_status do_number(machine *m, uint8_t code)
{
    uint64_t n = 1;
    int64_t v = 0;
    switch (code) {
    case 'K': BB_TRY(take_unsigned(m, 1, &n)); return push_int(m, (int64_t)n);              /* BININT1 */
    case 'M': BB_TRY(take_unsigned(m, 2, &n)); return push_int(m, (int64_t)n);              /* BININT2 */
    case 'J': BB_TRY(take_signed(m, 4, &v)); return push_int(m, v);                         /* BININT */
    case 0x8a: case 0x8b:                                                                   /* LONG1, LONG4 */
        BB_TRY(take_unsigned(m, code == 0x8a ? 1 : 4, &n));
        BB_TRY(take_signed(m, n > 8 ? 9 : (size_t)n, &v));
        return push_int(m, v);
    default: /* BINFLOAT */
        BB_TRY(take_unsigned(m, 8, &n));
        return push_kind(m, BB_PICKLE_OTHER);
    }
}

/* APPEND and APPENDS: the contents of lists are dropped. */
static bb_status do_append(const machine *m, size_t first)
{
    if (first <= floor_of(m->p)) return damaged(m, "the stack is empty");
    if (node_at(m->p, number_at(&m->p->stack, first - 1))->kind != BB_PICKLE_OTHER) {
        return damaged(m, "an item is appended to what is no list");
    }
    m->p->stack.n = first;
    return BB_OK;
}

static bb_status with_mark(const machine *m, uint8_t code)
{
    size_t first = 0;
    BB_TRY(pop_mark(m, &first));
    switch (code) {
    case 't': return make_tuple(m, first);
    case 'u': return set_items(m, first);
    case 'e': return do_append(m, first);
    default: m->p->stack.n = first; return BB_OK; /* POP_MARK */
    }
}

static bb_status do_proto(machine *m)
{
    uint64_t version = 0;
    BB_TRY(take_unsigned(m, 1, &version));
    if (version >= 2 && version <= 5) return BB_OK;
    return bb_fail(m->err, BB_ERR_UNSUPPORTED, "%s: data.pkl has protocol %z; supported are 2 to 5" REMEDY, m->file,
                   (size_t)version);
}

static bb_status step(machine *m, uint8_t code)
{
    uint64_t n = 0;
    uint32_t dropped = 0;
    size_t depth = m->p->stack.n;
    switch (code) {
    case 0x80: return do_proto(m);                                                /* PROTO */
    case 0x95: return take_unsigned(m, 8, &n);                                    /* FRAME: a hint */
    case '(': return push_number(m, &m->p->marks, (uint32_t)depth);               /* MARK */
    case '0': return pop(m, &dropped);                                            /* POP */
    case 'N': case ']': return push_kind(m, BB_PICKLE_OTHER);                     /* NONE, EMPTY_LIST */
    case 0x88: case 0x89: return push_int(m, code == 0x88);                       /* NEWTRUE, NEWFALSE */
    case 'K': case 'M': case 'J': case 0x8a: case 0x8b: case 'G': return do_number(m, code);
    case 0x8c: case 'U': case 'C': return take_text(m, 1);                        /* SHORT_BINUNICODE, STRING, BYTES */
    case 'X': case 'T': case 'B': return take_text(m, 4);                         /* BINUNICODE, BINSTRING, BINBYTES */
    case 0x8d: case 0x8e: return take_text(m, 8);                                 /* BINUNICODE8, BINBYTES8 */
    case ')': return do_tuple(m, 0);                                              /* EMPTY_TUPLE */
    case 0x85: case 0x86: case 0x87: return do_tuple(m, code - 0x84u);            /* TUPLE1 … TUPLE3 */
    case 't': case 'u': case 'e': case '1': return with_mark(m, code);            /* TUPLE, SETITEMS, APPENDS, … */
    case '}': return push_dict(m);                                                /* EMPTY_DICT */
    case 's': return set_items(m, depth < 2 ? 0 : depth - 2);                     /* SETITEM */
    case 'a': return do_append(m, depth < 1 ? 0 : depth - 1);                     /* APPEND */
    case 'q': BB_TRY(take_unsigned(m, 1, &n)); return put(m, n);                  /* BINPUT */
    case 'r': BB_TRY(take_unsigned(m, 4, &n)); return put(m, n);                  /* LONG_BINPUT */
    case 0x94: return put(m, m->p->memo.n);                                       /* MEMOIZE */
    case 'h': BB_TRY(take_unsigned(m, 1, &n)); return get(m, n);                  /* BINGET */
    case 'j': BB_TRY(take_unsigned(m, 4, &n)); return get(m, n);                  /* LONG_BINGET */
    case 'c': return do_global(m);                                                /* GLOBAL */
    case 0x93: return do_stack_global(m);                                         /* STACK_GLOBAL */
    case 'Q': return do_persistent_id(m);                                         /* BINPERSID */
    case 'R': return do_reduce(m);                                                /* REDUCE */
    case 'b': return do_build(m);                                                 /* BUILD */
    default: return refuse(m, code);
    }
}

static bb_status run(machine *m)
{
    const uint8_t *code = NULL;
    for (;;) {
        BB_TRY(take(m, 1, &code));
        if (*code == '.') break; /* STOP */
        BB_TRY(step(m, *code));
    }
    if (m->p->marks.n || m->p->stack.n != 1) return damaged(m, "it ends with other than one value");
    return pop(m, &m->p->root);
}

bb_status bb_pickle_read(bb_pickle *p, const uint8_t *data, size_t n, const char *file, bb_error *err)
{
    *p = (bb_pickle){0};
    if (n > MAX_BYTES) return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: data.pkl is larger than 16 MiB" REMEDY, file);
    machine m = {.p = p, .data = data, .n = n, .file = file, .err = err};
    bb_status status = run(&m);
    if (status < 0) bb_pickle_free(p);
    return status;
}

void bb_pickle_free(bb_pickle *p)
{
    bb_pickle_list *all[] = {&p->nodes, &p->pairs, &p->storages, &p->tensors,
                             &p->items, &p->stack, &p->marks,    &p->memo};
    for (size_t i = 0; i < BB_COUNT(all); i++) free(all[i]->at);
    *p = (bb_pickle){0};
}
