/* The pickle of a torch.save file: what is accepted describes tensors that lie inside their storages. */
#include "fuzz.h"

#include "import/pickle.h"

static void check_tensor(const bb_pickle_tensor *t)
{
    uint64_t last = t->offset, count = 1;
    FUZZ_CHECK(t->rank <= BB_ST_MAX_RANK);
    for (uint32_t i = 0; i < t->rank; i++) {
        count *= t->shape[i];
        if (t->shape[i]) last += (t->shape[i] - 1) * t->stride[i];
    }
    FUZZ_CHECK(count == t->count && count <= t->storage.numel);
    if (count) FUZZ_CHECK(last < t->storage.numel);
}

FUZZ_TARGET(pickle)
{
    bb_pickle p;
    bb_error err = {0};
    bb_status status = bb_pickle_read(&p, data, n, "input", &err);
    fuzz_check_error(status, &err);
    if (status < 0) return status;
    FUZZ_CHECK(p.root < p.nodes.n);
    for (size_t i = 0; i < p.tensors.n; i++) check_tensor(&bb_pickle_tensors(&p)[i]);
    for (size_t i = 0; i < p.pairs.n; i++) {
        const bb_pickle_pair *pair = &bb_pickle_pairs(&p)[i];
        FUZZ_CHECK(pair->key < p.nodes.n && pair->value < p.nodes.n &&
                   (pair->next == BB_PICKLE_NO_PAIR || pair->next < p.pairs.n));
    }
    bb_pickle_free(&p);
    return status;
}
