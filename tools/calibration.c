#include "calibration.h"

#include "base/sha256.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double EVERY = 20; /* seconds of work between two writings, which sync up to about 100 MB */
static const char magic[] = "bitbrush calibration\n";
enum { MAGIC = sizeof magic - 1, HEX = 64, HEAD = MAGIC + 2 * (HEX + 1) }; /* then lines: key, state's SHA-256 */

bb_kept bb_kept_begin(const char *out, const bb_host *host, const bb_make_options *opt)
{
    bb_kept k = {.host = host, .opt = opt, .begun = bb_now()};
    int n = snprintf(k.path, sizeof k.path, "%s.calibration", out);
    k.off = bb_path_is_special(out) || n < 0 || (size_t)n >= sizeof k.path;
    k.written = k.begun;
    return k;
}

void bb_kept_lora(bb_kept *k, const bb_lora_file *file)
{
    char text[256], weights[65], config[65];
    bb_sha256(file->data, file->bytes, weights);
    bb_sha256((const uint8_t *)file->config, file->config_bytes, config);
    snprintf(text, sizeof text, "%s %s %s %a", k->lora, weights, config, (double)file->scale);
    bb_sha256((const uint8_t *)text, strlen(text), k->lora);
}

/* All that calibration depends on; bits, budget and the like come after it. */
static const char *key_of(bb_kept *k)
{
    const bb_make_options *o = k->opt;
    const uint8_t *blob = k->host->imported ? k->host->imported : k->host->file.data;
    char text[512], model[65];
    if (k->key[0]) return k->key;
    bb_sha256(blob, (size_t)k->host->model->pack.info.blob_bytes, model);
    snprintf(text, sizeof text, "%s %s %u %u %a %u %u %a %llu", model, k->lora, o->layers, o->tables,
             (double)o->smoothing, o->images, o->steps, (double)o->guidance, (unsigned long long)o->seed);
    bb_sha256((const uint8_t *)text, strlen(text), k->key);
    return k->key;
}

static void note(const char *text, const char *what)
{
    char line[4608];
    snprintf(line, sizeof line, "%s", text);
    bb_cli_plain(line);
    fprintf(stderr, "bitbrush: %s%s\n", line, what);
}

static bool line_is(const uint8_t *at, const char *text) { return !memcmp(at, text, HEX) && at[HEX] == '\n'; }

static bb_status read_file(bb_kept *k, const bb_file *f, bb_make *make, bb_error *err)
{
    char sum[65];
    if (f->size < MAGIC || memcmp(f->data, magic, MAGIC) != 0) {
        k->off = true;
        return bb_fail(err, BB_ERR_MAGIC, "%s: not one of bitbrush's files, so none is kept", k->path);
    }
    k->on_disk = true;
    if (f->size < HEAD) return bb_fail(err, BB_ERR_CORRUPT, "%s: damaged", k->path);
    if (!line_is(f->data + MAGIC, key_of(k)))
        return bb_fail(err, BB_ERR_CORRUPT, "%s: of another model, LoRA or options", k->path);
    bb_sha256(f->data + HEAD, f->size - HEAD, sum);
    if (!line_is(f->data + MAGIC + HEX + 1, sum)) return bb_fail(err, BB_ERR_CORRUPT, "%s: damaged", k->path);
    bb_status status = bb_make_state_load(make, f->data + HEAD, f->size - HEAD, err);
    return status == BB_ERR_CORRUPT ? bb_fail(err, status, "%s: of another version, or damaged", k->path) : status;
}

bb_status bb_kept_load(bb_kept *k, bb_make *make, bool quiet, bb_error *err)
{
    bb_file f;
    if (k->off || !bb_path_exists(k->path)) return BB_OK;
    bb_status status = bb_file_open(&f, k->path, err);
    if (status == BB_OK) {
        status = read_file(k, &f, make, err);
        bb_file_close(&f);
    } else {
        k->off = true;
    }
    if (status == BB_OK && !quiet) note("going on from ", k->path);
    if (status != BB_OK && status != BB_ERR_MAGIC && status != BB_ERR_CORRUPT && !k->off) return status;
    if (status != BB_OK) note(err->text, "; calibrating from the start");
    return BB_OK;
}

static void write_file(bb_kept *k)
{
    bb_error err;
    char *head = (char *)k->bytes, sum[65];
    bb_sha256(k->bytes + HEAD, k->n - HEAD, sum);
    memcpy(head, magic, MAGIC);
    memcpy(head + MAGIC, key_of(k), HEX);
    memcpy(head + MAGIC + HEX + 1, sum, HEX);
    head[MAGIC + HEX] = head[HEAD - 1] = '\n';
    if (bb_file_write(k->path, k->bytes, k->n, &err) < 0) {
        k->off = true;
        note(err.text, "; an interruption will lose the calibration");
    } else {
        k->on_disk = true;
    }
    k->newer = false;
    k->written = bb_now();
}

static void forget(bb_kept *k)
{
    free(k->bytes);
    k->bytes = NULL;
    k->newer = false;
}

void bb_kept_slice(bb_kept *k, const bb_make *make, const bb_make_progress *at)
{
    size_t n = k->off ? 0 : bb_make_state_bytes(make);
    if (n && !k->bytes) k->bytes = malloc(k->n = HEAD + n);
    if (n && k->bytes) {
        bb_make_state_save(make, k->bytes + HEAD);
        k->newer = true;
    }
    if (k->newer && bb_now() - k->written >= EVERY) write_file(k);
    if (at->phase > BB_MAKE_CALIBRATE && !k->newer) forget(k);
}

void bb_kept_end(bb_kept *k, bool made)
{
    if (made && k->on_disk) unlink(k->path);
    if (!made && k->newer && (k->on_disk || bb_now() - k->begun >= EVERY)) write_file(k);
    if (!made && k->on_disk) note("the calibration is kept, the same command goes on from ", k->path);
    forget(k);
}
