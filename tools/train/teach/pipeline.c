/* See pipeline.h: reading what is to be trained. */
#include "train/teach/pipeline.h"

#include "import/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bb_status no_memory(bb_error *err)
{
    return bb_fail(err, BB_ERR_SPACE, "out of memory for the model's description");
}

/* A file's text, malloc'd. */
static bb_status read_text(char **out, const char *path, bb_error *err)
{
    bb_file f;
    BB_TRY(bb_file_open(&f, path, err));
    *out = malloc(f.size + 1);
    if (*out && f.size) memcpy(*out, f.data, f.size);
    if (*out) (*out)[f.size] = 0;
    bb_file_close(&f);
    return *out ? BB_OK : no_memory(err);
}

/* ---- network ---- */

static bb_status check_class(const bb_json *j, const char *path, bb_error *err)
{
    char name[96] = "missing";
    bb_json_string(j, bb_json_member(j, 0, "_class_name"), name, sizeof name);
    if (!strcmp(name, "UNet2DModel")) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: \"_class_name\" is %s; supported: UNet2DModel", path, name);
}

static bb_status read_network(bb_pipeline *p, const char *path, bb_error *err)
{
    bb_json_file f;
    BB_TRY(bb_json_file_open(&f, path, err));
    bb_status status = check_class(&f.json, path, err);
    bb_config c = bb_config_init(&f.json, 0, path, "UNet2DModel", err);
    bb_builder_init(&p->builder, "denoiser", err);
    if (status == BB_OK) status = bb_unet2d_build(&p->builder, &c, &p->facts);
    if (status == BB_OK) status = bb_builder_finish(&p->builder);
    bb_json_file_close(&f);
    BB_TRY(status);
    p->graph = &p->builder.graph;
    if (p->facts.out_channels != p->facts.channels)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: \"out_channels\" is %u; training supports %u like in_channels, "
                       "for there is no loss for a learned variance", path, p->facts.out_channels, p->facts.channels);
    return read_text(&p->config, path, err);
}

static bb_status check_data(const bb_pipeline *p, const char *path, const bb_data *d, bb_error *err)
{
    const bb_unet2d_facts *f = &p->facts;
    if (d->channels != f->channels)
        return bb_fail(err, BB_ERR_CORRUPT, "%s: \"in_channels\" is %u, but the pictures have %u channels", path,
                       f->channels, d->channels);
    if (d->width > f->width || d->height > f->height)
        return bb_fail(err, BB_ERR_CORRUPT, "%s: \"sample_size\" is smaller than the pictures of %ux%u", path, d->width,
                       d->height);
    if (!f->classes || d->classes <= f->classes) return BB_OK;
    return bb_fail(err, BB_ERR_CORRUPT, "%s: \"num_class_embeds\" is %u, but the data has %u classes; set it to %u, "
                   "one more for the null class", path, f->classes, d->classes, d->classes + 1);
}

/* ---- schedule ---- */

static const char scheduler_format[] =
    "{\n"
    "  \"_class_name\": \"DDIMScheduler\",\n"
    "  \"_diffusers_version\": \"0.27.2\",\n"
    "  \"beta_end\": 0.02,\n"
    "  \"beta_schedule\": \"%s\",\n"
    "  \"beta_start\": 0.0001,\n"
    "  \"clip_sample\": false,\n"
    "  \"clip_sample_range\": 1.0,\n"
    "  \"dynamic_thresholding_ratio\": 0.995,\n"
    "  \"num_train_timesteps\": 1000,\n"
    "  \"prediction_type\": \"%s\",\n"
    "  \"rescale_betas_zero_snr\": false,\n"
    "  \"sample_max_value\": 1.0,\n"
    "  \"set_alpha_to_one\": true,\n"
    "  \"steps_offset\": 0,\n"
    "  \"thresholding\": false,\n"
    "  \"timestep_spacing\": \"%s\",\n"
    "  \"trained_betas\": null\n"
    "}\n";

static bb_status new_schedule(bb_pipeline *p, const bb_pipeline_options *o, bb_error *err)
{
    static const char *const betas[] = {"linear", "squaredcos_cap_v2"};
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample"};
    static const char *const spacings[] = {"leading", "trailing", "linspace"};
    size_t size = sizeof scheduler_format + 64;
    p->scheduler = malloc(size);
    if (!p->scheduler) return no_memory(err);
    snprintf(p->scheduler, size, scheduler_format, betas[o->betas], predictions[o->prediction], spacings[o->spacing]);
    return BB_OK;
}

/* The schedule is read from the text that goes into the folder: one definition of every number. */
static bb_status read_schedule(bb_pipeline *p, const char *path, bb_error *err)
{
    size_t n = strlen(p->scheduler), scratch = bb_json_scratch(n);
    void *tokens = malloc(scratch);
    bb_json j;
    if (!tokens) return no_memory(err);
    bb_status status = bb_json_parse(&j, p->scheduler, n, tokens, scratch) && bb_json_is_object(&j, 0) ? BB_OK
        : bb_fail(err, BB_ERR_CORRUPT, "%s: not JSON", path);
    if (status == BB_OK) status = bb_scheduler_read(&p->schedule, &j, 0, path, err);
    if (status == BB_OK)
        bb_json_string(&j, bb_json_member(&j, 0, "_class_name"), p->scheduler_class, sizeof p->scheduler_class);
    free(tokens);
    if (status == BB_OK && p->schedule.variance >= BB_VARIANCE_LEARNED)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: \"variance_type\" is learned; there is no loss for that", path);
    return status;
}

/* ---- labels ---- */

/* Appends to p->labels.names and, with the null class in front, to p->labels_text. */
static bb_status make_labels(bb_pipeline *p, const bb_data *d, bb_error *err)
{
    uint32_t named = p->facts.classes > d->classes ? p->facts.classes - 1 : p->facts.classes;
    p->labels.null_label = p->facts.classes > d->classes ? (int32_t)d->classes : -1;
    if (p->labels.null_label >= 0 && (uint32_t)p->labels.null_label != named) named = p->facts.classes;
    size_t size = 64;
    for (uint32_t i = 0; i < named; i++) size += 16 + (d->names && i < d->classes ? 6 * strlen(d->names[i]) : 0);
    char *text = p->labels.names = malloc(size);
    if (!text) return no_memory(err);
    size_t n = (size_t)snprintf(text, size, "[");
    for (uint32_t i = 0; i < named; i++) {
        n += (size_t)snprintf(text + n, size - n, i ? ", \"" : "\"");
        if (!d->names || i >= d->classes) n += (size_t)snprintf(text + n, size - n, "%u", i);
        for (const char *c = d->names && i < d->classes ? d->names[i] : ""; *c; c++)
            n += (size_t)snprintf(text + n, size - n, *c == '"' || *c == '\\' ? "\\%c"
                                  : (unsigned char)*c < 0x20 ? "\\u%04x" : "%c", *c);
        n += (size_t)snprintf(text + n, size - n, "\"");
    }
    snprintf(text + n, size - n, "]");
    return BB_OK;
}

/* The whole of labels.json from the names and the null class. */
static bb_status write_labels(bb_pipeline *p, bb_error *err)
{
    size_t size = strlen(p->labels.names) + 64;
    p->labels_text = malloc(size);
    if (!p->labels_text) return no_memory(err);
    if (p->labels.null_label < 0) snprintf(p->labels_text, size, "{\"names\": %s}\n", p->labels.names);
    else snprintf(p->labels_text, size, "{\"null\": %d, \"names\": %s}\n", p->labels.null_label, p->labels.names);
    return BB_OK;
}

static bb_status read_labels(bb_pipeline *p, const char *path, const bb_data *d, bb_error *err)
{
    if (!p->facts.classes) return BB_OK;
    if (*path) BB_TRY(bb_labels_read(&p->labels, path, NULL, p->facts.classes, err));
    else BB_TRY(make_labels(p, d, err));
    if (p->labels.null_label >= 0 && p->labels.null_label < (int32_t)d->classes)
        return bb_fail(err, BB_ERR_CORRUPT, "%s: \"null\" is %d, but the data has pictures of that class",
                       *path ? path : "labels.json", p->labels.null_label);
    return write_labels(p, err);
}

/* ---- the whole ---- */

bb_status bb_pipeline_open(bb_pipeline *p, const bb_pipeline_options *opt, const bb_data *data, bb_error *err)
{
    bb_checkpoint ck = {0};
    *p = (bb_pipeline){.labels.null_label = -1};
    if (opt->from) BB_TRY(bb_checkpoint_open(&ck, opt->from, err));
    const char *config = opt->from ? ck.config_path : opt->config;
    const char *scheduler = opt->new_schedule || !*ck.scheduler_path ? "scheduler_config.json" : ck.scheduler_path;
    bb_status status = read_network(p, config, err);
    if (status == BB_OK) status = check_data(p, config, data, err);
    if (status == BB_OK)
        status = scheduler == ck.scheduler_path ? read_text(&p->scheduler, scheduler, err) : new_schedule(p, opt, err);
    if (status == BB_OK) status = read_schedule(p, scheduler, err);
    if (status == BB_OK) status = read_labels(p, opt->labels ? opt->labels : ck.labels_path, data, err);
    if (opt->from) bb_checkpoint_close(&ck);
    return status;
}

void bb_pipeline_close(bb_pipeline *p)
{
    if (p->schedule.alphas_cumprod) bb_scheduler_free(&p->schedule);
    bb_labels_free(&p->labels);
    bb_builder_free(&p->builder);
    free(p->config);
    free(p->scheduler);
    free(p->labels_text);
    *p = (bb_pipeline){0};
}
