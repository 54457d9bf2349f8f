#include "eval/records.h"

#include "base/sha256.h"
#include "cli.h"
#include "io.h"
#include "progress.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double EVERY = 20;  /* seconds between two writings */
enum { PER_THREAD = 8 };         /* records that a thread makes in a round */
static const char magic[] = "bitbrush records\n";

/* The file: the magic line, key and SHA-256 of the rest in a line each, count and size, done [count], data. */
enum { MAGIC = sizeof magic - 1, HEX = 64, HEAD = MAGIC + 2 * (HEX + 1), COUNTS = 2 * sizeof(uint32_t) };

static void note(const char *path, const char *what)
{
    char line[4200];
    snprintf(line, sizeof line, "%s", path);
    bb_cli_plain(line);
    fprintf(stderr, "bitbrush: %s: %s\n", line, what);
}

/* What the file says against itself, or NULL. */
static const char *look(const bb_records *r, const bb_file *f, uint32_t *count)
{
    uint32_t words[2];
    char sum[65];
    if (f->size < HEAD + COUNTS || memcmp(f->data, magic, MAGIC) != 0) return "no records of bitbrush eval";
    if (memcmp(f->data + MAGIC, r->key, HEX) != 0) return "of other pictures";
    bb_sha256(f->data + HEAD, f->size - HEAD, sum);
    memcpy(words, f->data + HEAD, COUNTS);
    if (memcmp(f->data + MAGIC + HEX + 1, sum, HEX) != 0 || words[1] != r->size ||
        (f->size - HEAD - COUNTS) / (1 + (size_t)r->size) != words[0])
        return "damaged";
    *count = words[0];
    return NULL;
}

static bb_status take(bb_records *r, uint32_t count, bb_error *err)
{
    r->count = count;
    r->done = calloc(count, 1);
    r->data = calloc(count, r->size);
    return r->done && r->data ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory for %u records", count);
}

static bb_status load(bb_records *r, uint32_t count, bb_error *err)
{
    bb_file f;
    uint32_t kept = 0;
    BB_TRY(bb_file_open(&f, r->path, err));
    const char *wrong = look(r, &f, &kept);
    if (wrong) note(r->path, wrong);
    bb_status status = take(r, kept > count ? kept : count, err);
    if (status == BB_OK && kept) {
        memcpy(r->done, f.data + HEAD + COUNTS, kept);
        memcpy(r->data, f.data + HEAD + COUNTS + kept, (size_t)kept * r->size);
    }
    bb_file_close(&f);
    return status;
}

bb_status bb_records_open(bb_records *r, const char *path, const char *key, uint32_t count, uint32_t size,
                          bb_error *err)
{
    *r = (bb_records){.size = size, .written = bb_now()};
    snprintf(r->key, sizeof r->key, "%s", key);
    if (!path) return take(r, count, err);
    if (strlen(path) >= sizeof r->path) return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", path);
    strcpy(r->path, path);
    return bb_path_exists(path) ? load(r, count, err) : take(r, count, err);
}

void bb_records_close(bb_records *r)
{
    free(r->done);
    free(r->data);
    *r = (bb_records){0};
}

static bb_status save(bb_records *r, bb_error *err)
{
    const size_t n = COUNTS + (size_t)r->count * (1 + (size_t)r->size);
    char sum[65];
    r->written = bb_now();
    if (!r->path[0] || !r->newer) return BB_OK;
    uint8_t *bytes = malloc(HEAD + n);
    if (!bytes) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", r->path);
    memcpy(bytes + HEAD, (const uint32_t[]){r->count, r->size}, COUNTS);
    memcpy(bytes + HEAD + COUNTS, r->done, r->count);
    memcpy(bytes + HEAD + COUNTS + r->count, r->data, (size_t)r->count * r->size);
    bb_sha256(bytes + HEAD, n, sum);
    snprintf((char *)bytes, HEAD, "%s%s\n%s", magic, r->key, sum);
    bytes[HEAD - 1] = '\n';
    bb_status status = bb_file_write(r->path, bytes, HEAD + n, err);
    free(bytes);
    r->newer = status < 0;
    r->written = bb_now();
    return status;
}

bool bb_records_whole(const bb_records *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!r->done[i]) return false;
    return true;
}

/* ---- making them ---- */

typedef struct round {
    const bb_records *r;
    bb_record_fn *fn;
    void *user;
    uint32_t *todo, first, n, share; /* numbers of all records that are missing; of them: this round's; a rank's */
    uint32_t mine;                   /* offset of this rank's in todo */
    uint8_t *made;                   /* [share][1 + size]: whether it was made, the record */
    bb_progress *progress;
    size_t before;
    _Atomic uint32_t finished;
    _Atomic bool failed;
    bb_status status;
    bb_error error;
} round;

static void make_one(void *ctx, size_t item, size_t thread)
{
    round *w = ctx;
    const uint32_t at = w->mine + (uint32_t)item;
    uint8_t *out = w->made + item * (1 + (size_t)w->r->size);
    bb_error err = {0};
    out[0] = 0;
    if (at >= w->n || bb_cli_interrupted() || w->failed) return;
    const bb_status status = w->fn(w->user, w->todo[at], (uint32_t)thread, out + 1, &err);
    if (status < 0) {
        if (status == BB_ERR_CANCELLED || atomic_exchange(&w->failed, true)) return; /* one of them is told */
        w->status = status;
        w->error = err;
        return;
    }
    out[0] = 1;
    const uint32_t finished = ++w->finished;
    if (thread == 0 && w->before + finished < w->n) bb_progress_step(w->progress, w->before + finished);
}

static void collect(bb_records *r, const round *w, const bb_ranks *ranks, const uint8_t *all)
{
    for (uint32_t k = 0; k < ranks->count * w->share && w->first + k < w->n; k++) {
        const uint8_t *made = all + k * (1 + (size_t)r->size);
        const uint32_t i = w->todo[w->first + k];
        if (!made[0]) continue;
        r->done[i] = 1;
        memcpy(r->data + (size_t)i * r->size, made + 1, r->size);
        r->newer = true;
    }
}

static bb_status fill_rounds(bb_records *r, round *w, bb_par *par, const bb_ranks *ranks, uint8_t *all, bb_error *err)
{
    for (w->first = 0; w->first < w->n; w->first += ranks->count * w->share) {
        w->mine = w->first + ranks->rank * w->share;
        bb_par_for(par, w->share, make_one, w);
        if (w->failed) {
            *err = w->error;
            return w->status;
        }
        bb_ranks_gather(ranks, w->made, w->share * (1 + (size_t)r->size), all);
        if (ranks->rank == 0) collect(r, w, ranks, all);
        const bool stop = bb_ranks_any(ranks, bb_cli_interrupted());
        if (ranks->rank == 0 && (stop || bb_now() - r->written >= EVERY)) BB_TRY(save(r, err));
        if (stop) return bb_fail(err, BB_ERR_CANCELLED, "interrupted");
        w->before += ranks->count * w->share;
        if (w->before > w->n) w->before = w->n;
        w->finished = 0;
        bb_progress_step(w->progress, w->before);
    }
    return ranks->rank == 0 ? save(r, err) : BB_OK;
}

bb_status bb_records_fill(bb_records *r, uint32_t n, bb_par *par, const bb_ranks *ranks, const char *what, bool quiet,
                          bb_record_fn *fn, void *user, bb_error *err)
{
    bb_ranks_copy(ranks, r->done, n);
    if (bb_records_whole(r, n)) return BB_OK;
    round w = {.r = r, .fn = fn, .user = user, .share = PER_THREAD * bb_par_threads(par)};
    w.todo = malloc(n * sizeof *w.todo);
    w.made = malloc(w.share * (1 + (size_t)r->size));
    uint8_t *all = malloc(ranks->count * w.share * (1 + (size_t)r->size));
    bb_status status = w.todo && w.made && all ? BB_OK : bb_fail(err, BB_ERR_SPACE, "out of memory");
    for (uint32_t i = 0; status == BB_OK && i < n; i++)
        if (!r->done[i]) w.todo[w.n++] = i;
    bb_progress progress = bb_progress_start(what, w.n, quiet || ranks->rank);
    w.progress = &progress;
    if (status == BB_OK) status = fill_rounds(r, &w, par, ranks, all, err);
    for (uint32_t k = 0; status == BB_OK && k < w.n; k++) r->done[w.todo[k]] = 1; /* on the other ranks, too */
    free(w.todo);
    free(w.made);
    free(all);
    return status;
}
