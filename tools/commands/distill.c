#include "cli.h"

static int run(const bb_command *c, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    bb_error err = {0};
    bb_fail(&err, BB_ERR_UNSUPPORTED, "%s is not there yet", c->name);
    return bb_cli_fail(&err);
}

const bb_command bb_command_distill = {"distill", "MODEL -o OUT", "a model at few bits learns from its original", run};
