/* SHA-256 (FIPS 180-4) of bytes in memory, to name the files a model was made from. */
#ifndef BB_BASE_SHA256_H
#define BB_BASE_SHA256_H

#include "base/compiler.h"

/* 64 hexadecimal digits and a NUL. */
void bb_sha256(const uint8_t *data, size_t n, char out[65]);

#endif
