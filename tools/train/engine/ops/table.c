#include "train/engine/ops/set.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

void BB_FN(table)(bb_ops *t)
{
    *t = (bb_ops){.name = TEXT(BB_OPS_SET)};
    BB_FN(norm)(t);
    BB_FN(pointwise)(t);
    BB_FN(channels)(t);
    BB_FN(spatial)(t);
    BB_FN(rows)(t);
    BB_FN(update)(t);
}
