/* What training keeps: a broken run goes on to the same bits, damaged states are refused, the folder it writes is read
 * back, and the log is plotted. */
#include "teaching.h"

#include "batch.h"
#include "import/import.h"

/* ---- state ---- */

static const bb_course_option options[] = {{"--lr", "0.002", NULL}, {"--new", "no", "no"}};
static const bb_course_option others[] = {{"--lr", "0.003", NULL}};
static const bb_course_option newer[] = {{"--lr", "0.002", NULL}, {"--newer", "yes", "no"}};

static void put_log(bb_course *run, uint64_t n)
{
    bb_error err = {0};
    const bb_log_row row = {.update = n, .images = n * BATCH, .loss = 0.1 / (double)n, .held_out = n % 2 ? 0.25 : NAN,
                            .rate = 1e-3, .norm = 0.5, .speed = 100, .seconds = (double)n};
    must(bb_log_add(&run->log, &row, &err), &err);
}

static void refused(const char *path, const bb_pipeline *p, const bb_course_option *list, uint32_t n, const char *word)
{
    bb_teach t;
    bb_error err = {0};
    bb_course run = {.options = list, .n_options = n};
    open_teach(&t, &defaults, p, NULL);
    CHECK(bb_state_load(path, &t, &run, &err) < 0 && strstr(err.text, word) && strstr(err.text, path), "%s: %s", word,
          err.text);
    bb_log_free(&run.log);
    bb_teach_close(&t);
}

static void goes_on(const bb_pipeline *p)
{
    bb_teach a, b;
    bb_error err = {0};
    bb_course run = {.options = options, .n_options = 2, .seconds = 12.5}, back = {.options = options, .n_options = 2};
    const char *path = in_dir("state.safetensors");
    open_teach(&a, &defaults, p, NULL);
    update(&a, 7, NULL);
    put_log(&run, 3);
    put_log(&run, 6);
    must(bb_state_save(path, &a, &run, &err), &err);
    update(&a, 6, NULL);
    open_teach(&b, &defaults, p, NULL);
    b.opt.updates = 1; /* the state knows */
    must(bb_state_load(path, &b, &back, &err), &err);
    CHECK(b.optim.step == 7 && b.opt.updates == UPDATES && back.seconds == 12.5, "how far it was");
    CHECK(back.log.n == 2 && back.log.row[0].held_out == 0.25 && isnan(back.log.row[1].held_out) &&
          back.log.row[1].images == 6 * BATCH, "its log");
    update(&b, 6, NULL);
    const size_t bytes = a.params.n * sizeof(float);
    CHECK(!memcmp(a.params.w, b.params.w, bytes) && !memcmp(a.ema, b.ema, bytes) &&
          !memcmp(a.optim.m, b.optim.m, bytes) && !memcmp(a.optim.v, b.optim.v, bytes),
          "a run with a break has other weights");
    bb_log_free(&run.log);
    bb_log_free(&back.log);
    bb_teach_close(&a);
    bb_teach_close(&b);
    refused(path, p, others, 1, "--lr 0.002, not 0.003");
    refused(path, p, newer, 2, "--newer no, not yes");
}

/* Cut anywhere, or with a bit turned in its header, in a number, in its texts: refused, or read; never a crash. */
static void damaged_state(const bb_pipeline *p)
{
    bb_file f;
    bb_error err = {0};
    must(bb_file_open(&f, in_dir("state.safetensors"), &err), &err);
    const size_t n = f.size;
    uint8_t *copy = malloc(n);
    memcpy(copy, f.data, n);
    bb_file_close(&f);
    bb_teach t;
    open_teach(&t, &defaults, p, NULL);
    for (uint32_t i = 0; i < 200; i++) {
        const size_t at = (size_t)(bb_uniform(1, BB_STREAM_TOOLS, i) * (i % 2 ? 20000 : (double)n));
        const size_t kept = i < 60 ? at : n;
        bb_course run = {.options = options, .n_options = 2};
        copy[at] ^= 0x40;
        checkpoint_put(dir, "damaged", copy, kept);
        copy[at] ^= 0x40;
        bb_status status = bb_state_load(in_dir("damaged"), &t, &run, &err);
        CHECK(status == BB_OK ? kept == n : strstr(err.text, "damaged") != NULL, "cut or changed at %zu: %s", at,
              err.text);
        bb_log_free(&run.log);
    }
    bb_teach_close(&t);
    free(copy);
    refused(in_dir("config.json"), p, options, 2, "config.json");
}

/* ---- folder ---- */

static void make_folder(const bb_teach *t, const char *path, uint32_t dtype)
{
    bb_error err = {0};
    must(bb_pipeline_put(t->pipe, &t->params, t->ema, dtype, path, &err), &err);
    must(bb_batch_commit(&err), &err);
}

static void folder(const bb_pipeline *p)
{
    bb_teach t, u;
    bb_params back;
    bb_pipeline again;
    bb_error err = {0};
    open_teach(&t, &defaults, p, NULL);
    update(&t, 3, NULL);
    make_folder(&t, in_dir("f32"), BB_ST_F32);
    make_folder(&t, in_dir("f16"), BB_ST_F16);
    must(bb_pipeline_params(p, &back, in_dir("f32"), 0, &err), &err);
    CHECK(!memcmp(back.w, t.ema, t.params.n * sizeof(float)), "the folder has other weights than the average");
    bb_params_free(&back);
    must(bb_pipeline_params(p, &back, in_dir("f16"), 0, &err), &err);
    /* Half a unit in the last place of the largest. */
    CHECK(check_error(back.w, t.ema, t.params.n) < 0x1p-11, "weights in f16");
    bb_params_free(&back);
    const bb_pipeline_options opt = {.from = in_dir("f32")};
    must(bb_pipeline_open(&again, &opt, &data, &err), &err);
    CHECK(again.schedule.prediction == p->schedule.prediction && again.labels.null_label == 2 &&
          !strcmp(again.labels_text, "{\"null\": 2, \"names\": [\"0\",\"1\"]}\n"), "schedule and labels: %s",
          again.labels_text);
    CHECK(!memcmp(again.schedule.alphas_cumprod, p->schedule.alphas_cumprod, 1000 * sizeof(float)), "noise levels");
    bb_teach_options warm = defaults;
    warm.ema_warm = true;
    open_teach(&u, &warm, &again, in_dir("f32"));
    CHECK(!memcmp(u.params.w, t.ema, t.params.n * sizeof(float)) && u.optim.step == 0, "begins where the other ended");
    update(&u, 1, NULL);
    const size_t at = u.params.at[0];
    CHECK(fabs(u.ema[at] - (0.9 * t.ema[at] + 0.1 * u.params.w[at])) < 1e-7, "the average decays slowly at once");
    bb_teach_close(&t);
    bb_teach_close(&u);
    bb_pipeline_close(&again);
}

static void refused_pipelines(void)
{
    static const struct { const char *from, *to, *word; } changes[] = {
        {"\"out_channels\":1", "\"out_channels\":2", "out_channels"},
        {"\"sample_size\":8", "\"sample_size\":4", "sample_size"},
        {"\"in_channels\":1,\"out_channels\":1", "\"in_channels\":3,\"out_channels\":3", "in_channels"},
        {"\"num_class_embeds\":3", "\"num_class_embeds\":1", "num_class_embeds"},
        {"UNet2DModel", "UNet2DConditionModel", "_class_name"},
        {"\"layers_per_block\"", "\"layers_per_block\":1,\"layers_per_clock\"", "layers_per_clock"},
        {"{", "[", "not a JSON object"},
    };
    for (size_t i = 0; i < BB_COUNT(changes); i++) {
        char text[1024];
        const char *at = strstr(teaching_config, changes[i].from);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - teaching_config), teaching_config, changes[i].to,
                 at + strlen(changes[i].from));
        checkpoint_put_text(dir, "other.json", text);
        const bb_pipeline_options opt = {.config = in_dir("other.json"), .new_schedule = true};
        bb_pipeline p;
        bb_error err = {0};
        CHECK(bb_pipeline_open(&p, &opt, &data, &err) < 0 && strstr(err.text, changes[i].word) &&
              strstr(err.text, "other.json"),
              "%s: %s", changes[i].to, err.text);
        bb_pipeline_close(&p);
    }
    CHECK(bb_teach_check_folder(in_dir("f32"), NULL) < 0, "a folder with a model would be written over");
    CHECK(bb_teach_check_folder(in_dir("new"), NULL) == BB_OK, "a new folder");
    CHECK(bb_teach_check_folder(in_dir("config.json"), NULL) < 0, "a file for a folder");
}

/* ---- log ---- */

static void plots(void)
{
    bb_course run = {0};
    bb_error err = {0};
    for (uint64_t n = 1; n < 2000; n++) put_log(&run, n);
    char *svg = bb_log_svg(&run.log, "Title"), *csv = bb_log_csv(&run.log);
    CHECK(svg && strstr(svg, "<svg ") == svg && strstr(svg, "</svg>") && strstr(svg, "Title"), "a plot");
    CHECK(svg && strlen(svg) > 1000 && !strstr(svg, "nan") && !strstr(svg, "inf"), "its numbers");
    bb_log back;
    must(bb_log_parse(&back, csv, strlen(csv), "log", &err), &err);
    CHECK(back.n == run.log.n && back.row[1000].update == 1001, "rows of the CSV");
    bb_log_free(&back);
    for (size_t n = 0; n < 300; n++) {
        CHECK(bb_log_parse(&back, csv, n, "log", &err) < 0 || csv[n - 1] == '\n', "cut at %zu", n);
        bb_log_free(&back);
    }
    free(svg);
    free(csv);
    bb_log_free(&run.log);
    svg = bb_log_svg(&run.log, "Empty");
    CHECK(svg && !strstr(svg, "nan"), "an empty plot");
    free(svg);
}
int main(void)
{
    open_teaching();
    bb_pipeline p;
    open_pipeline(&p, BB_PREDICT_V, BB_BETAS_COSINE);
    goes_on(&p);
    damaged_state(&p);
    folder(&p);
    refused_pipelines();
    plots();
    bb_pipeline_close(&p);
    close_teaching();
    return check_done();
}
