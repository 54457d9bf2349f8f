/* Streams of random numbers of training (base/rng.h), numbered by update and by item of the whole batch over all ranks,
 * and by weight. */
#ifndef BB_TRAIN_TEACH_STREAMS_H
#define BB_TRAIN_TEACH_STREAMS_H

#include "base/rng.h"

enum {
    BB_STREAM_INIT = BB_STREAM_TOOLS + 0x100, /* and + 1: number of the weight */
    BB_STREAM_ORDER = BB_STREAM_INIT + 2,     /* epoch · pictures + place */
    BB_STREAM_NOISE,                          /* item · values + value */
    BB_STREAM_TIME,                           /* item */
    BB_STREAM_DROP,                           /* item: its class is not told */
    BB_STREAM_MIRROR,                         /* item */
    BB_STREAM_HELD_OUT,                       /* noise of held-out items: item · values + value */
};

#endif
