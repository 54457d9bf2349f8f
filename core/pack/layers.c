/* Resolves and checks the records of quantized layers: every range, scale and integer bound that the kernels rely on
 * (core/FORMAT.md §6, §7). */
#include "pack/layout.h"

static bool positive(float x) { return x > 0 && x - x == 0; }
static bool all_zero(const uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (words[i]) return false;
    return true;
}
static bool fits(uint32_t at, uint64_t count, uint32_t size) { return at <= size && count <= size - at; }

bb_status bb_quantizer_check(bb_quantizer *q, const bb_quantizer_rec *rec, const bb_pools *pools, uint32_t number,
                             bb_error *err)
{
    if (rec->kind != BB_QUANTIZER_STATIC)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "quantizer %u: kind %u is not known to this build", number, rec->kind);
    bool ok = rec->bits >= 4 && rec->bits <= 8 && rec->segments >= 1 && rec->segments <= BB_MAX_SEGMENTS &&
              rec->rows >= 1 && rec->rows <= BB_MAX_STEP_ROWS && all_zero(rec->reserved, BB_COUNT(rec->reserved));
    *q = (bb_quantizer){.rec = rec};
    for (uint32_t g = 0; ok && g < BB_MAX_SEGMENTS; g++) {
        uint32_t c = rec->seg_channels[g];
        ok = g < rec->segments ? c >= 1 && c <= BB_MAX_K : c == 0;
        q->channels += c;
        q->padded += (uint32_t)bb_align_up(c, BB_K_BLOCK);
    }
    ok = ok && q->channels <= BB_MAX_K && fits(rec->key_at, rec->rows, pools->n_step_key) &&
         fits(rec->step_at, (uint64_t)rec->rows * rec->segments, pools->n_step) &&
         (rec->inv_s_at == BB_NONE || fits(rec->inv_s_at, q->channels, pools->n_inv_s));
    if (!ok) return bb_fail(err, BB_ERR_CORRUPT, "quantizer %u: bits, segments, rows or offsets out of range", number);
    q->key = pools->step_key + rec->key_at;
    q->delta = pools->step_delta + rec->step_at;
    q->zero = pools->step_zero + rec->step_at;
    q->inv_s = rec->inv_s_at == BB_NONE ? NULL : pools->inv_s + rec->inv_s_at;
    for (uint32_t i = 0; i < rec->rows * rec->segments; i++)
        ok = ok && positive(q->delta[i]) && q->zero[i] < 1u << rec->bits;
    for (uint32_t r = 0; r < rec->rows; r++)
        ok = ok && q->key[r] - q->key[r] == 0 && (r == 0 || q->key[r] < q->key[r - 1]);
    for (uint32_t c = 0; q->inv_s && c < q->channels; c++) ok = ok && positive(q->inv_s[c]);
    return ok ? BB_OK
              : bb_fail(err, BB_ERR_CORRUPT, "quantizer %u: a scale, zero point or step key is invalid", number);
}

/* Packed rows of all classes; fills the plane bytes and multiplier count they need. 0 if out of range. */
static uint32_t class_rows(const bb_layer_rec *rec, uint64_t k_blocks, uint64_t *plane_bytes, uint64_t *multipliers)
{
    uint64_t rows = 0, outputs = 0;
    *plane_bytes = *multipliers = 0;
    if (rec->n_classes < 1 || rec->n_classes > BB_MAX_CLASSES) return 0;
    for (uint32_t i = 0; i < BB_MAX_CLASSES; i++) {
        uint64_t n = rec->class_rows[i], planes = rec->class_planes[i];
        if (i >= rec->n_classes) {
            if (n || planes) return 0;
            continue;
        }
        if (!n || n > BB_MAX_K || !planes || planes > BB_MAX_PLANES) return 0;
        uint64_t padded = (n + BB_TILE - 1) / BB_TILE * BB_TILE;
        outputs += n;
        rows += padded;
        *plane_bytes += padded * k_blocks * planes;
        *multipliers += padded * planes;
    }
    return outputs == rec->outputs && rows <= BB_MAX_K ? (uint32_t)rows : 0;
}

/* All weights a channel can have must fit int8, and at most 7 bits of range below 8 planes. */
static bool row_fits(const bb_layer *l, const int16_t *multiplier, uint32_t planes, uint32_t row)
{
    int32_t low = l->offset[row], high = low;
    for (uint32_t p = 0; p < planes; p++) {
        int32_t m = multiplier ? multiplier[p * BB_TILE + row % BB_TILE] : 1 << p;
        if (m < 0) low += m; else high += m;
    }
    return low >= -128 && high <= 127 && (planes == BB_MAX_PLANES || high - low <= 127);
}

/* wsum[g][row] = Σ over the segment's real inputs of w, for one tile; returns the bytes read. */
static size_t sum_tile(const bb_layer *l, const uint8_t *planes, const int16_t *multiplier, uint32_t n_planes,
                       uint32_t first_row, int32_t *wsum)
{
    const bb_quantizer_rec *q = l->quantizer->rec;
    const uint8_t *at = planes;
    for (uint32_t tap = 0; tap < l->rec->taps; tap++)
        for (uint32_t g = 0; g < q->segments; g++)
            for (uint32_t c = 0; c < q->seg_channels[g]; c += BB_K_BLOCK) {
                uint32_t valid = q->seg_channels[g] - c < BB_K_BLOCK ? q->seg_channels[g] - c : BB_K_BLOCK;
                int32_t *sum = wsum + (size_t)g * l->rows + first_row;
                for (uint32_t j = 0; j < BB_TILE; j++) sum[j] += (int32_t)valid * l->offset[first_row + j];
                for (uint32_t p = 0; p < n_planes; p++, at += BB_TILE)
                    for (uint32_t j = 0; j < BB_TILE; j++)
                        sum[j] += __builtin_popcount(at[j] & ((1u << valid) - 1)) *
                                  (multiplier ? multiplier[p * BB_TILE + j] : 1 << p);
            }
    return (size_t)(at - planes);
}

/* Every output once in the real rows, 65535 in the padding rows; marks: zeroed, room for all outputs. */
static bool perm_ok(const bb_layer *l, int32_t *marks)
{
    uint32_t row = 0;
    for (uint32_t i = 0; i < l->rec->n_classes; i++) {
        uint32_t padded = (uint32_t)bb_align_up(l->rec->class_rows[i], BB_TILE);
        for (uint32_t j = 0; j < padded; j++, row++) {
            uint32_t out = l->perm[row];
            if (j >= l->rec->class_rows[i] ? out != 65535 : out >= l->rec->outputs || marks[out]++) return false;
        }
    }
    memset(marks, 0, l->rec->outputs * sizeof *marks);
    return true;
}

static bb_status check_rows(bb_layer *l, const char *name, int32_t *wsum, bb_error *err)
{
    const uint8_t *planes = l->planes;
    const int16_t *multiplier = l->multiplier;
    uint32_t row = 0;
    for (uint32_t i = 0; i < l->rec->n_classes; i++) {
        uint32_t end = row + (uint32_t)bb_align_up(l->rec->class_rows[i], BB_TILE), n_planes = l->rec->class_planes[i];
        for (; row < end; row += BB_TILE) {
            for (uint32_t j = row; j < row + BB_TILE; j++)
                if (!row_fits(l, multiplier, n_planes, j))
                    return bb_fail(err, BB_ERR_CORRUPT, "layer %s: weights of row %u leave their range", name, j);
            planes += sum_tile(l, planes, multiplier, n_planes, row, wsum);
            if (multiplier) multiplier += n_planes * BB_TILE;
        }
    }
    l->wsum = wsum;
    return BB_OK;
}

bb_status bb_layer_check(bb_layer *l, const bb_layer_rec *rec, const bb_quantizer *q, const bb_weight_slot *slot,
                         const char *name, const bb_pools *pools, const uint8_t *planes, uint64_t plane_bytes,
                         int32_t *wsum, bb_error *err)
{
    uint64_t need = 0, multipliers = 0;
    uint32_t taps = slot->rank == 4 ? slot->dim[2] * slot->dim[3] : 1;
    if (rec->outputs != slot->dim[0] || rec->channels != slot->dim[1] || rec->taps != taps ||
        q->channels != rec->channels || rec->outputs >= BB_MAX_K || (uint64_t)taps * rec->channels > BB_MAX_K ||
        !all_zero(rec->reserved, BB_COUNT(rec->reserved)))
        return bb_fail(err, BB_ERR_CORRUPT, "layer %s: its record does not fit the graph's shape", name);
    uint64_t k_blocks = (uint64_t)taps * q->padded / BB_K_BLOCK;
    uint32_t rows = class_rows(rec, k_blocks, &need, &multipliers);
    if (!rows || (need + BB_ALIGNMENT - 1) / BB_ALIGNMENT * BB_ALIGNMENT != plane_bytes)
        return bb_fail(err, BB_ERR_CORRUPT, "layer %s: width classes do not fit its outputs or its bit planes", name);
    if (!fits(rec->row_at, rows, pools->n_rows) ||
        (rec->multiplier_at != BB_NONE && !fits(rec->multiplier_at, multipliers, pools->n_multiplier)) ||
        (rec->perm_at == BB_NONE ? rec->n_classes != 1 : !fits(rec->perm_at, rows, pools->n_perm)))
        return bb_fail(err, BB_ERR_CORRUPT, "layer %s: a pool offset is out of range", name);
    *l = (bb_layer){.rec = rec, .quantizer = q, .rows = rows, .k_blocks = (uint32_t)k_blocks, .planes = planes,
                    .delta = pools->delta + rec->row_at, .offset = pools->offset + rec->row_at,
                    .multiplier = rec->multiplier_at == BB_NONE ? NULL : pools->multiplier + rec->multiplier_at,
                    .perm = rec->perm_at == BB_NONE ? NULL : pools->perm + rec->perm_at};
    for (uint32_t j = 0; j < rows; j++)
        if (l->delta[j] - l->delta[j] != 0)
            return bb_fail(err, BB_ERR_CORRUPT, "layer %s: scale of row %u is not finite", name, j);
    if (l->perm && !perm_ok(l, wsum))
        return bb_fail(err, BB_ERR_CORRUPT, "layer %s: its output permutation is none", name);
    return check_rows(l, name, wsum, err);
}
