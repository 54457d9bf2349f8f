#include "quantizing.h"

#include "calibration.h"
#include "progress.h"

#include <stdio.h>

int bb_quantizing_check(const bb_command *c, const bb_quantizing *q)
{
    const bb_make_options *o = &q->make;
    if (q->ladder_given && o->ladder && !o->budget && o->wbits > 4)
        return bb_cli_usage_error(c, "--ladder needs --wbits 4 or less");
    if (q->mixed_given && o->mixed && !o->budget && (o->wbits < 2 || o->wbits > 7))
        return bb_cli_usage_error(c, "--mixed needs --wbits 2 to 7");
    return BB_EXIT_OK;
}

static bb_status make_all(bool quiet, bb_make *make, bb_kept *kept, bb_error *err)
{
    static const char *const names[BB_MAKE_PHASES] = {"calibrating (steps)", "quantizing (weights)", "writing"};
    bb_progress progress = {0};
    bb_make_progress at;
    bb_status status = BB_AGAIN;
    for (uint32_t phase = BB_MAKE_PHASES; status == BB_AGAIN;) {
        double begun = bb_now();
        status = bb_make_step(make, &at, err);
        if (status < 0) break;
        bb_kept_slice(kept, make, &at);
        if (bb_cli_interrupted()) {
            if (progress.terminal && !quiet) fputc('\n', stderr);
            return bb_fail(err, BB_ERR_CANCELLED, "interrupted");
        }
        if (at.phase == BB_MAKE_WRITE) continue;
        if (at.phase != phase) {
            progress = bb_progress_start(names[phase = at.phase], at.total, quiet);
            progress.started = begun;
            progress.before = at.done - 1;
        }
        bb_progress_step(&progress, at.done);
    }
    return status;
}

static bb_status fold_all(const bb_list *list, bb_make *make, bb_kept *kept, bb_error *err)
{
    for (uint32_t i = 0; i < list->n; i++) {
        bb_lora_input in;
        bb_lora_report report;
        BB_TRY(bb_lora_input_open(&in, list->item[i], err));
        bb_status status = bb_make_lora(make, &in.lora, &report, err);
        if (status == BB_OK) bb_lora_note(&in, &report);
        if (status == BB_OK) bb_kept_lora(kept, &in.lora);
        bb_lora_input_close(&in);
        BB_TRY(status);
    }
    return BB_OK;
}

bb_status bb_quantizing_run(bb_quantizing *q, bb_host *h, const char *out, bool quiet, bb_quantizing_use use,
                            void *user, bb_error *err)
{
    bb_make *make;
    q->make.par = h->par;
    BB_TRY(bb_make_begin(h->model, &q->make, &bb_tools_memory, &make, err));
    bb_kept kept = bb_kept_begin(out, h, &q->make);
    if (!kept.off) bb_cli_hold_signals();
    bb_status status = fold_all(&q->lora, make, &kept, err);
    if (status >= 0) status = bb_kept_load(&kept, make, quiet, err);
    if (status >= 0) status = make_all(quiet, make, &kept, err);
    if (status >= 0) status = use(user, make, err);
    bb_kept_end(&kept, status >= 0);
    bb_make_end(make);
    bb_cli_release_signals();
    return status;
}
