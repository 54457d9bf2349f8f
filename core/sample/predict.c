/* Bounds of x̂0, and guidance. Dynamic thresholding: Saharia et al., "Photorealistic text-to-image diffusion models
 * with deep language understanding" (2022), 2.3; quantiles as torch.quantile with linear interpolation. */
#include "sample/predict.h"

/* The k-th smallest of n non-negative floats (k from 0), by bisection on their bits, which order like the values;
 * NaN comes out largest. 31 passes, no sorting, no surprises from untrusted numbers. */
static float select_kth(const float *v, size_t n, size_t k)
{
    uint32_t low = 0, high = 0x7fffffff; /* the answer lies in [low, high] */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        size_t below = 0;
        for (size_t i = 0; i < n; i++) below += bb_f32_bits(v[i]) <= middle;
        if (below > k) high = middle;
        else low = middle + 1;
    }
    return bb_f32_from_bits(low);
}

/* Rank ratio·(n−1) in f32 and the two-sided lerp, as the reference has them. v: magnitudes. */
static float quantile(const float *v, size_t n, float ratio)
{
    float top = (float)(n - 1), rank = ratio * top;
    rank = rank > 0 ? rank : 0; /* NaN too */
    rank = rank < top ? rank : top;
    size_t k = (size_t)rank;
    if (k >= n - 1) return select_kth(v, n, n - 1); /* above 2^24 elements top is rounded */
    float w = rank - (float)k, a = select_kth(v, n, k);
    if (w == 0) return a;
    float b = select_kth(v, n, k + 1);
    return w < 0.5f ? a + w * (b - a) : b - (b - a) * (1.0f - w);
}

bb_predictor bb_predictor_init(const bb_schedule *sched, int32_t t, const bb_sampler_io *io)
{
    float alpha = sched->alphas_cumprod[t];
    return bb_predictor_at(sched, bb_sqrtf(alpha), bb_sqrtf(1.0f - alpha), io);
}

bb_predictor bb_predictor_at(const bb_schedule *sched, float sqrt_alpha, float sqrt_beta, const bb_sampler_io *io)
{
    bb_predictor p = {.prediction = sched->prediction,
                      .sqrt_alpha = sqrt_alpha,
                      .sqrt_beta = sqrt_beta,
                      .limit = bb_f32_from_bits(0x7f800000),
                      .divisor = 1.0f};
    size_t n = io->pixels * io->channels;
    if (sched->thresholding && n) {
        BB_ASSERT(io->scratch);
        for (size_t px = 0, i = 0; px < io->pixels; px++) {
            for (uint32_t c = 0; c < io->channels; c++, i++) {
                float v = bb_predict_raw(&p, io->x[i], io->model_output[px * io->out_channels + c]);
                io->scratch[i] = bb_f32_from_bits(bb_f32_bits(v) & 0x7fffffff);
            }
        }
        float s = quantile(io->scratch, n, sched->dynamic_thresholding_ratio);
        s = s < 1.0f ? 1.0f : s;
        s = s > sched->sample_max_value ? sched->sample_max_value : s;
        p.limit = p.divisor = s;
    } else if (sched->clip_sample) {
        p.limit = sched->clip_sample_range;
    }
    return p;
}

void bb_guide(float *out, const float *eps_null, const float *eps_label, float g, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = eps_null[i] + g * (eps_label[i] - eps_null[i]);
}
