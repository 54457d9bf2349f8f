#include "host.h"
#include "sheet.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct job {
    const char *out, *label;
    uint64_t seed;
    uint32_t steps, sampler, grid[2];
    float guidance, eta;
    bool guidance_given, json, quiet;
    bb_host_options host_options;
    bb_host host;
    uint64_t hash; /* FNV-1a of all RGBA bytes, picture by picture */
    double seconds;
} job;

static void hash_bytes(uint64_t *hash, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) *hash = (*hash ^ p[i]) * 0x100000001b3u;
}

/* The shortest decimal that reads back as the same float, as the page writes it. */
static const char *float_text(char out[32], float x)
{
    for (int decimals = 0; decimals <= 12; decimals++) {
        snprintf(out, 32, "%.*f", decimals, (double)x);
        if (strtof(out, NULL) == x) break;
    }
    return out;
}

/* The request as options of this command: the page writes the same text, so both make the same file. */
static void request_text(const job *j, int32_t label, char *out, size_t size)
{
    size_t n = 0;
    char number[32];
    bool one_label = j->label || j->grid[0] * j->grid[1] == 1;
    if (j->host.model->pack.info.classes && one_label) n = (size_t)snprintf(out, size, "--label %d ", label);
    n += (size_t)snprintf(out + n, size - n, "--seed %" PRIu64 " --steps %u --guidance %s", j->seed, j->steps,
                          float_text(number, j->guidance));
    if (j->eta != 0) n += (size_t)snprintf(out + n, size - n, " --eta %s", float_text(number, j->eta));
    if (j->sampler) n += (size_t)snprintf(out + n, size - n, " --sampler %s", bb_sampler_name(j->sampler));
    if (j->grid[0] * j->grid[1] > 1) snprintf(out + n, size - n, " --grid %ux%u", j->grid[0], j->grid[1]);
}

static bb_status write_png(const job *j, const bb_image *image, const char *request, bb_error *err)
{
    const char *const text[] = {"Software", "bitbrush", "bitbrush", request, NULL};
    size_t scratch_bytes = bb_png_scratch(image), png_bytes;
    const uint8_t *png;
    void *scratch = malloc(scratch_bytes);
    if (!scratch) return bb_fail(err, BB_ERR_SPACE, "out of memory for the PNG");
    bb_status status = bb_png(image, text, scratch, scratch_bytes, &png, &png_bytes);
    if (status < 0) bb_fail(err, status, "PNG: %s", bb_strerror(status));
    else status = bb_file_write(j->out, png, png_bytes, err);
    free(scratch);
    return status;
}

static bb_status draw_all(job *j, bb_error *err)
{
    const bb_info *info = &j->host.model->pack.info;
    uint32_t count = j->grid[0] * j->grid[1];
    int32_t label = 0;
    char request[160], name[128];
    if (j->label) BB_TRY(bb_host_label(&j->host, j->label, &label, err));
    bb_image tile = {.width = info->width, .height = info->height};
    tile.rgba = malloc((size_t)tile.width * tile.height * 4);
    bb_sheet sheet = {0};
    if (count > 1) sheet = bb_sheet_new(j->grid[0], j->grid[1], info->width, info->height, 0);
    bb_status status = tile.rgba && (count == 1 || sheet.image.rgba) ? BB_OK : BB_ERR_SPACE;
    if (status < 0) bb_fail(err, status, "the picture or sheet is too large for a PNG or for memory");
    bb_stats stats;
    bb_stats_get(j->host.session, &stats);
    bb_progress progress = bb_progress_start("drawing (steps)", (size_t)count * stats.steps, j->quiet);
    double start = bb_now();
    int32_t of_picture = label;
    for (uint32_t i = 0; status == BB_OK && i < count; i++) {
        of_picture = j->label ? label : bb_nth_label(info, i);
        status = bb_host_draw(&j->host, j->seed + i, of_picture, &tile, &progress, (size_t)i * stats.steps, err);
        if (status == BB_OK) hash_bytes(&j->hash, tile.rgba, (size_t)tile.height * tile.width * 4);
        if (info->classes) bb_host_label_name(&j->host, of_picture, name, sizeof name);
        else snprintf(name, sizeof name, "seed %" PRIu64, j->seed + i);
        if (status == BB_OK && count > 1) bb_sheet_put(&sheet, i, tile.rgba, name);
    }
    j->seconds = bb_now() - start;
    request_text(j, of_picture, request, sizeof request);
    if (status == BB_OK) status = write_png(j, count > 1 ? &sheet.image : &tile, request, err);
    free(tile.rgba);
    bb_sheet_free(&sheet);
    return status;
}

static bb_status generate(job *j, const char *model, bb_error *err)
{
    BB_TRY(bb_file_check_writable(j->out, err));
    BB_TRY(bb_host_open(&j->host, model, &j->host_options, err));
    if (!j->steps) j->steps = bb_host_steps(&j->host);
    if (!j->guidance_given) j->guidance = bb_host_guidance(&j->host);
    bb_request req = {.size_of = sizeof req, .steps = j->steps, .guidance = j->guidance, .sampler = j->sampler,
                      .eta = j->eta};
    BB_TRY(bb_host_session(&j->host, &req, err));
    return draw_all(j, err);
}

static void report(const job *j)
{
    uint32_t count = j->grid[0] * j->grid[1];
    if (!j->json) {
        printf("%s: %u picture%s, %u steps, kernels %s, %.2f s\n", j->out, count, count == 1 ? "" : "s", j->steps,
               bb_model_kernels(j->host.model), j->seconds);
        return;
    }
    printf("{\"out\":");
    bb_cli_print_json(j->out);
    printf(",\"pictures\":%u,\"steps\":%u,\"seed\":\"%" PRIu64 "\",\"guidance\":%g,\"cpu\":\"%s\",\"kernels\":\"%s\","
           "\"threads\":%u,\"seconds\":%.3f,\"rgba_fnv1a64\":\"%016" PRIx64 "\"}\n",
           count, j->steps, j->seed, (double)j->guidance,
           bb_host_cpu_word(j->host_options.cpu), bb_model_kernels(j->host.model), bb_par_threads(j->host.par),
           j->seconds, j->hash);
}

static int run(const bb_command *c, int argc, char **argv)
{
    const char *model;
    job j = {.seed = 1, .grid = {1, 1}, .hash = 0xcbf29ce484222325u};
    const bb_option options[] = {
        {"-o", BB_OPTION_STRING, &j.out, "FILE", "PNG to write", 0, 0, NULL},
        {"--label", BB_OPTION_STRING, &j.label, "CLASS", "class number or name (default: all in turn)", 0, 0, NULL},
        {"--seed", BB_OPTION_U64, &j.seed, "N", "seed; picture i of a grid uses seed + i (default 1)", 0, 0, NULL},
        {"--steps", BB_OPTION_U32, &j.steps, "N", "steps (default 20, or all there are); pndm takes 9 evaluations "
         "more, plms 1", 1, 65536, NULL},
        {"--guidance", BB_OPTION_FLOAT, &j.guidance, "G", "guidance scale (default 2 with a null class, else 1)", 0.001,
         1000, &j.guidance_given},
        BB_SAMPLER_OPTION(j),
        {"--eta", BB_OPTION_FLOAT, &j.eta, "E", "share of fresh noise in DDIM (default 0)", 0, 1, NULL},
        {"--grid", BB_OPTION_GRID, j.grid, "RxC", "a labelled sheet of pictures", 1, 64, NULL},
        BB_REPORT_OPTIONS(j),
        BB_LORA_OPTION(j.host_options.lora),
        BB_CHECKPOINT_OPTIONS(j.host_options),
        BB_HOST_OPTIONS(j.host_options),
    };
    int code;
    bb_error err = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &model, 1, &code)) return code;
    if (!j.out) return bb_cli_usage_error(c, "-o FILE is missing");
    bb_status status = generate(&j, model, &err);
    if (status < 0 && !err.text[0]) err.code = status;
    if (status >= 0) report(&j);
    bb_host_close(&j.host);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_generate = {"generate", "MODEL -o FILE", "pictures from a model", run};
