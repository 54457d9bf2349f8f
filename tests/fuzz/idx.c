/* The four files of an IDX folder through bb_data_open. Input: sections (fuzz.h) for the pictures and labels of the
 * train part, then of the test part. */
#include "dataset.h"

static const char *const names[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                                    "t10k-labels-idx1-ubyte"};

FUZZ_TARGET(idx)
{
    const uint8_t *at;
    size_t bytes;
    bb_data train, test;
    for (uint32_t k = 0; k < BB_COUNT(names) && fuzz_section(data, n, k, &at, &bytes); k++) {
        char path[64];
        snprintf(path, sizeof path, "/d/%s", names[k]);
        fuzz_file(path, at, bytes);
    }
    bb_status status = fuzz_open_data(&train, "/d", false, NULL), second = BB_OK;
    if (status == BB_OK && bb_data_has_test_part("/d")) {
        second = fuzz_open_data(&test, "/d", true, &train);
        if (second == BB_OK) bb_data_free(&test);
    }
    if (status == BB_OK) bb_data_free(&train);
    fuzz_files_forget();
    return status < 0 ? status : second;
}

FUZZ_MUTATOR(idx) { return fuzz_mutate_sections(data, n, max, seed, BB_COUNT(names), BB_COUNT(names)); }
