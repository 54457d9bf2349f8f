/* See checkpoint.h. */
#include "import/checkpoint.h"

#include "platform.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bb_status join(char *out, const char *dir, const char *name, bb_error *err)
{
    if (bb_path_join(out, BB_PATH_MAX, dir, name)) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s/%s: the path is too long", dir, name);
}

/* Like join, but "" if there is no such file. */
static bb_status join_if_there(char *out, const char *dir, const char *name, bb_error *err)
{
    BB_TRY(join(out, dir, name, err));
    if (!bb_path_exists(out)) *out = 0;
    return BB_OK;
}

/* The last component of the folder's path, for the metadata: never more, paths are nobody's business. */
static void set_source(bb_checkpoint *ck, const char *path)
{
    char *real = bb_full_path(path);
    const char *full = real ? real : path, *slash = strrchr(full, '/');
    bb_format(ck->source, sizeof ck->source, "%s", slash && slash[1] ? slash + 1 : full);
    free(real);
}

/* "license: X" between the "---" lines that open a model card. */
static bb_status read_licence(bb_checkpoint *ck, const char *root, bb_error *err)
{
    char path[BB_PATH_MAX], line[256];
    BB_TRY(join(path, root, "README.md", err));
    if (!bb_path_exists(path)) return BB_OK;
    FILE *f = fopen(path, "r");
    if (!f) return bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot read: %s", path, strerror(errno));
    bool inside = fgets(line, sizeof line, f) && !strncmp(line, "---", 3);
    while (inside && fgets(line, sizeof line, f) && strncmp(line, "---", 3) != 0) {
        if (strncmp(line, "license:", 8) != 0) continue;
        char *value = line + 8 + strspn(line + 8, " \t\"'");
        value[strcspn(value, " \t\r\n\"'")] = 0;
        bb_format(ck->licence, sizeof ck->licence, "%s", value);
    }
    bool failed = ferror(f);
    fclose(f);
    return failed ? bb_fail(err, BB_ERR_ARGUMENT, "%s: cannot read", path) : BB_OK;
}

#define SUPPORTED_PIPELINES "supported: pipelines of a unet (UNet2DModel) and a scheduler, such as DDPMPipeline"

/* UNetUnconditionalModel is its name before diffusers 0.1. */
static bool is_known_class(const char *name)
{
    return !strcmp(name, "UNet2DModel") || !strcmp(name, "UNetUnconditionalModel");
}

/* A pipeline must have a unet; what else it has (decoder, text encoder) would be left out, so it is refused. */
static bb_status check_pipeline(const char *path, bb_error *err)
{
    bb_json_file index;
    BB_TRY(bb_json_file_open(&index, path, err));
    const bb_json *j = &index.json;
    char pipeline[96] = "the pipeline";
    bb_json_string(j, bb_json_member(j, 0, "_class_name"), pipeline, sizeof pipeline);
    bb_status status = BB_OK;
    bool unet = false;
    for (uint32_t key = bb_json_first(j, 0); key != BB_JSON_NONE && status >= 0; key = bb_json_next(j, key)) {
        char name[96] = "?", class_name[96] = "?";
        uint32_t value = bb_json_value(j, key), entry = bb_json_element(j, value, 1);
        bb_json_string(j, key, name, sizeof name);
        if (name[0] == '_' || !bb_json_is_array(j, value) || bb_json_is_null(j, entry)) continue;
        bb_json_string(j, entry, class_name, sizeof class_name);
        bool is_unet = !strcmp(name, "unet");
        unet = unet || is_unet;
        if (is_unet ? is_known_class(class_name) : !strcmp(name, "scheduler")) continue;
        status = bb_fail(err, BB_ERR_UNSUPPORTED, "%s: component %s (%s) of %s is not supported; " SUPPORTED_PIPELINES,
                         path, name, class_name, pipeline);
    }
    bb_json_file_close(&index);
    if (status >= 0 && !unet) {
        status = bb_fail(err, BB_ERR_UNSUPPORTED, "%s: %s has no unet; " SUPPORTED_PIPELINES, path, pipeline);
    }
    return status;
}

/* The folder of the component; of a pipeline: its unet. Early pipelines have all files in one folder. */
static bb_status find_component(char *out, char *scheduler, const char *path, bb_error *err)
{
    char index[BB_PATH_MAX], config[BB_PATH_MAX];
    BB_TRY(join(index, path, "model_index.json", err));
    BB_TRY(join(config, path, "config.json", err));
    BB_TRY(join(scheduler, path, "scheduler", err));
    BB_TRY(join(out, path, "unet", err));
    bool pipeline = bb_path_exists(index);
    if (pipeline) BB_TRY(check_pipeline(index, err));
    bool flat = !pipeline || (!bb_path_is_dir(out) && bb_path_exists(config));
    if (flat) bb_format(out, BB_PATH_MAX, "%s", path);
    if (flat || !bb_path_is_dir(scheduler)) bb_format(scheduler, BB_PATH_MAX, "%s", path);
    if (bb_path_is_dir(out)) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: no such folder, but model_index.json names it", out);
}

static bb_status find_files(bb_checkpoint *ck, char component[BB_PATH_MAX], const char *path, bb_error *err)
{
    char scheduler[BB_PATH_MAX];
    if (!bb_path_exists(path)) return bb_fail(err, BB_ERR_ARGUMENT, "%s: no such folder", path);
    if (!bb_path_is_dir(path)) {
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: not a folder; name the folder of the checkpoint", path);
    }
    BB_TRY(find_component(component, scheduler, path, err));
    BB_TRY(join(ck->config_path, component, "config.json", err));
    BB_TRY(join_if_there(ck->labels_path, path, "labels.json", err));
    BB_TRY(join_if_there(ck->scheduler_path, scheduler, "scheduler_config.json", err));
    if (bb_path_exists(ck->config_path)) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: neither model_index.json nor config.json here; "
                   "not a diffusers checkpoint", component);
}

/* Before the weights are looked for: of another class, they would be of no use either. */
static bb_status check_class(bb_checkpoint *ck, bb_error *err)
{
    const bb_json *j = &ck->config.json;
    if (!bb_json_string(j, bb_json_member(j, 0, "_class_name"), ck->class_name, sizeof ck->class_name)) {
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: has no _class_name; not a diffusers component", ck->config_path);
    }
    if (is_known_class(ck->class_name)) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: class %s is not supported; supported: UNet2DModel", ck->config_path,
                   ck->class_name);
}

bb_status bb_checkpoint_open(bb_checkpoint *ck, const char *path, bb_error *err)
{
    char component[BB_PATH_MAX];
    *ck = (bb_checkpoint){0};
    BB_TRY(find_files(ck, component, path, err));
    set_source(ck, path);
    BB_TRY(read_licence(ck, path, err));
    BB_TRY(bb_json_file_open(&ck->config, ck->config_path, err));
    bb_status status = check_class(ck, err);
    if (status >= 0) status = bb_weights_open(&ck->weights, component, err);
    if (status < 0) bb_checkpoint_close(ck);
    return status;
}

void bb_checkpoint_close(bb_checkpoint *ck)
{
    bb_json_file_close(&ck->config);
    bb_weights_close(&ck->weights);
}

/* ---- tensors ---- */

typedef struct renaming { const char *now, *old; } renaming;

/* In published checkpoints: attention from before diffusers 0.18, samplers and blocks from before 0.1. */
static const renaming modules[] = {
    {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."},
    {"samplers.0.conv.", "samplers.0.op."}, {"samplers.0.conv.", "samplers.0.Conv2d_0."},
};
static const renaming blocks[] = {
    {"mid_block.", "mid."}, {"down_blocks.", "downsample_blocks."}, {"up_blocks.", "upsample_blocks."},
};

/* name with the part `now` as `old` into out[512]; false if it has no such part, or elsewhere than asked for. */
static bool renamed(char *out, const char *name, const renaming *r, bool at_begin)
{
    const char *at = strstr(name, r->now);
    if (!at || (at_begin && at != name)) return false;
    snprintf(out, 512, "%.*s%s%s", (int)(at - name), name, r->old, at + strlen(r->now));
    return true;
}

static bb_tensor *find_module(const bb_checkpoint *ck, const char *name)
{
    char old[512];
    bb_tensor *t = bb_weights_find(&ck->weights, name);
    for (size_t i = 0; !t && i < BB_COUNT(modules); i++) {
        if (renamed(old, name, &modules[i], false)) t = bb_weights_find(&ck->weights, old);
    }
    return t;
}

static bb_tensor *find(const bb_checkpoint *ck, const char *name)
{
    char old[512];
    bb_tensor *t = find_module(ck, name);
    for (size_t i = 0; !t && i < BB_COUNT(blocks); i++) {
        if (renamed(old, name, &blocks[i], true)) t = find_module(ck, old);
    }
    return t;
}

bb_status bb_checkpoint_tensor(bb_checkpoint *ck, const char *name, const uint32_t *shape, uint32_t rank,
                               const bb_tensor **out, bb_error *err)
{
    bb_tensor *t = find(ck, name);
    if (!t) {
        return bb_fail(err, BB_ERR_CORRUPT, "%s: tensor %s is missing; the weights do not belong to %s",
                       ck->weights.path, name, ck->config_path);
    }
    const char *path = bb_weights_path(&ck->weights, t);
    uint64_t expected[4] = {0};
    bool same = t->rank == rank;
    for (uint32_t i = 0; i < rank; i++) {
        expected[i] = shape[i];
        same = same && t->shape[i] == shape[i];
    }
    if (!same) {
        char have[192], want[96];
        bb_st_shape_text(have, sizeof have, t->shape, t->rank);
        bb_st_shape_text(want, sizeof want, expected, rank);
        return bb_fail(err, BB_ERR_CORRUPT, "%s: tensor %s has shape %s, but config.json asks for %s", path, t->name,
                       have, want);
    }
    if (t->dtype > BB_ST_BF16 && t->dtype != BB_TENSOR_F64) {
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor %s is %s; weights must be F64, F32, F16 or BF16", path,
                       t->name, bb_tensor_dtype_name(t->dtype));
    }
    t->used = true;
    *out = t;
    return BB_OK;
}

/* Early samplers were saved twice, as conv and under an older name: the same numbers. */
static bool is_copy(const bb_checkpoint *ck, const bb_tensor *t)
{
    for (size_t i = 0; i < BB_COUNT(modules); i++) {
        char now[512];
        renaming back = {modules[i].old, modules[i].now};
        const bb_tensor *other = renamed(now, t->name, &back, false) ? bb_weights_find(&ck->weights, now) : NULL;
        if (!other || other->count != t->count || other->dtype != t->dtype) continue;
        if (!bb_tensor_is_packed(t) || !bb_tensor_is_packed(other)) continue;
        if (!memcmp(other->data, t->data, t->count * bb_tensor_dtype_bytes(t->dtype))) return true;
    }
    return false;
}

bb_status bb_checkpoint_finish(const bb_checkpoint *ck, bb_error *err)
{
    for (size_t i = 0; i < ck->weights.n; i++) {
        const bb_tensor *t = &ck->weights.tensors[i];
        if (t->used || is_copy(ck, t)) continue;
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor %s has no place in the %s that config.json describes",
                       bb_weights_path(&ck->weights, t), t->name, ck->class_name);
    }
    return BB_OK;
}
