/* A scheduler_config.json through the reader; every sampler and number of steps it allows; steps on two pixels. */
#include "fuzz.h"

#include "base/json.h"
#include "import/scheduler.h"
#include "sample/sampler.h"

static void run(const bb_schedule *s, uint32_t sampler, uint32_t steps, float eta)
{
    static bb_sampler_plan plan;
    bb_error err = {0};
    enum { PIXELS = 2, CHANNELS = 2, BUFFERS = 6 };
    float x[PIXELS * CHANNELS] = {0.5f, -3, 1e30f, 0}, out[2 * PIXELS * CHANNELS] = {1, -2, 0, 1e-30f, 9, -9, 0, 1};
    float noise[PIXELS * CHANNELS] = {1, -1, 0, 4}, x0[PIXELS * CHANNELS], scratch[PIXELS * CHANNELS];
    float history[BUFFERS * PIXELS * CHANNELS] = {0};
    bool learned = s->variance >= BB_VARIANCE_LEARNED;
    bb_status status = bb_sampler_plan_init(&plan, s, sampler, steps, eta, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK(status < 0 || (plan.evaluations <= BB_MAX_EVALUATIONS && plan.buffers <= BUFFERS));
    for (uint32_t i = 0; status == BB_OK && i < plan.evaluations; i++) {
        FUZZ_CHECK(plan.timesteps[i] >= 0 && plan.timesteps[i] <= (float)(s->train_steps - 1));
        if (i > 13 && i + 3 < plan.evaluations) continue;
        bb_sampler_step(&plan, s, i, &(bb_sampler_io){.x = x, .model_output = out, .noise = noise, .pred_x0 = x0,
                                                      .scratch = scratch, .history = history, .pixels = PIXELS,
                                                      .channels = CHANNELS,
                                                      .out_channels = learned ? 2 * CHANNELS : CHANNELS});
    }
}

FUZZ_TARGET(scheduler)
{
    bb_json j;
    bb_error err = {0};
    bb_schedule s;
    size_t bytes = bb_json_scratch(n);
    void *scratch = fuzz_block(bytes);
    bb_status status = BB_ERR_CORRUPT;
    if (bb_json_parse(&j, (const char *)data, n, scratch, bytes)) {
        status = bb_scheduler_read(&s, &j, 0, "input", &err);
        fuzz_check_error(status, &err);
        static const uint32_t steps[] = {1, 2, 4, 20, 1000, 1001};
        for (size_t i = 0; status == BB_OK && i < BB_COUNT(steps); i++)
            for (uint32_t sampler = 0; sampler == 0 || bb_sampler_name(sampler - 1); sampler++)
                run(&s, sampler, steps[i], i % 2 ? 0 : 0.5f);
        if (status == BB_OK) {
            for (uint32_t i = 0; i < s.train_steps; i++)
                FUZZ_CHECK(s.alphas_cumprod[i] >= 0 && s.alphas_cumprod[i] <= 1);
            run(&s, BB_SAMPLER_DEFAULT, s.train_steps, 0);
            bb_scheduler_free(&s);
        }
    }
    free(scratch);
    return status;
}
