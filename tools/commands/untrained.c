/* The commands of a build without oneDNN, OpenMP or zlib: they say how to get them. */
#include "cli.h"

#include <string.h>

static int run(const bb_command *c, int argc, char **argv)
{
    int code = BB_EXIT_OK;
    bb_error err = {0};
    if (argc && !strcmp(argv[0], "--help")) return bb_cli_parse(c, NULL, 0, argc, argv, NULL, 0, &code), code;
    bb_fail(&err, BB_ERR_UNSUPPORTED, "this bitbrush was built without training, which %s needs: apt-get install "
            "libdnnl-dev zlib1g-dev, and build again", c->name);
    return bb_cli_fail(&err);
}

const bb_command bb_command_train = {"train", "-o FOLDER --data PATH --config FILE", "a diffusion model from "
                                     "pictures (not in this build)", run};
const bb_command bb_command_distill = {"distill", "MODEL -o OUT", "a model at few bits learns from its original (not "
                                       "in this build)", run};
