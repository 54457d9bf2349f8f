/* labels.json. Input: number of classes, kind of --null-label (a byte each), the file. */
#include "fuzz.h"

#include "base/json.h"
#include "import/labels.h"

FUZZ_TARGET(labels)
{
    static const char *const options[] = {NULL, "none", "0", "3", "10", "999999999", "4294967296", "", "-1", "1x"};
    bb_labels labels;
    bb_error err = {0};
    if (n < 2) return 0;
    uint32_t classes = data[0] < 250 ? data[0] : 1u << 20;
    const char *option = options[data[1] % BB_COUNT(options)];
    fuzz_file("labels.json", data + 2, n - 2);
    bb_status status = bb_labels_read(&labels, n == 2 ? "" : "labels.json", option, classes, &err);
    fuzz_check_error(status, &err);
    fuzz_files_forget();
    if (status < 0) return status;
    FUZZ_CHECK(labels.null_label >= -1 && (labels.null_label < 0 || (uint32_t)labels.null_label < classes));
    if (labels.names) { /* what goes into the packed file is a JSON array of strings */
        bb_json j;
        size_t text = strlen(labels.names), bytes = bb_json_scratch(text);
        void *scratch = fuzz_block(bytes);
        FUZZ_CHECK(bb_json_parse(&j, labels.names, text, scratch, bytes) && bb_json_is_array(&j, 0));
        FUZZ_CHECK(bb_json_size(&j, 0) == classes || bb_json_size(&j, 0) + 1 == classes);
        free(scratch);
    }
    bb_labels_free(&labels);
    return status;
}
