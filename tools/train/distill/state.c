/* What an unfinished distillation has reached, as a safetensors file. Numbers that are neither f32 nor bytes stand in
 * it as the 64 bits that they are. Features are not in it: they are as large as everything else together, and drawing
 * the trajectories again gives the same ones. */
#include "train/distill/distill.h"

#include "import/safetensors.h"

#include <stdlib.h>

enum { MOST = 20 };

typedef struct part {
    const char *name;
    void *at;
    size_t n;       /* elements */
    uint32_t dtype; /* bb_st_dtype */
} part;

/* Numbers that change from update to update, in one row. */
typedef struct numbers {
    uint64_t update, updates, skipped, n_checks, best_check, optim_step;
    double loss, task_mean[64], relation_mean[64], start[64];
    bb_distill_check checks[BB_DISTILL_MOST_CHECKS];
} numbers;
_Static_assert(sizeof(numbers) % 8 == 0 && sizeof(double) == 8, "rows of 64 bits");

static uint32_t parts_of(const bb_distill *d, numbers *now, char *digest, part *out)
{
    const bb_trajectories *t = &d->teacher;
    const bb_pixel_memory *m = &d->memory;
    size_t pictures = (size_t)t->total * t->opt.steps, pixels = (size_t)m->slots * m->per_slot * m->channels;
    const part all[] = {
        {"digest", digest, 64, BB_ST_U8},
        {"start", (void *)(uintptr_t)d->in.blob, d->in.blob_bytes, BB_ST_U8},
        {"numbers", now, sizeof *now / 8, BB_ST_I64},
        {"trajectories.x", t->features ? NULL : t->x, pictures * t->x_size, BB_ST_F32},
        {"trajectories.target", t->features ? NULL : t->target, pictures * t->out_size, BB_ST_F32},
        {"student", bb_student_w(d->student), d->n, BB_ST_F32},
        {"adam.m", d->optim.m, d->n, BB_ST_F32},
        {"adam.v", d->optim.v, d->n, BB_ST_F32},
        {"best", d->best, d->n, BB_ST_F32},
        {"ema", d->ema, d->n, BB_ST_F32},
        {"memory.pixel", m->pixel, pixels, BB_ST_F32},
        {"memory.filled", m->filled, m->slots, BB_ST_I32},
        {"memory.next", m->next, m->slots, BB_ST_I32},
    };
    uint32_t n = 0;
    for (size_t i = 0; i < BB_COUNT(all); i++)
        if (all[i].at && all[i].n) out[n++] = all[i];
    return n;
}

bb_status bb_distill_save(const bb_distill *d, uint8_t **out, size_t *n, bb_error *err)
{
    part parts[MOST];
    bb_st_out list[MOST];
    char digest[65];
    numbers now = {.update = d->update, .updates = d->updates, .skipped = d->skipped, .n_checks = d->n_checks,
                   .best_check = d->best_check, .optim_step = d->optim.step, .loss = d->loss};
    memcpy(digest, d->in.digest, sizeof digest);
    memcpy(now.task_mean, d->task_mean, sizeof now.task_mean);
    memcpy(now.relation_mean, d->relation_mean, sizeof now.relation_mean);
    memcpy(now.start, d->start, sizeof now.start);
    memcpy(now.checks, d->checks, sizeof now.checks);
    uint32_t count = parts_of(d, &now, digest, parts);
    for (uint32_t i = 0; i < count; i++) {
        if (parts[i].n > UINT32_MAX) return bb_fail(err, BB_ERR_SPACE, "the state is too large for a file");
        list[i] = (bb_st_out){.name = parts[i].name, .rank = 1, .shape = {(uint32_t)parts[i].n}, .data = parts[i].at,
                              .dtype = parts[i].dtype};
    }
    return bb_safetensors_write(list, count, out, n, err);
}

static bool digest_is(const bb_st_file *f, const char *digest)
{
    const bb_st_tensor *t = bb_safetensors_find(&f->st, "digest");
    return t && t->dtype == BB_ST_U8 && t->count == 64 && memcmp(t->data, digest, 64) == 0;
}

const uint8_t *bb_distill_state_start(const bb_st_file *f, const char *digest, size_t *n)
{
    const bb_st_tensor *t = bb_safetensors_find(&f->st, "start");
    if (!digest_is(f, digest) || !t || t->dtype != BB_ST_U8) return NULL;
    *n = t->bytes;
    return t->data;
}

/* Whether the file has all parts in the right sizes. */
static bool fits(const bb_st_file *f, const part *parts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const bb_st_tensor *t = bb_safetensors_find(&f->st, parts[i].name);
        if (!t || t->dtype != parts[i].dtype || t->count != parts[i].n) return false;
    }
    return true;
}

static bool sane(const bb_distill *d, const numbers *now, const bb_st_file *f)
{
    const char *const names[] = {"memory.filled", "memory.next"};
    bool good = now->updates && now->update <= now->updates && now->n_checks && now->skipped < 20 &&
                now->n_checks <= BB_DISTILL_MOST_CHECKS && now->best_check < now->n_checks;
    for (uint32_t k = 0; good && k < BB_COUNT(names) && d->memory.slots; k++) {
        const bb_st_tensor *t = bb_safetensors_find(&f->st, names[k]);
        for (uint32_t i = 0, word; good && i < d->memory.slots; i++) {
            memcpy(&word, t->data + i * sizeof word, sizeof word);
            good = word < d->memory.per_slot + (k == 0);
        }
    }
    return good;
}

static bb_status load(bb_distill *d, const bb_st_file *f, const char *name, bb_error *err)
{
    part parts[MOST];
    char digest[65];
    static numbers now;
    uint32_t n = parts_of(d, &now, digest, parts);
    if (!digest_is(f, d->in.digest))
        return bb_fail(err, BB_ERR_CORRUPT, "%s: the state of another distillation (model, options or processes "
                       "differ): repeat its command to go on, or remove it to begin anew", name);
    if (fits(f, parts, n)) memcpy(&now, bb_safetensors_find(&f->st, "numbers")->data, sizeof now);
    if (!fits(f, parts, n) || !sane(d, &now, f))
        return bb_fail(err, BB_ERR_CORRUPT, "%s: damaged, or of another version: remove it to begin anew", name);
    for (uint32_t i = 0; i < n; i++)
        if (parts[i].at != d->in.blob) memcpy(parts[i].at, bb_safetensors_find(&f->st, parts[i].name)->data,
                                              bb_safetensors_find(&f->st, parts[i].name)->bytes);
    d->update = now.update, d->updates = now.updates, d->skipped = (uint32_t)now.skipped, d->loss = now.loss;
    d->n_checks = (uint32_t)now.n_checks, d->best_check = (uint32_t)now.best_check, d->optim.step = now.optim_step;
    memcpy(d->task_mean, now.task_mean, sizeof now.task_mean);
    memcpy(d->relation_mean, now.relation_mean, sizeof now.relation_mean);
    memcpy(d->start, now.start, sizeof now.start);
    memcpy(d->checks, now.checks, sizeof now.checks);
    if (!d->teacher.features) d->drawn = d->teacher.total;
    bb_distill_changed(d);
    return BB_OK;
}

bb_status bb_distill_load(bb_distill *d, const char *name, const uint8_t *data, size_t n, bb_error *err)
{
    bb_st_file f;
    BB_TRY(bb_st_file_parse(&f, data, n, name, err));
    bb_status status = load(d, &f, name, err);
    bb_st_file_close(&f);
    return status;
}
