/* Data sets of training: IDX files (tests/idx.c has damaged ones), and PNG files listed in a CSV file; what is damaged
 * is refused by name. */
#include "check.h"

#include "bitbrush.h"
#include "io.h"
#include "train/teach/data.h"

#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static char dir[] = "/tmp/bitbrush-data-XXXXXX";
static char at[256];

static const char *in_dir(const char *name)
{
    snprintf(at, sizeof at, "%s/%s", dir, name);
    return at;
}

static void put(const char *name, const void *data, size_t n, bool packed)
{
    if (packed) {
        gzFile f = gzopen(in_dir(name), "wb");
        if (!f || gzwrite(f, data, (unsigned)n) != (int)n || gzclose(f)) abort();
        return;
    }
    FILE *f = fopen(in_dir(name), "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
}

static void forget(void)
{
    static const char *const names[] = {"train-images-idx3-ubyte", "train-images-idx3-ubyte.gz",
        "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte",
        "labels.csv", "other.csv", "a.png", "b.png", "c d,\"e\".png", "big.png", "bad.png"};
    for (size_t i = 0; i < BB_COUNT(names); i++) unlink(in_dir(names[i]));
}

/* ---- IDX ---- */

enum { COUNT = 3, HEIGHT = 2, WIDTH = 4, IMAGES = 16 + COUNT * HEIGHT * WIDTH, LABELS = 8 + COUNT };
static uint8_t images[IMAGES] = {0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, HEIGHT, 0, 0, 0, WIDTH};
static uint8_t labels[LABELS] = {0, 0, 8, 1, 0, 0, 0, COUNT, 5, 0, 9};

static void check_idx(const char *what)
{
    bb_data d;
    bb_error err = {0};
    bb_status status = bb_data_open(&d, dir, false, NULL, &err);
    CHECK(status == BB_OK, "%s: %s", what, err.text);
    if (status < 0) return;
    CHECK(d.count == COUNT && d.height == HEIGHT && d.width == WIDTH && d.channels == 1, "%s: sizes", what);
    CHECK(d.classes == 10 && d.label[0] == 5 && d.label[1] == 0 && d.label[2] == 9 && !d.names, "%s: labels", what);
    CHECK(!memcmp(d.pixels, images + 16, IMAGES - 16), "%s: pixels", what);
    bb_data_free(&d);
}

static void idx_good(void)
{
    for (int i = 0; i < IMAGES - 16; i++) images[16 + i] = (uint8_t)(11 * i);
    put("train-images-idx3-ubyte", images, IMAGES, false);
    put("train-labels-idx1-ubyte", labels, LABELS, false);
    check_idx("plain");
    CHECK(!bb_data_has_test_part(dir), "no test part");
    put("t10k-images-idx3-ubyte", images, IMAGES, false);
    CHECK(bb_data_has_test_part(dir), "a test part");
    forget();
    put("train-images-idx3-ubyte.gz", images, IMAGES, true);
    put("train-labels-idx1-ubyte.gz", labels, LABELS, true);
    check_idx("packed");
}

/* Opening dir fails with a message that contains all of these words. */
static void refused(const char *what, const char *path, const bb_data *like, const char *word, const char *other)
{
    bb_data d;
    bb_error err = {0};
    bb_status status = bb_data_open(&d, path, false, like, &err);
    CHECK(status < 0, "%s was taken", what);
    CHECK(strstr(err.text, word) && strstr(err.text, other), "%s: %s", what, err.text);
    if (status == BB_OK) bb_data_free(&d);
}

/* ---- PNG and CSV ---- */

/* A grey or RGB picture, its values counting up from `first`. */
static void put_png(const char *name, uint32_t w, uint32_t h, uint32_t channels, uint32_t first)
{
    uint8_t raw[1024], packed[2048], file[4096];
    size_t n = 0, row = 1 + (size_t)w * channels;
    for (uint32_t y = 0; y < h; y++)
        for (size_t x = 0; x < row; x++) raw[y * row + x] = x ? (uint8_t)(first++) : 0;
    uLongf packed_bytes = sizeof packed;
    if (compress(packed, &packed_bytes, raw, h * row) != Z_OK) abort();
    const uint8_t head[13] = {0, 0, (uint8_t)(w >> 8), (uint8_t)w, 0, 0, (uint8_t)(h >> 8), (uint8_t)h, 8,
                              channels == 1 ? 0 : channels == 3 ? 2 : 6};
    const struct { const char *type; const uint8_t *data; size_t n; } chunk[] = {
        {"IHDR", head, 13}, {"IDAT", packed, packed_bytes}, {"IEND", NULL, 0}};
    memcpy(file, "\x89PNG\r\n\x1a\n", 8);
    n = 8;
    for (int i = 0; i < 3; i++) {
        const uint8_t length[4] = {0, 0, (uint8_t)(chunk[i].n >> 8), (uint8_t)chunk[i].n};
        memcpy(file + n, length, 4);
        memcpy(file + n + 4, chunk[i].type, 4);
        if (chunk[i].n) memcpy(file + n + 8, chunk[i].data, chunk[i].n);
        uLong crc = crc32(crc32(0, NULL, 0), file + n + 4, (uInt)(4 + chunk[i].n));
        for (int k = 0; k < 4; k++) file[n + 8 + chunk[i].n + (size_t)k] = (uint8_t)(crc >> (24 - 8 * k));
        n += 12 + chunk[i].n;
    }
    put(name, file, n, false);
}

static void put_text(const char *name, const char *text) { put(name, text, strlen(text), false); }

static bb_data open_good(const char *path, const bb_data *like, const char *what)
{
    bb_data d;
    bb_error err = {0};
    CHECK(bb_data_open(&d, path, false, like, &err) == BB_OK, "%s: %s", what, err.text);
    return d;
}

static void csv_good(void)
{
    put_png("a.png", 3, 2, 1, 10);
    put_png("b.png", 3, 2, 1, 100);
    put_png("c d,\"e\".png", 3, 2, 1, 200);
    put_text("labels.csv", "file,label\r\na.png,shoe\r\n\r\n\"c d,\"\"e\"\".png\",hat\r\nb.png,\"shoe\"");
    bb_data d = open_good(dir, NULL, "names");
    CHECK(d.count == 3 && d.width == 3 && d.height == 2 && d.channels == 1 && d.classes == 2, "sizes");
    CHECK(d.names && !strcmp(d.names[0], "hat") && !strcmp(d.names[1], "shoe"), "names are sorted");
    CHECK(d.label[0] == 1 && d.label[1] == 0 && d.label[2] == 1, "labels");
    CHECK(d.pixels && d.pixels[0] == 10 && d.pixels[6] == 200 && d.pixels[17] == 105, "pixels in the table's order");
    put_text("other.csv", "a.png,hat\n");
    bb_data e = open_good(in_dir("other.csv"), &d, "a second table");
    CHECK(e.count == 1 && e.label[0] == 0 && !e.names, "the training set's numbers of names");
    bb_data_free(&e);
    put_text("other.csv", "a.png,glove\n");
    refused("an unknown name", in_dir("other.csv"), &d, "line 1", "glove");
    put_png("big.png", 5, 5, 1, 0);
    put_text("other.csv", "big.png,hat\n");
    refused("a set of another size", in_dir("other.csv"), &d, "5x5", "3x2");
    bb_data_free(&d);
    put_png("a.png", 3, 2, 3, 0);
    put_text("labels.csv", "a.png,3\na.png,0\n");
    d = open_good(dir, NULL, "numbers");
    CHECK(d.channels == 3 && d.classes == 4 && d.label[0] == 3 && !d.names && d.pixels[17] == 17,
          "RGB, labels as numbers");
    bb_data_free(&d);
}

static void csv_bad(void)
{
    static const struct { const char *what, *text, *word, *other; } tables[] = {
        {"an empty table", "", "no pictures", "labels.csv"},
        {"only a heading", "file,label\n", "no pictures", "labels.csv"},
        {"one field", "a.png\n", "line 1", "file,label"},
        {"three fields", "a.png,1\na.png,1,2\n", "line 2", "file,label"},
        {"no label", "a.png,\n", "line 1", "file,label"},
        {"an open quote", "\"a.png,1\n", "line 1", "file,label"},
        {"no such picture", "a.png,1\nnone.png,1\n", "line 2", "none.png"},
        {"not a picture", "bad.png,1\n", "line 1", "not a PNG"},
        {"another size", "a.png,1\nbig.png,1\n", "line 2", "5x5"},
        {"alpha", "alpha.png,1\n", "alpha", "flatten"},
    };
    put_png("a.png", 3, 2, 1, 10);
    put_png("big.png", 5, 5, 1, 0);
    put_png("alpha.png", 2, 2, 4, 0);
    put_text("bad.png", "a text");
    for (size_t i = 0; i < BB_COUNT(tables); i++) {
        put_text("labels.csv", tables[i].text);
        refused(tables[i].what, dir, NULL, tables[i].word, tables[i].other);
    }
    unlink(in_dir("alpha.png"));
    put("labels.csv", "a.png,1\0\n", 9, false);
    refused("a table with a zero byte", dir, NULL, "text", "labels.csv");
    put_text("labels.csv", "a.png,1\n");
    bb_file f;
    if (bb_file_open(&f, in_dir("a.png"), NULL) < 0) abort();
    uint8_t copy[256], n = (uint8_t)f.size;
    memcpy(copy, f.data, n);
    bb_file_close(&f);
    for (uint8_t cut = 0; cut < n - 16; cut++) { /* what follows the pixels is not needed */
        put("a.png", copy, cut, false);
        refused("a cut picture", dir, NULL, "line 1", "a.png");
    }
    copy[16] = 0x30, copy[17] = 0, copy[20] = 0x30; /* a width and height of 0x30000000 */
    put("a.png", copy, n, false);
    refused("a picture of endless size", dir, NULL, "line 1", "a.png");
    copy[16] = copy[20] = 0, copy[18] = copy[22] = 0x30; /* 12,291 pixels square in 80 bytes */
    put("a.png", copy, n, false);
    refused("a picture larger than its file can hold", dir, NULL, "too short", "a.png");
}

/* ---- items ---- */

static void items(void)
{
    uint8_t pixels[2 * 2 * 3 * 3];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(7 * i);
    uint16_t label[2] = {0, 1};
    bb_data d = {.count = 2, .width = 3, .height = 2, .channels = 3, .classes = 2, .pixels = pixels, .label = label};
    float out[5 * 6 * 3];
    bb_data_item(&d, 1, false, -0.25f, 5, 6, out);
    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 6; x++)
            for (int c = 0; c < 3; c++) {
                bool inside = y >= 1 && y < 3 && x >= 1 && x < 4;
                float want = inside ? (float)(uint8_t)(7 * (18 + ((y - 1) * 3 + x - 1) * 3 + c)) / 127.5f - 1 : -0.25f;
                CHECK(out[(y * 6 + x) * 3 + c] == want, "item at %d, %d, %d", y, x, c);
            }
    float mirrored[2 * 3 * 3], plain[2 * 3 * 3];
    bb_data_item(&d, 0, false, 0, 2, 3, plain);
    bb_data_item(&d, 0, true, 0, 2, 3, mirrored);
    for (int x = 0; x < 3; x++) CHECK(mirrored[9 + x * 3 + 1] == plain[9 + (2 - x) * 3 + 1], "mirrored, column %d", x);
    char sum[65], other[65];
    bb_data_sha256(&d, sum);
    label[1] = 0;
    bb_data_sha256(&d, other);
    CHECK(strcmp(sum, other) != 0, "labels are part of the sum");
}

int main(void)
{
    if (!mkdtemp(dir)) abort();
    idx_good();
    csv_good();
    csv_bad();
    items();
    forget();
    rmdir(dir);
    return check_done();
}
