/* bitbrush quantize: drives core/make, with a progress line; after a break it goes on where calibration was. */
#include "calibration.h"
#include "host.h"
#include "make.h"
#include "progress.h"
#include "report.h"

#include <stdio.h>
#include <string.h>

typedef struct settings {
    const char *out, *report;
    bb_host_options host;
    bb_make_options make;
    bb_list lora;
    bool wbits_given, ladder_given, mixed_given, quiet, json;
} settings;

static bb_status make_all(const settings *s, bb_make *make, bb_kept *kept, bb_error *err)
{
    static const char *const names[BB_MAKE_PHASES] = {"calibrating (steps)", "quantizing (weights)", "writing"};
    bb_progress progress = {0};
    bb_make_progress at;
    bb_status status = BB_AGAIN;
    for (uint32_t phase = BB_MAKE_PHASES; status == BB_AGAIN;) {
        double begun = bb_now();
        status = bb_make_step(make, &at, err);
        if (status < 0) break;
        bb_kept_slice(kept, make, &at);
        if (bb_cli_interrupted()) {
            if (progress.terminal && !s->quiet) fputc('\n', stderr);
            return bb_fail(err, BB_ERR_CANCELLED, "interrupted");
        }
        if (at.phase == BB_MAKE_WRITE) continue;
        if (at.phase != phase) {
            progress = bb_progress_start(names[phase = at.phase], at.total, s->quiet);
            progress.started = begun;
            progress.before = at.done - 1;
        }
        bb_progress_step(&progress, at.done);
    }
    return status;
}

static bb_status fold_all(const bb_list *list, bb_make *make, bb_kept *kept, bb_error *err)
{
    for (uint32_t i = 0; i < list->n; i++) {
        bb_lora_input in;
        bb_lora_report report;
        BB_TRY(bb_lora_input_open(&in, list->item[i], err));
        bb_status status = bb_make_lora(make, &in.lora, &report, err);
        if (status == BB_OK) bb_lora_note(&in, &report);
        if (status == BB_OK) bb_kept_lora(kept, &in.lora);
        bb_lora_input_close(&in);
        BB_TRY(status);
    }
    return BB_OK;
}

static bb_status write_all(const settings *s, bb_make *make, bb_kept *kept, size_t *size, bb_error *err)
{
    const uint8_t *bytes;
    BB_TRY(fold_all(&s->lora, make, kept, err));
    BB_TRY(bb_kept_load(kept, make, s->quiet, err));
    BB_TRY(make_all(s, make, kept, err));
    BB_TRY(bb_make_result(make, &bytes, size));
    BB_TRY(bb_file_write(s->out, bytes, *size, err));
    return s->report ? bb_report_write(s->report, make, err) : BB_OK;
}

static bb_status quantize(settings *s, bb_host *h, bb_error *err)
{
    bb_make *make;
    size_t size;
    s->make.par = h->par;
    BB_TRY(bb_make_begin(h->model, &s->make, &bb_tools_memory, &make, err));
    bb_kept kept = bb_kept_begin(s->out, h, &s->make);
    if (!kept.off) bb_cli_hold_signals();
    bb_status status = write_all(s, make, &kept, &size, err);
    bb_kept_end(&kept, status >= 0);
    bb_make_end(make);
    bb_cli_release_signals();
    if (status >= 0) bb_cli_print_made(s->out, size, s->json);
    return status;
}

static int run(const bb_command *c, int argc, char **argv)
{
    const char *path;
    char command[1024];
    settings s = {0};
    bb_make_defaults(&s.make);
    const bb_option options[] = {
        {"-o", BB_OPTION_STRING, &s.out, "OUT", "file to write; after a break of long work OUT.calibration helps the same "
         "command to go on", 0, 0, NULL},
        {"--wbits", BB_OPTION_U32, &s.make.wbits, "N", "bits of a weight (default 4)", 1, 8, &s.wbits_given},
        {"--abits", BB_OPTION_U32, &s.make.abits, "N", "bits of an activation (default 8)", 4, 8, NULL},
        {"--budget", BB_OPTION_U64, &s.make.budget, "BYTES", "2 to 8 bits for each layer, so that the file fits", 0, 0,
         NULL},
        {"--layers", BB_OPTION_CHOICE, &s.make.layers, "default|all-low|paper",
         "first and last layer float, time layers and 1x1 shortcuts 8/8; all-low: first, last and time layers 8/8; "
         "paper: that, and shortcuts and resamplers float", 0, 0, NULL},
        {"--smoothing", BB_OPTION_FLOAT, &s.make.smoothing, "A",
         "exponent of activations' smoothing per input channel (default 0.5; 0 = none)", 0, 1, NULL},
        {"--range", BB_OPTION_CHOICE, &s.make.range, "mse|p2.4|minmax", "how ranges are chosen (default p2.4)", 0, 0,
         NULL},
        {"--tables", BB_OPTION_CHOICE, &s.make.tables, "step|static", "activation ranges by step (default), or one for "
         "all steps", 0, 0, NULL},
        {"--refit", BB_OPTION_U32, &s.make.refit, "N", "rounds of least squares on an output's levels at most (default "
         "25)", 0, 1000, NULL},
        {"--ladder", BB_OPTION_CHOICE, &s.make.ladder, "never|best|always",
         "binary residual planes with free multipliers; best (default): at 3 bits and less, where worth their bytes; "
         "always: at 4 and less", 0, 0, &s.ladder_given},
        {"--mixed", BB_OPTION_CHOICE, &s.make.mixed, "never|kurtosis|gain", "one bit more and one bit less for up to "
         "half of a layer's outputs each, ranked so (default never)", 0, 0, &s.mixed_given},
        {"--compensation", BB_OPTION_FLOAT, &s.make.compensation, "A", "rounding by output error on sampled inputs; A: "
         "weight of the nearest level (default 0.3; 0 = always the nearest)", 0, 100, NULL},
        {"--report", BB_OPTION_STRING, &s.report, "FILE", "a table of the layers: Markdown, or JSON if it ends "
         "in .json", 0, 0, NULL},
        {"--images", BB_OPTION_U32, &s.make.images, "N", "pictures drawn for calibration (default 16)", 1, 4096,
         NULL},
        {"--steps", BB_OPTION_U32, &s.make.steps, "N", "steps of each (default 20, or all there are)", 1,
         BB_MAX_STEP_ROWS, NULL},
        {"--guidance", BB_OPTION_FLOAT, &s.make.guidance, "G", "guidance of each (default 2 with a null class)",
         0.001, 100, NULL},
        {"--seed", BB_OPTION_U64, &s.make.seed, "N", "seed of the first one (default 1000000)", 0, 0, NULL},
        BB_REPORT_OPTIONS(s),
        BB_LORA_OPTION(s.lora),
        BB_CHECKPOINT_OPTIONS(s.host),
        BB_HOST_OPTIONS(s.host),
    };
    int code;
    bb_error err = {0};
    bb_host h = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &path, 1, &code)) return code;
    if (!s.out) return bb_cli_usage_error(c, "-o OUT is missing");
    if (s.make.budget && s.wbits_given) return bb_cli_usage_error(c, "--budget chooses the bits: leave out --wbits");
    if (s.ladder_given && s.make.ladder && !s.make.budget && s.make.wbits > 4)
        return bb_cli_usage_error(c, "--ladder needs --wbits 4 or less");
    if (s.mixed_given && s.make.mixed && !s.make.budget && (s.make.wbits < 2 || s.make.wbits > 7))
        return bb_cli_usage_error(c, "--mixed needs --wbits 2 to 7");
    if (s.report && strcmp(s.report, s.out) == 0) return bb_cli_usage_error(c, "--report and -o name the same file");
    bb_cli_join(command, sizeof command, c, argc, argv);
    s.make.command = command;
    bb_status status = bb_file_check_writable(s.out, &err);
    if (status == BB_OK && s.report) status = bb_file_check_writable(s.report, &err);
    if (status == BB_OK) status = bb_host_open(&h, path, &s.host, &err);
    if (status == BB_OK) status = quantize(&s, &h, &err);
    bb_host_close(&h);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_quantize = {"quantize", "CHECKPOINT -o OUT", "a checkpoint as a packed low-bit model", run};
