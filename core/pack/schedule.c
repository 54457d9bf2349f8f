/* The words of tensor "schedule" (core/FORMAT.md §8). */
#include "pack/schedule.h"

#include "pack/layout.h"

enum { ALPHA_ONE = 1, CLIP = 2, THRESHOLD = 4, ORDER_SHIFT = 16 };

bool bb_solver_valid(const bb_solver *s, uint32_t train_steps)
{
    static const struct { uint32_t flags, highest_order; } known[] = {
        [BB_FAMILY_DDIM] = {0, 0}, [BB_FAMILY_DDPM] = {0, 0}, [BB_FAMILY_EULER_A] = {0, 0}, [BB_FAMILY_LCM] = {0, 0},
        [BB_FAMILY_EULER] = {BB_SOLVER_KARRAS | BB_SOLVER_LOG_LINEAR, 0},
        [BB_FAMILY_DPM] = {BB_SOLVER_KARRAS | BB_SOLVER_LU | BB_SOLVER_SIGMA_MIN | BB_SOLVER_LOWER_FINAL |
                           BB_SOLVER_EULER_FINAL | BB_SOLVER_EPSILON | BB_SOLVER_SDE | BB_SOLVER_HEUN |
                           BB_SOLVER_CLIP_LAMBDA, 3},
        [BB_FAMILY_UNIPC] = {BB_SOLVER_KARRAS | BB_SOLVER_SIGMA_MIN | BB_SOLVER_LOWER_FINAL | BB_SOLVER_EPSILON |
                             BB_SOLVER_BH1, 3},
        [BB_FAMILY_PNDM] = {BB_SOLVER_SKIP_PRK, 0},
    };
    uint32_t f = s->family;
    if (f < BB_FAMILY_DDIM || f >= BB_COUNT(known) || s->flags & ~known[f].flags) return false;
    bool dpm = f == BB_FAMILY_DPM, unipc = f == BB_FAMILY_UNIPC, lcm = f == BB_FAMILY_LCM;
    bool order = known[f].highest_order ? s->order >= 1 && s->order <= known[f].highest_order : !s->order;
    bool levels = !(s->flags & BB_SOLVER_KARRAS && s->flags & BB_SOLVER_LU);
    bool end = !dpm || !(s->flags & BB_SOLVER_EPSILON) || s->flags & BB_SOLVER_SIGMA_MIN;
    bool sde = !(s->flags & BB_SOLVER_SDE) || s->order < 3;
    bool lambda = s->flags & BB_SOLVER_CLIP_LAMBDA ? s->lambda_min - s->lambda_min == 0 : !bb_f32_bits(s->lambda_min);
    bool consistency = lcm ? s->lcm_steps >= 1 && s->lcm_steps <= train_steps && s->lcm_scaling > 0 &&
                                 s->lcm_scaling <= 1e6f
                           : !s->lcm_steps && !bb_f32_bits(s->lcm_scaling);
    return order && levels && end && sde && lambda && consistency && (unipc || !s->no_corrector);
}

void bb_schedule_to_words(const bb_schedule *s, uint32_t w[BB_SCHEDULE_WORDS])
{
    const bb_solver *v = &s->solver;
    uint32_t all[BB_SCHEDULE_WORDS] = {
        s->train_steps, v->family, s->prediction, s->spacing, s->variance, (uint32_t)s->steps_offset,
        (s->set_alpha_to_one ? ALPHA_ONE : 0u) | (s->clip_sample ? CLIP : 0u) | (s->thresholding ? THRESHOLD : 0u),
        bb_f32_bits(s->clip_sample_range), bb_f32_bits(s->dynamic_thresholding_ratio),
        bb_f32_bits(s->sample_max_value), v->flags | v->order << ORDER_SHIFT, bb_f32_bits(v->lambda_min),
        v->no_corrector, v->lcm_steps, bb_f32_bits(v->lcm_scaling)};
    memcpy(w, all, sizeof all);
}

bool bb_schedule_from_words(bb_schedule *s, const uint32_t w[BB_SCHEDULE_WORDS])
{
    *s = (bb_schedule){
        .train_steps = w[0], .prediction = w[2], .spacing = w[3], .variance = w[4], .steps_offset = (int32_t)w[5],
        .set_alpha_to_one = w[6] & ALPHA_ONE, .clip_sample = w[6] & CLIP, .thresholding = w[6] & THRESHOLD,
        .clip_sample_range = bb_f32_from_bits(w[7]), .dynamic_thresholding_ratio = bb_f32_from_bits(w[8]),
        .sample_max_value = bb_f32_from_bits(w[9]),
        .solver = {.family = w[1], .flags = w[10] & ((1u << ORDER_SHIFT) - 1), .order = w[10] >> ORDER_SHIFT,
                   .lambda_min = bb_f32_from_bits(w[11]), .no_corrector = w[12], .lcm_steps = w[13],
                   .lcm_scaling = bb_f32_from_bits(w[14])}};
    return bb_solver_valid(&s->solver, s->train_steps) && s->prediction <= BB_PREDICT_SAMPLE &&
           s->spacing <= BB_SPACING_LINSPACE && s->variance <= BB_VARIANCE_LEARNED_RANGE && s->steps_offset >= 0 &&
           s->steps_offset <= 1000 && s->clip_sample_range > 0 && s->dynamic_thresholding_ratio >= 0 &&
           s->dynamic_thresholding_ratio <= 1 && s->sample_max_value > 0 && w[6] < 2 * THRESHOLD && !w[15];
}
