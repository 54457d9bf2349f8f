/* Class names and the null class: labels.json beside the checkpoint, {"null": 10, "names": ["T-shirt", …]}.
 * "null" is the class that stands for "no class" in guidance; it may be left out or null. There is one name per class;
 * the null class needs none if it is the last. */
#ifndef BB_TOOLS_IMPORT_LABELS_H
#define BB_TOOLS_IMPORT_LABELS_H

#include "base/status.h"

typedef struct bb_labels {
    char *names;        /* JSON array of strings, malloc'd; NULL if there are none */
    int32_t null_label; /* -1 = none */
} bb_labels;

/* path: labels.json or "" for none. null_label: "none", a number, or NULL = what the file says, else none.
 * classes: rows of the model's class table, 0 = unconditional. On failure nothing needs freeing. */
bb_status bb_labels_read(bb_labels *out, const char *path, const char *null_label, uint32_t classes, bb_error *err);
void bb_labels_free(bb_labels *l);

#endif
