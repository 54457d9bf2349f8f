/* The whole command line, in children of this process, with one thing going wrong in each: the n-th allocation fails;
 * the n-th call of the operating system fails; a signal comes just before or after it, or at a random moment.
 * Whatever it was, a command ends by itself with code 1 and a message and leaves no file, or it succeeds and its file is
 * byte for byte the one of an undisturbed run; an older file is replaced by a whole one or not at all. A long
 * `quantize` may leave its calibration behind, and then the same command goes on from there to the same file. Run under
 * AddressSanitizer, leaks count as failures, too.
 * Calls are caught by the linker (--wrap), so the tools are the ones that are shipped. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, scandir */
#include "faulttree.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

int bitbrush_main(int argc, char **argv);

/* ---- the traps ---- */

enum kind { ALLOCATION, SYSTEM, KINDS };
enum plan { COUNT, FAIL, RAISE_BEFORE, RAISE_AFTER };

/* In memory that a child shares, so that its counts survive it. */
typedef struct trap {
    enum plan plan;
    enum kind kind;
    uint32_t at; /* number of the call, from 1 */
    int signal;
    uint32_t calls[KINDS];
    char call[32]; /* name of the one that was hit */
} trap;
static trap *armed; /* NULL: not in a child */

static bool hit(enum kind kind, const char *name)
{
    if (!armed) return false;
    uint32_t number = __atomic_add_fetch(&armed->calls[kind], 1, __ATOMIC_RELAXED);
    if (armed->plan == COUNT || armed->kind != kind || number != armed->at) return false;
    snprintf(armed->call, sizeof armed->call, "%s", name);
    return true;
}

/* True: the call shall fail. */
static bool before(const char *name, bool *is_hit)
{
    *is_hit = hit(SYSTEM, name);
    if (*is_hit && armed->plan == RAISE_BEFORE) raise(armed->signal);
    return *is_hit && armed->plan == FAIL;
}

static void after(bool is_hit)
{
    int kept = errno;
    if (is_hit && armed->plan == RAISE_AFTER) raise(armed->signal);
    errno = kept;
}

#define WRAP_ALLOCATION(name, params, args)                                     \
    void *__real_##name params;                                                 \
    void *__wrap_##name params;                                                 \
    void *__wrap_##name params                                                  \
    {                                                                           \
        if (!hit(ALLOCATION, #name)) return __real_##name args;                 \
        errno = ENOMEM;                                                         \
        return NULL;                                                            \
    }
WRAP_ALLOCATION(malloc, (size_t n), (n))
WRAP_ALLOCATION(calloc, (size_t n, size_t each), (n, each))
WRAP_ALLOCATION(realloc, (void *p, size_t n), (p, n))
WRAP_ALLOCATION(aligned_alloc, (size_t to, size_t n), (to, n))
WRAP_ALLOCATION(strdup, (const char *s), (s))

#define WRAP_SYSTEM(type, name, params, args, reason, failure)                  \
    type __real_##name params;                                                  \
    type __wrap_##name params;                                                  \
    type __wrap_##name params                                                   \
    {                                                                           \
        bool is_hit, fail = before(#name, &is_hit);                             \
        type result = fail ? failure : __real_##name args;                      \
        if (fail) errno = reason;                                               \
        after(is_hit);                                                          \
        return result;                                                          \
    }
WRAP_SYSTEM(int, fstat, (int fd, struct stat *st), (fd, st), EIO, -1)
WRAP_SYSTEM(int, stat, (const char *path, struct stat *st), (path, st), EACCES, -1)
WRAP_SYSTEM(void *, mmap, (void *p, size_t n, int prot, int flags, int fd, off_t at), (p, n, prot, flags, fd, at),
            ENOMEM, MAP_FAILED)
WRAP_SYSTEM(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n), ENOSPC, -1)
WRAP_SYSTEM(int, fsync, (int fd), (fd), EIO, -1)
WRAP_SYSTEM(int, rename, (const char *from, const char *to), (from, to), EACCES, -1)
WRAP_SYSTEM(int, mkdir, (const char *path, mode_t mode), (path, mode), ENOSPC, -1)
WRAP_SYSTEM(DIR *, opendir, (const char *path), (path), EMFILE, NULL)
WRAP_SYSTEM(FILE *, fopen, (const char *path, const char *mode), (path, mode), EMFILE, NULL)
WRAP_SYSTEM(int, pthread_create, (pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg),
            (t, a, f, arg), EAGAIN, EAGAIN)

/* No test depends on the clock: it stands, or for commands that KEEP each look at it is a long time after the last. */
static bool slow_clock;
double __wrap_bb_now(void);
double __wrap_bb_now(void)
{
    static double now;
    return now += slow_clock ? 1000 : 0;
}

/* A close that fails has closed all the same. */
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    bool is_hit, fail = before("close", &is_hit);
    int result = __real_close(fd);
    if (fail) {
        errno = EIO;
        result = -1;
    }
    after(is_hit);
    return result;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    int mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    bool is_hit, fail = before("open", &is_hit);
    int result = fail ? -1 : __real_open(path, flags, mode);
    if (fail) errno = EMFILE;
    after(is_hit);
    return result;
}

/* ---- one run ---- */

static char dir[40]; /* in memory where the system has that: files are synced by the thousand */
static char in_checkpoint[64], in_float[64], in_model[64], in_tensors[64], in_page[64], in_data[64], out_dir[64];
static char out_file[64], log_file[64], kept_file[96], trained_file[128];

typedef enum output {
    PRINTS, /* standard output goes to out_file */
    TIMES,  /* the same, but no two runs print the same */
    WRITES, /* out_file */
    SITES,  /* out_file is a folder, an older one a site */
    KEEPS,  /* what it has so far, too, in kept_file: it believes that it takes long */
    TRAINS, /* out_file is a folder, and what it holds at any time is where the same command goes on */
} output;

typedef struct command {
    const char *name;
    const char *words[18];
    output output;
} command;

static bool same(bytes a, bytes b) { return a.data && b.data && a.n == b.n && !memcmp(a.data, b.data, a.n); }

/* What must be the same, however often the command was broken off. */
static bytes result(const command *c) { return c->output == TRAINS ? read_whole(trained_file) : read_tree(out_file); }

/* Whether no temporary file is left anywhere in out_dir. */
static bool is_tidy(void)
{
    bytes all = read_tree(out_dir);
    bool found = false;
    for (size_t i = 0; i + 5 < all.n && !found; i++) found = !memcmp(all.data + i, ".tmp.", 5);
    free(all.data);
    return !found;
}

/* Names in out_dir. */
static uint32_t files_in_out_dir(void)
{
    uint32_t n = 0;
    DIR *d = opendir(out_dir);
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void empty_out_dir(void)
{
    remove_tree(out_dir);
    if (mkdir(out_dir, 0777)) abort();
}

static void child(const command *c, trap *t)
{
    int argc = 0;
    char *argv[22];
    argv[argc++] = (char *)(uintptr_t) "bitbrush";
    for (size_t i = 0; i < BB_COUNT(c->words) && c->words[i]; i++) argv[argc++] = (char *)(uintptr_t)c->words[i];
    argv[argc] = NULL;
    if (!freopen(log_file, "w", stderr) || !freopen(c->output > TIMES ? "/dev/null" : out_file, "w", stdout)) abort();
    memset(t->calls, 0, sizeof t->calls);
    t->call[0] = 0;
    armed = t;
    slow_clock = c->output == KEEPS;
    int code = bitbrush_main(argc, argv);
    armed = NULL;
    exit(code); /* the leak check runs here */
}

/* The status of waitpid. delay_us ≥ 0: t->signal is sent after so many microseconds. */
static int run(const command *c, trap *t, long delay_us)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) child(c, t);
    int status = 0;
    if (delay_us >= 0) {
        nanosleep(&(struct timespec){delay_us / 1000000, delay_us % 1000000 * 1000}, NULL);
        kill(pid, t->signal);
    }
    while (waitpid(pid, &status, 0) < 0) {}
    return status;
}

/* ---- what must hold ---- */

static void describe(char *out, size_t size, const command *c, const trap *t, int status)
{
    static const char *const plans[] = {"nothing", "failing", "a signal before", "a signal after"};
    bytes log = read_whole(log_file);
    snprintf(out, size, "%s, %s call %u (%s): %s %d: %.600s", c->name, plans[t->plan], t->at, t->call,
             WIFEXITED(status) ? "code" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
             log.data ? (char *)log.data : "");
    free(log.data);
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

/* The same command, undisturbed, after a break: the same file, and nothing else if the break could tidy up. */
static void check_goes_on(const command *c, bytes expected, bool tidy, const char *what)
{
    trap t = {.plan = COUNT};
    bool kept = exists(kept_file);
    int status = run(c, &t, -1);
    bytes whole = result(c), log = read_whole(log_file);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0 && same(whole, expected), "%s, then again", what);
    CHECK(!kept || (log.data && strstr((char *)log.data, "going on from") &&
                    !strstr((char *)log.data, "calibrating (steps): 1/")), "%s, then from the start", what);
    CHECK(!exists(kept_file) && (!tidy || (files_in_out_dir() == 1 && is_tidy())), "%s, then again, left a file behind",
          what);
    free(whole.data);
    free(log.data);
}

/* Exit code 1 with one line and nothing left behind, or success with the right file. */
static void check_failure(const command *c, const trap *t, int status, bytes expected)
{
    char what[900];
    bytes made = result(c), log = read_whole(log_file);
    describe(what, sizeof what, c, t, status);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        CHECK(c->output == TIMES ? made.n > 0 : same(made, expected), "%s: succeeded with another file", what);
        CHECK(files_in_out_dir() == 1, "%s: another file beside it", what);
    } else {
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%s", what);
        bool one = log.data && !strncmp((char *)log.data, "bitbrush: ", 10) &&
                   strchr((char *)log.data, '\n') == (char *)log.data + log.n - 1;
        CHECK(one || (c->output == KEEPS && log.data && strstr((char *)log.data, "bitbrush: ")),
              "%s: no message, or several", what);
        bool kept = c->output == KEEPS && exists(kept_file), trains = c->output == TRAINS;
        CHECK(trains || files_in_out_dir() == (c->output <= TIMES) + (uint32_t)kept, "%s: left a file behind", what);
        if (kept || trains) check_goes_on(c, expected, true, what);
    }
    empty_out_dir();
    free(made.data);
    free(log.data);
}

static bytes baseline(const command *c, trap *t)
{
    char what[900];
    *t = (trap){.plan = COUNT};
    int status = run(c, t, -1);
    describe(what, sizeof what, c, t, status);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s", what);
    bytes made = result(c);
    CHECK(made.n > 0, "%s made nothing", c->name);
    empty_out_dir();
    return made;
}

static void fail_each(const command *c, enum kind kind, uint32_t calls, uint32_t stride, bytes expected, trap *t)
{
    for (uint32_t at = 1; at <= calls; at += stride) {
        *t = (trap){.plan = FAIL, .kind = kind, .at = at};
        check_failure(c, t, run(c, t, -1), expected);
        CHECK(t->call[0], "%s: call %u of %u did not come", c->name, at, calls);
    }
}

/* After a signal: the older file or the new one, whole, and nothing beside it unless the signal was SIGKILL. */
static void check_signal(const command *c, const trap *t, int status, bytes older, bytes expected)
{
    char what[900];
    bytes now = result(c);
    describe(what, sizeof what, c, t, status);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && t->signal == SIGKILL;
    bool ended = WIFEXITED(status) && (WEXITSTATUS(status) == 128 + t->signal || WEXITSTATUS(status) == 0);
    CHECK(killed || ended, "%s", what);
    bool trains = c->output == TRAINS;
    bool torn = trains || (killed && c->output == SITES); /* in the middle of its work, or of its renames */
    CHECK(torn || same(now, expected) || (older.data ? same(now, older) : !now.data), "%s: half a file", what);
    uint32_t left = files_in_out_dir() - (now.data ? 1 : 0);
    CHECK(killed || trains || left == (c->output == KEEPS ? exists(kept_file) : 0u), "%s: left a file behind", what);
    CHECK(!same(now, expected) || killed || !left, "%s: done, but left a file behind", what);
    if (left || torn) check_goes_on(c, expected, !killed, what); /* what it left does not disturb the next run */
    empty_out_dir();
    free(now.data);
}

static void put_older(const command *c)
{
    static const char file[] = "an older file", list[] = "{\"models\":[{\"file\":\"models/old\"}]}";
    char models[128];
    if (c->output != SITES) {
        checkpoint_put(out_dir, "out", file, sizeof file);
        return;
    }
    snprintf(models, sizeof models, "%s/models", out_file);
    if (mkdir(out_file, 0777) || mkdir(models, 0777)) abort();
    checkpoint_put(models, "old", file, sizeof file);
    checkpoint_put(out_file, "index.html", file, sizeof file);
    checkpoint_put(out_file, "site.json", list, sizeof list - 1);
}

static void signal_each(const command *c, uint32_t calls, uint32_t stride, bytes expected, trap *t)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGKILL};
    bytes none = {NULL, 0};
    for (uint32_t at = 1; at <= calls; at += stride)
        for (int later = 0; later < 2; later++) {
            bool has_older = at / 2 % 2 && c->output != TRAINS; /* not in step with the signals */
            *t = (trap){.plan = later ? RAISE_AFTER : RAISE_BEFORE, .kind = SYSTEM, .at = at,
                        .signal = signals[(2 * at / stride + (uint32_t)later) % BB_COUNT(signals)]};
            if (has_older) put_older(c);
            bytes older = has_older ? read_tree(out_file) : none;
            int status = run(c, t, -1);
            check_signal(c, t, status, older, expected);
            free(older.data);
        }
}

/* A command of a few milliseconds, asked to stop anywhere in them. */
static void signal_at_random(const command *c, uint32_t times, bytes expected, trap *t)
{
    bytes none = {NULL, 0};
    uint32_t stopped = 0;
    for (uint32_t i = 0; i < times; i++) {
        *t = (trap){.plan = COUNT, .signal = i % 2 ? SIGINT : SIGTERM};
        double u = bb_uniform(5, BB_STREAM_TOOLS, i);
        int status = run(c, t, (long)(u * u * 40000));
        bool early = WIFSIGNALED(status); /* before main could catch signals */
        if (!early) check_signal(c, t, status, none, expected);
        CHECK(!early || files_in_out_dir() == 0, "%s: left a file behind", c->name);
        stopped += early || WEXITSTATUS(status) != 0;
        empty_out_dir();
    }
    printf("%s: %u of %u stopped at random moments\n", c->name, stopped, times);
}

/* A kept calibration that is not whole, or not of this command: said in a line, and done without. */
static void damage_kept(const command *c, uint32_t calls, bytes expected, trap *t)
{
    bytes kept = {NULL, 0};
    for (uint32_t at = calls; at && !kept.data; at--) {
        *t = (trap){.plan = RAISE_BEFORE, .kind = SYSTEM, .at = at, .signal = SIGTERM};
        run(c, t, -1);
        kept = read_whole(kept_file);
        empty_out_dir();
    }
    CHECK(kept.n > 1000, "%s keeps nothing", c->name);
    const size_t places[] = {0, 10, 30, 85, 100, 150, 151, 180, kept.n / 2, kept.n - 1};
    for (size_t i = 0; i < 2 * BB_COUNT(places); i++) {
        size_t at = places[i / 2], n = i % 2 ? at : kept.n; /* a bit turned, or cut off there */
        kept.data[at] ^= 4;
        checkpoint_put(out_dir, "out.calibration", kept.data, n);
        kept.data[at] ^= 4;
        *t = (trap){.plan = COUNT};
        int status = run(c, t, -1);
        bytes made = read_whole(out_file), log = read_whole(log_file);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0 && same(made, expected), "%s: damage at %zu", c->name, at);
        CHECK(log.data && strstr((char *)log.data, "from the start"), "%s: damage at %zu: %s", c->name, at, log.data);
        CHECK(exists(kept_file) == (n < 21 || at < 21), "%s: damage at %zu: what is not ours stays", c->name, at);
        empty_out_dir();
        free(made.data);
        free(log.data);
    }
    free(kept.data);
}

/* ---- commands ---- */

static void make_inputs(trap *t)
{
    snprintf(in_checkpoint, sizeof in_checkpoint, "%s/checkpoint", dir);
    snprintf(in_float, sizeof in_float, "%s/float", dir);
    snprintf(in_model, sizeof in_model, "%s/model", dir);
    snprintf(in_tensors, sizeof in_tensors, "%s/tensors", dir);
    snprintf(in_page, sizeof in_page, "%s/page", dir);
    snprintf(out_dir, sizeof out_dir, "%s/out", dir);
    snprintf(out_file, sizeof out_file, "%s/out/out", dir);
    snprintf(kept_file, sizeof kept_file, "%s.calibration", out_file);
    snprintf(log_file, sizeof log_file, "%s/log", dir);
    snprintf(trained_file, sizeof trained_file, "%s/unet/diffusion_pytorch_model.safetensors", out_file);
    snprintf(in_data, sizeof in_data, "%s/data", dir);
    checkpoint_make(in_checkpoint);
    if (mkdir(out_dir, 0777) || mkdir(in_page, 0777)) abort();
    checkpoint_put(in_page, "index.html", "a page", 6);
    static const float x[16], one = 1;
    const bb_st_out list[] = {{"in.sample", 4, {1, 1, 4, 4}, x, 0}, {"in.timestep", 1, {1}, &one, 0},
                              {"in.class_labels", 1, {1}, &one, 0}};
    bb_error err;
    uint8_t *data;
    size_t n;
    static const uint8_t pictures[16 + 4 * 16] = {0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 255};
    static const uint8_t labels[8 + 4] = {0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 0, 1};
    if (mkdir(in_data, 0777)) abort();
    checkpoint_put(in_data, "train-images-idx3-ubyte", pictures, sizeof pictures);
    checkpoint_put(in_data, "train-labels-idx1-ubyte", labels, sizeof labels);
    if (bb_safetensors_write(list, 3, &data, &n, &err) < 0) abort();
    checkpoint_put(dir, "tensors", data, n);
    free(data);
    const command makers[] = {
        {"import", {"import", in_checkpoint, "-o", in_float}, WRITES},
        {"quantize", {"quantize", in_float, "-o", in_model, "--images", "1", "--steps", "1", "--quiet"}, WRITES},
    };
    for (size_t i = 0; i < BB_COUNT(makers); i++) {
        *t = (trap){.plan = COUNT};
        int status = run(&makers[i], t, -1);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "no %s of the tiny checkpoint", makers[i].name);
    }
}

/* Not every build has the trainer. */
static bool can_train(trap *t)
{
    const command help = {"train", {"train"}, PRINTS};
    *t = (trap){.plan = COUNT};
    int status = run(&help, t, -1);
    bytes log = read_whole(log_file);
    bool can = WIFEXITED(status) && !strstr((char *)log.data, "built without training");
    free(log.data);
    empty_out_dir();
    return can;
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : NULL;
    trap *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(dir, sizeof dir, "%s/bitbrush-faults-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (t == MAP_FAILED || !mkdtemp(dir)) abort();
    make_inputs(t);
    const command commands[] = {
        {"import", {"import", in_checkpoint, "-o", out_file}, WRITES},
        /* Range search, refit and compensation take the most time and no memory of their own. */
        {"quantize", {"quantize", in_float, "-o", out_file, "--images", "1", "--steps", "1", "--quiet", "--threads", "2",
                      "--range", "minmax", "--refit", "0", "--compensation", "0"}, WRITES},
        {"quantize-default", {"quantize", in_float, "-o", out_file, "--images", "1", "--steps", "1", "--quiet",
                              "--threads", "2"}, WRITES},
        {"quantize-long", {"quantize", in_float, "-o", out_file, "--images", "2", "--steps", "1", "--threads", "1",
                           "--range", "minmax", "--refit", "0", "--compensation", "0"}, KEEPS},
        {"generate", {"generate", in_model, "-o", out_file, "--steps", "1", "--grid", "1x2", "--quiet", "--threads",
                      "2"}, WRITES},
        {"run", {"run", in_model, "--in", in_tensors, "--out", out_file, "--tap", "mid_block"}, WRITES},
        {"site", {"site", in_model, "-o", out_file, "--page", in_page, "--split", "20K", "--threads", "1", "--quiet"},
         SITES},
        {"train", {"train", "-o", out_file, "--data", in_data, "--from", in_checkpoint, "--images", "4", "--batch", "2",
                   "--threads", "1", "--quiet"}, TRAINS},
        {"info", {"info", in_model, "--json"}, PRINTS},
        {"eval", {"eval", in_model, "--against", in_float, "--images", "1", "--steps", "1", "--quiet", "--threads",
                  "1"}, PRINTS},
        {"bench", {"bench", "--only", "linear_128_196.w2a4", "--times", "1", "--json"}, TIMES},
        {"bench-growth", {"bench", "--growth", "--only", "silu", "--times", "1", "--json"}, TIMES},
        {"bench-steps", {"bench", in_model, "--growth", "--steps", "2", "--times", "1", "--json"}, TIMES},
        {"bench-model", {"bench", in_model, "--seconds", "0", "--steps", "2", "--json", "--quiet"}, TIMES},
    };
    for (size_t i = 0; i < BB_COUNT(commands); i++) {
        const command *c = &commands[i];
        if ((only && strcmp(only, c->name) != 0) || (c->output == TRAINS && !can_train(t))) continue;
        bytes expected = baseline(c, t);
        uint32_t allocations = t->calls[ALLOCATION], calls = t->calls[SYSTEM];
        printf("%s: %u allocations, %u calls of the system\n", c->name, allocations, calls);
        CHECK(allocations > 2 && calls > (c->output == TIMES ? 0 : 4), "%s: the traps see nothing", c->name);
        const bool trains = c->output == TRAINS; /* each of whose runs takes some 50 ms: a sample of its calls */
        const bool known = strncmp(c->name, "quantize-", 9) == 0; /* they allocate as `quantize` does */
        fail_each(c, ALLOCATION, allocations, trains ? allocations / 40 : known ? 31 : 1, expected, t);
        fail_each(c, SYSTEM, calls, trains ? calls / 40 : 1, expected, t);
        if (c->output > TIMES) signal_each(c, calls, trains ? calls / 16 : 1, expected, t);
        if (c->output > TIMES && !trains) signal_at_random(c, 20, expected, t);
        if (c->output == KEEPS) damage_kept(c, calls, expected, t);
        free(expected.data);
    }
    char remove[128];
    snprintf(remove, sizeof remove, "rm -rf %s", dir);
    if (system(remove)) printf("%s stays\n", dir);
    return check_done();
}
