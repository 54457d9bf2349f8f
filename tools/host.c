#include "host.h"

#include "base/json.h"
#include "import/import.h"
#include "platform.h"
#include "make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const cpu_words[] = {"auto", "scalar", "avx2", "avx512"};

const char *bb_host_cpu_word(uint32_t cpu) { return cpu_words[cpu]; }

bb_status bb_host_kernels(bb_kernels *out, uint32_t cpu, bb_error *err)
{
    static const uint32_t levels[] = {0, 0, BB_CPU_AVX2, BB_CPU_AVX2 | BB_CPU_AVX512};
    static const uint32_t needs[] = {0, 0, BB_CPU_AVX2, BB_CPU_AVX512};
    const uint32_t have = bb_cpu_features();
    if (needs[cpu] & ~have) return bb_fail(err, BB_ERR_OPTION, "--cpu=%s: this CPU does not have it", cpu_words[cpu]);
    bb_kernels_select(out, cpu ? levels[cpu] : have);
    return BB_OK;
}

/* Seconds for a multiply-add by one way: the shortest of some short trials, 0 where the clock is too coarse for them. */
static double time_way(const bb_kernels *k, uint32_t way, void *scratch)
{
    double best = 0;
    uint32_t rounds = 1;
    for (int trial = 0; trial < 5;) {
        const double start = bb_thread_seconds(), macs = bb_dot_trial(k, way, rounds, scratch);
        const double seconds = bb_thread_seconds() - start;
        if (seconds < 40e-6 && rounds < 256) { /* room for what comes around the rounds */
            rounds *= 2;
            continue;
        }
        if (trial++ == 0 || seconds / macs < best) best = seconds / macs;
    }
    return best;
}

/* CPUs with the same instructions differ in which dot way is fastest: a trial of two milliseconds or so finds out. */
static void time_ways(bb_model *m)
{
    static _Alignas(BB_ALIGNMENT) uint8_t scratch[BB_DOT_TRIAL_BYTES];
    float times[BB_DOTS];
    uint32_t n = 0;
    for (; n < BB_DOTS && m->kernels.dots[n]; n++) {
        times[n] = (float)time_way(&m->kernels, n, scratch);
        if (!(times[n] > 0)) return;
    }
    if (n > 1) bb_model_way_times(m, times);
}

static bb_status open_blob(bb_host *h, const char *path, const bb_host_options *opt, const uint8_t **blob, size_t *n,
                           bb_error *err)
{
    if (bb_path_is_dir(path)) {
        bb_import_options import = {.path = path, .dtype = BB_F32, .labels = opt->labels,
                                    .null_label = opt->null_label, .command = "in memory"};
        BB_TRY(bb_import(&import, &h->imported, n, err));
        *blob = h->imported;
        return BB_OK;
    }
    BB_TRY(bb_file_open(&h->file, path, err));
    *blob = h->file.data;
    *n = h->file.size;
    return BB_OK;
}

/* Puts the file's name in front of what core said about its bytes. */
static bb_status name_file(const char *path, bb_error *err)
{
    bb_error inner = *err;
    return bb_fail(err, inner.code, "%s: %s", path, inner.text);
}

static bb_status open_model(bb_host *h, const char *path, const uint8_t *blob, size_t n, bb_error *err)
{
    if (!n) return bb_fail(err, BB_ERR_MAGIC, "%s: not a bitbrush model (the file is empty)", path);
    uint64_t head = 8;
    bb_info info = {0};
    if (n >= 8) memcpy(&head, blob, 8);
    size_t head_bytes = head < n ? (size_t)head + 8 : n;
    if (head_bytes > n) head_bytes = n;
    size_t scratch_bytes = BB_PROBE_SCRATCH(head_bytes);
    void *scratch = malloc(scratch_bytes);
    if (!scratch) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    bb_status status = bb_probe(blob, head_bytes, scratch, scratch_bytes, &info, err);
    free(scratch);
    if (status < 0) return name_file(path, err);
    h->mem = malloc((size_t)info.model_bytes);
    if (!h->mem) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    status = bb_model_init(blob, n, h->mem, (size_t)info.model_bytes, &h->model, err);
    return status < 0 ? name_file(path, err) : BB_OK;
}

/* Parses the labels of the metadata, once. A model without them, or with something else there, has none. */
static bb_status open_labels(bb_host *h, bb_error *err)
{
    size_t size = (size_t)h->model->pack.header.n + 1; /* no value is longer than the whole header */
    h->label_text = malloc(size);
    h->label_tokens = malloc(bb_json_scratch(size));
    if (!h->label_text || !h->label_tokens) return bb_fail(err, BB_ERR_SPACE, "out of memory for the labels");
    bb_json *j = &h->labels;
    if (!bb_pack_metadata(&h->model->pack, "labels", h->label_text, size) ||
        !bb_json_parse(j, h->label_text, strlen(h->label_text), h->label_tokens, bb_json_scratch(size)) ||
        !bb_json_is_array(j, 0))
        *j = (bb_json){0};
    return BB_OK;
}

static bb_status open_all(bb_host *h, const char *path, const uint8_t *blob, size_t n, const bb_host_options *opt,
                          bb_error *err)
{
    BB_TRY(open_model(h, path, blob, n, err));
    BB_TRY(open_labels(h, err));
    BB_TRY(bb_host_kernels(&h->model->kernels, opt->cpu, err));
    time_ways(h->model);
    h->folded.memory = bb_tools_memory;
    if (opt->lora.n) BB_TRY(bb_lora_fold_list(h->model, &opt->lora, &h->folded, err));
    bb_host_threads(h, opt->threads);
    return BB_OK;
}

bb_status bb_host_open(bb_host *h, const char *path, const bb_host_options *opt, bb_error *err)
{
    const uint8_t *blob;
    size_t n;
    *h = (bb_host){0};
    BB_TRY(open_blob(h, path, opt, &blob, &n, err));
    return open_all(h, path, blob, n, opt, err);
}

bb_status bb_host_open_bytes(bb_host *h, const char *name, const uint8_t *bytes, size_t n, const bb_host_options *opt,
                             bb_error *err)
{
    *h = (bb_host){0};
    return open_all(h, name, bytes, n, opt, err);
}

void bb_host_threads(bb_host *h, uint32_t threads)
{
    bb_par_stop(h->par);
    h->par = bb_par_start(threads ? threads : bb_core_count());
}

bb_status bb_host_session(bb_host *h, const bb_request *req, bb_error *err)
{
    size_t bytes;
    bb_request with_threads = *req;
    with_threads.par = h->par;
    free(h->workspace);
    h->workspace = NULL;
    BB_TRY(bb_session_size(h->model, &with_threads, &bytes, err));
    h->workspace = malloc(bytes);
    if (!h->workspace) return bb_fail(err, BB_ERR_SPACE, "out of memory: the drawing needs %z bytes", bytes);
    return bb_session_init(h->model, &with_threads, h->workspace, bytes, &h->session, err);
}

bb_status bb_host_draw(bb_host *h, uint64_t seed, int32_t label, bb_image *image, bb_progress *progress, size_t done,
                       bb_error *err)
{
    bb_session *s = h->session;
    bb_stats stats;
    bb_status status;
    bb_stats_get(s, &stats);
    if (h->model->pack.info.classes) BB_TRY(bb_condition(s, 0, &(bb_cond){label}));
    BB_TRY(bb_begin(s, &seed, NULL));
    for (uint32_t step = 0; (status = bb_step(s, 0)) != BB_DONE; step++) {
        if (status < 0) return bb_fail(err, status, "%s", bb_strerror(status));
        bb_progress_step(progress, done + step + 1);
    }
    bb_progress_step(progress, done + stats.steps);
    return bb_decode(s, 0, image);
}

void bb_host_close(bb_host *h)
{
    bb_par_stop(h->par);
    free(h->workspace);
    bb_blocks_give(&h->folded, NULL);
    free(h->label_text);
    free(h->label_tokens);
    free(h->mem);
    free(h->imported);
    bb_file_close(&h->file);
    *h = (bb_host){0};
}

void bb_host_label_name(const bb_host *h, int32_t label, char *out, size_t size)
{
    uint32_t name = label < 0 ? BB_JSON_NONE : bb_json_element(&h->labels, 0, (uint32_t)label);
    if (label == h->model->pack.info.null_label) snprintf(out, size, "(none)");
    else if (!bb_json_string(&h->labels, name, out, size)) snprintf(out, size, "%d", label);
}

bb_status bb_host_label(const bb_host *h, const char *text, int32_t *label, bb_error *err)
{
    uint32_t classes = h->model->pack.info.classes;
    char name[128], *end;
    long number = strtol(text, &end, 10);
    if (!classes) return bb_fail(err, BB_ERR_LABEL, "--label %s: this model has no classes", text);
    if (end != text && !*end) {
        *label = (int32_t)number;
        if (number >= 0 && number < (long)classes) return BB_OK;
        return bb_fail(err, BB_ERR_LABEL, "--label %s: must be 0 to %u", text, classes - 1);
    }
    uint32_t e = bb_json_first(&h->labels, 0);
    for (uint32_t i = 0; i < classes && e != BB_JSON_NONE; i++, e = bb_json_next(&h->labels, e)) {
        *label = (int32_t)i;
        if (bb_json_string(&h->labels, e, name, sizeof name) && strcmp(name, text) == 0) return BB_OK;
    }
    *label = h->model->pack.info.null_label;
    if (*label >= 0 && strcmp(text, "(none)") == 0) return BB_OK;
    return bb_fail(err, BB_ERR_LABEL, "--label %s: no class of that name (bitbrush info lists them), and not a number "
                                      "from 0 to %u", text, classes - 1);
}

const char *bb_host_samplers(void)
{
    static char words[512];
    size_t n = 0;
    for (uint32_t i = 0; bb_sampler_name(i) && n < sizeof words; i++)
        n += (size_t)snprintf(words + n, sizeof words - n, "%s%s", i ? "|" : "", bb_sampler_name(i));
    return words;
}

uint32_t bb_host_steps(const bb_host *h)
{
    uint32_t most = h->model->pack.info.train_steps;
    return most < 20 ? most : 20;
}

float bb_host_guidance(const bb_host *h) { return h->model->pack.info.null_label >= 0 ? 2 : 1; }
