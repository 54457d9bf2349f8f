/* Runs files through the fuzz targets: fuzz_replay TARGET FILE... prints "TARGET NAME VERDICT" a line. A fault ends
 * it. The same program is built natively and, with 32-bit sizes, as WebAssembly. */
#include "fuzz.h"

static const struct { const char *name; int32_t (*run)(const uint8_t *, size_t); } targets[] = {
#define FUZZ_ENTRY(name) {#name, fuzz_##name},
    FUZZ_TARGETS(FUZZ_ENTRY)
};

size_t fuzz_mutate(uint8_t *data, size_t n, size_t max)
{
    (void)data, (void)max;
    return n;
}

static uint8_t *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    size_t room = 1 << 20;
    uint8_t *data = f ? malloc(room) : NULL;
    *n = 0;
    if (!data) return NULL;
    for (size_t got; (got = fread(data + *n, 1, room - *n, f)) > 0;) {
        *n += got;
        if (*n == room && !(data = realloc(data, room *= 2))) abort();
    }
    fclose(f);
    return data;
}

int main(int argc, char **argv)
{
    size_t t = 0;
    while (argc > 2 && t < BB_COUNT(targets) && strcmp(targets[t].name, argv[1]) != 0) t++;
    if (argc < 3 || t == BB_COUNT(targets)) {
        fprintf(stderr, "usage: fuzz_replay TARGET FILE...\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        size_t n;
        uint8_t *data = read_file(argv[i], &n);
        if (!data) {
            fprintf(stderr, "fuzz_replay: cannot read %s\n", argv[i]);
            return 1;
        }
        const char *slash = strrchr(argv[i], '/');
        uint8_t *exact = malloc(n ? n : 1);
        if (!exact) abort();
        memcpy(exact, data, n);
        free(data);
        const char *name = slash ? slash + 1 : argv[i];
        printf("%s %s\n", targets[t].name, name);
        fflush(stdout); /* names the input that ends us */
        int32_t verdict = targets[t].run(exact, n);
        printf("\n%s %s %d\n", targets[t].name, name, (int)verdict); /* a line of its own, whatever the target printed */
        fflush(stdout);
        free(exact);
    }
    return 0;
}
