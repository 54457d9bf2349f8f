#include "eval/evaluation.h"

#include "base/sha256.h"
#include "idx.h"
#include "platform.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEEN_BYTES = BB_CLASSIFIER_SIDE * BB_CLASSIFIER_SIDE };
const char *const bb_column_key[3] = {"model", "float", "floor"};
const char *const bb_column_text[3] = {"packed model", "float model", "float, other seeds"};

/* ---- models ---- */

static bb_status check_kinds(const bb_evaluation *e, bb_error *err)
{
    const bb_info *a = &e->reference.model->pack.info, *b = &e->packed.model->pack.info;
    if (a->width != b->width || a->height != b->height || a->channels != b->channels || a->classes != b->classes ||
        a->null_label != b->null_label)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s and %s are not of one kind: size, classes or null class differ",
                       e->model, e->against);
    return BB_OK;
}

static bb_status open_models(bb_evaluation *e, bb_error *err)
{
    bb_host_options packed = e->host_options;
    packed.lora.n = 0; /* it was made with them */
    packed.threads = 1;
    BB_TRY(bb_host_open(&e->reference, e->against, &e->host_options, err));
    BB_TRY(bb_host_open(&e->packed, e->model, &packed, err));
    BB_TRY(check_kinds(e, err));
    if (!e->steps) e->steps = bb_host_steps(&e->reference);
    if (!e->guidance_given) e->guidance = bb_host_guidance(&e->reference);
    const bb_request req = {.size_of = sizeof req, .steps = e->steps, .guidance = e->guidance, .sampler = e->sampler};
    const uint32_t threads = bb_par_threads(e->reference.par);
    const bb_list *lora = &e->host_options.lora;
    BB_TRY(bb_painter_open(&e->paint_reference, &e->reference, lora, &req, e->seed, threads, err));
    BB_TRY(bb_painter_open(&e->paint_packed, &e->packed, NULL, &req, e->seed, threads, err));
    if (!e->floor) return BB_OK;
    return bb_painter_open(&e->paint_floor, &e->reference, lora, &req, e->seed + BB_FLOOR_SEEDS, threads, err);
}

/* ---- what is kept ---- */

static bb_status make_folder(bb_evaluation *e, bb_error *err)
{
    if (e->ranks.rank || (!e->keep && (!e->out || bb_path_is_special(e->out)))) return BB_OK;
    const int n = snprintf(e->folder, sizeof e->folder, "%s%s", e->keep ? e->keep : e->out, e->keep ? "" : ".drawn");
    if (n < 0 || (size_t)n >= sizeof e->folder - 32) {
        e->folder[0] = 0;
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", e->keep ? e->keep : e->out);
    }
    if (mkdir(e->folder, 0777) == 0 || errno == EEXIST) return BB_OK;
    bb_status status = bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot make the folder: %s", e->folder, strerror(errno));
    e->folder[0] = 0;
    return status;
}

/* The float model against itself: nothing is drawn twice. */
static bool same_pictures(const bb_evaluation *e) { return strcmp(e->paint_reference.key, e->paint_packed.key) == 0; }

static bb_status open_records(const bb_evaluation *e, bb_records *r, const char *key, const char *kind, uint32_t count,
                              size_t size, bb_error *err)
{
    char name[32], path[4096];
    snprintf(name, sizeof name, "%.16s.%s", key, kind);
    if (!e->folder[0]) return bb_records_open(r, NULL, key, count, (uint32_t)size, err);
    if (!bb_path_join(path, sizeof path, e->folder, name))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", e->folder);
    return bb_records_open(r, path, key, count, (uint32_t)size, err);
}

static bb_status open_all_records(bb_evaluation *e, bb_error *err)
{
    const size_t bytes = bb_painter_bytes(&e->reference.model->pack.info);
    char both[132], key[65];
    snprintf(both, sizeof both, "%s %s", e->paint_reference.key, e->paint_packed.key);
    bb_sha256((const uint8_t *)both, strlen(both), key);
    BB_TRY(make_folder(e, err));
    BB_TRY(open_records(e, &e->teacher, e->paint_reference.key, "pictures", e->images, bytes, err));
    if (same_pictures(e))
        BB_TRY(bb_records_open(&e->pictures, NULL, e->paint_packed.key, e->images, (uint32_t)bytes, err));
    else BB_TRY(open_records(e, &e->pictures, e->paint_packed.key, "pictures", e->images, bytes, err));
    if (e->floor) BB_TRY(open_records(e, &e->other, e->paint_floor.key, "pictures", e->images, bytes, err));
    if (!e->traced) return BB_OK;
    return open_records(e, &e->traces, key, "traces", e->traced,
                        2 * sizeof(double) * e->paint_reference.evaluations + bytes, err);
}

/* ---- drawing ---- */

/* Tracing draws the float model's pictures by the way. */
static void reuse_traced(bb_evaluation *e)
{
    const size_t skip = e->traces.size - e->teacher.size;
    for (uint32_t i = 0; e->ranks.rank == 0 && i < e->traced; i++) {
        memcpy(e->teacher.data + (size_t)i * e->teacher.size, e->traces.data + (size_t)i * e->traces.size + skip,
               e->teacher.size);
        e->teacher.newer |= !e->teacher.done[i];
        e->teacher.done[i] = 1;
    }
}

static bb_status draw(bb_evaluation *e, bb_error *err)
{
    bb_par *par = e->reference.par;
    bb_trace trace = {&e->paint_reference, &e->paint_packed};
    const double begun = bb_now();
    if (e->traced) {
        BB_TRY(bb_records_fill(&e->traces, e->traced, par, &e->ranks, "drawing both (pictures)", e->quiet,
                               bb_trace_paint, &trace, err));
        reuse_traced(e);
    }
    BB_TRY(bb_records_fill(&e->teacher, e->images, par, &e->ranks, "drawing float (pictures)", e->quiet, bb_paint,
                           &e->paint_reference, err));
    for (uint32_t i = 0; same_pictures(e) && i < e->images; i++) {
        memcpy(e->pictures.data + (size_t)i * e->pictures.size, e->teacher.data + (size_t)i * e->teacher.size,
               e->teacher.size);
        e->pictures.done[i] = 1;
    }
    BB_TRY(bb_records_fill(&e->pictures, e->images, par, &e->ranks, "drawing packed (pictures)", e->quiet, bb_paint,
                           &e->paint_packed, err));
    if (e->floor)
        BB_TRY(bb_records_fill(&e->other, e->images, par, &e->ranks, "drawing float, other seeds (pictures)", e->quiet,
                               bb_paint, &e->paint_floor, err));
    e->seconds = bb_now() - begun;
    return BB_OK;
}

/* ---- features ---- */

/* The shipped one, in the source folder that the build folder lies in, or that bitbrush was started in. */
static bb_status find_classifier(char *path, size_t size, bb_error *err)
{
    static const char name[] = "models/fashion-classifier.safetensors";
    char folder[4000];
    bool found = bb_program_folder(folder, sizeof folder - 4);
    if (found) found = bb_path_join(path, size, strcat(folder, "/.."), name) && bb_path_exists(path);
    if (!found) snprintf(path, size, "%s", name);
    return bb_path_exists(path) ? BB_OK
                                : bb_fail(err, BB_ERR_OPTION, "--classifier FILE is missing: %s is neither above the "
                                          "program's folder nor in this one", name);
}

static bb_status open_classifier(bb_evaluation *e, bb_error *err)
{
    const bb_info *info = &e->reference.model->pack.info;
    char path[4096];
    if (!e->real && !e->classifier) return BB_OK;
    if (!e->classifier) BB_TRY(find_classifier(path, sizeof path, err));
    BB_TRY(bb_classifier_open(&e->network, e->classifier ? e->classifier : path, err));
    if (info->channels != 1 || info->width != BB_CLASSIFIER_SIDE || info->height != BB_CLASSIFIER_SIDE)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: the classifier sees grey pictures of %u×%u pixels, this model "
                       "draws others; leave --real and --classifier out", e->model, BB_CLASSIFIER_SIDE,
                       BB_CLASSIFIER_SIDE);
    return BB_OK;
}

static bb_status see(bb_evaluation *e, const uint8_t *pictures, uint32_t n, float **features, uint8_t **found,
                     bb_error *err)
{
    *features = malloc((size_t)n * BB_CLASSIFIER_FEATURES * sizeof **features);
    if (found) *found = malloc(n);
    if (!*features || (found && !*found)) return bb_fail(err, BB_ERR_SPACE, "out of memory for features");
    return bb_classifier_run(&e->network, &e->reference.model->kernels, e->reference.par, pictures, n, *features,
                             found ? *found : NULL, err);
}

static bb_status pad_all(const bb_idx_set *set, const char *path, uint8_t *pictures, bb_error *err)
{
    for (uint32_t i = 0; i < set->n; i++)
        if (!bb_idx_picture(set, i, BB_CLASSIFIER_SIDE, BB_CLASSIFIER_SIDE, pictures + (size_t)i * SEEN_BYTES))
            return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: its pictures are larger than %u×%u pixels", path,
                           BB_CLASSIFIER_SIDE, BB_CLASSIFIER_SIDE);
    return BB_OK;
}

static bb_status see_real(bb_evaluation *e, bb_error *err)
{
    bb_idx_set set;
    BB_TRY(bb_idx_open(&set, e->real, true, err));
    uint8_t *pictures = malloc((size_t)set.n * SEEN_BYTES);
    bb_status status = pictures ? BB_OK : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", e->real);
    if (status == BB_OK) status = pad_all(&set, e->real, pictures, err);
    if (status == BB_OK) status = see(e, pictures, set.n, &e->real_features, NULL, err);
    e->real_n = set.n;
    free(pictures);
    bb_idx_close(&set);
    return status;
}

static bb_status see_column(bb_evaluation *e, bb_shown *s, bb_error *err)
{
    const bb_info *info = &e->reference.model->pack.info;
    BB_TRY(see(e, s->pictures, e->images, &s->features, &s->right, err));
    if (e->network.classes + (info->null_label >= 0) != info->classes) { /* other classes than the classifier's */
        free(s->right);
        s->right = NULL;
        return BB_OK;
    }
    for (uint32_t i = 0; i < e->images; i++) s->right[i] = s->right[i] == bb_nth_label(info, i);
    return BB_OK;
}

static void sum_traces(bb_evaluation *e, const double *traces)
{
    const uint32_t n = e->paint_reference.evaluations;
    for (uint32_t step = 0; step < n; step++) {
        double error = 0, power = 0;
        for (uint32_t i = 0; i < e->traced; i++) {
            error += traces[(size_t)i * 2 * n + step];
            power += traces[(size_t)i * 2 * n + n + step];
        }
        e->step_error[step] = error / power;
    }
}

static bb_status measure(bb_evaluation *e, bb_error *err)
{
    const bb_info *info = &e->reference.model->pack.info;
    const uint8_t *const pictures[3] = {e->pictures.data, e->teacher.data, e->other.data};
    double *traces = malloc((e->traced + 1) * 2 * sizeof(double) * e->paint_reference.evaluations);
    if (!traces) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    const size_t sums = 2 * (size_t)e->paint_reference.evaluations;
    for (uint32_t i = 0; i < e->traced; i++)
        memcpy(traces + i * sums, e->traces.data + (size_t)i * e->traces.size, sums * sizeof *traces);
    sum_traces(e, traces);
    e->columns = e->floor ? 3 : e->network.classes ? 2 : 1;
    bb_status status = BB_OK;
    for (uint32_t c = 0; c < e->columns && status == BB_OK; c++) {
        e->column[c].shown = (bb_shown){.pictures = pictures[c]};
        if (e->network.classes) status = see_column(e, &e->column[c].shown, err);
    }
    if (e->traced) e->column[0].shown.traces = traces;
    e->figures = (bb_figures){
        .n = e->images, .traced = e->traced, .evaluations = e->paint_reference.evaluations, .real_n = e->real_n,
        .resamples = e->resamples, .height = info->height, .width = info->width, .channels = bb_painter_channels(info),
        .par = e->reference.par, .teacher = e->teacher.data, .real = e->real_features,
        .teacher_features = e->columns > 1 ? e->column[BB_COLUMN_FLOAT].shown.features : NULL};
    if (status == BB_OK) status = bb_figures_measure(&e->figures, e->column, e->columns, err);
    e->column[0].shown.traces = NULL;
    free(traces);
    return status;
}

bb_status bb_evaluation_run(bb_evaluation *e, bb_error *err)
{
    if (e->traced > e->images) e->traced = e->images;
    BB_TRY(open_models(e, err));
    BB_TRY(open_classifier(e, err));
    if (e->real && e->ranks.rank == 0) BB_TRY(see_real(e, err)); /* before the long work: it may be missing */
    BB_TRY(open_all_records(e, err));
    if (e->folder[0]) bb_cli_hold_signals();
    BB_TRY(draw(e, err));
    return e->ranks.rank == 0 ? measure(e, err) : BB_OK;
}

void bb_evaluation_close(bb_evaluation *e, bool done)
{
    bb_records *const records[] = {&e->teacher, &e->pictures, &e->other, &e->traces};
    for (size_t i = 0; i < BB_COUNT(records); i++) {
        if (done && !e->keep && records[i]->path[0]) unlink(records[i]->path);
        bb_records_close(records[i]);
    }
    if (done && !e->keep && e->folder[0]) rmdir(e->folder);
    for (uint32_t c = 0; c < BB_COUNT(e->column); c++) bb_column_free(&e->column[c]);
    free(e->real_features);
    bb_classifier_close(&e->network);
    bb_painter_close(&e->paint_reference);
    bb_painter_close(&e->paint_packed);
    bb_painter_close(&e->paint_floor);
    bb_host_close(&e->reference);
    bb_host_close(&e->packed);
}
