/* Training of the classifier whose features the distances are measured in (classifier.h): a fixed recipe and seed. */
#ifndef BB_TOOLS_EVAL_TEACH_H
#define BB_TOOLS_EVAL_TEACH_H

#include "base/status.h"

typedef struct bb_teaching {
    const char *data;      /* folder of IDX files: learns from train-…, is tested on t10k-… */
    const char *out;       /* file to write */
    uint64_t seed;
    uint32_t passes;       /* over the train part; 0: 8 */
    uint32_t threads, cpu; /* as for bb_host */
    bool quiet;
} bb_teaching;

/* The file, and how many of the test part it gets right. BB_ERR_UNSUPPORTED in builds without training. */
bb_status bb_teach_classifier(const bb_teaching *t, double *accuracy, bb_error *err);

#endif
