/* A CSV file and two PNG files through bb_data_open. Input: sections (fuzz.h) for labels.csv, a.png, b.png and the CSV
 * file of a held-out part. */
#include "fuzz.h"

#include "io.h"
#include "train/teach/data.h"

static const char *const names[] = {"/d/labels.csv", "/d/a.png", "/d/b.png", "/held.csv"};

enum { MOST_LINES = 16, MOST_PNG = 1 << 14 }; /* every line is a picture in memory: libFuzzer's limit is 512 MB */

static bool is_small(const uint8_t *text, size_t n)
{
    size_t lines = 0;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    return lines < MOST_LINES;
}

static bb_status open_set(bb_data *d, const char *path, const bb_data *like)
{
    bb_error err = {0};
    bb_status status = bb_data_open(d, path, false, like, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == BB_OK) == (d->pixels != NULL));
    if (status < 0) return status;
    char digest[65];
    bb_data_sha256(d, digest);
    for (uint32_t i = 0; i < d->count; i++) FUZZ_CHECK(d->label[i] < d->classes);
    for (uint32_t i = 0; d->names && i < d->classes; i++) FUZZ_CHECK(d->names[i][0]);
    return status;
}

FUZZ_TARGET(pictures)
{
    const uint8_t *at;
    size_t bytes;
    bb_data set, held;
    for (uint32_t k = 0; k < BB_COUNT(names) && fuzz_section(data, n, k, &at, &bytes); k++)
        if (k == 0 || k == 3 ? is_small(at, bytes) : bytes <= MOST_PNG) fuzz_file(names[k], at, bytes);
    bb_status status = open_set(&set, "/d", NULL), second = BB_OK;
    if (status == BB_OK && bb_path_exists(names[3])) {
        second = open_set(&held, names[3], &set);
        if (second == BB_OK) bb_data_free(&held);
    }
    if (status == BB_OK) bb_data_free(&set);
    fuzz_files_forget();
    return status < 0 ? status : second;
}

FUZZ_MUTATOR(pictures) { return fuzz_mutate_sections(data, n, max, seed, BB_COUNT(names), BB_COUNT(names)); }
