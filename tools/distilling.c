#include "distilling.h"

#include "base/sha256.h"
#include "platform.h"
#include "strip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool talks(const bb_distilling *j) { return !j->quiet && j->ranks.rank == 0; }

/* ---- the start: a state, a packed file, or the checkpoint quantized ---- */

static const uint8_t *teacher_blob(const bb_distilling *j)
{
    return j->host.imported ? j->host.imported : j->host.file.data;
}

/* What updates do with the same options: one more wherever that changes, so that no state of an older tool goes on here.
 * 2: the rates of OOLRI's factors are divided by their pace. */
enum { COURSE = 2 };

/* All that the result depends on, but the number of threads. */
static bb_status make_digest(bb_distilling *j, bb_error *err)
{
    const bb_make_options *m = &j->quantizing.make;
    const bb_distill_options *o = &j->options;
    char text[2048], model[65], from[65] = "";
    bb_file f;
    bb_sha256(teacher_blob(j), (size_t)j->host.model->pack.info.blob_bytes, model);
    if (j->from) {
        BB_TRY(bb_file_open(&f, j->from, err));
        bb_sha256(f.data, f.size, from);
        bb_file_close(&f);
    }
    size_t n = (size_t)snprintf(text, sizeof text, "%u %s %s %u; %u %u %u %u %u %u %u %u %a %a %u %llu; ", COURSE,
                                model, from, j->ranks.count, m->wbits, m->abits, m->layers, m->range, m->ladder,
                                m->mixed, m->tables, m->refit, (double)m->smoothing, (double)m->compensation, m->images,
                                (unsigned long long)m->seed);
    n += (size_t)snprintf(text + n, sizeof text - n, "%u %u %a %u %u %u %a %u %u %u %u %a ", o->weights, o->rank,
                          (double)o->inside, o->relation, o->normalize, o->mix_steps, (double)o->lambda, o->anchors,
                          o->pixels, o->slot, o->push, (double)o->temperature);
    n += (size_t)snprintf(text + n, sizeof text - n, "%u %u %u %u %a %a %a %llu %a %llu %u %u %llu", o->trajectories,
                          o->held_out, o->steps, o->batch, (double)o->guidance, (double)o->ema, (double)o->clip,
                          (unsigned long long)o->updates, o->budget, (unsigned long long)o->warmup, o->checks,
                          o->patience, (unsigned long long)o->seed);
    for (uint32_t k = 0; k < BB_STUDENT_KINDS; k++)
        n += (size_t)snprintf(text + n, sizeof text - n, " %a", (double)o->rate[k]);
    bb_sha256((const uint8_t *)text, n, j->digest);
    return BB_OK;
}

static bb_status keep_start(bb_distilling *j, const uint8_t *bytes, size_t n, bb_error *err)
{
    j->start_bytes = aligned_alloc(BB_ALIGNMENT, bb_align_up(n, BB_ALIGNMENT));
    if (!j->start_bytes) return bb_fail(err, BB_ERR_SPACE, "out of memory for the quantized model");
    memcpy(j->start_bytes, bytes, n);
    j->start_size = n;
    return BB_OK;
}

static bb_status keep_made(void *user, const bb_make *make, bb_error *err)
{
    const uint8_t *bytes;
    size_t n;
    BB_TRY(bb_make_result(make, &bytes, &n));
    return keep_start(user, bytes, n, err);
}

static bb_status start_from_state(bb_distilling *j, bb_error *err)
{
    bb_st_file f;
    size_t n;
    BB_TRY(bb_st_file_open(&f, j->state, err));
    const uint8_t *bytes = bb_distill_state_start(&f, j->digest, &n);
    bb_status status = bytes ? keep_start(j, bytes, n, err)
        : bb_fail(err, BB_ERR_CORRUPT, "%s: the state of another distillation (model, options or processes differ): "
                  "repeat its command to go on, or remove it to begin anew", j->state);
    bb_st_file_close(&f);
    j->on_disk = status >= 0;
    return status;
}

/* A packed file says which checkpoint it was made from. */
static bb_status start_from_file(bb_distilling *j, bb_error *err)
{
    bb_host h;
    char made_from[80] = "", source[80] = "";
    bb_status status = bb_host_open(&h, j->from, &j->host_options, err);
    if (status >= 0) {
        bb_pack_metadata(&h.model->pack, "source_sha256", made_from, sizeof made_from);
        bb_pack_metadata(&j->host.model->pack, "source_sha256", source, sizeof source);
        if (!h.model->pack.n_layers)
            status = bb_fail(err, BB_ERR_UNSUPPORTED, "--from %s: is not quantized", j->from);
        else if (strcmp(made_from, source) != 0)
            status = bb_fail(err, BB_ERR_UNSUPPORTED, "--from %s: made from another checkpoint (source_sha256 differs)",
                             j->from);
        else status = keep_start(j, h.file.data, h.file.size, err);
    }
    bb_host_close(&h);
    return status;
}

static bb_status find_start(bb_distilling *j, bb_error *err)
{
    if (!bb_path_is_special(j->out) && bb_path_exists(j->state)) return start_from_state(j, err);
    if (j->from) return start_from_file(j, err);
    return bb_quantizing_run(&j->quantizing, &j->host, j->out, j->quiet, keep_made, j, err);
}

/* Process 0 makes it, the others get it. */
static bb_status open_start(bb_distilling *j, bb_error *err)
{
    if (j->ranks.rank == 0) BB_TRY(find_start(j, err));
    uint64_t words[2] = {j->start_size, j->on_disk};
    bb_ranks_copy(&j->ranks, words, sizeof words);
    j->on_disk = words[1];
    if (j->ranks.rank != 0) {
        j->start_size = (size_t)words[0];
        j->start_bytes = aligned_alloc(BB_ALIGNMENT, bb_align_up(j->start_size, BB_ALIGNMENT));
        if (!j->start_bytes) return bb_fail(err, BB_ERR_SPACE, "out of memory for the quantized model");
    }
    bb_ranks_copy(&j->ranks, j->start_bytes, j->start_size);
    return bb_host_open_bytes(&j->start, "the quantized model", j->start_bytes, j->start_size, &j->host_options, err);
}

/* ---- the state ---- */

static bb_status save(bb_distilling *j, bb_error *err)
{
    uint8_t *bytes;
    size_t n;
    j->saved = bb_now();
    if (j->ranks.rank != 0 || bb_path_is_special(j->out)) return BB_OK;
    BB_TRY(bb_distill_save(&j->distill, &bytes, &n, err));
    bb_status status = bb_file_write(j->state, bytes, n, err);
    free(bytes);
    j->on_disk = j->on_disk || status >= 0;
    return status;
}

static bb_status load(bb_distilling *j, bb_error *err)
{
    bb_file f = {0};
    uint64_t n = 0;
    if (j->ranks.rank == 0) {
        BB_TRY(bb_file_open(&f, j->state, err));
        n = f.size;
    }
    bb_ranks_copy(&j->ranks, &n, sizeof n);
    uint8_t *bytes = malloc((size_t)n + 1);
    bb_status status = bytes ? BB_OK : bb_fail(err, BB_ERR_SPACE, "%s: out of memory", j->state);
    if (bytes && f.data) memcpy(bytes, f.data, f.size);
    if (bytes) bb_ranks_copy(&j->ranks, bytes, (size_t)n);
    if (status >= 0) status = bb_distill_load(&j->distill, j->state, bytes, (size_t)n, err);
    bb_file_close(&f);
    free(bytes);
    if (status >= 0 && talks(j))
        fprintf(stderr, "bitbrush: going on from %s at update %llu of %llu\n", j->state,
                (unsigned long long)j->distill.update, (unsigned long long)j->distill.updates);
    return status;
}

static bb_status interrupted(bb_distilling *j, bb_error *err)
{
    if (!bb_ranks_any(&j->ranks, bb_cli_interrupted())) return BB_OK;
    if (j->distill.update && save(j, err) >= 0 && talks(j))
        fprintf(stderr, "\nbitbrush: interrupted; the same command goes on from %s\n", j->state);
    return bb_fail(err, BB_ERR_CANCELLED, "interrupted");
}

/* ---- training ---- */

static void say_check(const bb_distilling *j)
{
    const bb_distill *d = &j->distill;
    const bb_distill_check *c = &d->checks[d->n_checks - 1];
    if (!talks(j)) return;
    fprintf(stderr, "update %llu of %llu: held-out epsilon error %.2e, first five steps %.2e, mean ratio to the start "
            "%.3f, codes changed %.2f %%\n", (unsigned long long)c->update, (unsigned long long)d->updates, c->error,
            c->first, c->score, 100 * bb_student_flipped(d->student));
}

static bb_status draw_teacher(bb_distilling *j, bb_error *err)
{
    bb_distill *d = &j->distill;
    bb_progress p = bb_progress_start("teacher drawing (pictures)", d->teacher.total, !talks(j));
    for (bb_status status = d->drawn < d->teacher.total ? BB_AGAIN : BB_DONE; status != BB_DONE;) {
        BB_TRY(interrupted(j, err));
        BB_TRY(status = bb_distill_draw(d, err));
        bb_progress_step(&p, d->drawn);
    }
    return BB_OK;
}

/* The first check, and how many updates there will be. */
static bb_status begin(bb_distilling *j, bb_error *err)
{
    bb_distill *d = &j->distill;
    bb_status status = BB_AGAIN;
    BB_TRY(bb_distill_begin(d, j->options.budget - (bb_now() - j->begun), err));
    if (talks(j) && !d->updates) fprintf(stderr, "measuring speed, to fill %s\n", j->budget);
    while (status == BB_AGAIN) {
        BB_TRY(interrupted(j, err));
        BB_TRY(status = bb_distill_try(d, err));
    }
    if (talks(j) && !j->options.updates)
        fprintf(stderr, "--budget %s: %llu updates; --updates %llu repeats them\n", j->budget,
                (unsigned long long)d->updates, (unsigned long long)d->updates);
    say_check(j);
    return BB_OK;
}

static bb_status train(bb_distilling *j, bb_error *err)
{
    bb_distill *d = &j->distill;
    char what[80];
    bb_status status = BB_AGAIN;
    bb_progress p = bb_progress_start(what, d->updates, !talks(j));
    p.before = d->update;
    while (status == BB_AGAIN) {
        bool checked;
        BB_TRY(interrupted(j, err));
        BB_TRY(status = bb_distill_update(d, &checked, err));
        snprintf(what, sizeof what, "training, error %.3f of the start's (updates)", d->loss);
        if (checked && p.terminal && talks(j)) fputc('\n', stderr);
        if (checked) say_check(j);
        bb_progress_step(&p, d->update);
        double now = bb_now();
        bool due = j->ranks.rank == 0 && now - j->saved >= (double)j->save_every;
        if (status == BB_AGAIN && bb_ranks_any(&j->ranks, due)) BB_TRY(save(j, err));
    }
    return BB_OK;
}

static bb_status open_distill(bb_distilling *j, bb_error *err)
{
    bb_distill *d = &j->distill;
    uint32_t here = bb_ranks_here(), threads = j->host_options.threads;
    if (!threads) threads = bb_core_count() > here ? bb_core_count() / here : 1;
    bb_distill_setup setup = {.opt = &j->options, .teacher = j->host.model, .start = j->start.model,
                              .blob = j->start_bytes, .blob_bytes = j->start_size, .ranks = &j->ranks, .par = j->host.par, .threads = threads,
                              .cpu = j->host_options.cpu, .digest = j->digest};
    BB_TRY(bb_distill_open(d, &setup, err));
    j->open = true;
    if (talks(j))
        fprintf(stderr, "memory: %.0f MB (network %.0f, student and optimizer %.0f, teacher's answers %.0f), %s\n",
                (double)(d->network_bytes + d->student_bytes + d->teacher_bytes) / 1e6, (double)d->network_bytes / 1e6,
                (double)d->student_bytes / 1e6, (double)d->teacher_bytes / 1e6, bb_dnn_name(d->dnn));
    return BB_OK;
}

/* One training run; the result is in made. */
static bb_status distill(bb_distilling *j, bb_error *err)
{
    bb_distill *d = &j->distill;
    BB_TRY(open_distill(j, err));
    if (j->on_disk) BB_TRY(load(j, err));
    BB_TRY(draw_teacher(j, err));
    if (!d->n_checks) BB_TRY(begin(j, err));
    BB_TRY(train(j, err));
    j->flipped = bb_student_flipped(d->student);
    return bb_distill_result(d, j->command, &j->made_bytes, &j->made_size, err);
}

/* What the integer kernels say of the start and of the result. */
static bb_status measure(bb_distilling *j, const bb_trajectories *t, bb_error *err)
{
    bb_eps_error errors[2][64] = {{{0}}};
    double start[64];
    BB_TRY(bb_trajectories_measure(t, j->start.model, errors[0], err));
    for (uint32_t s = 0; s < j->options.steps; s++) start[s] = errors[0][s].error / errors[0][s].power;
    j->before = j->after = bb_distill_summary(errors[0], start, j->options.steps);
    if (!j->made.model) return BB_OK;
    BB_TRY(bb_trajectories_measure(t, j->made.model, errors[1], err));
    j->after = bb_distill_summary(errors[1], start, j->options.steps);
    return BB_OK;
}

/* Without training the pictures to measure on are drawn for that alone. */
static bb_status measure_start(bb_distilling *j, bb_error *err)
{
    const bb_distill_options *o = &j->options;
    bb_trajectories t;
    bb_trajectories_options opt = {.held_out = o->held_out, .steps = o->steps, .guidance = o->guidance,
                                   .together = o->held_out, .par = j->host.par};
    BB_TRY(bb_trajectories_new(&t, j->host.model, &opt, err));
    bb_status status = bb_trajectories_draw(&t, 0, o->held_out, err);
    if (status >= 0) status = measure(j, &t, err);
    bb_trajectories_free(&t);
    return status;
}

static bb_status write_strip(bb_distilling *j, bb_error *err)
{
    bb_host *hosts[] = {&j->host, &j->start, &j->made};
    const char *const names[] = {"teacher", "quantized", "distilled"};
    bb_request req = {.size_of = sizeof req, .steps = j->options.steps, .guidance = j->options.guidance,
                      .sampler = BB_SAMPLER_DDIM};
    return bb_strip_write(j->strip, hosts, names, j->made.model ? 3 : 2, j->pictures, &req, err);
}

bb_status bb_distilling_run(bb_distilling *j, bb_error *err)
{
    BB_TRY(make_digest(j, err));
    BB_TRY(open_start(j, err));
    bb_cli_hold_signals(); /* quantizing has let them go */
    j->begun = j->saved = bb_now();
    if (j->options.train) {
        BB_TRY(distill(j, err));
        BB_TRY(bb_host_open_bytes(&j->made, "the distilled model", j->made_bytes, j->made_size, &j->host_options, err));
        BB_TRY(measure(j, &j->distill.teacher, err));
    } else {
        BB_TRY(measure_start(j, err));
    }
    j->seconds = bb_now() - j->begun;
    if (j->ranks.rank != 0) return BB_OK;
    BB_TRY(bb_file_write(j->out, j->made_bytes ? j->made_bytes : j->start_bytes,
                         j->made_bytes ? j->made_size : j->start_size, err));
    if (j->on_disk) unlink(j->state);
    return j->strip ? write_strip(j, err) : BB_OK;
}

void bb_distilling_close(bb_distilling *j)
{
    if (j->open) bb_distill_close(&j->distill);
    bb_host_close(&j->made);
    bb_host_close(&j->start);
    bb_host_close(&j->host);
    free(j->made_bytes);
    free(j->start_bytes);
}
