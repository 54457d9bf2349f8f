/* alpha/r where no tensor says it: peft's adapter_config.json. Diffusers since 0.34 keeps the same object as text in
 * the file's metadata, its names with the part's name in front. */
#include "make/make.h"

#define INNER "lora_adapter_metadata"

static uint32_t member(const bb_lora_config *c, const char *name)
{
    char of_part[48];
    uint32_t tok = bb_json_member(&c->json, 0, name);
    if (tok != BB_JSON_NONE) return tok;
    bb_format(of_part, sizeof of_part, "unet.%s", name);
    return bb_json_member(&c->json, 0, of_part);
}

/* A decimal number of up to 15 digits without exponent: then both its digits and the power of ten are exact in a
 * double, and the quotient is rounded once. */
static bool number(const bb_json *j, uint32_t tok, double *out)
{
    size_t n = 0;
    const char *s = bb_json_raw(j, tok, &n);
    double digits = 0, power = 1;
    bool point = false, minus = n && *s == '-';
    if (!s || n > 16 || bb_json_is_string(j, tok) || minus + 1u > n) return false;
    for (size_t i = minus; i < n; i++) {
        if (s[i] == '.' && !point) { point = true; continue; }
        if (s[i] < '0' || s[i] > '9') return false;
        digits = digits * 10 + (s[i] - '0');
        power *= point ? 10 : 1;
    }
    *out = (minus ? -digits : digits) / power;
    return true;
}

static bb_status refuse(const bb_lora_config *c, const char *what, bb_error *err)
{
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: %s; merge it into the checkpoint first (peft: merge_and_unload) and "
                   "use that", c->file, what);
}

/* Initializations that change the weights the LoRA was trained upon. */
static bool changes_base(const bb_lora_config *c)
{
    static const char *const kinds[] = {"pissa", "olora", "loftq", "corda"};
    char text[32] = "";
    (void)bb_json_string(&c->json, member(c, "init_lora_weights"), text, sizeof text);
    for (size_t i = 0; i < BB_COUNT(kinds); i++) {
        size_t k = 0;
        while (kinds[i][k] && kinds[i][k] == text[k]) k++;
        if (!kinds[i][k]) return true; /* pissa_niter_4 too */
    }
    return false;
}

static bb_status read_fields(bb_lora_config *c, bool inner, bb_error *err)
{
    const bb_json *j = &c->json;
    bool dora = false;
    uint32_t type = member(c, "peft_type");
    if (inner && member(c, "r") == BB_JSON_NONE && member(c, "lora_alpha") == BB_JSON_NONE)
        return BB_OK; /* of other parts only */
    if (type != BB_JSON_NONE && !bb_json_is_null(j, type) && !bb_json_equals(j, type, "LORA"))
        return refuse(c, "\"peft_type\" is not LORA", err);
    (void)bb_json_bool(j, member(c, "use_dora"), &dora);
    if (dora) return refuse(c, "\"use_dora\": DoRA is not supported", err);
    if (changes_base(c)) return refuse(c, "\"init_lora_weights\" changed the weights it was trained upon", err);
    if (!number(j, member(c, "r"), &c->r) || !number(j, member(c, "lora_alpha"), &c->alpha))
        return bb_fail(err, BB_ERR_CORRUPT, "%s: \"r\" and \"lora_alpha\" must be plain numbers", c->file);
    (void)bb_json_bool(j, member(c, "use_rslora"), &c->rank_stabilized);
    c->rank_pattern = member(c, "rank_pattern");
    c->alpha_pattern = member(c, "alpha_pattern");
    c->present = true;
    return BB_OK;
}

bb_status bb_lora_config_read(bb_lora_config *c, const bb_lora_file *file, const bb_safetensors *st,
                              bb_blocks *blocks, bb_error *err)
{
    const char *text = file->config;
    size_t n = file->config_bytes;
    uint32_t inner = bb_json_member(&st->header, st->metadata, INNER);
    *c = (bb_lora_config){.file = file->config_name ? file->config_name : "adapter_config.json"};
    if (!text) {
        size_t raw = 0;
        if (!bb_json_is_string(&st->header, inner)) return BB_OK;
        (void)bb_json_raw(&st->header, inner, &raw);
        char *copy = bb_blocks_take(blocks, raw + 1, 1);
        if (!copy) return bb_out_of_memory(err, "LoRA");
        (void)bb_json_string(&st->header, inner, copy, raw + 1);
        for (n = 0; copy[n];) n++;
        text = copy;
        c->file = file->name;
    }
    void *scratch = bb_blocks_take(blocks, bb_json_scratch(n), 1);
    if (!scratch) return bb_out_of_memory(err, "LoRA");
    if (!bb_json_parse(&c->json, text, n, scratch, bb_json_scratch(n)) || !bb_json_is_object(&c->json, 0))
        return bb_fail(err, BB_ERR_CORRUPT, "%s: the LoRA's configuration is not a JSON object", c->file);
    return read_fields(c, text != file->config, err);
}

/* Whether peft's pattern, which is a regular expression, fits the end of a path at a '.', or all of it. Only '.' and
 * "\." are known besides plain characters: false in *plain for others. */
static bool fits(const char *pattern, const char *module, bool *plain)
{
    size_t n = 0, k = 0, whole = *pattern == '^';
    char set[256];
    for (const char *p = pattern + whole; *p; p++) {
        bool escaped = *p == '\\' && p[1] == '.';
        if (escaped) p++;
        *plain = *plain && (escaped || *p == '.' || *p == '_' || *p == '-' || (*p >= '0' && *p <= '9') ||
                            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p == '$' && !p[1]));
        if (*p == '$' || k == sizeof set) continue;
        set[k++] = *p == '.' && !escaped ? 0 : *p; /* 0: any character */
    }
    while (module[n]) n++;
    if (!*plain || k > n || (whole && k != n) || (k < n && module[n - k - 1] != '.')) return false;
    for (size_t i = 0; i < k; i++) {
        if (set[i] && set[i] != module[n - k + i]) return false;
    }
    return true;
}

/* The number of the first pattern that fits, if one does. */
static bb_status by_pattern(const bb_lora_config *c, uint32_t patterns, const char *module, double *out, bb_error *err)
{
    const bb_json *j = &c->json;
    for (uint32_t key = bb_json_first(j, patterns); key != BB_JSON_NONE; key = bb_json_next(j, key)) {
        char pattern[256];
        bool plain = bb_json_is_object(j, patterns) && bb_json_string(j, key, pattern, sizeof pattern);
        bool here = plain && fits(pattern, module, &plain);
        if (!plain || (here && !number(j, bb_json_value(j, key), out)))
            return refuse(c, "\"rank_pattern\" or \"alpha_pattern\" holds more than names of layers and numbers", err);
        if (here) return BB_OK;
    }
    return BB_OK;
}

bb_status bb_lora_config_scale(const bb_lora_config *c, const char *module, uint64_t rank, double *out, bb_error *err)
{
    double r = c->r, alpha = c->alpha;
    *out = 1;
    if (!c->present) return BB_OK;
    BB_TRY(by_pattern(c, c->rank_pattern, module, &r, err));
    BB_TRY(by_pattern(c, c->alpha_pattern, module, &alpha, err));
    if (r != (double)rank)
        return bb_fail(err, BB_ERR_CORRUPT, "%s: the rank of %s is not the %z of its tensors: this configuration "
                       "belongs to another LoRA", c->file, module, (size_t)rank);
    *out = alpha / (c->rank_stabilized ? bb_sqrt(r) : r);
    return BB_OK;
}
