/** A packed model (core/FORMAT.md) of one quantized layer between an input `x` and an output `y`. */
const NONE = 0xffffffff;
const [ONE, B, H, W] = [0, 1, 2, 3]; // symbols of a dimension
const [STEP, SAMPLE] = [2, 3]; // rates
const TYPES = { Uint8Array: 'U8', Int16Array: 'I16', Uint32Array: 'U32', Float32Array: 'F32' };
const up = (n, step) => Math.ceil(n / step) * step;

/** §1: tensors [name, typed array, shape or nothing] in file order, each padded in its last dimension. */
function container(metadata, tensors) {
  const header = { __metadata__: metadata };
  let at = 0;
  for (const [name, data, shape = [data.length]] of tensors) {
    const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1),
      last = up(data.byteLength / rows, 64) / data.BYTES_PER_ELEMENT;
    if (rows > 1 && last !== shape.at(-1)) throw new Error(`${name}: rows that need padding`);
    header[name] = {
      dtype: TYPES[data.constructor.name],
      shape: [...shape.slice(0, -1), last],
      data_offsets: [at, (at += rows * last * data.BYTES_PER_ELEMENT)],
    };
  }
  const text = new TextEncoder().encode(JSON.stringify(header)),
    dataAt = up(8 + text.length, 64),
    file = new Uint8Array(dataAt + at).fill(32, 8 + text.length, dataAt);
  new DataView(file.buffer).setBigUint64(0, BigInt(dataAt - 8), true);
  file.set(text, 8);
  for (const [name, data] of tensors)
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), dataAt + header[name].data_offsets[0]);
  return file;
}

/** §7: codes[n·K + k], K = taps·C, as bit planes in tiles of 16 rows and blocks of 8 positions */
function pack(codes, N, K, planes) {
  const out = new Uint8Array((N * K * planes) / 8);
  for (let n = 0; n < N; n++)
    for (let k = 0; k < K; k++)
      for (let p = 0; p < planes; p++) {
        const at = ((Math.floor(n / 16) * (K / 8) + Math.floor(k / 8)) * planes + p) * 16 + (n % 16);
        out[at] |= ((codes[n * K + k] >> p) & 1) << (k % 8);
      }
  return out;
}

/**
 * The file. A convolution has kernel × kernel taps and a margin that keeps the size; without kernel it is linear.
 * @param {{ width: number, height: number, C: number, N: number, kernel?: number }} shape  C a multiple of 8, N of 16
 * @param {{ planes: number, codes: Uint8Array, offset: Int16Array, multiplier?: Int16Array, delta: Float32Array,
 *   bias: Float32Array }} weights  codes[n][tap][c], multiplier[p][n]
 * @param {{ bits: number, delta: number, zero: number }} activation
 */
export function packedLayer({ width, height, C, N, kernel }, weights, activation) {
  if (C % 8 || N % 16) throw new Error('only whole tiles and blocks');
  const { planes, codes, offset, multiplier, delta, bias } = weights;
  const taps = (kernel ?? 1) ** 2,
    margin = kernel && (kernel - 1) / 2;
  let text = '';
  const string = s => {
    const at = text.length;
    text += `${s}\0`;
    return at;
  };
  const dim = (symbol, n = 1) => [symbol, n, 1, 0];
  const input = (name, h, w, c, rate) => [string(name), ...dim(B), ...dim(h), ...dim(w), ...dim(ONE, c), rate];
  const name = string('denoiser'),
    inputs = [
      ...input('sample', H, W, 1, SAMPLE), // every model has these two; nothing reads them here
      ...input('timestep', ONE, ONE, 1, STEP),
      ...input('x', H, W, C, SAMPLE),
    ],
    slots = kernel ? [4, N, C, kernel, kernel] : [2, N, C, 0, 0],
    attributes = kernel ? [kernel, kernel, 1, margin, margin, margin, margin, 0] : Array(8).fill(0);
  const graph = Uint32Array.of(
    ...[1, 1, 0, 0, name, 3, 2, 4, 2, 1, 0, 0, 0, 1, 0, 0], // head and stage
    ...inputs,
    ...[string('sample'), 0, string('y'), 3],
    ...[SAMPLE, STEP, SAMPLE, SAMPLE].flatMap(rate => [NONE, 0, rate, 0]),
    ...[string('layer.weight'), ...slots, string('layer.bias'), 1, N, 0, 0, 0],
    ...[kernel ? 1 : 2, 2, NONE, NONE, NONE, 0, 1, NONE, ...attributes],
  );
  const layer = new Uint32Array(32);
  layer.set([0, 0, N, taps, C, 0, multiplier ? 0 : NONE, NONE, 1, planes]);
  layer[17] = N;
  const quantizer = new Uint32Array(16);
  quantizer.set([1, activation.bits, 1, C, 0, 0, 0, 1, 0, 0, NONE]);
  const schedule = new Uint32Array(16); // one timestep, DDIM
  schedule.set([1, 1]);
  new Float32Array(schedule.buffer).set([1, 0.995, 1], 7);

  // multipliers by tiles: [tile][p][16]
  const tiled = multiplier && multiplier.map((_, i) => multiplier[(Math.floor(i / 16) % planes) * N +
    Math.floor(i / 16 / planes) * 16 + (i % 16)]);
  const metadata = { format: 'bitbrush', format_version: '1', width: `${width}`, height: `${height}`, channels: '1',
    classes: '0', null_label: '-1', train_steps: '1', bits_milli: `${1000 * planes}` };
  return container(metadata, [
    ['graph', graph],
    ['strings', new TextEncoder().encode(text)],
    ['weights', Uint32Array.of(2, 0, 1, 0)],
    ['layers', layer, [1, 32]],
    ['quantizers', quantizer, [1, 16]],
    ['schedule', schedule],
    ['schedule.alphas_cumprod', Float32Array.of(0.5)],
    ['pool.f32', bias],
    ['pool.delta', delta],
    ['pool.offset', offset],
    ...(tiled ? [['pool.multiplier', tiled]] : []),
    ['pool.step_key', Float32Array.of(0)],
    ['pool.step_delta', Float32Array.of(activation.delta)],
    ['pool.step_zero', Uint8Array.of(activation.zero)],
    ['layer.weight', pack(codes, N, taps * C, planes)],
  ]);
}
