/* One target as a libFuzzer program: -DFUZZ_FUNCTION=fuzz_json, and -DFUZZ_MUTATE=mutate_pack where there is one. */
#include "fuzz.h"

int32_t FUZZ_FUNCTION(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    FUZZ_FUNCTION(data, n);
    return 0;
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max);
size_t fuzz_mutate(uint8_t *data, size_t n, size_t max) { return LLVMFuzzerMutate(data, n, max); }

#ifdef FUZZ_MUTATE
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed)
{
    return FUZZ_MUTATE(data, n, max, seed);
}
#endif
