#include "gunzip.h"

bool bb_is_gzip(const bb_file *file) { return file->size > 2 && file->data[0] == 0x1f && file->data[1] == 0x8b; }

bb_status bb_gunzip(const bb_file *file, const char *path, uint8_t *out, size_t size, size_t *got, bb_error *err)
{
    *got = 0;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: this bitbrush was built without zlib; unpack the file with gunzip",
                   path);
}
