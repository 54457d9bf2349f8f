/* What both targets of data sets do with what bb_data_open accepts: everything must be there. */
#ifndef BB_TESTS_FUZZ_DATASET_H
#define BB_TESTS_FUZZ_DATASET_H

#include "fuzz.h"
#include "train/teach/data.h"

/* As bb_data_open; the digest reads every byte. */
static inline bb_status fuzz_open_data(bb_data *d, const char *path, bool test, const bb_data *like)
{
    bb_error err = {0};
    bb_status status = bb_data_open(d, path, test, like, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == BB_OK) == (d->pixels != NULL));
    if (status < 0) return status;
    char digest[65];
    bb_data_sha256(d, digest);
    for (uint32_t i = 0; i < d->count; i++) FUZZ_CHECK(d->label[i] < d->classes);
    for (uint32_t i = 0; d->names && i < d->classes; i++) FUZZ_CHECK(d->names[i][0]);
    return status;
}

#endif
