/* Drawing allocates nothing: from bb_begin to bb_png every call of an allocator is trapped and counted. The linker's
 * --wrap leads all calls in this program and in core here (CMakeLists.txt); the trap itself is tested first. */
#include "base/par.h"
#include "bitbrush.h"
#include "check.h"
#include "io.h"

#include <stdatomic.h>
#include <sys/mman.h>

static atomic_int armed, calls;
static const char *volatile last_call = "";

/* The linker's names, so no prototypes of ours. */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__real_aligned_alloc(size_t to, size_t n);
int __real_posix_memalign(void **p, size_t to, size_t n);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);
void *__wrap_aligned_alloc(size_t to, size_t n);
int __wrap_posix_memalign(void **p, size_t to, size_t n);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);

static void count(const char *name)
{
    if (!atomic_load(&armed)) return;
    atomic_fetch_add(&calls, 1);
    last_call = name;
}

void *__wrap_malloc(size_t n) { count("malloc"); return __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t each) { count("calloc"); return __real_calloc(n, each); }
void *__wrap_realloc(void *p, size_t n) { count("realloc"); return __real_realloc(p, n); }
void __wrap_free(void *p) { count("free"); __real_free(p); }
void *__wrap_aligned_alloc(size_t to, size_t n) { count("aligned_alloc"); return __real_aligned_alloc(to, n); }
int __wrap_posix_memalign(void **p, size_t to, size_t n)
{
    count("posix_memalign");
    return __real_posix_memalign(p, to, n);
}
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    count("mmap");
    return __real_mmap(at, n, prot, flags, fd, offset);
}

static void arm(void)
{
    atomic_store(&calls, 0);
    atomic_store(&armed, 1);
}

static int disarm(void)
{
    atomic_store(&armed, 0);
    return atomic_load(&calls);
}

/* Volatile, or the compiler would drop an allocation that nobody uses. */
static void test_trap(void)
{
    void *volatile p;
    arm();
    p = malloc(1);
    CHECK(disarm() == 1, "the trap does not see malloc");
    arm();
    p = realloc(p, 2);
    free(p);
    CHECK(disarm() == 2, "the trap does not see realloc and free");
    p = malloc(1);
    free(p);
    CHECK(disarm() == 2, "the trap counts while it is not armed");
    arm();
    bb_par *par = bb_par_start(2); /* allocates inside core */
    CHECK(disarm() >= 1, "the trap does not see calls from core");
    bb_par_stop(par);
}

typedef struct drawing {
    bb_session *session;
    bb_info info;
    uint8_t *rgba;
    void *png_scratch;
    size_t png_bytes;
} drawing;

/* Everything between bb_begin and the PNG. Returns allocator calls; *ok: it drew. */
static int draw(drawing *d, bb_request *req, bool *ok)
{
    const uint64_t seeds[2] = {1, 2};
    const char *const text[] = {"Software", "bitbrush", NULL};
    bb_image image = {.width = d->info.width, .height = d->info.height, .rgba = d->rgba};
    const uint8_t *png = NULL;
    size_t png_size = 0;
    bb_status status = BB_OK;
    arm();
    for (uint32_t i = 0; d->info.classes && i < req->batch; i++)
        bb_condition(d->session, i, &(bb_cond){(int32_t)(i % d->info.classes)});
    *ok = bb_begin(d->session, seeds, NULL) == BB_OK;
    while (*ok && (status = bb_step(d->session, 7)) >= 0 && status != BB_DONE)
        *ok = bb_preview(d->session, 0, &image) == BB_OK;
    *ok = *ok && status == BB_DONE && bb_decode(d->session, 1, &image) == BB_OK &&
          bb_png(&image, text, d->png_scratch, d->png_bytes, &png, &png_size) == BB_OK && png_size > 8;
    return disarm();
}

static void test_model(const char *name, bb_sampler sampler, bb_par *par)
{
    char path[1024];
    bb_file file;
    bb_error err = {0};
    bb_model *model = NULL;
    drawing d = {0};
    size_t bytes = 0;
    bool ok;
    snprintf(path, sizeof path, "%s/%s", BB_MODELS_DIR, name);
    bb_status status = bb_file_open(&file, path, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status != BB_OK) return;
    void *scratch = malloc(BB_PROBE_SCRATCH(file.size)), *mem = NULL, *ws = NULL;
    status = bb_probe(file.data, file.size, scratch, BB_PROBE_SCRATCH(file.size), &d.info, &err);
    if (status == BB_OK) mem = malloc((size_t)d.info.model_bytes);
    if (status == BB_OK) status = bb_model_init(file.data, file.size, mem, (size_t)d.info.model_bytes, &model, &err);
    bb_request req = {.size_of = sizeof req, .batch = 2, .steps = 2, .sampler = sampler, .eta = 1, .par = par,
                      .guidance = d.info.null_label >= 0 ? 2 : 1};
    if (status == BB_OK) status = bb_session_size(model, &req, &bytes, &err);
    if (status == BB_OK) ws = malloc(bytes);
    if (status == BB_OK) status = bb_session_init(model, &req, ws, bytes, &d.session, &err);
    CHECK(status == BB_OK, "%s: %s", name, err.text);
    if (status == BB_OK) {
        bb_image image = {.width = d.info.width, .height = d.info.height};
        d.rgba = malloc((size_t)4 * image.width * image.height);
        d.png_bytes = bb_png_scratch(&image);
        d.png_scratch = malloc(d.png_bytes);
        int n = draw(&d, &req, &ok);
        CHECK(ok, "%s: the drawing failed", name);
        CHECK(n == 0, "%s: %d calls of an allocator while drawing, the last of %s", name, n, last_call);
        free(d.rgba);
        free(d.png_scratch);
    }
    free(ws);
    free(mem);
    free(scratch);
    bb_file_close(&file);
}

int main(void)
{
    test_trap();
    bb_par *par = bb_par_start(2);
    test_model("tiny.safetensors", BB_SAMPLER_DDIM, NULL);
    test_model("tiny.safetensors", BB_SAMPLER_DDPM, par);
    test_model("tiny.safetensors", BB_SAMPLER_UNIPC, par);
    test_model("fashion-w4a8.safetensors", BB_SAMPLER_DDIM, par);
    bb_par_stop(par);
    return check_done();
}
