/* What mpirun tells the processes that it starts, for ranks.c and ranks_mpi.c. */
#ifndef BB_TRAIN_ENGINE_LAUNCH_H
#define BB_TRAIN_ENGINE_LAUNCH_H

#include <stdint.h>
#include <stdlib.h>

/* Processes that were started together; 1 without mpirun. */
static inline uint32_t bb_launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}; /* Open MPI; MPICH, Intel MPI, Slurm */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        if (text) return (uint32_t)strtoul(text, NULL, 10);
    }
    return 1;
}

#endif
