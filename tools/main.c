/* bitbrush: diffusion models at 1 to 8 bits, from a checkpoint to a picture. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const bb_command *const commands[] = {
    &bb_command_import, &bb_command_quantize, &bb_command_generate, &bb_command_eval, &bb_command_run, &bb_command_info,
    &bb_command_site, &bb_command_bench, &bb_command_train, &bb_command_distill,
};

static void usage(FILE *to)
{
    fprintf(to, "usage: bitbrush COMMAND …    (bitbrush COMMAND --help tells more)\n\n");
    for (size_t i = 0; i < BB_COUNT(commands); i++)
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return BB_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return BB_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("bitbrush 0.1.0 (file format %u)\n", BB_FORMAT_VERSION);
        return BB_EXIT_OK;
    }
    bb_cli_catch_signals();
    for (size_t i = 0; i < BB_COUNT(commands); i++)
        if (strcmp(argv[1], commands[i]->name) == 0) {
            int code = commands[i]->run(commands[i], argc - 2, argv + 2);
            /* A full disk or a closed pipe behind stdout is an error too. */
            if ((fflush(stdout) || ferror(stdout)) && code == BB_EXIT_OK) {
                fprintf(stderr, "bitbrush: cannot write to standard output\n");
                code = BB_EXIT_FAILED;
            }
            return code;
        }
    fprintf(stderr, "bitbrush: unknown command %s (bitbrush --help lists them)\n", argv[1]);
    return BB_EXIT_USAGE;
}
