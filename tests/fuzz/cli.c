/* Words of a command line, NUL-separated, against one option of every kind. */
#include "fuzz.h"

#include "cli.h"

#include <math.h>

enum { MAX_WORDS = 24 };

static int nothing(const bb_command *c, int argc, char **argv)
{
    (void)c, (void)argc, (void)argv;
    return 0;
}

FUZZ_TARGET(cli)
{
    static const bb_command command = {"fuzz", "A B", "summary", nothing};
    bool flag = false, given = false;
    const char *text = NULL, *positional[2] = {NULL, NULL};
    bb_list list = {0};
    uint32_t u32 = 7, choice = 0, grid[2] = {1, 1};
    uint64_t u64 = 0;
    float real = 1;
    const bb_option options[] = {
        {"--flag", BB_OPTION_FLAG, &flag, NULL, "", 0, 0, &given},
        {"--text", BB_OPTION_STRING, &text, "T", "", 0, 0, NULL},
        {"--list", BB_OPTION_LIST, &list, "L", "", 0, 0, NULL},
        {"-n", BB_OPTION_U32, &u32, "N", "", 1, 65536, NULL},
        {"--u64", BB_OPTION_U64, &u64, "N", "", 0, 0, NULL},
        {"--real", BB_OPTION_FLOAT, &real, "R", "", 0.001, 1000, NULL},
        {"--choice", BB_OPTION_CHOICE, &choice, "f16|f32|none", "", 0, 0, NULL},
        {"--grid", BB_OPTION_GRID, grid, "RxC", "", 1, 64, NULL},
    };
    char *copy = fuzz_block(n + 1), *words[MAX_WORDS + 1] = {NULL};
    if (n) memcpy(copy, data, n);
    copy[n] = 0;
    int count = 0, code = 0;
    for (size_t at = 0; at < n && count < MAX_WORDS; at += strlen(copy + at) + 1) words[count++] = copy + at;
    bool ok = bb_cli_parse(&command, options, BB_COUNT(options), count, words, positional, 2, &code);
    FUZZ_CHECK(ok == (code == BB_EXIT_OK && positional[1]) || code == BB_EXIT_OK); /* --help: neither */
    FUZZ_CHECK(u32 >= 1 && u32 <= 65536 && choice < 3 && isfinite(real) && real >= 0.001f && real <= 1000);
    FUZZ_CHECK(grid[0] >= 1 && grid[0] <= 64 && grid[1] >= 1 && grid[1] <= 64 && list.n <= BB_COUNT(list.item));
    char joined[256];
    bb_cli_join(joined, sizeof joined, &command, count, words);
    FUZZ_CHECK(memchr(joined, 0, sizeof joined));
    free(copy);
    return ok ? 0 : code;
}
