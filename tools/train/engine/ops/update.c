/* What changes weights. */
#include "train/engine/ops/set.h"

static void adamw(size_t n, float *w, const float *g, float *m, float *v, float lr, float beta1, float beta2, float eps,
                  float decay, float correct1, float correct2, float clip)
{
    const float keep = 1.0f - lr * decay, rate = lr / correct1, root = 1.0f / bb_sqrtf(correct2);
#pragma omp parallel for simd schedule(static) if (n > SMALL)
    for (size_t i = 0; i < n; i++) {
        const float d = g[i] * clip;
        const float mean = m[i] + (d - m[i]) * (1.0f - beta1), square = beta2 * v[i] + (1.0f - beta2) * d * d;
        m[i] = mean;
        v[i] = square;
        w[i] = w[i] * keep - rate * mean / (bb_sqrtf(square) * root + eps);
    }
}

static void ema(size_t n, float decay, const float *w, float *average)
{
#pragma omp parallel for simd schedule(static) if (n > SMALL)
    for (size_t i = 0; i < n; i++) average[i] += (1.0f - decay) * (w[i] - average[i]);
}

void BB_FN(update)(bb_ops *t)
{
    t->adamw = adamw;
    t->ema = ema;
}
