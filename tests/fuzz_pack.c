/* Damaged model files: whatever the bytes, reading and running may fail but must not touch memory that is not theirs,
 * divide by zero or overflow. The sanitizers are the judge (tools/test sanitize); here a trap counts. Damage is done to
 * small models: words of the graph and the records set to values that break things, and characters of the header.
 *   test_fuzz_pack [SEED [CASES]] */
#include "import/import.h"
#include "layercase.h"


enum { PER_MODEL = 40, MAX_WORKSPACE = 64 << 20 };

typedef struct tally { int refused, opened, sized, ran; } tally;

static uint32_t evil_word(uint32_t old)
{
    static const uint32_t words[] = {0, 1, 2, 3, 5, 15, 16, 63, 64, 255, 256, 65535, 65536, 65537, 0x7fffffff,
                                     0x80000000, 0xfffffffe, 0xffffffff, 0x7f800000, 0x7fc00000, 0x3f800000};
    switch (between(0, 4)) {
    case 0: return old + 1;
    case 1: return old - 1;
    case 2: return old ^ 1u << between(0, 31);
    case 3: return (uint32_t)between(0, 24);
    default: return words[between(0, (int)BB_COUNT(words) - 1)];
    }
}

/* Most damage goes to the graph, strings and records at the front of the data; planes hold nothing to break. */
static void damage(uint8_t *blob, size_t n)
{
    uint64_t header;
    memcpy(&header, blob, 8);
    for (int times = between(1, 3); times > 0; times--) {
        size_t data = 8 + (size_t)header, span = coin() ? (n - data) / 4 : n - data;
        if (between(0, 9) == 0) {
            uint8_t *at = blob + 8 + rnd() % header; /* digits stay digits half of the time, to get past the parser */
            *at = *at >= '0' && *at <= '9' && coin() ? (uint8_t)('0' + between(0, 9)) : (uint8_t)rnd();
        } else {
            uint8_t *at = blob + data + rnd() % (span / 4) * 4;
            uint32_t word;
            memcpy(&word, at, 4);
            word = evil_word(word);
            memcpy(at, &word, 4);
        }
    }
}

/* One pass or one drawing, whatever it says. */
static void use(memmodel *m, uint32_t steps, tally *count)
{
    bb_error err;
    bb_request req = {.size_of = sizeof req, .batch = (uint32_t)between(1, 3), .steps = steps, .guidance = 1};
    size_t bytes = 0;
    bb_session *s;
    bb_stats stats;
    const uint64_t seeds[3] = {1, 2, 3};
    if (coin()) req.width = (uint32_t)between(1, 20), req.height = (uint32_t)between(1, 20);
    if (bb_session_size(m->model, &req, &bytes, &err) < 0 || bytes > MAX_WORKSPACE) return;
    count->sized++;
    void *ws = malloc(bytes);
    memset(ws, 0xff, bytes); /* NaNs */
    if (bb_session_init(m->model, &req, ws, bytes, &s, &err) == BB_OK) {
        bb_stats_get(s, &stats);
        bb_status status = bb_begin(s, seeds, NULL);
        while (status >= 0 && status != BB_DONE && stats.macs_per_step < 20000000) status = bb_step(s, 0);
        if (status == BB_DONE && steps) {
            bb_image image = {.width = req.width ? req.width : m->model->pack.info.width,
                              .height = req.height ? req.height : m->model->pack.info.height};
            image.rgba = malloc((size_t)4 * image.width * image.height);
            if (image.rgba) bb_decode(s, req.batch - 1, &image);
            free(image.rgba);
        }
        count->ran += status == BB_DONE;
    }
    free(ws);
}

static void run_damaged(memmodel *m, const uint8_t *whole, size_t n, tally *count)
{
    bb_error err = {0};
    memcpy(m->blob, whole, n);
    damage(m->blob, n);
    m->mem = NULL;
    bb_status status = mm_read(m, n, &err);
    if (status < 0) {
        count->refused++;
        CHECK(err.code == status && err.text[0] && strlen(err.text) < sizeof err.text,
              "refused without a word (%d)", (int)status);
    } else {
        count->opened++;
        bb_model_select(m->model, coin() ? 0 : bb_cpu_features());
        use(m, 0, count);
        use(m, 2, count);
    }
    free(m->mem);
    m->mem = NULL;
}

/* Networks with every kind of op, as the importer writes them. */
static void run_imported(memmodel *m, const char *folder, int times, tally *count)
{
    char path[1024];
    bb_error err = {0};
    uint8_t *whole = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/golden/%s", BB_TESTS_DIR, folder);
    bb_import_options opt = {.path = path, .dtype = BB_F16};
    bb_status status = bb_import(&opt, &whole, &n, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status != BB_OK) return;
    *m = (memmodel){.blob = aligned_alloc(64, bb_align_up(n, 64))};
    for (int k = 0; k < times; k++) run_damaged(m, whole, n, count);
    mm_close(m);
    free(whole);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
    int cases = argc > 2 ? atoi(argv[2]) : argc > 1 ? 1 : 30;
    test_case *t = malloc(sizeof *t);
    tally count = {0};
    printf("fuzz_pack: %d models, %d damages each, from seed %llu\n", cases, PER_MODEL, (unsigned long long)seed);
    fflush(stdout); /* or a trap would eat the seed */
    for (int i = 0; i < cases; i++) {
        random_case(t, seed + (uint64_t)i);
        size_t n = mm_write(&t->model);
        uint8_t *whole = malloc(n);
        memcpy(whole, t->model.blob, n);
        for (int k = 0; k < PER_MODEL; k++) run_damaged(&t->model, whole, n, &count);
        free(whole);
        close_case(t);
    }
    run_imported(&t->model, "unet2d-noattn", cases * PER_MODEL / 4, &count);
    run_imported(&t->model, "unet2d-variants", cases * PER_MODEL / 4, &count);
    printf("%d refused, %d opened, %d sessions, %d ran to the end\n", count.refused,
           count.opened, count.sized, count.ran);
    CHECK(count.refused > cases && count.ran > cases, "the damage is too weak or too strong to test anything");
    free(t);
    return check_done();
}
