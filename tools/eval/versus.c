/* Reads what another evaluation wrote, and pairs its resamples with ours. */
#include "eval/print.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A number's text ends where no number goes on, so strtod stays inside the file. */
static double number(const bb_json *j, uint32_t tok)
{
    size_t n;
    char text[64];
    const char *raw = bb_json_raw(j, tok, &n);
    if (!raw || n >= sizeof text || bb_json_is_null(j, tok)) return NAN;
    memcpy(text, raw, n);
    text[n] = 0;
    char *end;
    const double x = strtod(text, &end);
    return end != text && !*end ? x : NAN;
}

static double member(const bb_json *j, uint32_t object, const char *key)
{
    return number(j, bb_json_member(j, object, key));
}

static bb_status check_same(const bb_json *j, const char *path, const bb_evaluation *e, bb_error *err)
{
    const struct { const char *key; double ours; } same[] = {
        {"images", e->images}, {"seed", (double)e->seed}, {"steps", e->steps}, {"guidance", e->guidance},
        {"traced", e->traced}, {"resamples", e->resamples}};
    for (size_t i = 0; i < BB_COUNT(same); i++)
        if (fabs(member(j, 0, same[i].key) - same[i].ours) > 1e-6 * fabs(same[i].ours) ||
            isnan(member(j, 0, same[i].key)))
            return bb_fail(err, BB_ERR_OPTION, "--versus %s: has another \"%s\" than this evaluation, or was not "
                           "written by bitbrush eval -o", path, same[i].key);
    if (!bb_json_equals(j, bb_json_member(j, 0, "sampler"), bb_sampler_name(e->sampler)))
        return bb_fail(err, BB_ERR_OPTION, "--versus %s: has another \"sampler\" than this evaluation", path);
    const uint32_t network = bb_json_member(j, 0, "classifier");
    if (e->network.classes && network != BB_JSON_NONE &&
        !bb_json_equals(j, bb_json_member(j, network, "sha256"), e->network.sha256))
        return bb_fail(err, BB_ERR_OPTION, "--versus %s: its features are another classifier's", path);
    return BB_OK;
}

/* Values of one figure: ours and the other's draws. False: the other does not have it. */
static bool read_draws(const bb_json *j, uint32_t figure, const bb_evaluation *e, double *theirs, double *ours)
{
    const uint32_t array = bb_json_member(j, bb_json_member(j, 0, "draws"), bb_figure_key[figure]);
    if (!bb_json_is_array(j, array) || bb_json_size(j, array) != e->resamples) return false;
    uint32_t tok = bb_json_first(j, array);
    for (uint32_t r = 0; r < e->resamples; r++, tok = bb_json_next(j, tok)) {
        theirs[r] = number(j, tok);
        ours[r] = e->column[BB_COLUMN_MODEL].draws[r * BB_FIGURES + figure];
    }
    return true;
}

static bb_status pair(bb_versus *v, const bb_json *j, const bb_evaluation *e, bb_error *err)
{
    double *draws = malloc((2 * (size_t)e->resamples + 1) * sizeof *draws);
    if (!draws) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", v->path);
    const uint32_t figures = bb_json_member(j, 0, "figures");
    for (uint32_t k = 0; k < BB_FIGURES; k++) {
        const double theirs = number(j, bb_json_element(j, bb_json_member(j, figures, bb_figure_key[k]), 0));
        v->of[k] = (bb_interval){NAN, NAN, NAN};
        if (read_draws(j, k, e, draws, draws + e->resamples))
            v->of[k] = bb_interval_between(e->column[BB_COLUMN_MODEL].of[k].value, draws + e->resamples, theirs, draws,
                                           e->resamples);
    }
    free(draws);
    return BB_OK;
}

bb_status bb_versus_read(bb_versus *v, const char *path, const bb_evaluation *e, bb_error *err)
{
    bb_file file;
    bb_json j;
    *v = (bb_versus){.path = path};
    BB_TRY(bb_file_open(&file, path, err));
    const size_t bytes = bb_json_scratch(file.size);
    void *scratch = malloc(bytes);
    bb_status status = scratch ? BB_OK : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    if (status == BB_OK && !bb_json_parse(&j, (const char *)file.data, file.size, scratch, bytes))
        status = bb_fail(err, BB_ERR_CORRUPT, "--versus %s: not JSON; name a file that bitbrush eval -o wrote", path);
    if (status == BB_OK) status = check_same(&j, path, e, err);
    if (status == BB_OK) bb_json_string(&j, bb_json_member(&j, 0, "model"), v->model, sizeof v->model);
    if (status == BB_OK) status = pair(v, &j, e, err);
    bb_cli_plain(v->model);
    free(scratch);
    bb_file_close(&file);
    return status;
}
