/* AdamW against PyTorch, what no update may do, averages, rates. */
#include "trainop.h"

#include "train/engine/optim.h"

/* Each update is some ten roundings of numbers up to 1.5, relative 2^-24; PyTorch's clipping has 1e-6 more in its
 * divisor, which AdamW's ratio hides but for eps. */
static void test_adamw(const bb_ops *ops)
{
    enum { N = 11, FIRST = 6, APART = 16 }; /* the second group lies apart, with floats of no group between them */
    static const float torch[10][N + 1] = {
#include "golden/adamw.inc"
    };
    const bb_optim_group groups[] = {{0, FIRST, 1, 0.1f}, {APART, N - FIRST, 0.1f, 0}};
    float w[APART + N - FIRST], g[COUNT(w)];
    bb_optim o;
    CHECK(bb_optim_new(&o, ops, COUNT(w), groups, 2, NULL) == BB_OK, "optimizer");
    for (int i = 0; i < (int)COUNT(w); i++) w[i] = 5;
    for (int i = 0; i < N; i++) w[i < FIRST ? i : APART + i - FIRST] = (float)(i * 29 % 13 - 6) / 4;
    for (int step = 0; step < 10; step++) {
        for (int i = 0; i < (int)COUNT(w); i++) g[i] = 100;
        for (int i = 0; i < N; i++)
            g[i < FIRST ? i : APART + i - FIRST] =
                step % 2 ? (float)((i * 37 + step * 11) % 17) / 8 - 1 : (float)((i * 5 + step) % 7) / 8 - 0.375f;
        const double norm = bb_optim_norm(&o, g);
        CHECK(fabs(norm / (double)torch[step][0] - 1) < 1e-6, "%s norm %g", ops->name, norm);
        CHECK(bb_optim_update(&o, w, g, 0.01f, 1.5f, norm), "update");
        for (int i = 0; i < N; i++)
            CHECK(fabsf(w[i < FIRST ? i : APART + i - FIRST] - torch[step][1 + i]) < 2e-6f, "%s AdamW %d of %d: %g",
                  ops->name, i, step, w[i < FIRST ? i : APART + i - FIRST] - torch[step][1 + i]);
    }
    CHECK(w[FIRST] == 5 && w[APART - 1] == 5, "floats of no group");
    const float before = w[0];
    g[0] = NAN;
    CHECK(!bb_optim_update(&o, w, g, 0.01f, 1.5f, bb_optim_norm(&o, g)), "a NaN gradient");
    CHECK(w[0] == before && o.step == 10, "no update");
    g[0] = INFINITY;
    CHECK(!bb_optim_update(&o, w, g, 0.01f, 1.5f, bb_optim_norm(&o, g)), "an infinite gradient");
    CHECK(w[0] == before && o.step == 10, "no update");
    bb_optim_free(&o);
    float average[2] = {1, 2}, weight[2] = {3, -2};
    ops->ema(2, 0.75f, weight, average);
    CHECK(average[0] == 1.5f && average[1] == 1, "%s ema", ops->name);
}

static void test_rates(void)
{
    CHECK(bb_rate_at(BB_DECAY_CONSTANT, 1000, 10, 0, 0) == 1, "constant");
    CHECK(fabsf(bb_rate_at(BB_DECAY_LINEAR, 0, 100, 4, 0) - 0.2f) < 1e-6f, "the first of a warm-up");
    CHECK(bb_rate_at(BB_DECAY_LINEAR, 4, 100, 4, 0) == 1, "after the warm-up");
    CHECK(fabsf(bb_rate_at(BB_DECAY_LINEAR, 52, 100, 4, 0.5f) - 0.75f) < 1e-6f, "linear, half way");
    CHECK(fabsf(bb_rate_at(BB_DECAY_COSINE, 25, 100, 0, 0) - 0.853553f) < 1e-5f, "cosine, a quarter");
    CHECK(bb_rate_at(BB_DECAY_COSINE, 100, 100, 0, 0.1f) == 0.1f, "the last rate");
    CHECK(bb_rate_at(BB_DECAY_LINEAR, 200, 100, 0, 0.1f) == 0.1f, "stays");
}

int main(void)
{
    each_set(test_adamw);
    test_rates();
    return check_done();
}
