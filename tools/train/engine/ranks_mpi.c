/* The only file that knows MPI. Its collectives stop the program on errors, after saying which. */
#include "train/engine/ranks.h"

#include "io.h"
#include "train/engine/launch.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>

enum {
    SHARE = 1 << 16,      /* bytes of a sum that one rank adds at a time: the scratch stays in the cache */
    PIECE = 1 << 24,      /* bytes of a message: MPI counts in int */
    TAG = 1,
};

static uint32_t here = 1;
static char *received, *padded; /* [count][SHARE]: a rank's share from each rank; the end of an array */
static bool several;            /* between MPI_Init and MPI_Finalize */

static void free_scratch(void)
{
    free(received);
    free(padded);
    received = padded = NULL;
}

static void count_here(uint32_t rank)
{
    MPI_Comm machine;
    int n = 1;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, (int)rank, MPI_INFO_NULL, &machine);
    MPI_Comm_size(machine, &n);
    MPI_Comm_free(&machine);
    here = (uint32_t)n;
}

bb_status bb_ranks_begin(bb_ranks *r, bb_error *err)
{
    int rank = 0, count = 1, level;
    *r = (bb_ranks){0, 1};
    if (bb_launched() <= 1) return BB_OK;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level))
        return bb_fail(err, BB_ERR_ARGUMENT, "MPI does not start");
    several = true;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    if ((uint32_t)count != bb_launched())
        return bb_fail(err, BB_ERR_ARGUMENT, "mpirun started %u processes, MPI sees %u: this mpirun belongs to another "
                       "MPI than the one built with", bb_launched(), (uint32_t)count);
    received = malloc((size_t)count * SHARE);
    padded = malloc((size_t)count * SHARE);
    if (!received || !padded) {
        free_scratch();
        return bb_fail(err, BB_ERR_SPACE, "no memory for sums over %u ranks", (uint32_t)count);
    }
    *r = (bb_ranks){(uint32_t)rank, (uint32_t)count};
    count_here(r->rank);
    return BB_OK;
}

void bb_ranks_end(void)
{
    if (several) MPI_Finalize();
    several = false;
    free_scratch();
}

void bb_ranks_abort(int code)
{
    if (!several) return;
    bb_io_cleanup();
    fflush(NULL);
    MPI_Abort(MPI_COMM_WORLD, code);
}

uint32_t bb_ranks_here(void) { return here; }

typedef struct element {
    size_t size;
    void (*add)(void *to, const void *from, size_t n);
} element;

static void add_f32(void *to, const void *from, size_t n)
{
    float *a = to;
    const float *b = from;
    for (size_t i = 0; i < n; i++) a[i] += b[i];
}

static void add_f64(void *to, const void *from, size_t n)
{
    double *a = to;
    const double *b = from;
    for (size_t i = 0; i < n; i++) a[i] += b[i];
}

/* x is [count][n]. Rank k adds the k-th row of all ranks, in their order, and gives it to all: each sum is made in one
 * place, so that neither MPI's choice of algorithm nor timing can change a bit. */
static void sum_rows(const bb_ranks *r, char *x, size_t n, const element *e)
{
    size_t bytes = n * e->size;
    MPI_Alltoall(x, (int)bytes, MPI_BYTE, received, (int)bytes, MPI_BYTE, MPI_COMM_WORLD);
    for (uint32_t k = 1; k < r->count; k++) e->add(received, received + k * bytes, n);
    MPI_Allgather(received, (int)bytes, MPI_BYTE, x, (int)bytes, MPI_BYTE, MPI_COMM_WORLD);
}

static void sum(const bb_ranks *r, char *x, size_t n, const element *e)
{
    size_t row = SHARE / e->size, whole = row * r->count;
    if (r->count == 1) return;
    for (; n >= whole; n -= whole, x += whole * e->size) sum_rows(r, x, row, e);
    if (!n) return;
    row = (n + r->count - 1) / r->count;
    memset(padded, 0, row * r->count * e->size);
    memcpy(padded, x, n * e->size);
    sum_rows(r, padded, row, e);
    memcpy(x, padded, n * e->size);
}

void bb_ranks_sum(const bb_ranks *r, float *x, size_t n) { sum(r, (char *)x, n, &(element){sizeof *x, add_f32}); }
void bb_ranks_sum_f64(const bb_ranks *r, double *x, size_t n) { sum(r, (char *)x, n, &(element){sizeof *x, add_f64}); }

static int piece(size_t bytes) { return (int)(bytes < PIECE ? bytes : PIECE); }

void bb_ranks_copy(const bb_ranks *r, void *x, size_t bytes)
{
    if (r->count == 1) return;
    for (size_t at = 0; at < bytes; at += PIECE)
        MPI_Bcast((char *)x + at, piece(bytes - at), MPI_BYTE, 0, MPI_COMM_WORLD);
}

void bb_ranks_gather(const bb_ranks *r, const void *mine, size_t bytes, void *all)
{
    if (r->rank > 0)
        for (size_t at = 0; at < bytes; at += PIECE)
            MPI_Send((const char *)mine + at, piece(bytes - at), MPI_BYTE, 0, TAG, MPI_COMM_WORLD);
    if (r->rank > 0) return;
    if (all != mine) memcpy(all, mine, bytes);
    for (uint32_t k = 1; k < r->count; k++)
        for (size_t at = 0; at < bytes; at += PIECE)
            MPI_Recv((char *)all + k * bytes + at, piece(bytes - at), MPI_BYTE, (int)k, TAG, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
}

bool bb_ranks_any(const bb_ranks *r, bool flag)
{
    int mine = flag, any = flag;
    if (r->count > 1) MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_LOR, MPI_COMM_WORLD);
    return any;
}
