#include "gunzip.h"

#include <zlib.h>

bool bb_is_gzip(const bb_file *file) { return file->size > 2 && file->data[0] == 0x1f && file->data[1] == 0x8b; }

/* At most so many bytes are handed to zlib at a time: its counts have 32 bits. */
static uInt slice(size_t n) { return n < (1u << 30) ? (uInt)n : 1u << 30; }

bb_status bb_gunzip(const bb_file *file, const char *path, uint8_t *out, size_t size, size_t *got, bb_error *err)
{
    z_stream z = {0};
    size_t fed = 0;
    int code = Z_OK;
    *got = 0;
    if (inflateInit2(&z, 15 + 16) != Z_OK) return bb_fail(err, BB_ERR_SPACE, "%s: out of memory", path);
    while (code == Z_OK && *got < size) {
        const uInt in = slice(file->size - fed), room = slice(size - *got);
        z.next_in = (Bytef *)(uintptr_t)(file->data + fed);
        z.avail_in = in;
        z.next_out = out + *got;
        z.avail_out = room;
        code = inflate(&z, Z_NO_FLUSH);
        fed += in - z.avail_in;
        *got += room - z.avail_out;
    }
    inflateEnd(&z);
    if (code == Z_OK || code == Z_STREAM_END) return BB_OK;
    return bb_fail(err, code == Z_MEM_ERROR ? BB_ERR_SPACE : BB_ERR_CORRUPT, "%s: %s", path,
                   code == Z_BUF_ERROR ? "the gzip file is cut off" : "not intact as a gzip file; get it again");
}
