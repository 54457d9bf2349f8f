/* bitbrush quantize: a checkpoint as a packed file (quantizing.h), and a report of it. */
#include "quantizing.h"
#include "report.h"

#include <string.h>

typedef struct settings {
    const char *out, *report;
    bb_host_options host;
    bb_quantizing quantizing;
    bool quiet, json;
    size_t size; /* of the file written */
} settings;

static bb_status write_all(void *user, const bb_make *make, bb_error *err)
{
    settings *s = user;
    const uint8_t *bytes;
    BB_TRY(bb_make_result(make, &bytes, &s->size));
    BB_TRY(bb_file_write(s->out, bytes, s->size, err));
    return s->report ? bb_report_write(s->report, make, err) : BB_OK;
}

static int run(const bb_command *c, int argc, char **argv)
{
    const char *path;
    char command[1024];
    settings s = {0};
    bb_make_options *make = &s.quantizing.make;
    bb_make_defaults(make);
    const bb_option options[] = {
        {"-o", BB_OPTION_STRING, &s.out, "OUT", "file to write; after a break of long work OUT.calibration helps the same "
         "command to go on", 0, 0, NULL},
        BB_QUANTIZING_OPTIONS(s.quantizing),
        {"--budget", BB_OPTION_U64, &make->budget, "BYTES", "2 to 8 bits for each layer, so that the file fits", 0, 0,
         NULL},
        {"--report", BB_OPTION_STRING, &s.report, "FILE", "a table of the layers: Markdown, or JSON if it ends "
         "in .json", 0, 0, NULL},
        {"--steps", BB_OPTION_U32, &make->steps, "N", "steps of each picture (default 20, or all there are)", 1,
         BB_MAX_STEP_ROWS, NULL},
        {"--guidance", BB_OPTION_FLOAT, &make->guidance, "G", "guidance of each picture (default 2 with a null class)",
         0.001, 100, NULL},
        {"--seed", BB_OPTION_U64, &make->seed, "N", "seed of the first one (default 1000000)", 0, 0, NULL},
        BB_REPORT_OPTIONS(s),
        BB_LORA_OPTION(s.quantizing.lora),
        BB_CHECKPOINT_OPTIONS(s.host),
        BB_HOST_OPTIONS(s.host),
    };
    int code;
    bb_error err = {0};
    bb_host h = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &path, 1, &code)) return code;
    if (!s.out) return bb_cli_usage_error(c, "-o OUT is missing");
    if (make->budget && s.quantizing.wbits_given)
        return bb_cli_usage_error(c, "--budget chooses the bits: leave out --wbits");
    if ((code = bb_quantizing_check(c, &s.quantizing)) != BB_EXIT_OK) return code;
    if (s.report && strcmp(s.report, s.out) == 0) return bb_cli_usage_error(c, "--report and -o name the same file");
    bb_cli_join(command, sizeof command, c, argc, argv);
    make->command = command;
    bb_status status = bb_file_check_writable(s.out, &err);
    if (status == BB_OK && s.report) status = bb_file_check_writable(s.report, &err);
    if (status == BB_OK) status = bb_host_open(&h, path, &s.host, &err);
    if (status == BB_OK) status = bb_quantizing_run(&s.quantizing, &h, s.out, s.quiet, write_all, &s, &err);
    if (status >= 0) bb_cli_print_made(s.out, s.size, s.json);
    bb_host_close(&h);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_quantize = {"quantize", "CHECKPOINT -o OUT", "a checkpoint as a packed low-bit model", run};
