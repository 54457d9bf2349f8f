/* bitbrush site: a folder for any static host, of the page and the models. */
#include "site/site.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a file may have on the host with the lowest limit, Cloudflare Pages' 25 MiB, with room. */
static const uint64_t SPLIT = 24u << 20;

/* "0", "20M", "500K" or bytes. */
static bool parse_split(const char *text, uint64_t *out)
{
    const uint64_t least = 1 << 10, most = (uint64_t)1 << 40;
    char *end;
    if (*text < '0' || *text > '9') return false;
    uint64_t n = strtoull(text, &end, 10), shift = 0;
    if (*end == 'K' || *end == 'k') shift = 10, end++;
    else if (*end == 'M' || *end == 'm') shift = 20, end++;
    else if (*end == 'G' || *end == 'g') shift = 30, end++;
    if (*end || n > most >> shift) return false;
    *out = n << shift;
    return n == 0 || *out >= least;
}

static bool valid_utf8(const char *text)
{
    bb_json j;
    bb_json_token tokens[8];
    char list[512];
    int n = snprintf(list, sizeof list, "[\"%s\"]", text);
    for (char *c = list + 2; n > 4 && c < list + n - 2; c++)
        if (*c == '"' || *c == '\\') *c = ' ';
    return n > 0 && (size_t)n < sizeof list && bb_json_parse(&j, list, (size_t)n, tokens, sizeof tokens);
}

static bb_status make_site(bb_site *s, const char *const *models, bb_error *err)
{
    BB_TRY(bb_site_find_page(s, err));
    BB_TRY(bb_site_old_read(s, err));
    for (uint32_t i = 0; i < BB_SITE_MODELS && models[i]; i++) BB_TRY(bb_site_add_model(s, models[i], err));
    bb_site_choose_artists(s);
    BB_TRY(bb_site_add_list(s, err));
    BB_TRY(bb_site_add_page(s, err));
    BB_TRY(bb_site_add_pictures(s, err));
    BB_TRY(bb_site_add_models(s, err));
    return bb_site_write(s, err);
}

static void report(const bb_site *s)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < s->n_files; i++) bytes += s->files[i].n;
    if (!s->json_report) {
        printf("%s: %u model%s, %u files, %llu bytes; %u written, %u removed\n", s->out, s->n_models,
               s->n_models == 1 ? "" : "s", s->n_files, (unsigned long long)bytes, s->written, s->removed);
        return;
    }
    printf("{\"out\":");
    bb_cli_print_json(s->out);
    printf(",\"models\":%u,\"files\":%u,\"bytes\":%llu,\"written\":%u,\"removed\":%u,\"drawn\":%u}\n", s->n_models,
           s->n_files, (unsigned long long)bytes, s->written, s->removed, s->drawn);
}

static int run(const bb_command *c, int argc, char **argv)
{
    static bb_site s;
    const char *models[BB_SITE_MODELS] = {NULL}, *split = NULL;
    s = (bb_site){.title = "Bitbrush", .split = SPLIT};
    const bb_option options[] = {
        {"-o", BB_OPTION_STRING, &s.out, "DIR", "folder of the site: a new or empty one, or a site to bring up to date",
         0, 0, NULL},
        {"--title", BB_OPTION_STRING, &s.title, "TEXT", "what the page calls itself (default Bitbrush)", 0, 0, NULL},
        {"--page", BB_OPTION_STRING, &s.page, "DIR", "folder of the page (default: page, beside this program)", 0, 0,
         NULL},
        {"--split", BB_OPTION_STRING, &split, "SIZE", "models above SIZE go in parts of it, for hosts that limit files: "
         "20M, 500K, 0 = never (default 24M)", 0, 0, NULL},
        {"--isolate", BB_OPTION_FLAG, &s.isolate, NULL, "the page's service worker makes it cross-origin isolated, so "
         "that it draws with threads on hosts that send no COOP and COEP", 0, 0, NULL},
        {"--no-pictures", BB_OPTION_FLAG, &s.no_pictures, NULL, "no pictures of the classes", 0, 0, NULL},
        {"--json", BB_OPTION_FLAG, &s.json_report, NULL, "print one JSON object", 0, 0, NULL},
        {"--quiet", BB_OPTION_FLAG, &s.quiet, NULL, "no progress lines", 0, 0, NULL},
        BB_HOST_OPTIONS(s.host_options),
    };
    int code;
    bb_error err = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, models, BB_SITE_MODELS, &code)) return code;
    if (!s.out) return bb_cli_usage_error(c, "-o DIR is missing");
    if (!*s.out) return bb_cli_usage_error(c, "-o: must be the name of a folder");
    if (split && !parse_split(split, &s.split))
        return bb_cli_usage_error(c, "--split %s: must be bytes, or a number with K, M or G, from 1K; 0 = never", split);
    if (!valid_utf8(s.title)) return bb_cli_usage_error(c, "--title: must be UTF-8, one line of at most 500 bytes");
    bb_status status = make_site(&s, models, &err);
    if (status >= 0) report(&s);
    bb_site_close(&s);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_site = {"site", "MODEL… -o DIR", "a static site that draws with these models", run};
