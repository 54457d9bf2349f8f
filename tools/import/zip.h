/* Stored (uncompressed) entries of a zip archive in memory, as torch.save writes it: also zip64. Method: APPNOTE.TXT
 * of PKWARE, §4.3. Refuses compression, encryption, several disks, entries that overlap or lie outside the file, and
 * names that occur twice. */
#ifndef BB_TOOLS_IMPORT_ZIP_H
#define BB_TOOLS_IMPORT_ZIP_H

#include "base/status.h"

typedef struct bb_zip_entry {
    const char *name; /* in the file, not terminated */
    size_t name_length;
    const uint8_t *data;
    size_t size;
    uint32_t crc; /* CRC-32 that the archive states */
    size_t begin; /* of the local header, in the file */
} bb_zip_entry;

typedef struct bb_zip {
    const uint8_t *data;
    size_t size;
    const char *file; /* for messages; borrowed */
    bb_zip_entry *entries; /* [n], sorted by name */
    size_t n;
} bb_zip;

/* True if the bytes begin like a zip archive. */
bool bb_zip_looks_like(const uint8_t *data, size_t size);

/* data and name must stay valid. On failure nothing needs closing. */
bb_status bb_zip_open(bb_zip *z, const uint8_t *data, size_t size, const char *name, bb_error *err);
void bb_zip_close(bb_zip *z);

/* The entry "PREFIX/NAME"; NULL if there is none. */
const bb_zip_entry *bb_zip_find(const bb_zip *z, const char *prefix, size_t prefix_length, const char *name);

/* Compares the bytes with the CRC-32. */
bb_status bb_zip_verify(const bb_zip *z, const bb_zip_entry *e, bb_error *err);

#endif
