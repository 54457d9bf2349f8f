/* What quantize did to each layer: --report FILE. */
#ifndef BB_TOOLS_REPORT_H
#define BB_TOOLS_REPORT_H

#include "bitbrush_make.h"

/* A JSON array if path ends in .json, else a Markdown table. Errors name the path. */
bb_status bb_report_write(const char *path, const bb_make *make, bb_error *err);

#endif
