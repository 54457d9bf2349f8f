/* bitbrush bench: what kernels, layers and whole models cost on this machine. Times are medians of rounds in which
 * everything runs once in turn. A second measure, the same in every run, is the number of instructions of one pass:
 *   valgrind --tool=callgrind --toggle-collect=bb_bench_layer_run build/bitbrush bench --only NAME --times 1
 * (bb_resident_run: inner loops; bb_bench_op_times: ops; valgrind has no AVX-512). */
#include "bench/bench.h"
#include "platform.h"
#include "run/conv.h"

#include <stdio.h>
#include <string.h>

bb_timing bb_bench_timing(const bb_bench *b)
{
    return (bb_timing){.seconds = b->seconds, .times = b->times, .par = b->par, .quiet = b->quiet};
}

bool bb_bench_wanted(const bb_bench *b, const char *name) { return !b->only || strstr(name, b->only); }

bool bb_bench_prefer(bb_kernels *k, const char *way)
{
    bool found = false;
    for (uint32_t i = 0; i < BB_DOTS && k->dots[i]; i++) {
        if (strcmp(k->dots[i]->name, way) == 0) found = true;
        else k->cost[i] *= 1e6f;
    }
    return found;
}

void bb_bench_ways(const bb_kernels *k, const bb_op *op, const bb_layer *layer, char *out, size_t size)
{
    const bb_dot *seen[BB_MAX_CLASSES];
    uint32_t n_seen = 0;
    size_t n = 0;
    for (uint32_t i = 0; i < layer->rec->n_classes; i++) {
        bb_dot_shape shape;
        const bb_dot *way = bb_conv_quantized_way(k, op, layer, i, &shape);
        bool known = false;
        for (uint32_t j = 0; j < n_seen; j++) known = known || seen[j] == way;
        if (known || n >= size) continue;
        n += (size_t)snprintf(out + n, size - n, "%s%s", n_seen ? "+" : "", way->name);
        seen[n_seen++] = way;
    }
}

void bb_bench_print_machine(const bb_bench *b, const bb_kernels *kernels, const bb_par *par)
{
    char cpu[128];
    const uint32_t threads = bb_par_threads(par), cores = bb_core_count();
    bb_cpu_name(cpu, sizeof cpu);
    bb_cli_plain(cpu);
    if (b->json) {
        printf("{\"machine\":{\"cpu\":");
        bb_cli_print_json(cpu);
        printf(",\"kernels\":\"%s\",\"threads\":%u,\"cores\":%u}", kernels->isa, threads, cores);
        return;
    }
    printf("%s, kernels %s, threads: %u of %u\n", cpu, kernels->isa, threads, cores);
}

static bb_status choose_way(bb_bench *b, bb_error *err)
{
    char names[384];
    size_t n = 0;
    if (!b->way || bb_bench_prefer(&b->kernels, b->way)) return BB_OK;
    for (uint32_t i = 0; i < BB_DOTS && b->kernels.dots[i] && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, " %s", b->kernels.dots[i]->name);
    return bb_fail(err, BB_ERR_OPTION, "--way %s: these kernels have%s", b->way, names);
}

typedef struct trial { const bb_kernels *kernels; uint32_t way; double macs; uint8_t *scratch; } trial;

static void run_trial(void *ctx, uint32_t times)
{
    trial *t = ctx;
    t->macs = bb_dot_trial(t->kernels, t->way, times, t->scratch) / times;
}

/* Costs as measured here and now, as the library measures them in a page. */
static bb_status choose_by_trial(bb_bench *b, bb_error *err)
{
    static _Alignas(BB_ALIGNMENT) uint8_t scratch[BB_DOT_TRIAL_BYTES];
    trial trials[BB_DOTS];
    bb_timed timed[BB_DOTS];
    float times[BB_DOTS];
    uint32_t n = 0;
    for (; n < BB_DOTS && b->kernels.dots[n]; n++) {
        trials[n] = (trial){&b->kernels, n, 0, scratch};
        timed[n] = (bb_timed){.run = run_trial, .ctx = &trials[n]};
    }
    BB_TRY(bb_time_all(timed, n, &(bb_timing){.seconds = 0.3, .quiet = true}, err));
    for (uint32_t i = 0; i < n; i++) times[i] = (float)(timed[i].best / trials[i].macs);
    bb_model model = {.kernels = b->kernels};
    bb_model_way_times(&model, times);
    b->kernels = model.kernels;
    return BB_OK;
}

static bb_status bench(bb_bench *b, bb_error *err)
{
    BB_TRY(bb_host_kernels(&b->kernels, b->host.cpu, err));
    if (b->trial) BB_TRY(choose_by_trial(b, err));
    BB_TRY(choose_way(b, err));
    if (b->model) return b->growth ? bb_bench_model_growth(b, err) : bb_bench_model(b, err);
    b->par = bb_par_start(b->host.threads);
    const bb_status status = b->growth ? bb_bench_growth(b, err) : bb_bench_kernels(b, err);
    bb_par_stop(b->par);
    return status;
}

static int run(const bb_command *c, int argc, char **argv)
{
    static bb_bench b;
    b = (bb_bench){.seconds = 10, .guidance = 1, .batch = 1, .top = 20, .host.threads = 1};
    bool all = false, model_options = false;
    const bb_option options[] = {
        {"--seconds", BB_OPTION_FLOAT, &b.seconds, "S", "measure about so long; three rounds at least (default 10)", 0,
         3600, NULL},
        {"--times", BB_OPTION_U32, &b.times, "N", "each exactly so often, for instruction counts", 1, 1000000, NULL},
        {"--only", BB_OPTION_STRING, &b.only, "TEXT", "entries whose name has this in it", 0, 0, NULL},
        {"--way", BB_OPTION_STRING, &b.way, "NAME", "take this dot way wherever it fits", 0, 0, NULL},
        {"--trial", BB_OPTION_FLAG, &b.trial, NULL, "choose dot ways by a trial, as the library does in a page", 0, 0,
         NULL},
        {"--growth", BB_OPTION_FLAG, &b.growth, NULL, "times against resolution, channels, batch and planes; a MODEL's "
         "steps against sizes and batches", 0, 0, NULL},
        {"--steps", BB_OPTION_U32, &b.steps, "N", "of a model's drawings (default 20, or all there are)", 2, 1000,
         &model_options},
        {"--guidance", BB_OPTION_FLOAT, &b.guidance, "G", "other than 1: pairs, as guidance needs (default 1)", 0.001,
         1000, &model_options},
        {"--batch", BB_OPTION_U32, &b.batch, "N", "pictures at a time (default 1)", 1, 64, &model_options},
        {"--size", BB_OPTION_GRID, b.size, "HxW", "of the picture (default: the model's own)", 1, 16384,
         &model_options},
        {"--top", BB_OPTION_U32, &b.top, "N", "list the N slowest ops of a model (default 20)", 1, 65536,
         &model_options},
        {"--unfused", BB_OPTION_FLAG, &b.unfused, NULL, "each op by itself", 0, 0, &model_options},
        {"--all", BB_OPTION_FLAG, &all, NULL, "list all ops of a model, as they run", 0, 0, &model_options},
        BB_REPORT_OPTIONS(b),
        {"--threads", BB_OPTION_U32, &b.host.threads, "N", "threads (default 1)", 1, 64, NULL},
        {"--cpu", BB_OPTION_CHOICE, &b.host.cpu, BB_CPU_WORDS, "highest instruction set to use", 0, 0, NULL},
        BB_CHECKPOINT_OPTIONS(b.host),
    };
    int code;
    bb_error err = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &b.model, 1, &code)) return code;
    if (b.model && b.times && !b.growth) return bb_cli_usage_error(c, "--times N takes no model");
    if (b.model && b.growth && (b.size[0] || b.batch > 1 || b.only))
        return bb_cli_usage_error(c, "--growth takes sizes and batches of its own, so no --size, --batch or --only");
    if (!b.model && model_options)
        return bb_cli_usage_error(c, "--steps, --guidance, --batch, --size, --top, --unfused and --all need a MODEL");
    if (all) b.top = 0;
    const bb_status status = bench(&b, &err);
    if (status == BB_OK && b.json) printf("}\n");
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_bench = {"bench", "[MODEL]", "what kernels, or a model's ops, cost on this machine", run};
