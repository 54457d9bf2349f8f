/* The command line: option tables, usage texts, exit codes. */
#ifndef BB_TOOLS_CLI_H
#define BB_TOOLS_CLI_H

#include "base/status.h"

#include <stdio.h>

enum { BB_EXIT_OK = 0, BB_EXIT_FAILED = 1, BB_EXIT_USAGE = 2 };

typedef enum bb_option_kind {
    BB_OPTION_FLAG,   /* bool *out */
    BB_OPTION_STRING, /* const char **out */
    BB_OPTION_LIST,   /* bb_list *out: may be given several times */
    BB_OPTION_U32,    /* uint32_t *out, low..high */
    BB_OPTION_U64,    /* uint64_t *out */
    BB_OPTION_FLOAT,  /* float *out, low..high */
    BB_OPTION_CHOICE, /* uint32_t *out: number of the word in `words` */
    BB_OPTION_GRID,   /* uint32_t out[2]: ROWSxCOLUMNS, each low..high */
} bb_option_kind;

typedef struct bb_list { const char *item[64]; uint32_t n; } bb_list;

typedef struct bb_option {
    const char *name;   /* "--steps" or "-o" */
    bb_option_kind kind;
    void *out;
    const char *value;  /* "N", shown in the usage; for CHOICE the words: "f16|f32" */
    const char *help;
    double low, high;
    bool *given;        /* may be NULL; set when the option appears */
} bb_option;

typedef struct bb_command {
    const char *name, *arguments, *summary; /* "quantize", "CHECKPOINT -o OUT" or "[MODEL]", one line */
    int (*run)(const struct bb_command *c, int argc, char **argv);
} bb_command;

/* Parses argv (after the command's name). positional: exactly n_positional words; at most so many (the others stay as
 * they are) where the command's arguments stand in [], and at least one where they begin with a word and "…". Returns BB_EXIT_OK to go on, else
 * the exit code in *code was decided (--help: 0) and printed, and the result is false. */
bool bb_cli_parse(const bb_command *c, const bb_option *options, size_t n, int argc, char **argv,
                  const char **positional, uint32_t n_positional, int *code);

/* "bitbrush: text" on stderr; the exit code that fits the status (values out of range are usage errors). */
int bb_cli_fail(const bb_error *err);
int bb_cli_usage_error(const bb_command *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The whole command line, for metadata; argv words joined, cut to size; paths shortened to their last part. */
void bb_cli_join(char *out, size_t size, const bb_command *c, int argc, char **argv);

/* What a command that made a file says of it. */
void bb_cli_print_made(const char *path, size_t bytes, bool json);

/* Replaces control characters (C0, DELETE, C1 in UTF-8) by '?': text from files could rewrite the terminal. */
void bb_cli_plain(char *text);

/* A JSON string literal, on stdout or elsewhere; control characters are escaped. */
void bb_cli_print_json(const char *text);
void bb_cli_put_json(FILE *f, const char *text);

/* Removes half-written files when interrupted. */
void bb_cli_catch_signals(void);
/* From hold to release a signal does not end the program yet, only a second one does; release does it, with the exit
 * code of the first: 128 and its number. */
void bb_cli_hold_signals(void);
bool bb_cli_interrupted(void);
void bb_cli_release_signals(void);

extern const bb_command bb_command_import, bb_command_quantize, bb_command_generate, bb_command_info, bb_command_run,
    bb_command_eval, bb_command_bench, bb_command_site, bb_command_train, bb_command_distill;

#endif
