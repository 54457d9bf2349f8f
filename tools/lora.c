#include "lora.h"

#include "api/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bb_status split(bb_lora_input *in, const char *text, bb_error *err)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    size_t n = strlen(text);
    in->lora.scale = 1;
    if (colon && colon[1]) {
        double scale = strtod(colon + 1, &end);
        if (!*end && !(fabs(scale) <= 1e6))
            return bb_fail(err, BB_ERR_OPTION, "--lora %s: the scale must be a number from -1e6 to 1e6", text);
        if (!*end) in->lora.scale = (float)scale, n = (size_t)(colon - text);
    }
    if (!n || n >= sizeof in->path) return bb_fail(err, BB_ERR_OPTION, "--lora %s: not a file name", text);
    memcpy(in->path, text, n);
    in->path[n] = 0;
    return BB_OK;
}

static bb_status open_config(bb_lora_input *in, bb_error *err)
{
    const char *slash = strrchr(in->path, '/');
    int folder = slash ? (int)(slash - in->path) + 1 : 0;
    int n = snprintf(in->config_path, sizeof in->config_path, "%.*sadapter_config.json", folder, in->path);
    if (n < 0 || (size_t)n >= sizeof in->config_path || !bb_path_exists(in->config_path)) return BB_OK;
    BB_TRY(bb_file_open(&in->config, in->config_path, err));
    in->lora.config = in->config.size ? (const char *)in->config.data : "";
    in->lora.config_bytes = in->config.size;
    in->lora.config_name = in->config_path;
    return BB_OK;
}

bb_status bb_lora_input_open(bb_lora_input *in, const char *text, bb_error *err)
{
    *in = (bb_lora_input){0};
    BB_TRY(split(in, text, err));
    BB_TRY(bb_file_open(&in->file, in->path, err));
    in->lora.name = in->path;
    in->lora.data = in->file.data;
    in->lora.bytes = in->file.size;
    bb_status status = open_config(in, err);
    if (status < 0) bb_lora_input_close(in);
    return status;
}

void bb_lora_input_close(bb_lora_input *in)
{
    bb_file_close(&in->file);
    bb_file_close(&in->config);
}

void bb_lora_note(const bb_lora_input *in, const bb_lora_report *report)
{
    if (report->skipped)
        fprintf(stderr, "bitbrush: %s: %u tensor%s for a text encoder not used\n", in->path,
                (unsigned)report->skipped, report->skipped == 1 ? "" : "s");
}

bb_status bb_lora_fold_list(bb_model *model, const bb_list *list, bb_blocks *blocks, bb_error *err)
{
    bb_pack *pack = &model->pack;
    const bb_pack given = *pack;
    bb_weight *weights = bb_blocks_take(blocks, pack->graph.n_weights, sizeof *weights);
    if (!weights) return bb_fail(err, BB_ERR_SPACE, "--lora: out of memory");
    memcpy(weights, given.weights, pack->graph.n_weights * sizeof *weights);
    for (uint32_t i = 0; i < list->n; i++) {
        bb_lora_input in;
        bb_lora_report report;
        BB_TRY(bb_lora_input_open(&in, list->item[i], err));
        bb_status status = bb_lora_fold(&given, weights, &in.lora, blocks, &report, err);
        if (status == BB_OK) bb_lora_note(&in, &report);
        bb_lora_input_close(&in);
        BB_TRY(status);
    }
    pack->weights = weights;
    return BB_OK;
}
