#include "host.h"
#include "import/import.h"

#include <stdio.h>
#include <stdlib.h>

static int run(const bb_command *c, int argc, char **argv)
{
    const char *path, *out = NULL;
    char command[1024];
    uint32_t dtype = 0;
    bool json = false;
    bb_import_options opt = {0};
    const bb_option options[] = {
        {"-o", BB_OPTION_STRING, &out, "OUT", "file to write", 0, 0, NULL},
        {"--dtype", BB_OPTION_CHOICE, &dtype, "f16|f32", "storage of the weights (default f16)", 0, 0, NULL},
        {"--json", BB_OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0, NULL},
        BB_LORA_OPTION(opt.lora),
        BB_CHECKPOINT_OPTIONS(opt),
    };
    int code;
    bb_error err = {0};
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &path, 1, &code)) return code;
    if (!out) return bb_cli_usage_error(c, "-o OUT is missing");
    bb_cli_join(command, sizeof command, c, argc, argv);
    opt.path = path;
    opt.dtype = dtype ? BB_F32 : BB_F16;
    opt.command = command;
    bb_status status = bb_file_check_writable(out, &err);
    if (status == BB_OK) status = bb_import(&opt, &bytes, &size, &err);
    if (status == BB_OK) status = bb_file_write(out, bytes, size, &err);
    if (status == BB_OK) bb_cli_print_made(out, size, json);
    free(bytes);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_import = {"import", "CHECKPOINT -o OUT",
                                        "a checkpoint folder as one unquantized file", run};
