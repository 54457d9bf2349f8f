/* In builds that cannot train. */
#include "eval/teach.h"

bb_status bb_teach_classifier(const bb_teaching *t, double *accuracy, bb_error *err)
{
    return bb_fail(err, BB_ERR_UNSUPPORTED, "built without training: apt-get install libdnnl-dev zlib1g-dev and build "
                   "again");
}
