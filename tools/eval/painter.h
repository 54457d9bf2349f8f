/* Draws a model's pictures on all threads, one session a thread; each picture's bits depend on nothing but the model,
 * the request and its number. Both functions below make records (records.h). */
#ifndef BB_TOOLS_EVAL_PAINTER_H
#define BB_TOOLS_EVAL_PAINTER_H

#include "host.h"

typedef struct bb_painter {
    const bb_host *host;
    bb_request req;
    uint64_t seed;        /* of picture 0; picture i has seed + i and class bb_nth_label(i) */
    uint32_t threads, evaluations;
    char key[65];         /* SHA-256 of model, LoRAs and request */
    bb_session *session[BB_PAR_MAX];
    void *workspace[BB_PAR_MAX];
} bb_painter;

/* lora: what was folded into the host's model, or NULL. bb_painter_close works after failures, too. */
bb_status bb_painter_open(bb_painter *p, const bb_host *h, const bb_list *lora, const bb_request *req, uint64_t seed,
                          uint32_t threads, bb_error *err);
void bb_painter_close(bb_painter *p);

/* SHA-256 of the model's bytes. */
void bb_painter_model_sha256(const bb_host *h, char out[65]);

BB_INLINE uint32_t bb_painter_channels(const bb_info *info) { return info->channels == 1 ? 1 : 3; }
/* Bytes of a picture: [height][width][1 or 3]. */
BB_INLINE size_t bb_painter_bytes(const bb_info *info)
{
    return (size_t)info->width * info->height * bb_painter_channels(info);
}

/* user: bb_painter. record: the picture. */
bb_status bb_paint(void *user, uint32_t i, uint32_t thread, uint8_t *record, bb_error *err);

/* Along the reference's own trajectory both predict, guided and as epsilon. user: bb_trace; record: double
 * [evaluations] squared differences, double [evaluations] squares of the reference's, then the reference's picture. */
typedef struct bb_trace { bb_painter *reference, *model; } bb_trace;
bb_status bb_trace_paint(void *user, uint32_t i, uint32_t thread, uint8_t *record, bb_error *err);

#endif
