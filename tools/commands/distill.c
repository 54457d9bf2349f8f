/* bitbrush distill: quantize a checkpoint, then train the quantized network to predict what the checkpoint does; the
 * same command goes on after a break. */
#include "distilling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void report(const bb_distilling *j)
{
    size_t bytes = j->made_bytes ? j->made_size : j->start_size;
    unsigned long long updates = j->distill.update;
    if (!j->json) {
        printf("%s: %zu bytes, %llu updates, %.0f s, codes changed %.2f %%\nheld-out epsilon error %.3e -> %.3e, "
               "first five steps %.3e -> %.3e\n", j->out, bytes, updates, j->seconds, 100 * j->flipped, j->before.error,
               j->after.error, j->before.first, j->after.first);
        return;
    }
    printf("{\"out\":");
    bb_cli_print_json(j->out);
    printf(",\"bytes\":%zu,\"updates\":%llu,\"seconds\":%.1f,\"flipped\":%.6g,\"held_out\":{\"before\":%.6g,"
           "\"after\":%.6g,\"before_first\":%.6g,\"after_first\":%.6g,\"ratio\":%.6g},\"checks\":[", bytes, updates,
           j->seconds, j->flipped, j->before.error, j->after.error, j->before.first, j->after.first, j->after.score);
    for (uint32_t i = 0; i < j->distill.n_checks; i++) {
        const bb_distill_check *c = &j->distill.checks[i];
        printf("%s[%llu,%.6g,%.6g,%.6g]", i ? "," : "", (unsigned long long)c->update, c->error, c->first, c->score);
    }
    printf("]}\n");
}

/* "90", "90s", "10m", "2h" */
static bool parse_seconds(const char *text, double *out)
{
    char *end;
    double x = strtod(text, &end), unit = *end == 'h' ? 3600 : *end == 'm' ? 60 : 1;
    if (end == text || (*end && end[1]) || (*end && !strchr("smh", *end)) || !(x > 0 && x < 1e7)) return false;
    *out = x * unit;
    return true;
}

/* The whole command line into j. It is read twice: the method must be known before what overrides it is. */
static bool parse(bb_distilling *j, const bb_command *c, int argc, char **argv, const char **path, int *code)
{
    bb_distill_options *o = &j->options;
    bb_make_options *m = &j->quantizing.make;
    uint32_t method = j->method, rates = j->rates;
    *j = (bb_distilling){.ranks = j->ranks, .method = method, .rates = rates, .pictures = 10, .save_every = 60,
               .budget = "10m"};
    bb_make_defaults(m);
    bb_distill_defaults(o);
    bb_method_apply(method, m, o);
    bb_rates_apply(rates, o);
    const bb_option options[] = {
        {"-o", BB_OPTION_STRING, &j->out, "OUT", "file to write; after a break OUT.distill helps the same command to "
         "go on", 0, 0, NULL},
        {"--method", BB_OPTION_CHOICE, &j->method, BB_METHOD_WORDS "|list", "what the other options are by default "
         "(default mpq-dm-v2); list prints it", 0, 0, NULL},
        BB_QUANTIZING_OPTIONS(j->quantizing),
        {"--from", BB_OPTION_STRING, &j->from, "PACKED", "begin with what quantize made of the checkpoint", 0, 0, NULL},
        {"--budget", BB_OPTION_STRING, &j->budget, "TIME", "for all after quantization: 90s, 10m (default), 2h", 0, 0,
         NULL},
        {"--updates", BB_OPTION_U64, &o->updates, "N", "so many instead; 0 = only quantize", 0, 0, &j->updates_given},
        {"--checks", BB_OPTION_U32, &o->checks, "N", "of the held-out error in the run (default 10)", 1,
         BB_DISTILL_MOST_CHECKS - 2, NULL},
        {"--patience", BB_OPTION_U32, &o->patience, "N", "checks without a better one that end it (default 8; 0 = go "
         "on)", 0, 64, NULL},
        {"--warmup", BB_OPTION_U64, &o->warmup, "N", "updates over which the rates rise (default 0)", 0, 0, NULL},
        {"--weights", BB_OPTION_CHOICE, &o->weights, BB_WEIGHTS_WORDS, "what is trained of them", 0, 0, NULL},
        {"--rank", BB_OPTION_U32, &o->rank, "R", "of lora and oolri (default 32)", 1, 4096, NULL},
        {"--inside", BB_OPTION_FLOAT, &o->inside, "X", "full weights that compensation rounded away begin so far "
         "inside their level's cell, in gaps (default 0.5: at the level)", 0.001, 0.5, NULL},
        {"--relation", BB_OPTION_CHOICE, &o->relation, BB_RELATION_WORDS, "loss of relations beside the task's", 0, 0,
         NULL},
        {"--lambda", BB_OPTION_FLOAT, &o->lambda, "X", "its weight, relative to the task's (default 0.3)", 0, 1e6,
         NULL},
        {"--anchors", BB_OPTION_U32, &o->anchors, "N", "of mtrd (default 1024)", 1, 65536, NULL},
        {"--pixels", BB_OPTION_U32, &o->pixels, "N", "of an item that mtrd compares (default 1024)", 1, 65536, NULL},
        {"--temperature", BB_OPTION_FLOAT, &o->temperature, "T", "of the relation's softmax", 0.001, 100, NULL},
        {"--loss", BB_OPTION_CHOICE, &o->normalize, "plain|step", "step (default): divided by the step's running mean",
         0, 0, NULL},
        {"--mix-steps", BB_OPTION_CHOICE, &o->mix_steps, "no|yes", "every picture of a batch at its own step (default "
         "yes)", 0, 0, NULL},
        {"--rates", BB_OPTION_CHOICE, &j->rates, "lab|paper", "learning rates: lab (default) for minutes, paper those "
         "of the released code", 0, 0, NULL},
        {"--lr", BB_OPTION_FLOAT, &o->rate[BB_STUDENT_KIND_WEIGHTS], "X", "of weights, in gaps (default 1/60)", 0, 10,
         NULL},
        {"--scale-rate", BB_OPTION_FLOAT, &o->rate[BB_STUDENT_KIND_SCALES], "X", "of weight scales, relative (default "
         "1e-3)", 0, 1, NULL},
        {"--step-rate", BB_OPTION_FLOAT, &o->rate[BB_STUDENT_KIND_STEPS], "X", "of activation steps, relative (default "
         "1e-2)", 0, 1, NULL},
        {"--zero-rate", BB_OPTION_FLOAT, &o->rate[BB_STUDENT_KIND_ZEROS], "X", "of zero points, in codes (default "
         "0.04)", 0, 10, NULL},
        {"--float-rate", BB_OPTION_FLOAT, &o->rate[BB_STUDENT_KIND_FLOATS], "X", "of float layers, norms, biases, "
         "relative (default 1e-4)", 0, 1, NULL},
        {"--ema", BB_OPTION_FLOAT, &o->ema, "D", "decay of averaged weights (default 0 = none)", 0, 0.99999, NULL},
        {"--clip", BB_OPTION_FLOAT, &o->clip, "X", "largest norm of the gradient (default 0 = any)", 0, 1e9, NULL},
        {"--batch", BB_OPTION_U32, &o->batch, "N", "pictures an update, of every process (default 4)", 1, 256, NULL},
        {"--trajectories", BB_OPTION_U32, &o->trajectories, "N", "pictures that the teacher draws (default 192)", 1,
         65536, NULL},
        {"--steps", BB_OPTION_U32, &o->steps, "N", "steps of each picture (default 20, or all there are)", 1, 64, NULL},
        {"--guidance", BB_OPTION_FLOAT, &o->guidance, "G", "of each picture (default 2 with a null class)", 0.001, 100,
         NULL},
        {"--seed", BB_OPTION_U64, &o->seed, "N", "of all that is random (default 1)", 0, 0, NULL},
        {"--strip", BB_OPTION_STRING, &j->strip, "FILE", "PNG: pictures of teacher, quantized and distilled model", 0,
         0, NULL},
        {"--save-every", BB_OPTION_FLOAT, &j->save_every, "S", "seconds between writings of OUT.distill (default 60)",
         0, 1e6, NULL},
        BB_REPORT_OPTIONS(*j),
        BB_CHECKPOINT_OPTIONS(j->host_options),
        BB_HOST_OPTIONS(j->host_options),
    };
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, path, 1, code)) return false;
    return true;
}

static bool asks_for_list(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--method=list") == 0 || (i && strcmp(argv[i - 1], "--method") == 0 &&
                                                       strcmp(argv[i], "list") == 0))
            return true;
    return false;
}

/* The first option given that says how to quantize; NULL: none. */
static const char *quantizing_option(int argc, char **argv)
{
    bb_quantizing q;
    const bb_option options[] = {BB_QUANTIZING_OPTIONS(q)};
    for (int i = 0; i < argc; i++)
        for (size_t k = 0; k < BB_COUNT(options); k++) {
            size_t n = strlen(options[k].name);
            if (strncmp(argv[i], options[k].name, n) == 0 && (!argv[i][n] || argv[i][n] == '=')) return options[k].name;
        }
    return NULL;
}

static int check(bb_distilling *j, const bb_command *c, const char *quantizing)
{
    bb_distill_options *o = &j->options;
    if (!j->out) return bb_cli_usage_error(c, "-o OUT is missing");
    if (!parse_seconds(j->budget, &o->budget))
        return bb_cli_usage_error(c, "--budget %s: not a time like 10m", j->budget);
    if (j->strip && strcmp(j->strip, j->out) == 0) return bb_cli_usage_error(c, "--strip and -o name the same file");
    if (j->from && quantizing)
        return bb_cli_usage_error(c, "%s: says how to quantize, and --from %s is quantized: leave one of them out",
                                  quantizing, j->from);
    if (j->updates_given) o->train = o->updates > 0;
    int n = snprintf(j->state, sizeof j->state, "%s.distill", j->out);
    if (n < 0 || (size_t)n >= sizeof j->state) return bb_cli_usage_error(c, "-o: the path is too long");
    return bb_quantizing_check(c, &j->quantizing);
}

static bb_status prepare(bb_distilling *j, const char *path, bb_error *err)
{
    bb_distill_options *o = &j->options;
    if (j->ranks.rank == 0) BB_TRY(bb_file_check_writable(j->out, err));
    if (j->ranks.rank == 0 && j->strip) BB_TRY(bb_file_check_writable(j->strip, err));
    BB_TRY(bb_host_open(&j->host, path, &j->host_options, err));
    if (j->host.model->pack.n_layers)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: is quantized; the teacher must be a checkpoint, or what import "
                       "made of it", path);
    if (!o->steps) o->steps = bb_host_steps(&j->host);
    if (o->guidance == 0) o->guidance = bb_host_guidance(&j->host);
    j->quantizing.make.steps = o->steps, j->quantizing.make.guidance = o->guidance;
    j->quantizing.make.command = j->command;
    return BB_OK;
}

static int run(const bb_command *c, int argc, char **argv)
{
    static bb_distilling j;
    const char *path;
    int code;
    bb_error err = {0};
    if (asks_for_list(argc, argv)) return bb_method_print(), BB_EXIT_OK;
    if (!parse(&j, c, argc, argv, &path, &code) || !parse(&j, c, argc, argv, &path, &code)) return code;
    if ((code = check(&j, c, quantizing_option(argc, argv))) != BB_EXIT_OK) return code;
    bb_cli_join(j.command, sizeof j.command, c, argc, argv);
    bb_status status = bb_ranks_begin(&j.ranks, &err);
    if (j.ranks.rank != 0) j.quiet = true;
    if (status >= 0) status = prepare(&j, path, &err);
    if (status >= 0) status = bb_distilling_run(&j, &err);
    if (status >= 0 && j.ranks.rank == 0) report(&j);
    bb_distilling_close(&j);
    if (status >= 0) bb_ranks_end();
    code = status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
    bb_cli_release_signals();
    if (status < 0) bb_ranks_abort(code);
    return code;
}

const bb_command bb_command_distill = {"distill", "CHECKPOINT -o OUT", "a checkpoint as a low-bit model that has "
                                       "learnt to be like it", run};
