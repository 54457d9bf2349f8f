/* Writes models/tiny.safetensors, the same bytes on every machine: make_tiny FILE. */
#include "io.h"
#include "tiny.h"

int main(int argc, char **argv)
{
    static tiny t;
    bb_error err = {0};
    if (argc != 2) {
        fprintf(stderr, "usage: make_tiny FILE\n");
        return 2;
    }
    tiny_build(&t);
    bb_status status = mm_open(&t.m, &err); /* writes and reads back: a file that is refused is not made */
    size_t n = (size_t)bb_pack_write_size(&t.m.out);
    if (status == BB_OK) status = bb_file_write(argv[1], t.m.blob, n, &err);
    if (status == BB_OK) printf("%s: %zu bytes\n", argv[1], n);
    else fprintf(stderr, "make_tiny: %s\n", err.text);
    tiny_free(&t);
    return status == BB_OK ? 0 : 1;
}
