#include "calibrate/quantize.h"
#include "host.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct settings {
    const char *out;
    bb_host_options host;
    bb_quantize_options quantize;
    bb_calibration_options calibration;
    uint32_t layers, range;
    bool guidance_given, quiet, json;
} settings;

static bb_status quantize(const settings *s, bb_host *h, uint8_t **bytes, size_t *size, bb_error *err)
{
    bb_calibration cal = {0};
    bb_calibration_options cal_opt = s->calibration;
    bb_quantize_options opt = s->quantize;
    if (h->model->pack.n_layers)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "the model is quantized already: start from the checkpoint or from "
                                                "what bitbrush import makes of it");
    cal_opt.par = opt.par = h->par;
    cal_opt.quiet = opt.quiet = s->quiet;
    opt.seed = cal_opt.seed;
    if (!cal_opt.steps) cal_opt.steps = bb_host_steps(h);
    if (!s->guidance_given) cal_opt.guidance = bb_host_guidance(h);
    bb_status status = bb_calibrate(&cal, h->model, &cal_opt, err);
    if (status == BB_OK) status = bb_quantize(h->model, &cal, &opt, bytes, size, err);
    bb_calibration_free(&cal);
    return status;
}

static int run(const bb_command *c, int argc, char **argv)
{
    const char *path;
    char command[1024];
    settings s = {.quantize = {.wbits = 4, .abits = 8}, .calibration = {.images = 16, .seed = 1000000}};
    const bb_option options[] = {
        {"-o", BB_OPTION_STRING, &s.out, "OUT", "file to write", 0, 0, NULL},
        {"--wbits", BB_OPTION_U32, &s.quantize.wbits, "N", "bits of a weight (default 4)", 1, 8, NULL},
        {"--abits", BB_OPTION_U32, &s.quantize.abits, "N", "bits of an activation (default 8)", 4, 8, NULL},
        {"--layers", BB_OPTION_CHOICE, &s.layers, "default|all-low", "default keeps 1x1 shortcuts at 8 bits", 0, 0,
         NULL},
        {"--range", BB_OPTION_CHOICE, &s.range, "mse|minmax", "how ranges are chosen (default mse)", 0, 0, NULL},
        {"--images", BB_OPTION_U32, &s.calibration.images, "N", "pictures drawn for calibration (default 16)", 1, 4096,
         NULL},
        {"--steps", BB_OPTION_U32, &s.calibration.steps, "N", "steps of each (default 20, or all there are)", 1,
         BB_MAX_STEP_ROWS, NULL},
        {"--guidance", BB_OPTION_FLOAT, &s.calibration.guidance, "G", "guidance of each (default 2 with a null class)",
         0.001, 100, &s.guidance_given},
        {"--seed", BB_OPTION_U64, &s.calibration.seed, "N", "seed of the first one (default 1000000)", 0, 0, NULL},
        BB_REPORT_OPTIONS(s),
        BB_CHECKPOINT_OPTIONS(s.host),
        BB_HOST_OPTIONS(s.host),
    };
    int code;
    bb_error err = {0};
    bb_host h = {0};
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &path, 1, &code)) return code;
    if (!s.out) return bb_cli_usage_error(c, "-o OUT is missing");
    bb_cli_join(command, sizeof command, c, argc, argv);
    s.quantize.command = command;
    s.quantize.layers = s.layers ? BB_LAYERS_ALL_LOW : BB_LAYERS_DEFAULT;
    s.quantize.range = s.range ? BB_RANGE_MINMAX : BB_RANGE_MSE;
    bb_status status = bb_file_check_writable(s.out, &err);
    if (status == BB_OK) status = bb_host_open(&h, path, &s.host, &err);
    if (status == BB_OK) status = quantize(&s, &h, &bytes, &size, &err);
    if (status == BB_OK) status = bb_file_write(s.out, bytes, size, &err);
    if (status == BB_OK) bb_cli_print_made(s.out, size, s.json);
    free(bytes);
    bb_host_close(&h);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_quantize = {"quantize", "CHECKPOINT -o OUT", "a checkpoint as a packed low-bit model", run};
