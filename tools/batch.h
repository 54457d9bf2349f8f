/* Several files that take their places together: each is written beside its place under a temporary name, and when all
 * are there they are renamed in one go. An error or a signal before that leaves everything as it was. Nothing waits for
 * the disk: after a power cut the same batch again finds and replaces what is not whole. One batch at a time in a
 * process. */
#ifndef BB_TOOLS_BATCH_H
#define BB_TOOLS_BATCH_H

#include "base/status.h"

/* Makes a folder unless it is there. Errors name the path and the system's reason. */
bb_status bb_batch_folder(const char *path, bb_error *err);
/* After the commit path will hold these n bytes. *kept: it holds them already, and stays untouched. */
bb_status bb_batch_file(const char *path, const void *data, size_t n, bool *kept, bb_error *err);
/* Renames all, the first file last, so that it stands for the whole, and ends the batch. Fails only where the system
 * refuses a rename: what was not there before is removed again, but files replaced until then stay new. Signals should
 * be held meanwhile. */
bb_status bb_batch_commit(bb_error *err);
/* Ends the batch without a trace. Nothing happens if there is none. */
void bb_batch_drop(void);
/* The same for a signal handler, which must not free. */
void bb_batch_cleanup(void);

#endif
