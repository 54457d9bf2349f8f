/* Low rank: what becomes levels is base + A·B, A [k][rank], B [rank][n]: the form of EfficientDM for convolutions, B a
 * 1×1 convolution over A's k×k one (mpq-dm §1.5). Starts that keep A·B beside the integers (§4.2, (c) and (d)) cannot
 * be written into the file, whose layers have integer weights and one Δ for an output, nothing beside them.
 *
 * W is the teacher's weight moved into the cell of its packed level. With the weight itself, the error that the factors
 * of OOLRI are made from would undo compensated rounding: at W2A4 (b) began with 12 % of the codes changed and 13 times
 * the error of the packed model; now with 2 % and the same error. */
#include "train/student/layer.h"

#include "base/rng.h"
#include "train/student/lowrank.h"

#define STREAM (BB_STREAM_TOOLS + 0x5000u) /* of A's random start, + the weight slot */

/* Kaiming's uniform start with a = √5, as of a linear layer with k inputs: ± 1/√k. */
static void random_start(bb_student *s, bb_student_matrix *m)
{
    const double bound = 1 / bb_sqrt(m->k);
    float *a = s->w + m->at;
    for (size_t i = 0; i < (size_t)m->k * m->rank; i++)
        a[i] = (float)((2 * bb_uniform(s->opt.seed, STREAM + m->slot, i) - 1) * bound);
}

/* AdamW moves every element of A and B by the rate, whatever its size, and so an element of A·B by about
 * rate·√(rank·(a² + b²)), a² and b² the mean squares. From the SVD of an error that is several times as fast as from a
 * random A and B = 0 (at two bits up to 17 times, in the teacher), and pictures suffered: rates are made to
 * fit. */
static float pace_of(const bb_student *s, const bb_student_matrix *m)
{
    const double now = bb_student_mean_square(s->w + m->at, (size_t)m->k * m->rank) +
                       bb_student_mean_square(s->w + m->b_at, (size_t)m->rank * m->n);
    const double random = 1.0 / 3 / m->k; /* of random_start */
    return now > random ? (float)bb_sqrt(random / now) : 1;
}

bb_status bb_student_factors_start(bb_student *s, bb_student_matrix *m, float *smoothed, bb_error *err)
{
    const size_t weights = (size_t)m->k * m->n;
    memcpy(m->base, smoothed, weights * sizeof *smoothed);
    if (s->opt.weights == BB_STUDENT_LORA_ZERO) {
        random_start(s, m);
        return BB_OK;
    }
    for (size_t i = 0; i < weights; i++) {
        const float level = m->grid[i % m->n].delta * (float)m->start[i];
        smoothed[i] -= level;
        if (s->opt.weights == BB_STUDENT_OOLRI_B) m->base[i] = level;
    }
    BB_TRY(bb_low_rank(smoothed, m->k, m->n, m->rank, s->w + m->at, s->w + m->b_at, NULL, err));
    m->pace = pace_of(s, m);
    return BB_OK;
}

void bb_student_factors_add(const bb_student *s, bb_student_matrix *m)
{
    const float *a = s->w + m->at, *b = s->w + m->b_at;
#pragma omp parallel for schedule(static)
    for (uint32_t k = 0; k < m->k; k++) {
        float *latent = m->latent + (size_t)k * m->n;
        memcpy(latent, m->base + (size_t)k * m->n, m->n * sizeof *latent);
        s->loops->combine(m->rank, m->n, a + (size_t)k * m->rank, 1, b, latent);
    }
}

/* ∂L/∂A = G·Bᵀ, ∂L/∂B = Aᵀ·G with G the gradient of the latent weights. */
void bb_student_factors_grad(bb_student *s, bb_student_matrix *m, const float *dw)
{
    const uint32_t r = m->rank;
    const float *a = s->w + m->at, *b = s->w + m->b_at;
    float *da = s->g + m->at, *db = s->g + m->b_at, *turned = s->turned;
    for (uint32_t i = 0; i < r; i++)
        for (uint32_t n = 0; n < m->n; n++) turned[n * r + i] = b[i * m->n + n];
#pragma omp parallel for schedule(static)
    for (uint32_t k = 0; k < m->k; k++)
        s->loops->combine(m->n, r, dw + (size_t)k * m->n, 1, turned, da + (size_t)k * r);
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < r; i++) s->loops->combine(m->k, m->n, a + i, r, dw, db + (size_t)i * m->n);
}
