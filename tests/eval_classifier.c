/* The classifier behind the features of `bitbrush eval`: its file, its run; the figures of whole sets of pictures. */
#include "check.h"

#include "base/rng.h"
#include "eval/classifier.h"
#include "eval/figures.h"
#include "io.h"
#include "kernels/kernels.h"

#include <unistd.h>

enum { N = 37, PIXELS = 32 * 32, STREAM = BB_STREAM_TOOLS + 78, SLOTS = 16 };
static char path[] = "/tmp/bitbrush-classifier-XXXXXX";
static uint8_t pictures[N * PIXELS];

static void make_file(double accuracy)
{
    bb_builder b;
    bb_error err = {0};
    size_t at[SLOTS], n = 0, bytes;
    if (bb_classifier_graph(&b, 10, &err) < 0) abort();
    CHECK(b.graph.n_weights <= SLOTS, "%u slots", b.graph.n_weights);
    for (uint32_t i = 0; i < b.graph.n_weights; i++) {
        at[i] = n;
        size_t count = 1;
        for (uint32_t k = 0; k < b.graph.weights[i].rank; k++) count *= b.graph.weights[i].dim[k];
        n += count;
    }
    CHECK(n == 122314, "%zu parameters", n);
    float *w = malloc(n * sizeof *w);
    bb_normals(w, n, 1, STREAM, 0);
    for (size_t i = 0; i < n; i++) w[i] *= .1f;
    uint8_t *file;
    CHECK(bb_classifier_write(&b.graph, w, at, accuracy, &file, &bytes, &err) == BB_OK, "%s", err.text);
    CHECK(bytes < 300000, "%zu bytes", bytes);
    CHECK(bb_file_write(path, file, bytes, &err) == BB_OK, "%s", err.text);
    free(file);
    free(w);
    bb_builder_free(&b);
}

/* The same bits by every kernel set, number of threads and place in a batch. */
static void run(const bb_classifier *c)
{
    static float features[3][N * BB_CLASSIFIER_FEATURES];
    static uint8_t found[3][N];
    bb_kernels best, scalar;
    bb_error err = {0};
    bb_kernels_select(&best, bb_cpu_features());
    bb_kernels_select(&scalar, 0);
    bb_par *par = bb_par_start(3);
    CHECK(bb_classifier_run(c, &best, par, pictures, N, features[0], found[0], &err) == BB_OK, "%s", err.text);
    CHECK(bb_classifier_run(c, &scalar, NULL, pictures, N, features[1], found[1], &err) == BB_OK, "%s", err.text);
    CHECK(memcmp(features[0], features[1], sizeof features[0]) == 0, "features differ by kernels or threads");
    CHECK(memcmp(found[0], found[1], N) == 0, "classes differ");
    CHECK(bb_classifier_run(c, &best, NULL, pictures + 20 * PIXELS, 3, features[2], NULL, &err) == BB_OK, "%s",
          err.text);
    CHECK(memcmp(features[2], features[0] + 20 * BB_CLASSIFIER_FEATURES,
                 3 * BB_CLASSIFIER_FEATURES * sizeof(float)) == 0,
          "features differ by place");
    double spread = 0;
    for (uint32_t i = 0; i < N * BB_CLASSIFIER_FEATURES; i++)
        spread += fabs((double)features[0][i] - features[0][i % BB_CLASSIFIER_FEATURES]);
    CHECK(spread > 0, "all features are alike");
    bb_par_stop(par);
}

/* One set against itself, a shifted one, and "real" ones that are the set: what must be 0, 1 or in between. */
static void figures(const bb_classifier *c)
{
    static float real[N * BB_CLASSIFIER_FEATURES], shifted[N * BB_CLASSIFIER_FEATURES];
    static uint8_t brighter[N * PIXELS];
    bb_kernels kernels;
    bb_error err = {0};
    bb_kernels_select(&kernels, bb_cpu_features());
    bb_classifier_run(c, &kernels, NULL, pictures, N, real, NULL, &err);
    for (uint32_t i = 0; i < N * PIXELS; i++) brighter[i] = (uint8_t)(pictures[i] + 10); /* none is above 200 */
    memcpy(shifted, real, sizeof real);
    for (uint32_t i = 0; i < N; i++) shifted[i * BB_CLASSIFIER_FEATURES] += 3; /* one feature of 64, by 3 */
    bb_column column[2] = {{.shown = {.pictures = brighter}}, {.shown = {.pictures = pictures}}};
    const float *const of[2] = {shifted, real};
    for (int k = 0; k < 2; k++) {
        column[k].shown.features = malloc(sizeof real);
        column[k].shown.right = calloc(N, 1);
        memcpy(column[k].shown.features, of[k], sizeof real);
        for (uint32_t i = 0; i < N; i++) column[k].shown.right[i] = i % 4 != 0;
    }
    bb_figures f = {.n = N, .real_n = N, .resamples = 60, .height = 32, .width = 32, .channels = 1, .teacher = pictures,
                    .teacher_features = real, .real = real};
    CHECK(bb_figures_measure(&f, column, 2, &err) == BB_OK, "%s", err.text);
    const bb_interval *a = column[0].of, *b = column[1].of;
    CHECK(fabs(a[BB_FIGURE_PSNR].value - 20 * log10(25.5)) < 1e-9, "PSNR %g", a[BB_FIGURE_PSNR].value);
    CHECK(isnan(b[BB_FIGURE_PSNR].value) && isnan(b[BB_FIGURE_DISTANCE_TEACHER].value), "the teacher against itself");
    CHECK(isnan(a[BB_FIGURE_EPS].value), "no traces were given");
    /* The same covariance, means 3 apart: 9; rounding of 64 roots of eigenvalues near 0 is about √(1e-16 · trace). */
    CHECK(fabs(a[BB_FIGURE_DISTANCE_TEACHER].value - 9) < 1e-4, "%.10g", a[BB_FIGURE_DISTANCE_TEACHER].value);
    CHECK(fabs(a[BB_FIGURE_DISTANCE].value - 9) < 1e-4, "%.10g", a[BB_FIGURE_DISTANCE].value);
    CHECK(fabs(b[BB_FIGURE_DISTANCE].value) < 1e-4, "%.10g", b[BB_FIGURE_DISTANCE].value);
    CHECK(b[BB_FIGURE_PRECISION].value == 1 && b[BB_FIGURE_RECALL].value == 1, "the real against themselves");
    CHECK(a[BB_FIGURE_PRECISION].value < 1, "precision %g of the shifted", a[BB_FIGURE_PRECISION].value);
    CHECK(a[BB_FIGURE_ACCURACY].value == 27.0 / N, "accuracy %g", a[BB_FIGURE_ACCURACY].value);
    CHECK(b[BB_FIGURE_KID].value <= a[BB_FIGURE_KID].value, "%g %g", b[BB_FIGURE_KID].value, a[BB_FIGURE_KID].value);
    /* Paired: the shift is the same in every resample, whatever pictures it holds. */
    CHECK(a[BB_FIGURE_DISTANCE_TEACHER].high - a[BB_FIGURE_DISTANCE_TEACHER].low < 1e-3, "%g to %g",
          a[BB_FIGURE_DISTANCE_TEACHER].low, a[BB_FIGURE_DISTANCE_TEACHER].high);
    CHECK(a[BB_FIGURE_ACCURACY].low < a[BB_FIGURE_ACCURACY].value && a[BB_FIGURE_ACCURACY].high <= 1.2,
          "accuracy's interval");
    for (int k = 0; k < 2; k++) bb_column_free(&column[k]);
}

int main(void)
{
    bb_classifier c;
    bb_error err = {0};
    const int file = mkstemp(path);
    if (file < 0) abort();
    close(file);
    for (uint32_t i = 0; i < N; i++) /* each with a brightness and contrast of its own */
        for (uint32_t k = 0; k < PIXELS; k++)
            pictures[i * PIXELS + k] = (uint8_t)(5 * i + bb_uniform(2, STREAM, i * PIXELS + k) * (N - i) / 2);
    make_file(.9125);
    CHECK(bb_classifier_open(&c, path, &err) == BB_OK, "%s", err.text);
    CHECK(c.classes == 10 && c.accuracy == .9125f && strlen(c.sha256) == 64, "%u classes, %g", c.classes, c.accuracy);
    run(&c);
    figures(&c);
    bb_classifier_close(&c);
    unlink(path);
    CHECK(bb_classifier_open(&c, path, &err) < 0 && strstr(err.text, path), "%s", err.text);
    bb_classifier_close(&c);
    return check_done();
}
