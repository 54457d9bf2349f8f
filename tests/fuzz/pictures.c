/* A CSV file and two PNG files through bb_data_open. Input: sections (fuzz.h) for labels.csv, a.png, b.png and the CSV
 * file of a held-out part. */
#include "dataset.h"

#include "io.h"

static const char *const names[] = {"/d/labels.csv", "/d/a.png", "/d/b.png", "/held.csv"};

enum { MOST_LINES = 16, MOST_PNG = 1 << 14 }; /* every line is a picture in memory: libFuzzer's limit is 512 MB */

static bool is_small(const uint8_t *text, size_t n)
{
    size_t lines = 0;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    return lines < MOST_LINES;
}

FUZZ_TARGET(pictures)
{
    const uint8_t *at;
    size_t bytes;
    bb_data set, held;
    for (uint32_t k = 0; k < BB_COUNT(names) && fuzz_section(data, n, k, &at, &bytes); k++)
        if (k == 0 || k == 3 ? is_small(at, bytes) : bytes <= MOST_PNG) fuzz_file(names[k], at, bytes);
    bb_status status = fuzz_open_data(&set, "/d", false, NULL), second = BB_OK;
    if (status == BB_OK && bb_path_exists(names[3])) {
        second = fuzz_open_data(&held, names[3], false, &set);
        if (second == BB_OK) bb_data_free(&held);
    }
    if (status == BB_OK) bb_data_free(&set);
    fuzz_files_forget();
    return status < 0 ? status : second;
}

FUZZ_MUTATOR(pictures) { return fuzz_mutate_sections(data, n, max, seed, BB_COUNT(names), BB_COUNT(names)); }
