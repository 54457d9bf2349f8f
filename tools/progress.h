/* One progress line with an ETA on a terminal, plain lines every 10 % otherwise; on stderr; silent when quiet. */
#ifndef BB_TOOLS_PROGRESS_H
#define BB_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct bb_progress {
    const char *what;
    size_t total;
    size_t before;  /* of it, done by an earlier run */
    double started; /* seconds */
    int shown;      /* last tenth printed */
    bool terminal, quiet;
    char note[48];  /* shown behind, such as ", loss 0.1" */
} bb_progress;

double bb_now(void); /* monotonic seconds */
bb_progress bb_progress_start(const char *what, size_t total, bool quiet);
void bb_progress_step(bb_progress *p, size_t done); /* done == total ends the line */

#endif
