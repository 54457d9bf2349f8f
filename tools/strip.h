/* A strip of pictures for comparing models by eye: a row for each model, a column for each seed. */
#ifndef BB_TOOLS_STRIP_H
#define BB_TOOLS_STRIP_H

#include "host.h"

/* Column i is drawn with seed i and the i-th class (bb_nth_label); captions say which row is which model. host sessions
 * are replaced. Errors name the path. */
bb_status bb_strip_write(const char *path, bb_host *const hosts[], const char *const names[], uint32_t n,
                         uint32_t columns, const bb_request *req, bb_error *err);

#endif
