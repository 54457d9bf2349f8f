/* Sums, copies and ends over MPI ranks. Without arguments the program starts itself under mpirun, once for each part. */
#include "check.h"
#include "cli.h"
#include "train/engine/ranks.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LARGEST = 100003, PIECE = 1 << 24 }; /* PIECE: of a message, ranks_mpi.c */

/* ---- what a rank does ---- */

/* Values of many sizes, so that another order of adding would round otherwise. */
static double value(uint32_t rank, size_t i)
{
    uint32_t x = (uint32_t)i * 2654435761u + rank * 40503u + 12345;
    x ^= x >> 15, x *= 2246822519u, x ^= x >> 13;
    return ((double)x - 2147483648.0) * (double)(1u << (x & 15));
}

static void sums(const bb_ranks *r)
{
    /* none, one, fewer than ranks, and around what all ranks together add at a time (65,536 bytes each) */
    const size_t sizes[] = {0, 1, 2, 7, 16383, 32768, 32769, 49153, LARGEST};
    static float x[LARGEST];
    static double y[LARGEST];
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s], wrong = 0;
        for (size_t i = 0; i < n; i++) x[i] = (float)value(r->rank, i), y[i] = value(r->rank, i) / 3;
        bb_ranks_sum(r, x, n);
        bb_ranks_sum_f64(r, y, n);
        for (size_t i = 0; i < n; i++) {
            float a = (float)value(0, i);
            double b = value(0, i) / 3;
            for (uint32_t k = 1; k < r->count; k++) a += (float)value(k, i), b += value(k, i) / 3;
            wrong += a != x[i] || b != y[i];
        }
        CHECK(!wrong, "rank %u: %zu of %zu sums differ", r->rank, wrong, n);
    }
}

static void copies(const bb_ranks *r)
{
    size_t bytes = PIECE + 1001, wrong = 0;
    uint8_t *mine = malloc(bytes), *all = malloc(bytes * r->count);
    if (!mine || !all) abort();
    for (size_t i = 0; i < bytes; i++) mine[i] = (uint8_t)(i * 7 + i / 251 + r->rank);
    bb_ranks_gather(r, mine, bytes, all);
    for (uint32_t k = 0; r->rank == 0 && k < r->count; k++)
        for (size_t i = 0; i < bytes; i++) wrong += all[k * bytes + i] != (uint8_t)(i * 7 + i / 251 + k);
    CHECK(!wrong, "rank 0 was given %zu wrong bytes", wrong);
    bb_ranks_copy(r, mine, bytes);
    for (size_t i = 0; i < bytes; i++) wrong += mine[i] != (uint8_t)(i * 7 + i / 251);
    CHECK(!wrong, "rank %u was given %zu wrong bytes", r->rank, wrong);
    for (uint32_t k = 0; k < r->count; k++) CHECK(bb_ranks_any(r, k == r->rank), "a flag of rank %u got lost", k);
    CHECK(!bb_ranks_any(r, false), "a flag that no rank has");
    free(mine);
    free(all);
}

static int part_sums(const bb_ranks *r)
{
    uint32_t counts[2][8] = {{0}};
    sums(r);
    copies(r);
    CHECK(bb_ranks_here() == r->count, "%u ranks here", bb_ranks_here());
    bb_ranks_gather(r, &(uint32_t){(uint32_t)check_passed}, sizeof **counts, counts[0]);
    bb_ranks_gather(r, &(uint32_t){(uint32_t)check_failed}, sizeof **counts, counts[1]);
    for (uint32_t k = 0; r->rank == 0 && k < r->count; k++) printf("rank %u: %u, %u\n", k, counts[0][k], counts[1][k]);
    bb_ranks_end();
    return 0;
}

static void part_fail(const bb_ranks *r)
{
    float x = 0;
    bb_error err;
    bb_fail(&err, BB_ERR_ARGUMENT, "no such file");
    if (r->rank == 1) bb_ranks_abort(bb_cli_fail(&err) + 6);
    for (;;) bb_ranks_sum(r, &x, 1);
}

static void part_die(const bb_ranks *r)
{
    float x = 0;
    if (r->rank == 1) raise(SIGKILL);
    for (;;) bb_ranks_sum(r, &x, 1);
}

/* Until a signal comes; then all have done the same number of rounds. */
static int part_signal(const bb_ranks *r)
{
    uint64_t rounds = 0, all[8];
    bb_cli_catch_signals();
    bb_cli_hold_signals();
    bb_ranks_any(r, false);
    if (r->rank == 0) printf("ready\n"), fflush(stdout);
    while (!bb_ranks_any(r, bb_cli_interrupted())) rounds++;
    bb_ranks_gather(r, &rounds, sizeof rounds, all);
    bool same = true;
    for (uint32_t k = 1; r->rank == 0 && k < r->count; k++) same &= all[k] == all[0];
    if (r->rank == 0) printf("%s\n", same ? "ended together" : "ended apart"), fflush(stdout);
    bb_ranks_end();
    bb_cli_release_signals();
    return 0;
}

static int rank_main(const char *part)
{
    bb_ranks r;
    bb_error err;
    if (bb_ranks_begin(&r, &err)) return bb_cli_fail(&err);
    if (!strcmp(part, "sums")) return part_sums(&r);
    if (!strcmp(part, "fail")) part_fail(&r);
    if (!strcmp(part, "die")) part_die(&r);
    return part_signal(&r);
}

/* ---- what starts the ranks ---- */

static char said[1 << 16]; /* by the last mpirun, stdout and stderr */
static const char *self;

static pid_t start(const char *count, const char *part, int *out)
{
    int ends[2];
    if (pipe(ends)) abort();
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) abort();
    if (pid == 0) {
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        close(ends[0]);
        execl(BB_MPIRUN, BB_MPIRUN, "-n", count, "--oversubscribe", "--allow-run-as-root", self, part, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *out = ends[0];
    return pid;
}

static int run(const char *count, const char *part)
{
    int out, status;
    size_t n = 0;
    bool told = strcmp(part, "signal") != 0;
    pid_t pid = start(count, part, &out);
    for (ssize_t k; n < sizeof said - 1 && (k = read(out, said + n, sizeof said - 1 - n)) > 0;) {
        said[n += (size_t)k] = 0;
        if (told || !strstr(said, "ready")) continue;
        told = true;
        kill(pid, SIGINT);
    }
    close(out);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void test_sums(const char *count)
{
    unsigned rank, passed, failed, ranks = 0;
    int code = run(count, "sums");
    CHECK(code == 0, "code %d: %s", code, said);
    for (const char *p = said; (p = strstr(p, "rank ")); p++) {
        bool counts = sscanf(p, "rank %u: %u, %u\n", &rank, &passed, &failed) == 3;
        ranks += counts && passed > 10 && failed == 0;
    }
    CHECK(ranks == (unsigned)atoi(count), "%u of %s ranks are right: %s", ranks, count, said);
}

static void test_ends(void)
{
    int code = run("2", "fail");
    CHECK(code == 7 && strstr(said, "bitbrush: no such file\n"), "code %d: %s", code, said);
    code = run("2", "die");
    CHECK(code != 0, "a rank was killed: %s", said);
    code = run("2", "signal");
    CHECK(code != 0 && strstr(said, "ended together"), "code %d: %s", code, said);
}

static void test_one(void)
{
    bb_ranks r;
    bb_error err;
    float x = 3;
    double y = 4;
    char word[6] = "other";
    CHECK(bb_ranks_begin(&r, &err) == BB_OK && r.rank == 0 && r.count == 1, "%u of %u", r.rank, r.count);
    bb_ranks_sum(&r, &x, 1);
    bb_ranks_sum_f64(&r, &y, 1);
    bb_ranks_gather(&r, "alone", 6, word);
    bb_ranks_copy(&r, word, 6);
    CHECK(x == 3 && y == 4 && !strcmp(word, "alone"), "%g %g %s", (double)x, y, word);
    CHECK(bb_ranks_any(&r, true) && !bb_ranks_any(&r, false), "flags");
    CHECK(bb_ranks_here() == 1, "%u ranks here", bb_ranks_here());
    bb_ranks_abort(9); /* returns */
    bb_ranks_end();
}

static void test_without_mpi(void)
{
    bb_ranks r;
    bb_error err = {.text = ""};
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    CHECK(bb_ranks_begin(&r, &err) == BB_ERR_ARGUMENT && strstr(err.text, "libopenmpi-dev"), "%s", err.text);
}

int main(int argc, char **argv)
{
    if (argc > 1) return rank_main(argv[1]);
    self = argv[0];
    test_one();
    if (!BB_MPIRUN[0]) {
        printf("skipped: no MPI in this build (Debian: openmpi-bin libopenmpi-dev), ranks are not tested\n");
        test_without_mpi();
        return check_done();
    }
    /* Open MPI: no ssh needed, containers may forbid reading another process's memory; its own leaks. */
    setenv("OMPI_MCA_plm", "isolated", 1);
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    test_sums("2");
    test_sums("3");
    test_ends();
    return check_done();
}
