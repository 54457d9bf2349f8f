/* See state.h. */
#include "train/teach/state.h"

#include "import/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 4, NAME = 320, MOST_TEXT = 1 << 16 };
static const char *const kinds[KINDS] = {"weights", "average", "moment1", "moment2"};

static float *array_of(const bb_teach *t, int kind)
{
    float *const arrays[KINDS] = {t->params.w, t->ema, t->optim.m, t->optim.v};
    return arrays[kind];
}

/* False: the name does not fit. */
static bool tensor_name(char out[NAME], const bb_teach *t, int kind, uint32_t slot)
{
    const bb_graph *g = t->params.graph;
    int n = snprintf(out, NAME, "%s.%s", kinds[kind], bb_graph_string(g, g->weights[slot].name));
    return n > 0 && n < NAME;
}

/* ---- saving ---- */

static char *run_text(const bb_teach *t, const bb_course *run)
{
    size_t size = 256 + run->n_options * 160, n = 0;
    char *text = malloc(size);
    if (!text) return NULL;
    n += (size_t)snprintf(text + n, size - n, "version=1\nupdate=%" PRIu64 "\nupdates=%" PRIu64 "\nseconds=%.3f\n",
                          t->optim.step, t->opt.updates, run->seconds);
    for (uint32_t i = 0; i < run->n_options && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s=%s\n", run->options[i].name, run->options[i].text);
    return text;
}

bb_status bb_state_save(const char *path, const bb_teach *t, const bb_course *run, bb_error *err)
{
    const uint32_t slots = t->params.graph->n_weights;
    bb_st_out *list = calloc(KINDS * slots + 2, sizeof *list);
    char (*names)[NAME] = malloc((KINDS * slots + 1) * sizeof *names);
    char *text = run_text(t, run), *log = bb_log_csv(&run->log);
    uint8_t *bytes = NULL;
    size_t size = 0;
    uint32_t n = 0;
    bb_status status = list && names && text && log ? BB_OK : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    for (uint32_t i = 0; status == BB_OK && i < KINDS * slots; i++) {
        const uint32_t slot = i % slots;
        if (t->params.fixed[slot]) continue;
        if (!tensor_name(names[n], t, (int)(i / slots), slot))
            status = bb_fail(err, BB_ERR_UNSUPPORTED, "%s: a tensor's name is too long", path);
        list[n] = (bb_st_out){.name = names[n], .rank = 1, .shape = {(uint32_t)t->params.count[slot]},
                              .data = array_of(t, (int)(i / slots)) + t->params.at[slot]};
        n++;
    }
    if (status == BB_OK) {
        list[n++] = (bb_st_out){.name = "run", .rank = 1, .shape = {(uint32_t)strlen(text)}, .data = text,
                                .dtype = BB_ST_U8};
        list[n++] = (bb_st_out){.name = "log", .rank = 1, .shape = {(uint32_t)strlen(log)}, .data = log,
                                .dtype = BB_ST_U8};
        status = bb_safetensors_write(list, n, &bytes, &size, err);
    }
    if (status == BB_OK) status = bb_file_write(path, bytes, size, err);
    free(bytes);
    free(log);
    free(text);
    free(names);
    free(list);
    return status;
}

/* ---- loading ---- */

/* The value of a line name=value in the text, cut to size; false if there is none. */
static bool find_line(const char *text, const char *name, char *out, size_t size)
{
    const size_t n = strlen(name);
    for (const char *at = text; at; at = strchr(at, '\n'), at += at != NULL) {
        if (strncmp(at, name, n) != 0 || at[n] != '=') continue;
        const size_t length = strcspn(at + n + 1, "\n");
        snprintf(out, size, "%.*s", (int)(length < size ? length : size - 1), at + n + 1);
        return true;
    }
    return false;
}

static bool find_number(const char *text, const char *name, double most, double *out)
{
    char value[64], *end;
    if (!find_line(text, name, value, sizeof value)) return false;
    *out = strtod(value, &end);
    return end != value && !*end && *out >= 0 && *out <= most;
}

static bb_status damaged(const char *path, const char *what, bb_error *err)
{
    return bb_fail(err, BB_ERR_CORRUPT, "%s: %s: no state of `bitbrush train`, or damaged; --restart begins anew",
                   path, what);
}

static bb_status check_options(const char *path, const char *text, const bb_course *run, bb_error *err)
{
    for (uint32_t i = 0; i < run->n_options; i++) {
        const bb_course_option *o = &run->options[i];
        char was[128];
        if (!find_line(text, o->name, was, sizeof was))
            snprintf(was, sizeof was, "%s", o->if_missing ? o->if_missing : "");
        if (strcmp(was, o->text) != 0)
            return bb_fail(err, BB_ERR_OPTION, "%s: this run was begun with %s %s, not %s; go on with that, name "
                           "another folder, or begin anew with --restart", path, o->name, was, o->text);
    }
    return BB_OK;
}

static bb_status load_run(const char *path, const char *text, bb_teach *t, bb_course *run, bb_error *err)
{
    double version, update, updates, seconds;
    if (!find_number(text, "version", 1e9, &version)) return damaged(path, "it tells no version", err);
    if (version != 1)
        return bb_fail(err, BB_ERR_VERSION, "%s: made by a newer bitbrush; --restart begins anew", path);
    BB_TRY(check_options(path, text, run, err));
    if (!find_number(text, "update", 0x1p52, &update) || !find_number(text, "updates", 0x1p52, &updates) ||
        !find_number(text, "seconds", 1e12, &seconds) || update > updates)
        return damaged(path, "it does not tell how far it was", err);
    t->optim.step = (uint64_t)update;
    t->opt.updates = (uint64_t)updates;
    run->seconds = seconds;
    return BB_OK;
}

/* A text tensor, terminated, malloc'd. */
static bb_status take_text(const bb_safetensors *st, const char *path, const char *name, char **out, size_t *n,
                           bb_error *err)
{
    const bb_st_tensor *x = bb_safetensors_find(st, name);
    if (!x || x->dtype != BB_ST_U8 || memchr(x->data, 0, x->bytes)) return damaged(path, name, err);
    *out = malloc(x->bytes + 1);
    if (!*out) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    memcpy(*out, x->data, x->bytes);
    (*out)[*n = x->bytes] = 0;
    return BB_OK;
}

static bb_status take_tensor(const bb_safetensors *st, const char *path, const bb_teach *t, int kind, uint32_t slot,
                             bb_error *err)
{
    char name[NAME];
    const bb_st_tensor *x = tensor_name(name, t, kind, slot) ? bb_safetensors_find(st, name) : NULL;
    const size_t count = t->params.count[slot];
    float *to = array_of(t, kind) + t->params.at[slot];
    if (!x || x->dtype != BB_ST_F32 || x->count != count) return damaged(path, name, err);
    bb_st_to_f32(x, to);
    for (size_t i = 0; i < count; i++)
        if (to[i] - to[i] != 0) return damaged(path, name, err);
    return BB_OK;
}

static bb_status load(const bb_safetensors *st, const char *path, bb_teach *t, bb_course *run, bb_error *err)
{
    char *text = NULL, *log = NULL;
    size_t n = 0;
    bb_status status = take_text(st, path, "run", &text, &n, err);
    if (status == BB_OK) status = load_run(path, text, t, run, err);
    if (status == BB_OK) status = take_text(st, path, "log", &log, &n, err);
    if (status == BB_OK) status = bb_log_parse(&run->log, log, n, path, err);
    for (int kind = 0; kind < KINDS; kind++)
        for (uint32_t s = 0; status == BB_OK && s < t->params.graph->n_weights; s++)
            if (!t->params.fixed[s]) status = take_tensor(st, path, t, kind, s, err);
    free(text);
    free(log);
    return status;
}

bb_status bb_state_load(const char *path, bb_teach *t, bb_course *run, bb_error *err)
{
    bb_st_file f;
    BB_TRY(bb_st_file_open(&f, path, err));
    bb_status status = load(&f.st, path, t, run, err);
    bb_st_file_close(&f);
    if (status == BB_OK) bb_teach_changed(t);
    return status;
}
