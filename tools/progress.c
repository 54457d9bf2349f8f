#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

double bb_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bb_progress bb_progress_start(const char *what, size_t total, bool quiet)
{
    return (bb_progress){.what = what, .total = total, .started = bb_now(), .shown = -1,
                         .terminal = isatty(STDERR_FILENO), .quiet = quiet};
}

void bb_progress_step(bb_progress *p, size_t done)
{
    double elapsed = bb_now() - p->started;
    int tenth = p->total ? (int)(done * 10 / p->total) : 10;
    if (p->quiet || (!p->terminal && tenth == p->shown)) return;
    p->shown = tenth;
    if (done >= p->total) {
        fprintf(stderr, "%s%s: %zu/%zu, %.1f s%s%s\n", p->terminal ? "\r" : "", p->what, done, p->total, elapsed,
                p->note, p->terminal ? "          " : "");
    } else if (done > p->before) {
        double left = elapsed / (double)(done - p->before) * (double)(p->total - done);
        char time[32];
        if (left < 600) snprintf(time, sizeof time, "%.0f s", left);
        else snprintf(time, sizeof time, "%.0f h %02.0f min", floor(left / 3600), fmod(left, 3600) / 60);
        fprintf(stderr, "%s%s: %zu/%zu, %s left%s%s", p->terminal ? "\r" : "", p->what, done, p->total, time, p->note,
                p->terminal ? "     " : "\n");
        fflush(stderr);
    }
}
