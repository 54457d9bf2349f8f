/* See log.h. */
#include "train/teach/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char heading[] = "step,images,loss,held_out_loss,lr,grad_norm,images_per_second,seconds\n";
enum { ROW = 192, MOST_ROWS = 1 << 20 };

bb_status bb_log_add(bb_log *l, const bb_log_row *row, bb_error *err)
{
    if (l->n % 256 == 0) {
        bb_log_row *grown = realloc(l->row, (l->n + 256) * sizeof *grown);
        if (!grown) return bb_fail(err, BB_ERR_SPACE, "out of memory for the log");
        l->row = grown;
    }
    l->row[l->n++] = *row;
    return BB_OK;
}

void bb_log_free(bb_log *l)
{
    free(l->row);
    *l = (bb_log){0};
}

char *bb_log_csv(const bb_log *l)
{
    char *text = malloc(sizeof heading + l->n * ROW);
    size_t at = sizeof heading - 1;
    if (!text) return NULL;
    memcpy(text, heading, sizeof heading);
    for (size_t i = 0; i < l->n; i++) {
        const bb_log_row *r = &l->row[i];
        char held_out[32] = "";
        if (!isnan(r->held_out)) snprintf(held_out, sizeof held_out, "%.9g", r->held_out);
        at += (size_t)snprintf(text + at, ROW, "%llu,%llu,%.9g,%s,%.6g,%.6g,%.4g,%.1f\n", (unsigned long long)r->update,
                               (unsigned long long)r->images, r->loss, held_out, r->rate, r->norm, r->speed,
                               r->seconds);
    }
    return text;
}

/* A number and the character that must follow it; an empty one is NaN. */
static bool take_number(const char **at, char end, double *out)
{
    char *after;
    *out = NAN;
    if (**at == end) return (*at)++, true;
    *out = strtod(*at, &after);
    if (after == *at || *after != end) return false;
    *at = after + 1;
    return true;
}

static bool take_row(const char **at, bb_log_row *r)
{
    double v[8];
    for (int i = 0; i < 8; i++)
        if (!take_number(at, i < 7 ? ',' : '\n', &v[i])) return false;
    if (!(v[0] >= 0 && v[0] < 0x1p53 && v[1] >= 0 && v[1] < 0x1p53)) return false;
    *r = (bb_log_row){.update = (uint64_t)v[0], .images = (uint64_t)v[1], .loss = v[2], .held_out = v[3], .rate = v[4],
                      .norm = v[5], .speed = v[6], .seconds = v[7]};
    return true;
}

bb_status bb_log_parse(bb_log *l, const char *text, size_t n, const char *name, bb_error *err)
{
    char *copy = malloc(n + 1); /* terminated */
    *l = (bb_log){0};
    if (!copy) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", name);
    if (n) memcpy(copy, text, n);
    copy[n] = 0;
    const char *at = copy;
    bb_status status = BB_OK;
    bool ok = strncmp(at, heading, sizeof heading - 1) == 0;
    if (ok) at += sizeof heading - 1;
    while (ok && status == BB_OK && *at && l->n < MOST_ROWS) {
        bb_log_row r;
        ok = take_row(&at, &r);
        if (ok) status = bb_log_add(l, &r, err);
    }
    if (status == BB_OK && (!ok || *at)) status = bb_fail(err, BB_ERR_CORRUPT, "%s: the log in it is damaged", name);
    free(copy);
    if (status < 0) bb_log_free(l);
    return status;
}
