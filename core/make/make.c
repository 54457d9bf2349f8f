/* The order of things: options, calibration, layers, file. */
#include "make/make.h"

#include "sample/sampler.h"

void bb_make_defaults(bb_make_options *opt)
{
    *opt = (bb_make_options){.size_of = sizeof *opt, .wbits = 4, .abits = 8, .range = BB_RANGE_P24,
                             .ladder = BB_LADDER_BEST, .refit = 25, .smoothing = 0.5f, .compensation = 0.3f,
                             .images = 16, .seed = 1000000};
}

static bb_status check_options(bb_make_options *o, const bb_info *info, bb_error *err)
{
    if (o->wbits < 1 || o->wbits > 8) return bb_fail(err, BB_ERR_OPTION, "weight bits: must be 1 to 8");
    if (o->abits < 4 || o->abits > 8) return bb_fail(err, BB_ERR_OPTION, "activation bits: must be 4 to 8");
    if (o->layers > BB_LAYERS_PAPER || o->range > BB_RANGE_MINMAX || o->ladder > BB_LADDER_ALWAYS ||
        o->mixed > BB_MIXED_GAIN || o->tables > BB_TABLES_STATIC)
        return bb_fail(err, BB_ERR_OPTION, "an option has a value that does not exist");
    if (!(o->smoothing >= 0 && o->smoothing <= 1)) return bb_fail(err, BB_ERR_OPTION, "smoothing: must be 0 to 1");
    if (!(o->compensation >= 0 && o->compensation <= 100))
        return bb_fail(err, BB_ERR_OPTION, "compensation: must be 0 to 100");
    if (o->refit > 1000) return bb_fail(err, BB_ERR_OPTION, "refit: must be 0 to 1000");
    if (!o->images || o->images > 4096) return bb_fail(err, BB_ERR_OPTION, "calibration pictures: must be 1 to 4096");
    if (!o->steps) o->steps = info->train_steps < 20 ? info->train_steps : 20;
    if (o->steps > BB_MAX_STEP_ROWS)
        return bb_fail(err, BB_ERR_OPTION, "calibration steps: must be 1 to %u", BB_MAX_STEP_ROWS);
    if (o->guidance == 0) o->guidance = info->null_label >= 0 ? 2 : 1;
    return BB_OK;
}

bb_status bb_make_begin(const bb_model *model, const bb_make_options *opt, const bb_make_memory *memory, bb_make **out,
                        bb_error *err)
{
    if (!model || !opt || !memory || !out || opt->size_of != sizeof *opt)
        return bb_fail(err, BB_ERR_ARGUMENT, "bb_make_begin: an argument is NULL, or of another version");
    if (model->pack.n_layers)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "the model is quantized already: start from the checkpoint or from "
                                                "what bitbrush import makes of it");
    bb_make_options checked = *opt;
    BB_TRY(check_options(&checked, &model->pack.info, err));
    bb_blocks blocks = {.memory = *memory};
    uint32_t n = model->pack.graph.n_weights;
    bb_make *m = bb_blocks_take(&blocks, 1, sizeof *m);
    bb_weight *weights = m ? bb_blocks_take(&blocks, n, sizeof *weights) : NULL;
    size_t size = model->pack.header.n + 1; /* no value of the metadata is longer */
    char *lora = weights ? bb_blocks_take(&blocks, size, 1) : NULL;
    if (!lora) {
        bb_blocks_give(&blocks, NULL);
        return bb_out_of_memory(err, "quantizing");
    }
    memcpy(weights, model->pack.weights, n * sizeof *weights);
    m->blocks = blocks;
    m->opt = checked;
    m->model = *model;
    m->model.pack.weights = m->weights = weights;
    m->given = model->pack.weights;
    if (bb_pack_metadata(&model->pack, "lora", lora, size)) m->lora = lora; /* what import has folded in */
    *out = m;
    return BB_OK;
}

static bb_status fold(bb_make *m, const bb_lora_file *file, bb_lora_report *report, bb_error *err)
{
    bb_pack pack = m->model.pack;
    pack.weights = m->given;
    BB_TRY(bb_lora_fold(&pack, m->weights, file, &m->blocks, report, err));
    m->lora = bb_lora_metadata(m->lora, file, &m->blocks);
    return m->lora ? BB_OK : bb_out_of_memory(err, file->name);
}

bb_status bb_make_lora(bb_make *m, const bb_lora_file *file, bb_lora_report *report, bb_error *err)
{
    if (m->failed < 0 || m->started || !file || !file->name || !file->data)
        return bb_fail(err, BB_ERR_ORDER, "bb_make_lora: too late, or without a file");
    return m->failed = fold(m, file, report, err);
}

void bb_make_end(bb_make *m)
{
    if (!m) return;
    bb_blocks blocks = m->blocks; /* m itself is one of them */
    bb_blocks_give(&blocks, NULL);
}

/* BB_DONE ends the phase. */
static bb_status slice(bb_make *m, bb_error *err)
{
    switch (m->phase) {
    case BB_MAKE_CALIBRATE:
        if (!m->started) BB_TRY(bb_calibration_begin(m, err));
        m->started = true;
        return bb_calibration_step(m, err);
    case BB_MAKE_QUANTIZE:
        if (!m->refs) BB_TRY(bb_layers_begin(m, err));
        return bb_layers_step(m, err);
    case BB_MAKE_WRITE: return bb_file_make(m, err);
    default: return bb_fail(err, BB_ERR_ORDER, "quantizing: there is nothing more to do");
    }
}

bb_status bb_make_step(bb_make *m, bb_make_progress *progress, bb_error *err)
{
    if (m->failed < 0) return bb_fail(err, m->failed, "quantizing has failed already");
    uint32_t phase = m->phase;
    bb_status status = slice(m, err);
    if (status < 0) return m->failed = status;
    if (status == BB_DONE) m->phase++;
    if (progress) {
        uint32_t before = bb_smoothing_images(m), pictures = m->cal.image + (m->cal.pass ? before : 0);
        uint32_t slots = m->model.pack.graph.n_weights;
        uint32_t done[BB_MAKE_PHASES] = {pictures * m->opt.steps + m->cal.step, m->looked + m->slot, 1};
        uint32_t total[BB_MAKE_PHASES] = {(before + m->opt.images) * m->opt.steps,
                                          m->opt.budget ? 2 * slots : slots, 1};
        *progress = (bb_make_progress){phase, done[phase], total[phase]};
    }
    return m->phase == BB_MAKE_PHASES ? BB_DONE : BB_AGAIN;
}

bb_status bb_make_result(const bb_make *m, const uint8_t **bytes, size_t *n)
{
    if (m->phase != BB_MAKE_PHASES) return BB_ERR_ORDER;
    *bytes = m->file;
    *n = m->file_bytes;
    return BB_OK;
}

uint32_t bb_make_layer_count(const bb_make *m) { return m->n_reports; }

bb_status bb_make_layer_get(const bb_make *m, uint32_t i, bb_make_layer *out)
{
    if (i >= m->n_reports) return BB_ERR_ARGUMENT;
    *out = m->reports[i];
    return BB_OK;
}
