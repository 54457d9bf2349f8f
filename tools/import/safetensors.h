/* safetensors files of the tools: mapped and checked (base/safetensors.h does that), and a small writer. */
#ifndef BB_TOOLS_IMPORT_SAFETENSORS_H
#define BB_TOOLS_IMPORT_SAFETENSORS_H

#include "base/safetensors.h"
#include "io.h"

typedef struct bb_st_file {
    bb_safetensors st;
    bb_file file; /* empty if parsed from memory */
    void *memory; /* of st */
} bb_st_file;

/* Maps and checks a file; or checks n bytes that must stay valid (name: what messages call them). On failure nothing
 * needs closing. */
bb_status bb_st_file_open(bb_st_file *f, const char *path, bb_error *err);
bb_status bb_st_file_parse(bb_st_file *f, const uint8_t *data, size_t n, const char *name, bb_error *err);
void bb_st_file_close(bb_st_file *f);

/* ---- writing ---- */

typedef struct bb_st_out {
    const char *name;
    uint32_t rank, shape[4];
    const void *data; /* row-major */
    uint32_t dtype;   /* bb_st_dtype; 0: F32 */
} bb_st_out;

/* The file's bytes, malloc'd; the caller frees. */
bb_status bb_safetensors_write(const bb_st_out *list, size_t n, uint8_t **out, size_t *out_size, bb_error *err);

#endif
