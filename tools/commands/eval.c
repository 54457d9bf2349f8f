/* bitbrush eval: how far a packed model's pictures are from the float model's, drawn from the same seeds, and both from
 * real ones. */
#include "eval/print.h"
#include "eval/teach.h"
#include "platform.h"

typedef struct job {
    bb_evaluation e;
    const char *sheet, *versus, *train;
    bool json, markdown;
} job;

static bb_status check_outputs(const job *j, bb_error *err)
{
    if (j->e.ranks.rank) return BB_OK;
    if (j->e.out) BB_TRY(bb_file_check_writable(j->e.out, err));
    return j->sheet ? bb_file_check_writable(j->sheet, err) : BB_OK;
}

static bb_status report(const job *j, bb_error *err)
{
    const bb_evaluation *e = &j->e;
    bb_versus versus, *v = NULL;
    if (j->versus) {
        BB_TRY(bb_versus_read(&versus, j->versus, e, err));
        v = &versus;
    }
    if (j->sheet) BB_TRY(bb_write_sheet(e, j->sheet, err));
    if (e->out) BB_TRY(bb_write_json(e, v, err));
    if (j->json) bb_print_json(stdout, e, v, false);
    else if (j->markdown) bb_print_markdown(e, v);
    else bb_print_text(e, v);
    return BB_OK;
}

static bb_status evaluate(job *j, bb_error *err)
{
    bb_host_options *host = &j->e.host_options;
    BB_TRY(bb_ranks_begin(&j->e.ranks, err));
    const uint32_t here = bb_ranks_here();
    if (!host->threads && here > 1) host->threads = (bb_core_count() + here - 1) / here;
    BB_TRY(check_outputs(j, err));
    BB_TRY(bb_evaluation_run(&j->e, err));
    return j->e.ranks.rank ? BB_OK : report(j, err);
}

static int teach(const job *j)
{
    const bb_evaluation *e = &j->e;
    const bb_teaching t = {.data = e->real, .out = j->train, .seed = e->seed, .threads = e->host_options.threads,
                           .cpu = e->host_options.cpu, .quiet = e->quiet};
    double accuracy;
    bb_error err = {0};
    if (bb_teach_classifier(&t, &accuracy, &err) < 0) return bb_cli_fail(&err);
    printf("%s: %.2f %% of the test pictures right\n", t.out, 100 * accuracy);
    return BB_EXIT_OK;
}

static int run(const bb_command *c, int argc, char **argv)
{
    static job j = {.e = {.images = 64, .traced = 64, .resamples = 1000}};
    bb_evaluation *e = &j.e;
    const bb_option options[] = {
        {"--against", BB_OPTION_STRING, &e->against, "FLOAT", "checkpoint folder or unquantized file", 0, 0, NULL},
        {"--images", BB_OPTION_U32, &e->images, "N", "pictures: seed i, label i in turn (default 64)", 1, 100000, NULL},
        {"--traced", BB_OPTION_U32, &e->traced, "N", "of these, how many the epsilon error is measured along (default "
         "64)",
         0, 100000, NULL},
        {"--steps", BB_OPTION_U32, &e->steps, "N", "steps (default 20, or all there are)", 1, BB_MAX_STEPS, NULL},
        BB_SAMPLER_OPTION(*e),
        {"--guidance", BB_OPTION_FLOAT, &e->guidance, "G", "guidance (default 2 with a null class, else 1)", 0.001,
         1000,
         &e->guidance_given},
        {"--seed", BB_OPTION_U64, &e->seed, "N", "seed of the first picture (default 0)", 0, 0, NULL},
        {"--real", BB_OPTION_STRING, &e->real, "DIR", "real pictures to compare with, too: a folder with "
         "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, .gz or not", 0, 0, NULL},
        {"--classifier", BB_OPTION_STRING, &e->classifier, "FILE", "whose features are compared (default with --real: "
         "models/fashion-classifier.safetensors)", 0, 0, NULL},
        {"--train-classifier", BB_OPTION_STRING, &j.train, "OUT", "only trains such a classifier on the training part "
         "of --real, with --seed", 0, 0, NULL},
        {"--floor", BB_OPTION_FLAG, &e->floor, NULL, "the float model's pictures of other seeds, too: what "
         "differences must be seen against", 0, 0, NULL},
        {"--resamples", BB_OPTION_U32, &e->resamples, "N", "of the bootstrap that gives 95 % intervals (default 1000)",
         0, 100000, NULL},
        {"--versus", BB_OPTION_STRING, &j.versus, "FILE", "what -o wrote for another model: intervals of the "
         "differences", 0, 0, NULL},
        {"-o", BB_OPTION_STRING, &e->out, "FILE", "JSON with all resamples, for --versus; finished pictures are kept "
         "in FILE.drawn until it is there, so that the same command goes on after a break", 0, 0, NULL},
        {"--keep", BB_OPTION_STRING, &e->keep, "DIR", "folder where drawn pictures stay, for other evaluations to use",
         0, 0, NULL},
        {"--sheet", BB_OPTION_STRING, &j.sheet, "FILE", "PNG: the float model's pictures above the packed one's", 0, 0,
         NULL},
        {"--markdown", BB_OPTION_FLAG, &j.markdown, NULL, "print a Markdown table", 0, 0, NULL},
        {"--json", BB_OPTION_FLAG, &j.json, NULL, "print one JSON object", 0, 0, NULL},
        {"--quiet", BB_OPTION_FLAG, &e->quiet, NULL, "no progress lines", 0, 0, NULL},
        BB_LORA_OPTION(e->host_options.lora),
        BB_CHECKPOINT_OPTIONS(e->host_options),
        BB_HOST_OPTIONS(e->host_options),
    };
    int code;
    bb_error err = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &e->model, 1, &code)) return code;
    if (j.train) return e->real ? teach(&j) : bb_cli_usage_error(c, "--real DIR is missing: pictures to learn from");
    if (!e->model) return bb_cli_usage_error(c, "expected MODEL --against FLOAT");
    if (!e->against) return bb_cli_usage_error(c, "--against FLOAT is missing");
    bb_status status = evaluate(&j, &err);
    const char *kept = status == BB_ERR_CANCELLED && e->folder[0] ? e->folder : NULL;
    if (kept)
        bb_fail(&err, status, "interrupted; finished pictures are kept in %s, and the same command goes on", kept);
    bb_evaluation_close(e, status >= 0);
    if (status < 0) code = e->ranks.rank && status == BB_ERR_CANCELLED ? BB_EXIT_FAILED : bb_cli_fail(&err);
    else bb_ranks_end();
    bb_cli_release_signals();
    if (status < 0) bb_ranks_abort(code);
    return code;
}

const bb_command bb_command_eval = {"eval", "[MODEL] --against FLOAT",
                                      "distance of a packed model from its float one, and of both from real "
                                    "pictures", run};
