#include "host.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bb_status print_metadata(const bb_host *h, bool json, bb_error *err)
{
    const bb_json *j = &h->model->pack.header;
    uint32_t object = bb_json_member(j, 0, "__metadata__");
    char key[256];
    char *value = malloc(j->n + 1);
    bool first = true;
    if (!value) return bb_fail(err, BB_ERR_SPACE, "out of memory");
    if (json) printf("\"metadata\":{");
    for (uint32_t k = bb_json_first(j, object); k != BB_JSON_NONE; k = bb_json_next(j, k)) {
        if (!bb_json_string(j, k, key, sizeof key) || !bb_json_string(j, bb_json_value(j, k), value, j->n + 1))
            continue;
        if (json) {
            if (!first) putchar(',');
            first = false;
            bb_cli_print_json(key);
            putchar(':');
            bb_cli_print_json(value);
        } else {
            bb_cli_plain(key);
            bb_cli_plain(value);
            printf("%-16s %s\n", key, value);
        }
    }
    if (json) printf("},");
    free(value);
    return BB_OK;
}

static void layer_text(const bb_layer *l, char *out, size_t size)
{
    size_t n = 0;
    for (uint32_t i = 0; i < l->rec->n_classes && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%ux%u", i ? "+" : "", l->rec->class_rows[i],
                              l->rec->class_planes[i]);
}

static void print_layers(const bb_host *h, bool json)
{
    const bb_pack *p = &h->model->pack;
    const bb_graph *g = &p->graph;
    bool first = true;
    if (json) printf("\"layers\":[");
    else printf("\n%-52s %10s %14s %5s %8s %5s\n", "layer", "outputs", "inputs", "acts", "segments", "rows");
    for (uint32_t i = 0; i < g->n_weights; i++) {
        const bb_layer *l = p->weights[i].layer;
        char planes[128];
        if (!l) continue;
        layer_text(l, planes, sizeof planes);
        const char *name = bb_graph_string(g, g->weights[i].name);
        const bb_quantizer_rec *q = l->quantizer->rec;
        if (json) {
            printf("%s{\"name\":", first ? "" : ",");
            bb_cli_print_json(name);
            printf(",\"outputs\":%u,\"taps\":%u,\"channels\":%u,\"planes\":\"%s\",", l->rec->outputs, l->rec->taps,
                   l->rec->channels, planes);
            printf("\"abits\":%u,\"segments\":%u,\"step_rows\":%u}", q->bits, q->segments, q->rows);
        } else {
            char inputs[32], plain[128];
            snprintf(plain, sizeof plain, "%s", name);
            bb_cli_plain(plain);
            snprintf(inputs, sizeof inputs, "%ux%u", l->rec->taps, l->rec->channels);
            printf("%-52s %10s %14s %5u %8u %5u\n", plain, planes, inputs, q->bits, q->segments, q->rows);
        }
        first = false;
    }
    if (json) printf("],");
}

static void print_modules(const bb_host *h)
{
    const bb_graph *g = &h->model->pack.graph;
    bool first = true;
    printf("\"modules\":[");
    for (uint32_t i = 0; i < g->n_values; i++) {
        if (g->values[i].path == BB_NONE) continue;
        if (!first) putchar(',');
        first = false;
        bb_cli_print_json(bb_graph_string(g, g->values[i].path));
    }
    printf("],");
}

/* The timesteps that the activation tables were made for. */
static void print_steps(const bb_host *h, bool json)
{
    const bb_pack *p = &h->model->pack;
    const bb_quantizer *longest = NULL;
    for (uint32_t i = 0; i < p->n_quantizers; i++)
        if (!longest || p->quantizers[i].rec->rows > longest->rec->rows) longest = &p->quantizers[i];
    if (json) printf("\"step_table\":[");
    else if (longest) printf("\nactivation tables made for %u timesteps:", longest->rec->rows);
    for (uint32_t i = 0; longest && i < longest->rec->rows; i++)
        printf(json ? "%s%g" : "%s %g", json && i ? "," : "", (double)longest->key[i]);
    if (json) printf("],");
    else if (longest) printf(" (any step count works; the nearest row is used)\n");
}

/* What --sampler default means for this model. */
static void print_scheduler(const bb_host *h, bool json)
{
    static const char *const families[] = {"", "DDIM", "DDPM", "Euler", "Euler ancestral", "DPM-Solver multistep",
                                           "UniPC", "PNDM", "LCM"};
    static const char *const predictions[] = {"epsilon", "v", "sample"}, *const spacings[] = {"leading", "trailing",
                                                                                              "linspace"};
    const bb_schedule *s = &h->model->pack.schedule;
    const char *family = families[s->solver.family], *prediction = predictions[s->prediction];
    if (json) printf("\"scheduler\":{\"family\":\"%s\",\"order\":%u,\"options\":%u,\"prediction\":\"%s\",\"spacing\":"
                     "\"%s\"},", family, s->solver.order, s->solver.flags, prediction, spacings[s->spacing]);
    else printf("scheduler: %s, predicts %s, %s spacing%s\n", family, prediction, spacings[s->spacing],
                s->solver.flags & BB_SOLVER_KARRAS ? ", Karras noise levels" : "");
}

/* Trained numbers: all weight slots but the timestep frequencies, which are computed. */
static uint64_t parameters(const bb_graph *g)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < g->n_weights; i++) {
        uint64_t n = 1;
        for (uint32_t k = 0; k < g->weights[i].rank; k++) n *= g->weights[i].dim[k];
        total += n;
    }
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (g->ops[i].kind == BB_OP_TIMESTEP_EMBEDDING) total -= g->weights[g->ops[i].weight[0]].dim[0];
    return total;
}

static int run(const bb_command *c, int argc, char **argv)
{
    const char *model;
    bool json = false;
    bb_host_options host = {.threads = 1};
    const bb_option options[] = {
        {"--json", BB_OPTION_FLAG, &json, NULL, "print one JSON object, with all module paths", 0, 0, NULL},
        BB_CHECKPOINT_OPTIONS(host),
    };
    int code;
    bb_host h = {0};
    bb_error err = {0};
    if (!bb_cli_parse(c, options, BB_COUNT(options), argc, argv, &model, 1, &code)) return code;
    bb_status status = bb_host_open(&h, model, &host, &err);
    if (status == BB_OK && json) printf("{");
    if (status == BB_OK) status = print_metadata(&h, json, &err);
    if (status == BB_OK) {
        const bb_pack *p = &h.model->pack;
        print_layers(&h, json);
        if (json) print_modules(&h);
        print_steps(&h, json);
        print_scheduler(&h, json);
        unsigned long long bytes = p->info.blob_bytes, n = parameters(&p->graph);
        if (json) printf("\"bytes\":%llu,\"parameters\":%llu,\"ops\":%u}\n", bytes, n, p->graph.n_ops);
        else printf("%llu parameters, %u ops, %u quantized layers, %llu bytes = %.3f × float32\n", n, p->graph.n_ops,
                    p->n_layers, bytes, (double)bytes / (4.0 * (double)n));
    }
    bb_host_close(&h);
    return status < 0 ? bb_cli_fail(&err) : BB_EXIT_OK;
}

const bb_command bb_command_info = {"info", "MODEL", "what a model file holds", run};
