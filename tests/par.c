/* bb_par_for over threads of the host. */
#include "check.h"
#include "parcheck.h"

int main(void)
{
    CHECK(bb_par_start(1) == NULL, "a pool of one thread");
    CHECK(bb_par_threads(NULL) == 1, "threads of no pool");
    CHECK(parcheck_run(NULL, 10) == 0, "no pool");
    for (uint32_t threads = 2; threads <= 5; threads++) {
        bb_par *par = bb_par_start(threads);
        CHECK(bb_par_threads(par) == threads, "%u of %u started", bb_par_threads(par), threads);
        uint32_t wrong = parcheck_run(par, 300);
        CHECK(wrong == 0, "%u threads: %u items wrong", threads, wrong);
        bb_par_stop(par);
    }
    bb_par_stop(NULL);
    return check_done();
}
