/* The last step of importing and quantizing: the file's bytes, proven readable. */
#ifndef BB_TOOLS_MAKE_H
#define BB_TOOLS_MAKE_H

#include "bitbrush_make.h"
#include "pack/pack.h"

/* malloc and free. */
extern const bb_make_memory bb_tools_memory;

/* Writes p into memory from aligned_alloc (the caller frees) and reads it back with all of the reader's checks, so no
 * file leaves the tools that they would not open. */
bb_status bb_make_file(const bb_pack_out *p, uint8_t **out, size_t *out_size, bb_error *err);

#endif
