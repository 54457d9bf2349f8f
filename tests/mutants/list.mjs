/**
 * Planted faults: each must turn a test red. `find` occurs exactly once in `file` (one line or several), or the
 * runner fails: a mutant that no longer applies tests nothing. `by` are the test programs that have to notice.
 */
export const mutants = [
  {
    name: 'pad with 0 instead of z',
    file: 'core/run/quantized.c',
    find: 'pad[k] = zero;',
    put: 'pad[k] = (uint8_t)(zero - zero);',
    by: ['contract'],
  },
  {
    name: 'z off by one',
    file: 'core/run/quantized.c',
    find: 'q->zero[at] * l->wsum[',
    put: '(q->zero[at] + 1) * l->wsum[',
    by: ['contract'],
  },
  {
    name: 'permutation not undone',
    file: 'core/run/quantized.c',
    find: 'out = c->layer->perm ? c->layer->perm[row] : row;',
    put: 'out = row;',
    by: ['contract'],
  },
  {
    name: 'stale sum of weights',
    file: 'core/run/quantized.c',
    find: 'if (item != loaded) load_scales(',
    put: 'if (loaded == BB_NONE) load_scales(',
    by: ['contract'],
  },
  {
    name: 'floor for round-half-even',
    file: 'core/kernels/scalar/scalar_q.c',
    find: '(int32_t)bb_round_even(v) + zero)',
    put: '(int32_t)(v + 256.0f) - 256 + zero)',
    by: ['contract', 'kernelcheck'],
  },
  {
    name: "next step's table row",
    file: 'core/run/quantized.c',
    find: 'return bb_step_row(q, run->at[run->timestep][item]);',
    put: 'return (bb_step_row(q, run->at[run->timestep][item]) + 1) % q->rec->rows;',
    by: ['contract'],
  },
  {
    name: 'guidance halves swapped',
    file: 'core/api/session.c',
    find: 'bool null = s->rows > batch && row < batch;',
    put: 'bool null = s->rows > batch && row >= batch;',
    by: ['session'],
  },
  {
    name: 'one plane dropped',
    file: 'core/kernels/scalar/scalar_q.c',
    find: 'for (size_t p = 0; p < a->n_planes; p++)\n                    sum +=',
    put: 'for (size_t p = 0; p + 1 < a->n_planes; p++)\n                    sum +=',
    by: ['contract', 'kernelcheck'],
  },
  {
    name: 'segment scales swapped',
    file: 'core/run/quantized.c',
    find: 'uint32_t at = row * q->rec->segments + g;',
    put: 'uint32_t at = row * q->rec->segments + (q->rec->segments - 1 - g);',
    by: ['contract'],
  },
  {
    name: 'LoRA alpha not divided by the rank',
    file: 'core/make/lora.c',
    find: 'p->scale = (double)alpha / (double)rank;',
    put: 'p->scale = (double)alpha;',
    by: ['lora'],
  },
  {
    name: 'LoRA of a convolution with its taps mixed up',
    file: 'core/make/lora.c',
    find: 'x / taps * s.in + x % taps * s.tap',
    put: 'x / taps * s.in + (taps - 1 - x % taps) * s.tap',
    by: ['lora'],
  },
  {
    name: 'wrong norm eps',
    file: 'core/run/exec.c',
    find: '.eps = w->op->norm.eps',
    put: '.eps = 1e-5f',
    by: ['session'],
  },
];
