/* Writes a packed model file (core/FORMAT.md). One code path measures and writes: a sink without memory only counts. */
#include "pack/layout.h"

typedef struct sink {
    uint8_t *out; /* NULL: measuring */
    uint64_t at;
} sink;

static void put_bytes(sink *s, const void *data, uint64_t n)
{
    if (s->out && n) memcpy(s->out + s->at, data, (size_t)n);
    s->at += n;
}

static void put_zeros(sink *s, uint64_t n)
{
    if (s->out && n) memset(s->out + s->at, 0, (size_t)n);
    s->at += n;
}

static size_t length(const char *t)
{
    size_t n = 0;
    while (t[n]) n++;
    return n;
}

static void put_text(sink *s, const char *t) { put_bytes(s, t, length(t)); }

static void put_number(sink *s, uint64_t v)
{
    char digits[20];
    size_t k = sizeof digits;
    do {
        digits[--k] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    put_bytes(s, digits + k, sizeof digits - k);
}

/* Bytes of the well-formed UTF-8 character at t (RFC 3629); 0 if it is ill-formed. */
static size_t utf8_length(const char *text)
{
    const unsigned char *t = (const unsigned char *)text;
    size_t n = t[0] < 0x80 ? 1 : t[0] >= 0xc2 && t[0] < 0xe0 ? 2 : t[0] >= 0xe0 && t[0] < 0xf0 ? 3
             : t[0] >= 0xf0 && t[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((t[i] & 0xc0) != 0x80) return 0;
    bool overlong = (t[0] == 0xe0 && t[1] < 0xa0) || (t[0] == 0xf0 && t[1] < 0x90);
    bool outside = (t[0] == 0xed && t[1] >= 0xa0) || (t[0] == 0xf4 && t[1] >= 0x90);
    return n > 1 && (overlong || outside) ? 0 : n;
}

/* A JSON string. File names and commands may be any bytes: ill-formed ones become U+FFFD, or no reader could open
 * the header. */
static void put_string(sink *s, const char *t)
{
    put_text(s, "\"");
    for (; *t; t++) {
        unsigned char c = (unsigned char)*t;
        size_t n = utf8_length(t);
        if (n != 1) {
            put_bytes(s, n ? t : "\xef\xbf\xbd", n ? n : 3);
            t += n ? n - 1 : 0;
        } else if (c == '"' || c == '\\') {
            put_text(s, "\\");
            put_bytes(s, t, 1);
        } else if (c < 0x20) {
            char hex[] = "\\u0000";
            hex[4] = (char)('0' + c / 16);
            hex[5] = "0123456789abcdef"[c % 16];
            put_text(s, hex);
        } else {
            put_bytes(s, t, 1);
        }
    }
    put_text(s, "\"");
}

/* Rows of the last dimension, its dense and its padded length. */
typedef struct extent { uint64_t rows, last, padded; } extent;

static extent extent_of(const bb_tensor_out *t)
{
    extent e = {1, t->shape[t->rank - 1], 0};
    for (uint32_t i = 0; i + 1 < t->rank; i++) e.rows *= t->shape[i];
    uint64_t unit = BB_ALIGNMENT / bb_dtype_size(t->dtype);
    e.padded = (e.last + unit - 1) / unit * unit;
    return e;
}

static uint64_t padded_bytes(const bb_tensor_out *t)
{
    extent e = extent_of(t);
    return e.rows * e.padded * bb_dtype_size(t->dtype);
}

static void put_tensor_entry(sink *s, const bb_tensor_out *t, uint64_t *offset)
{
    put_text(s, ",");
    put_string(s, t->name);
    put_text(s, ":{\"dtype\":");
    put_string(s, bb_dtype_name(t->dtype));
    put_text(s, ",\"shape\":[");
    for (uint32_t i = 0; i < t->rank; i++) {
        if (i) put_text(s, ",");
        put_number(s, i + 1 < t->rank ? t->shape[i] : extent_of(t).padded);
    }
    put_text(s, "],\"data_offsets\":[");
    put_number(s, *offset);
    put_text(s, ",");
    *offset += padded_bytes(t);
    put_number(s, *offset);
    put_text(s, "]}");
}

static void put_tensor_data(sink *s, const bb_tensor_out *t)
{
    extent e = extent_of(t);
    uint32_t size = bb_dtype_size(t->dtype);
    const uint8_t *row = t->data;
    for (uint64_t r = 0; r < e.rows; r++, row += e.last * size) {
        put_bytes(s, row, e.last * size);
        put_zeros(s, (e.padded - e.last) * size);
    }
}

static void put_meta_number(sink *s, const char *key, int64_t v)
{
    put_text(s, ",");
    put_string(s, key);
    put_text(s, v < 0 ? ":\"-" : ":\"");
    put_number(s, (uint64_t)(v < 0 ? -v : v));
    put_text(s, "\"");
}

static void put_metadata(sink *s, const bb_pack_out *p)
{
    put_text(s, "{\"__metadata__\":{\"format\":\"bitbrush\"");
    put_meta_number(s, "format_version", BB_FORMAT_VERSION);
    put_meta_number(s, "width", p->info.width);
    put_meta_number(s, "height", p->info.height);
    put_meta_number(s, "channels", p->info.channels);
    put_meta_number(s, "classes", p->info.classes);
    put_meta_number(s, "null_label", p->info.null_label);
    put_meta_number(s, "train_steps", p->schedule->train_steps);
    put_meta_number(s, "bits_milli", p->info.bits_milli);
    for (uint32_t i = 0; i < p->n_meta; i++) {
        put_text(s, ",");
        put_string(s, p->meta[i].key);
        put_text(s, ":");
        put_string(s, p->meta[i].value);
    }
    put_text(s, "}");
}

static uint32_t words(size_t bytes) { return (uint32_t)(bytes / 4); }

/* The tensor "graph" is several arrays in a row, so it is put piece by piece. */
static uint32_t graph_words(const bb_graph *g)
{
    return (uint32_t)(BB_GRAPH_HEAD_WORDS + sizeof(bb_stage) / 4 + g->n_inputs * sizeof *g->inputs / 4 +
                      g->n_outputs * sizeof *g->outputs / 4 + g->n_values * sizeof *g->values / 4 +
                      g->n_weights * sizeof *g->weights / 4 + g->n_ops * sizeof *g->ops / 4);
}

static void put_graph(sink *s, const bb_graph *g)
{
    const uint32_t head[BB_GRAPH_HEAD_WORDS] = {1, 1, 0, 0, g->name, g->n_inputs, g->n_outputs, g->n_values,
                                                g->n_weights, g->n_ops, 0, 0};
    const bb_stage stage = {.graph = 0, .when = BB_WHEN_STEP};
    uint64_t start = s->at;
    put_bytes(s, head, sizeof head);
    put_bytes(s, &stage, sizeof stage);
    put_bytes(s, g->inputs, g->n_inputs * sizeof *g->inputs);
    put_bytes(s, g->outputs, g->n_outputs * sizeof *g->outputs);
    put_bytes(s, g->values, g->n_values * sizeof *g->values);
    put_bytes(s, g->weights, g->n_weights * sizeof *g->weights);
    put_bytes(s, g->ops, g->n_ops * sizeof *g->ops);
    put_zeros(s, bb_align_up((size_t)(s->at - start), BB_ALIGNMENT) - (s->at - start));
}

/* All tensors but "graph" (which comes first), in file order. */
static uint32_t list_tensors(const bb_pack_out *p, const uint32_t *schedule, bb_tensor_out *out)
{
    const bb_tensor_out all[BB_FILE_TENSORS] = {
        {"strings", BB_U8, 1, {p->graph->string_bytes}, p->graph->strings},
        {"weights", BB_U32, 1, {p->graph->n_weights * 2}, p->refs},
        {"layers", BB_U32, 2, {p->n_layers, words(sizeof *p->layers)}, p->layers},
        {"quantizers", BB_U32, 2, {p->n_quantizers, words(sizeof *p->quantizers)}, p->quantizers},
        {"schedule", BB_U32, 1, {BB_SCHEDULE_WORDS}, schedule},
        {"schedule.alphas_cumprod", BB_F32, 1, {p->schedule->train_steps}, p->schedule->alphas_cumprod},
        {"pool.f32", BB_F32, 1, {p->n_f32}, p->f32},
        {"pool.delta", BB_F32, 1, {p->n_rows}, p->delta},
        {"pool.offset", BB_I16, 1, {p->n_rows}, p->offset},
        {"pool.multiplier", BB_I16, 1, {p->n_multiplier}, p->multiplier},
        {"pool.perm", BB_U16, 1, {p->n_perm}, p->perm},
        {"pool.inv_s", BB_F32, 1, {p->n_inv_s}, p->inv_s},
        {"pool.step_key", BB_F32, 1, {p->n_step_key}, p->step_key},
        {"pool.step_delta", BB_F32, 1, {p->n_step}, p->step_delta},
        {"pool.step_zero", BB_U8, 1, {p->n_step}, p->step_zero},
    };
    uint32_t n = 0;
    for (uint32_t i = 0; i < BB_FILE_TENSORS; i++)
        if (all[i].shape[0]) out[n++] = all[i];
    return n;
}

static void write_file(const bb_pack_out *p, sink *s)
{
    uint32_t schedule[BB_SCHEDULE_WORDS];
    bb_tensor_out own[BB_FILE_TENSORS];
    bb_schedule_to_words(p->schedule, schedule);
    uint32_t n_own = list_tensors(p, schedule, own);
    const bb_tensor_out graph = {"graph", BB_U32, 1, {graph_words(p->graph)}, NULL};

    uint64_t start = s->at, offset = 0;
    put_zeros(s, 8);
    put_metadata(s, p);
    put_tensor_entry(s, &graph, &offset);
    for (uint32_t i = 0; i < n_own; i++) put_tensor_entry(s, &own[i], &offset);
    for (uint32_t i = 0; i < p->n_tensors; i++) put_tensor_entry(s, &p->tensors[i], &offset);
    put_text(s, "}");
    while ((s->at - start) % BB_ALIGNMENT) put_text(s, " ");
    uint64_t head = s->at - start - 8;
    if (s->out) memcpy(s->out + start, &head, 8);

    put_graph(s, p->graph);
    for (uint32_t i = 0; i < n_own; i++) put_tensor_data(s, &own[i]);
    for (uint32_t i = 0; i < p->n_tensors; i++) put_tensor_data(s, &p->tensors[i]);
}

uint64_t bb_pack_write_size(const bb_pack_out *p)
{
    sink s = {0};
    write_file(p, &s);
    return s.at;
}

void bb_pack_write(const bb_pack_out *p, uint8_t *out)
{
    sink s = {.out = out};
    write_file(p, &s);
}
