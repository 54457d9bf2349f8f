/* Whose tensor is it? The names that peft, diffusers (three generations) and kohya's scripts give to the halves of a
 * LoRA. Sources: peft's and diffusers' conversion tables (diffusers/utils/state_dict_utils.py), kohya sd-scripts
 * networks/lora.py. */
#include "base/sort.h"
#include "make/make.h"

static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n]) n++;
    return n;
}

static bool starts(const char *s, const char *with)
{
    while (*with && *s == *with) s++, with++;
    return !*with;
}

static bool contains(const char *s, const char *part)
{
    for (; *s; s++) {
        if (starts(s, part)) return true;
    }
    return false;
}

/* Length of s without that ending; 0 if it ends otherwise, or in nothing but that. */
static size_t without(const char *s, size_t n, const char *ending)
{
    size_t k = length(ending);
    return n > k && memcmp(s + n - k, ending, k) == 0 ? n - k : 0;
}

/* Of names that peft gives: "lora_A.weight", or with the adapter's own name in between. */
static size_t without_adapter(const char *s, size_t n, const char *half)
{
    size_t end = without(s, n, ".weight");
    size_t stem = without(s, end, half);
    if (stem) return stem;
    while (end && s[end - 1] != '.') end--;
    return end ? without(s, end - 1, half) : 0;
}

static const char *skip(const char *s, const char *prefix) { return starts(s, prefix) ? s + length(prefix) : s; }

static const struct { const char *part, *name; } methods[] = {
    {"lora_magnitude_vector", "DoRA"}, {"dora_scale", "DoRA"}, {"hada_w", "LoHa"}, {"hada_t", "LoHa"},
    {"lokr_", "LoKr"}, {"lora_mid.", "LoRA with a core tensor (lora_mid)"}, {"lora_embedding_", "LoRA of an embedding"},
    {"oft_", "OFT"}, {"vera_lambda", "VeRA"}, {"lora_B.bias", "LoRA with biases"}, {"lora_up.bias", "LoRA with biases"},
};

static const struct { const char *ending; bb_lora_role role; } endings[] = {
    {".lora_down.weight", BB_LORA_DOWN}, {".lora_up.weight", BB_LORA_UP},
    {".lora.down.weight", BB_LORA_DOWN}, {".lora.up.weight", BB_LORA_UP},
    {"_lora.down.weight", BB_LORA_DOWN}, {"_lora.up.weight", BB_LORA_UP}, /* of an attention processor */
    {".lora_linear_layer.down.weight", BB_LORA_DOWN}, {".lora_linear_layer.up.weight", BB_LORA_UP},
    {".lora.alpha", BB_LORA_ALPHA}, {"_lora.alpha", BB_LORA_ALPHA}, {".alpha", BB_LORA_ALPHA},
};

/* Replaces the module's ending, with '_' for '.' in flat names. */
static void rename_ending(bb_lora_key *key, const char *from, const char *to)
{
    char old[16], new[16];
    for (size_t i = 0; i <= length(from); i++) old[i] = from[i] == '.' && key->flat ? '_' : from[i];
    for (size_t i = 0; i <= length(to); i++) new[i] = to[i] == '.' && key->flat ? '_' : to[i];
    size_t stem = without(key->module, length(key->module), old);
    if (stem && stem + length(new) < sizeof key->module) memcpy(key->module + stem, new, length(new) + 1);
}

static void set_module(bb_lora_key *key, const char *s, size_t n)
{
    static const char processor[] = ".processor.";
    size_t at = 0;
    for (size_t i = 0; i < n && at + 1 < sizeof key->module; i++) {
        if (n - i > sizeof processor - 1 && starts(s + i, processor)) i += sizeof processor - 2; /* leaves the '.' */
        key->module[at++] = s[i];
    }
    key->module[at + 1 < sizeof key->module ? at : 0] = 0;
    rename_ending(key, ".query", ".to_q"); /* names from before diffusers 0.18 */
    rename_ending(key, ".key", ".to_k");
    rename_ending(key, ".value", ".to_v");
    rename_ending(key, ".proj_attn", ".to_out.0");
    rename_ending(key, ".to_out", ".to_out.0");
}

void bb_lora_key_read(bb_lora_key *key, const char *name)
{
    *key = (bb_lora_key){.role = BB_LORA_UNKNOWN};
    const char *s = skip(name, "base_model.model.");
    if (starts(s, "text_encoder") || starts(s, "text_model.") || starts(s, "lora_te")) key->role = BB_LORA_ELSE;
    if (key->role == BB_LORA_ELSE) return;
    for (size_t i = 0; i < BB_COUNT(methods); i++) {
        if (!contains(s, methods[i].part)) continue;
        key->role = BB_LORA_METHOD;
        key->method = methods[i].name;
        return;
    }
    key->flat = starts(s, "lora_unet_");
    s = skip(skip(s, "unet."), "lora_unet_");
    size_t n = length(s), stem = without_adapter(s, n, ".lora_A");
    if (stem) key->role = BB_LORA_DOWN;
    else if ((stem = without_adapter(s, n, ".lora_B"))) key->role = BB_LORA_UP;
    for (size_t i = 0; !stem && i < BB_COUNT(endings); i++) {
        stem = without(s, n, endings[i].ending);
        if (stem) key->role = endings[i].role;
    }
    if (stem) set_module(key, s, stem);
}

/* ---- slots by name ---- */

static int flat_character(const char *s, size_t i, size_t n) { return i >= n ? -1 : s[i] == '.' ? '_' : (uint8_t)s[i]; }

/* Order of two paths in which '.' and '_' are the same. */
static int compare_flat(const char *a, size_t an, const char *b, size_t bn)
{
    size_t i = 0;
    while (i < an && flat_character(a, i, an) == flat_character(b, i, bn)) i++;
    return flat_character(a, i, an) - flat_character(b, i, bn);
}

static const char *module_of(const bb_graph *g, uint32_t slot, size_t *n)
{
    const char *name = bb_graph_string(g, g->weights[slot].name);
    *n = without(name, length(name), ".weight");
    return name;
}

static bool before(const void *user, size_t a, size_t b)
{
    const bb_lora_names *names = user;
    size_t an, bn;
    const char *x = module_of(names->graph, names->slot[a], &an), *y = module_of(names->graph, names->slot[b], &bn);
    return compare_flat(x, an, y, bn) < 0;
}

static void swap(void *user, size_t a, size_t b)
{
    bb_lora_names *names = user;
    uint32_t old = names->slot[a];
    names->slot[a] = names->slot[b];
    names->slot[b] = old;
}

bb_status bb_lora_names_init(bb_lora_names *names, const bb_graph *g, bb_blocks *blocks, bb_error *err)
{
    *names = (bb_lora_names){.graph = g, .slot = bb_blocks_take(blocks, g->n_weights, sizeof *names->slot)};
    bool *matrix = bb_blocks_take(blocks, g->n_weights, sizeof *matrix);
    if (!names->slot || !matrix) return bb_out_of_memory(err, "LoRA");
    for (uint32_t i = 0; i < g->n_ops; i++) {
        if (bb_is_matrix_op(&g->ops[i])) matrix[g->ops[i].weight[0]] = true;
    }
    for (uint32_t slot = 0; slot < g->n_weights; slot++) {
        size_t n;
        (void)module_of(g, slot, &n);
        if (matrix[slot] && n) names->slot[names->n++] = slot;
    }
    bb_heapsort(&(bb_sort){names, before, swap}, names->n);
    return BB_OK;
}

uint32_t bb_lora_names_find(const bb_lora_names *names, const bb_lora_key *key)
{
    size_t low = 0, high = names->n, n = length(key->module), m;
    while (low < high) { /* the first slot whose flat name is not below */
        size_t mid = low + (high - low) / 2;
        const char *module = module_of(names->graph, names->slot[mid], &m);
        if (compare_flat(module, m, key->module, n) < 0) low = mid + 1;
        else high = mid;
    }
    uint32_t found = BB_NONE;
    for (; low < names->n; low++) {
        const char *module = module_of(names->graph, names->slot[low], &m);
        if (compare_flat(module, m, key->module, n)) break;
        if (!key->flat && (m != n || memcmp(module, key->module, n))) continue;
        if (found != BB_NONE) return BB_NONE;
        found = names->slot[low];
    }
    return found;
}
