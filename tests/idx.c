/* The reader of IDX data sets: what it reads, and what it refuses by name. */
#include "check.h"
#include "idx.h"

#include <unistd.h>

static char dir[] = "/tmp/bitbrush-idx-XXXXXX";

static const char *put(const char *name, const void *data, size_t n)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
    return path;
}

/* Three pictures of 2 × 2 with the bytes 1…12, and labels 0 1 2. */
static const uint8_t pictures[] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                                   12};
static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 2};

/* `printf '\0\0\10\1\0\0\0\3\0\1\2' | gzip -n`: the labels. */
static const uint8_t packed[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x63, 0x60, 0xe0, 0x60, 0x64, 0x60,
                                 0x60, 0x60, 0x66, 0x60, 0x64, 2, 0, 0xe9, 0xec, 0x55, 0xf9, 11, 0, 0, 0};

static void check_refused(const char *name, const void *data, size_t n, const char *says)
{
    bb_idx x;
    bb_error err = {0};
    const char *path = put(name, data, n);
    CHECK(bb_idx_read(&x, path, &err) < 0 && !x.data, "%s is read", name);
    CHECK(strstr(err.text, path) && strstr(err.text, says), "%s: %s", name, err.text);
}

static void damage(void)
{
    uint8_t bad[sizeof pictures + 1] = {0};
    memcpy(bad, pictures, sizeof pictures);
    for (size_t n = 0; n < sizeof pictures; n++) check_refused("cut", pictures, n, n < 16 ? "not an IDX" : "shorter");
    check_refused("long", bad, sizeof bad, "longer");
    bad[2] = 13;
    check_refused("float", bad, sizeof pictures, "not an IDX");
    bad[2] = 8, bad[4] = bad[8] = bad[12] = 0xff;
    check_refused("huge", bad, sizeof pictures, "not an IDX");
    bad[4] = bad[8] = bad[12] = 0, bad[7] = 0;
    check_refused("none", bad, sizeof pictures, "not an IDX");
}

static void sets(void)
{
    bb_idx_set s;
    bb_error err = {0};
    uint8_t picture[16];
    CHECK(bb_idx_open(&s, dir, true, &err) < 0 && strstr(err.text, "t10k-images-idx3-ubyte"), "%s", err.text);
    put("t10k-images-idx3-ubyte", pictures, sizeof pictures);
    put("t10k-labels-idx1-ubyte.gz", packed, sizeof packed);
    bb_status status = bb_idx_open(&s, dir, true, &err);
    if (status == BB_ERR_UNSUPPORTED && strstr(err.text, "zlib")) { /* a build without it */
        put("t10k-labels-idx1-ubyte", labels, sizeof labels);
        status = bb_idx_open(&s, dir, true, &err);
    }
    CHECK(status == BB_OK, "%s", err.text);
    CHECK(s.n == 3 && s.height == 2 && s.width == 2 && s.classes == 3, "%u %u %u %u", s.n, s.height, s.width,
          s.classes);
    CHECK(bb_idx_label(&s, 2) == 2, "%u", bb_idx_label(&s, 2));
    static const uint8_t padded[16] = {0, 0, 0, 0, 0, 5, 6, 0, 0, 7, 8, 0, 0, 0, 0, 0};
    CHECK(bb_idx_picture(&s, 1, 4, 4, picture) && memcmp(picture, padded, 16) == 0, "the second picture");
    CHECK(!bb_idx_picture(&s, 1, 4, 1, picture), "a picture that is too wide");
    bb_idx_close(&s);
    put("t10k-labels-idx1-ubyte", (const uint8_t[]){0, 0, 8, 1, 0, 0, 0, 2, 0, 1}, 10);
    CHECK(bb_idx_open(&s, dir, true, &err) < 0 && strstr(err.text, "2 labels"), "%s", err.text);
    uint8_t bad[sizeof packed];
    for (size_t i = 10; i < sizeof packed; i++) { /* every byte behind gzip's own header */
        memcpy(bad, packed, sizeof packed);
        bad[i] ^= 1;
        bb_idx x;
        CHECK(bb_idx_read(&x, put("bad", bad, sizeof bad), &err) < 0, "byte %zu changed", i);
    }
}

int main(void)
{
    if (!mkdtemp(dir)) abort();
    damage();
    sets();
    char remove[64];
    snprintf(remove, sizeof remove, "rm -r %s", dir);
    return check_done() || system(remove);
}
