/* The student's weights: levels against core's own functions, the start at the packed model, low-rank starts, rates, the
 * written file. */
#include "studentcase.h"

#include "kernels/kernels.h"
#include "make/make.h"
#include "train/student/lowrank.h"

/* ---- levels ---- */

static uint32_t random_below(uint64_t *number, uint32_t n)
{
    return (uint32_t)(bb_uniform(31, 0x10000, (*number)++) * n);
}

static bb_row_grid random_grid(uint64_t *number, uint32_t planes, bool plain)
{
    bb_row_grid g = {.delta = 0.003f + 0.01f * (float)bb_uniform(31, 0x10001, (*number)++), .planes = planes,
                     .plain = plain};
    int32_t low = 0, high = 0, left = planes == 8 ? 255 : 127;
    for (uint32_t p = 0; p < planes; p++) {
        int32_t m = plain ? 1 << p : 1 + (int32_t)random_below(number, 1 + (uint32_t)left / 3);
        left -= m;
        if (!plain && random_below(number, 2)) m = -m;
        g.multiplier[p] = (int16_t)m;
        if (m < 0) low += m; else high += m;
    }
    g.offset = (int16_t)(-128 - low + (int32_t)random_below(number, (uint32_t)(127 - high + 128 + low) + 1));
    return g;
}

enum { OUTPUTS = 21, MOST_K = 800 }; /* not a whole number of vectors; all boundaries of 8 planes */

typedef struct boundaries {
    bb_row_grid grid[OUTPUTS];
    float delta[OUTPUTS], low[OUTPUTS], high[OUTPUTS], bound[255 * OUTPUTS], gap[255 * OUTPUTS];
    float w[MOST_K * OUTPUTS], level[MOST_K * OUTPUTS];
    int8_t code[MOST_K * OUTPUTS];
} boundaries;

/* Every half-way point, and the floats before and after it: those times Δ, so that divided by Δ they fall on either
 * side, and far outside. */
static void fill_boundaries(boundaries *b, uint32_t planes, bool plain, uint64_t *number)
{
    for (uint32_t n = 0; n < OUTPUTS; n++) {
        bb_row_levels l;
        b->grid[n] = random_grid(number, 1 + random_below(number, planes), plain);
        bb_row_levels_of(&b->grid[n], &l);
        b->delta[n] = b->grid[n].delta;
        b->low[n] = l.level[0], b->high[n] = l.level[l.n - 1];
        for (uint32_t i = 0; i < 255; i++) {
            b->bound[i * OUTPUTS + n] = i + 1 < l.n ? 0.5f * (float)(l.level[i] + l.level[i + 1]) : INFINITY;
            b->gap[i * OUTPUTS + n] = i + 1 < l.n ? (float)(l.level[i + 1] - l.level[i]) : 0;
        }
        for (uint32_t k = 0; k < MOST_K; k++) {
            const uint32_t i = k / 3;
            float v = i + 1 < l.n ? 0.5f * (float)(l.level[i] + l.level[i + 1]) : 400 * (float)k - 150 * (float)MOST_K;
            float w = v * b->delta[n];
            b->w[k * OUTPUTS + n] = k % 3 == 0 ? w : nextafterf(w, k % 3 == 1 ? -INFINITY : INFINITY);
        }
    }
}

static void check_levels(const char *set, const bb_student_loops *loops, uint32_t planes, bool plain)
{
    static boundaries b;
    uint64_t number = 100 * planes + plain;
    uint32_t wrong = 0;
    fill_boundaries(&b, planes, plain, &number);
    loops->levels(&(bb_levels_args){.w = b.w, .rows = MOST_K, .n = OUTPUTS, .delta = b.delta, .low = b.low,
                                    .high = b.high, .bounds = plain ? 0 : 255, .bound = b.bound, .gap = b.gap,
                                    .level = b.level, .code = b.code});
    for (uint32_t n = 0; n < OUTPUTS; n++) {
        bb_row_levels l;
        bb_row_levels_of(&b.grid[n], &l);
        for (uint32_t k = 0; k < MOST_K; k++) {
            const uint32_t at = k * OUTPUTS + n;
            const int32_t want = bb_row_level(&b.grid[n], bb_row_code(&l, b.w[at], b.delta[n]));
            wrong += (float)want != b.level[at] || want != b.code[at];
        }
    }
    CHECK(wrong == 0, "%s, %s, up to %u planes: %u levels differ from bb_row_code's", set, plain ? "uniform" : "ladder",
          planes, wrong);
}

static void test_levels(void)
{
    for (uint32_t planes = 1; planes <= 8; planes++)
        for (int plain = 0; plain < 2; plain++) {
            check_levels("base", &bb_student_loops_base, planes, plain);
#ifdef BB_STUDENT_X86
            const uint32_t cpu = bb_cpu_features();
            if (cpu & BB_CPU_AVX2) check_levels("avx2", &bb_student_loops_avx2, planes, plain);
            if (cpu & BB_CPU_AVX512) check_levels("avx512", &bb_student_loops_avx512, planes, plain);
#endif
        }
}

/* ---- the start ---- */

/* Latent weights: the float weight where it rounds to the packed level; and by core's function all of them do. */
static void test_start(const student_case *c)
{
    bb_student *s = new_student(c, train_all);
    if (!s) return;
    uint64_t wrong = 0, moved = 0, all = 0;
    CHECK(bb_student_flipped(s) == 0, "%s: %g of the codes are not the packed ones", c->name, bb_student_flipped(s));
    for (uint32_t i = 0; i < s->pack->n_layers; i++) {
        const bb_student_matrix *m = &s->matrices[i];
        const float *inv_s = m->from->quantizer->inv_s;
        for (uint32_t n = 0; n < m->n; n++) {
            bb_row_levels l;
            bb_row_levels_of(&m->grid[n], &l);
            for (uint32_t k = 0; k < m->k; k++) {
                const float w = s->w[m->at + (size_t)k * m->n + n];
                float given = bb_weight_at(&c->teacher.pack.weights[m->slot], n, k);
                if (inv_s) given /= inv_s[k % m->from->rec->channels];
                const int32_t packed = m->start[(size_t)k * m->n + n];
                const int32_t nearest = bb_row_level(&m->grid[n], bb_row_code(&l, given, m->delta[n]));
                wrong += bb_row_level(&m->grid[n], bb_row_code(&l, w, m->delta[n])) != packed;
                wrong += nearest == packed && w != given;
                moved += w != given;
                all++;
            }
        }
    }
    CHECK(wrong == 0, "%s: %u latent weights are not where they should be", c->name, (unsigned)wrong);
    CHECK(moved > 0 && moved < all / 2, "%s: %u of %u latent weights moved", c->name, (unsigned)moved, (unsigned)all);
    printf("%s: %.1f %% of latent weights moved into their cell\n", c->name, 100.0 * (double)moved / (double)all);
    bb_student_free(s);
}

/* ---- the file ---- */

static const void *tensors_of(const packed_model *m, size_t *n)
{
    const size_t head = (size_t)m->model->pack.info.head_bytes;
    *n = m->bytes - head;
    return m->blob + head;
}

static void test_write(const student_case *c, bool same)
{
    bb_student *s = new_student(c, train_all);
    bb_error err = {.text = ""};
    packed_model out = {0};
    if (!s) return;
    bb_status status = bb_student_write(s, "a \"command\"", 77, &out.blob, &out.bytes, &err);
    CHECK(status == BB_OK, "%s: %s", c->name, err.text);
    if (status == BB_OK && read_model(&out)) {
        size_t n, n_before;
        char text[256] = "";
        const void *tensors = tensors_of(&out, &n), *before = tensors_of(&c->packed, &n_before);
        CHECK(!same || (n == n_before && memcmp(tensors, before, n) == 0), "%s: the tensors differ", c->name);
        bb_pack_metadata(&out.model->pack, "command", text, sizeof text);
        CHECK(strcmp(text, "a \"command\"") == 0, "%s", text);
        bb_pack_metadata(&out.model->pack, "seed", text, sizeof text);
        CHECK(strcmp(text, "77") == 0, "%s", text);
        bb_pack_metadata(&out.model->pack, "quantization", text, sizeof text);
        CHECK(strstr(text, "; trained: weights, scales, steps, float tensors"), "%s", text);
        bb_pack_metadata(&out.model->pack, "architecture", text, sizeof text);
        CHECK(strlen(text) > 0, "the architecture is gone");
        CHECK(out.model->pack.info.bits_milli == c->packed.model->pack.info.bits_milli, "bits");
    }
    close_model(&out);
    bb_student_free(s);
}

/* Everything moved by noise: a student of the written file has these numbers again. */
static void test_write_changed(const student_case *c)
{
    bb_student *s = new_student(c, train_all), *again = NULL;
    bb_error err = {.text = ""};
    student_case second = {.name = "written", .teacher = c->teacher};
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) s->w[i] *= 1 + 0.2f * (float)(bb_uniform(4, 0x10002, i) - 0.5);
    for (uint32_t i = 0; i < s->pack->n_quantizers; i++)
        for (uint32_t k = 0; k < s->steps[i].entries; k++) s->w[s->steps[i].zero_at + k] += 0.7f;
    bb_student_changed(s);
    const double flipped = bb_student_flipped(s);
    CHECK(flipped > 0.01 && flipped < 0.9, "%g of the codes", flipped);
    bb_status status = bb_student_write(s, NULL, 1, &second.packed.blob, &second.packed.bytes, &err);
    CHECK(status == BB_OK, "%s", err.text);
    if (status == BB_OK && read_model(&second.packed)) again = new_student(&second, train_all);
    for (uint32_t i = 0; again && i < s->pack->n_layers; i++) {
        const bb_student_matrix *a = &s->matrices[i], *b = &again->matrices[i];
        const size_t weights = (size_t)a->k * a->n;
        CHECK(memcmp(a->code, b->start, weights) == 0, "%s, layer %u: levels", c->name, i);
        CHECK(memcmp(a->delta, b->delta, a->n * sizeof *a->delta) == 0, "%s, layer %u: scales", c->name, i);
    }
    for (uint32_t i = 0; again && i < s->pack->n_quantizers; i++) {
        const bb_student_steps *a = &s->steps[i], *b = &again->steps[i];
        CHECK(memcmp(a->delta, b->delta, a->entries * sizeof *a->delta) == 0 &&
              memcmp(a->zero, b->zero, a->entries) == 0, "%s, quantizer %u", c->name, i);
    }
    for (uint32_t i = 0; again && i < s->pack->graph.n_weights; i++) {
        const double tolerance = s->pack->weights[i].f16 ? 1.0 / 2048 : 0; /* half a unit in the last place of f16 */
        const float *want = s->params.w + s->params.at[i], *got = again->params.w + s->params.at[i];
        if (!s->params.fixed[i])
            CHECK(check_error(got, want, s->params.count[i]) <= tolerance, "%s, slot %u", c->name, i);
    }
    bb_student_free(again);
    close_model(&second.packed);
    bb_student_free(s);
}

/* ---- low rank ---- */

/* mpq-dm §9, 15 and 16: what is left is the other singular values; the factors are balanced. */
static void check_low_rank(uint32_t k, uint32_t n, uint32_t r, uint32_t full)
{
    const uint32_t small = k < n ? k : n;
    float *e = calloc((size_t)k * n, sizeof *e);
    float *a = calloc((size_t)k * r, sizeof *a), *b = calloc((size_t)r * n, sizeof *b);
    float *u = calloc((size_t)k * full, sizeof *u), *v = calloc((size_t)full * n, sizeof *v);
    double *sigma = calloc(small, sizeof *sigma), left = 0, rest = 0, power = 0, worst = 0;
    bb_error err = {.text = ""};
    bb_normals(u, (size_t)k * full, 11, 0x10000, 0);
    bb_normals(v, (size_t)full * n, 12, 0x10000, 0);
    for (uint32_t i = 0; i < k; i++)
        for (uint32_t j = 0; j < n; j++)
            for (uint32_t l = 0; l < full; l++) e[i * n + j] += u[i * full + l] * v[l * n + j];
    CHECK(bb_low_rank(e, k, n, r, a, b, sigma, &err) == BB_OK, "%s", err.text);
    for (uint32_t i = 0; i < k; i++)
        for (uint32_t j = 0; j < n; j++) {
            double d = (double)e[i * n + j];
            power += d * d;
            for (uint32_t l = 0; l < r; l++) d -= (double)a[i * r + l] * (double)b[l * n + j];
            left += d * d;
        }
    for (uint32_t i = r; i < small; i++) rest += sigma[i] * sigma[i];
    for (uint32_t i = 0; i < r; i++)
        for (uint32_t j = 0; j < r; j++) {
            double aa = 0, bb = 0;
            const double want = i == j && i < full ? sigma[i] : 0;
            for (uint32_t l = 0; l < k; l++) aa += (double)a[l * r + i] * (double)a[l * r + j];
            for (uint32_t l = 0; l < n; l++) bb += (double)b[i * n + l] * (double)b[j * n + l];
            worst = fmax(worst, fmax(fabs(aa - want), fabs(bb - want)));
        }
    /* f32 factors: 2^-24 of each of the r products, relative to the largest */
    CHECK(fabs(left - rest) <= 1e-6 * power, "%u x %u, rank %u: %g left of %g, not %g", k, n, r, left, power, rest);
    CHECK(worst <= 1e-6 * sigma[0], "%u x %u, rank %u: out of balance by %g of %g", k, n, r, worst, sigma[0]);
    free(e), free(a), free(b), free(u), free(v), free(sigma);
}

static void test_low_rank(void)
{
    check_low_rank(90, 24, 8, 24);
    check_low_rank(24, 90, 8, 24);
    check_low_rank(40, 20, 20, 20);
    check_low_rank(60, 30, 12, 5); /* of rank 5: 7 factors are nothing */
    check_low_rank(3, 16, 1, 3);
}

/* mpq-dm §9, 18: the share of codes that the starts change: 20 to 30 % for (a), below 2 % for (b), with Gaussian weights
 * and rank 32 of 256; here the rank is 8, of 12 to 64. */
static void test_factor_starts(const student_case *c)
{
    double flipped[BB_STUDENT_FROZEN + 1] = {0};
    for (uint32_t kind = BB_STUDENT_FULL; kind <= BB_STUDENT_FROZEN; kind++) {
        bb_student_options opt = train_all;
        opt.weights = kind;
        bb_student *s = new_student(c, opt);
        if (!s) return;
        flipped[kind] = bb_student_flipped(s);
        bb_student_free(s);
    }
    printf("%s: codes changed at the start: (a) %.3f, (b) %.3f\n", c->name, flipped[BB_STUDENT_OOLRI_A],
           flipped[BB_STUDENT_OOLRI_B]);
    CHECK(flipped[BB_STUDENT_LORA_ZERO] == 0 && flipped[BB_STUDENT_FROZEN] == 0, "%s: zero start", c->name);
    CHECK(flipped[BB_STUDENT_OOLRI_A] > 0.15, "%s: (a) %g", c->name, flipped[BB_STUDENT_OOLRI_A]);
    CHECK(flipped[BB_STUDENT_OOLRI_B] > 0 && flipped[BB_STUDENT_OOLRI_B] < 0.04, "%s: (b) %g", c->name,
          flipped[BB_STUDENT_OOLRI_B]);
}

/* ---- rates ---- */

/* How far the product of factors moves in its first update, root mean square, by the rates that the groups have: signs
 * of the gradients taken as independent. */
static double product_speed(const bb_student *s, const bb_student_matrix *m, const bb_optim_group *groups, uint32_t n)
{
    double a = 0, b = 0, rate = 0;
    for (size_t i = 0; i < (size_t)m->k * m->rank; i++) a += pow((double)s->w[m->at + i], 2) / m->k;
    for (size_t i = 0; i < (size_t)m->rank * m->n; i++) b += pow((double)s->w[m->b_at + i], 2) / m->n;
    for (uint32_t i = 0; i < n; i++)
        if (groups[i].first == m->at) rate = (double)groups[i].rate;
    return rate * sqrt(a + b);
}

/* From every start the product moves as fast as from a random A in ±1/√k (a² = 1/3k) and B = 0; slower only where
 * the factors are so small that they would have to be hurried. */
static void test_pace(const student_case *c)
{
    const float factor[BB_STUDENT_KINDS] = {1.0f / 60, 0, 0, 0, 0};
    for (uint32_t kind = BB_STUDENT_LORA_ZERO; kind <= BB_STUDENT_OOLRI_B; kind++) {
        bb_student_options opt = train_all;
        opt.weights = kind;
        bb_student *s = new_student(c, opt);
        if (!s) return;
        const uint32_t n = bb_student_groups(s, factor, NULL);
        bb_optim_group *groups = calloc(n, sizeof *groups);
        uint32_t slowed = 0;
        bb_student_groups(s, factor, groups);
        for (uint32_t i = 0; i < s->pack->n_layers; i++) {
            const bb_student_matrix *m = &s->matrices[i];
            const double want = m->mean_gap / 60 * sqrt(m->rank / (3.0 * m->k)), got = product_speed(s, m, groups, n);
            /* The square of a uniform number strays by √(4/5) of its mean: 4 standard deviations of k·rank of them, and
             * the root halves that. Else f32. */
            const double stray = 2 * sqrt(0.8 / m->k / m->rank);
            if (kind == BB_STUDENT_LORA_ZERO) CHECK(fabs(got / want - 1) < stray, "layer %u: %g", i, got / want);
            else if (m->pace < 1) CHECK(fabs(got / want - 1) < 1e-5, "layer %u: %g", i, got / want);
            else CHECK(m->pace == 1 && got <= want * 1.00001, "layer %u: %g", i, got / want);
            slowed += m->pace < 1;
        }
        CHECK((slowed > 0) == (kind != BB_STUDENT_LORA_ZERO), "%s, kind %u: %u layers slowed", c->name, kind, slowed);
        free(groups);
        bb_student_free(s);
    }
}

static void test_groups(const student_case *c)
{
    const float factor[BB_STUDENT_KINDS] = {1.0f / 60, 1e-3f, 1e-2f, 0.04f, 1e-3f};
    const float no_weights[BB_STUDENT_KINDS] = {0, 1, 0, 0, 0};
    bb_student *s = new_student(c, train_all);
    if (!s) return;
    const uint32_t n = bb_student_groups(s, factor, NULL);
    uint32_t overlaps = 0;
    bb_optim_group *groups = calloc(n, sizeof *groups);
    uint8_t *taken = calloc(s->n, 1);
    CHECK(bb_student_groups(s, factor, groups) == n, "counted and filled differ");
    for (uint32_t i = 0; i < n; i++) {
        CHECK(groups[i].first + groups[i].count <= s->n && groups[i].rate > 0, "group %u", i);
        for (size_t k = 0; k < groups[i].count; k++) overlaps += taken[groups[i].first + k]++;
    }
    CHECK(overlaps == 0, "%u floats are in two groups", overlaps);
    CHECK(bb_student_groups(s, no_weights, NULL) == s->pack->n_layers, "kinds without a rate have no group");
    for (uint32_t i = 0; i < s->pack->n_layers; i++) { /* uniform levels are Δ apart */
        const bb_student_matrix *m = &s->matrices[i];
        double mean = 0;
        for (uint32_t k = 0; k < m->n; k++) mean += (double)m->delta[k] / m->n;
        if (!m->from->multiplier) CHECK(fabs((double)m->mean_gap - mean) <= 1e-6 * mean, "layer %u", i);
    }
    free(taken);
    free(groups);
    bb_student_free(s);
}

static void test_refused(const student_case *c)
{
    bb_error err = {.text = ""};
    bb_student *s = NULL;
    bb_student_options opt = train_all;
    opt.packed = c->packed.model;
    opt.teacher = c->packed.model;
    bb_status status = bb_student_new(&s, &opt, &err);
    CHECK(status == BB_ERR_ARGUMENT && strstr(err.text, "give the float model"), "%s", err.text);
    bb_model plain = c->teacher;
    plain.pack.n_layers = 0;
    opt.packed = &plain;
    status = bb_student_new(&s, &opt, &err);
    CHECK(status == BB_ERR_ARGUMENT && strstr(err.text, "quantize it first"), "%s", err.text);
}

int main(void)
{
    student_case made, tiny;
    test_levels();
    test_low_rank();
    if (open_made(&made) && open_tiny(&tiny)) {
        const student_case *cases[] = {&made, &tiny};
        for (int i = 0; i < 2; i++) {
            test_start(cases[i]);
            test_write(cases[i], i == 0); /* the random planes of the tiny model have bits in their padding */
            test_write_changed(cases[i]);
            test_factor_starts(cases[i]);
            test_pace(cases[i]);
            test_groups(cases[i]);
            test_refused(cases[i]);
        }
        close_case(&tiny);
    }
    close_case(&made);
    return check_done();
}
