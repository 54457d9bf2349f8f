#include "cli.h"

static int run(const bb_command *c, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    bb_error err = {0};
    bb_fail(&err, BB_ERR_UNSUPPORTED, "%s is not there yet", c->name);
    return bb_cli_fail(&err);
}

const bb_command bb_command_train = {"train", "OUT", "a diffusion model from pictures", run};
