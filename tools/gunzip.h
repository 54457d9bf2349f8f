/* Unpacking of gzip files: gunzip_zlib.c where the build found zlib, gunzip_none.c elsewhere, which says so. */
#ifndef BB_TOOLS_GUNZIP_H
#define BB_TOOLS_GUNZIP_H

#include "io.h"

/* Whether the bytes begin as gzip's do. */
bool bb_is_gzip(const bb_file *file);
/* The first `size` bytes of what is packed, or all if it is less: *got of them. The checksum is tested when the end is
 * reached, so a caller that knows the length asks for one byte more. Errors name the path. */
bb_status bb_gunzip(const bb_file *file, const char *path, uint8_t *out, size_t size, size_t *got, bb_error *err);

#endif
