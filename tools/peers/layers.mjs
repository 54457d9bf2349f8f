/**
 * The layers that are timed, as plain numbers, and their values by naive sums. Activations are [pixel][c] and look
 * like what follows SiLU; weights are [n][tap][c]. Every contestant gets its own rounding of the same numbers, and is
 * held to the sums of that.
 */
/** A square convolution that keeps the size, or a matrix product of M = width · height rows. */
export const SHAPES = {
  conv3x3_128_32: { width: 32, height: 32, C: 128, N: 128, kernel: 3 },
  conv3x3_64_28: { width: 28, height: 28, C: 64, N: 64, kernel: 3 },
  conv1x1_128_32: { width: 32, height: 32, C: 128, N: 128, kernel: 1 },
  gemm_1024_128_1152: { width: 32, height: 32, C: 1152, N: 128 },
  gemm_256_384_384: { width: 16, height: 16, C: 384, N: 384 },
};
/** Ours: weight and activation bits; a ladder's planes have multipliers of their own. */
export const WIDTHS = {
  w1a4: { planes: 1, bits: 4, ladder: true },
  w2a4: { planes: 2, bits: 4 },
  w2a4_ladder: { planes: 2, bits: 4, ladder: true },
  w4a4: { planes: 4, bits: 4 },
  w8a8: { planes: 8, bits: 8 },
};
const U = 2 ** -24; // half an ulp of 1

/** xorshift32: numbers in (0, 1), the same everywhere */
function randoms(seed) {
  let s = seed;
  return () => {
    s ^= s << 13;
    s ^= s >>> 17;
    s ^= s << 5;
    return ((s >>> 0) + 0.5) / 2 ** 32;
  };
}
const roundEven = v => {
  const low = Math.floor(v), part = v - low;
  return part < 0.5 || (part === 0.5 && low % 2 === 0) ? low : low + 1;
};
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

/** { ...shape, M, taps, K, x, w, bias } */
export function makeLayer(shape, seed = 1) {
  const next = randoms(seed),
    normal = () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
  const { width, height, C, N, kernel = 1 } = shape,
    taps = kernel * kernel, M = width * height, K = taps * C;
  const x = Float32Array.from({ length: M * C }, () => {
    const v = normal();
    return v / (1 + Math.exp(-v));
  });
  const w = Float32Array.from({ length: N * K }, () => normal() / Math.sqrt(K));
  const bias = Float32Array.from({ length: N }, () => normal() / 4);
  return { ...shape, M, taps, K, x, w, bias };
}

/** Calls visit(index of an activation, index of a weight) for each product of output n at a pixel. */
function products({ width, height, C, K, kernel = 1 }, pixel, n, visit) {
  const margin = (kernel - 1) / 2, top = Math.floor(pixel / width) - margin, left = (pixel % width) - margin;
  for (let ky = 0; ky < kernel; ky++)
    for (let kx = 0; kx < kernel; kx++) {
      const y = top + ky, x = left + kx;
      if (y < 0 || x < 0 || y >= height || x >= width) continue;
      for (let c = 0; c < C; c++) visit((y * width + x) * C + c, n * K + (ky * kernel + kx) * C + c);
    }
}

/** Places spread over the layer, its corners among them. */
export function places({ M, N }, count = 400) {
  const next = randoms(7),
    some = Array.from({ length: count }, () => [Math.floor(next() * M), Math.floor(next() * N)]);
  return [[0, 0], [M - 1, N - 1], ...some];
}

/** Throws unless each place of y[pixel][n] is within `[value, bound] = want(pixel, n)`. */
export function compare(layer, y, want, what) {
  if (y.length !== layer.M * layer.N) throw new Error(`${what}: ${y.length} values, not ${layer.M * layer.N}`);
  for (const [pixel, n] of places(layer)) {
    const [value, bound] = want(pixel, n), got = y[pixel * layer.N + n];
    if (!(Math.abs(got - value) <= bound))
      throw new Error(`${what}: ${got} at pixel ${pixel}, output ${n}, where naive sums give ${value} ± ${bound}`);
  }
}

/** In doubles; an f32 sum of K products and a bias in any order, fused or not, is off by (K + 2)·u·Σ|products|. */
export const floatReference = (layer, w = layer.w) => (pixel, n) => {
  let sum = layer.bias[n], size = Math.abs(sum);
  products(layer, pixel, n, (i, j) => {
    sum += layer.x[i] * w[j];
    size += Math.abs(layer.x[i] * w[j]);
  });
  return [sum, (layer.K + 2) * U * size];
};

// ---- ours ----

/** Codes, offsets, multipliers and scales by core/FORMAT.md §6 and §7, plainly rounded. */
export function quantizeOurs({ N, K, w, bias }, { planes, bits, ladder }) {
  const codes = new Uint8Array(N * K), offset = new Int16Array(N), delta = new Float32Array(N),
    multiplier = ladder && new Int16Array(planes * N), next = randoms(3);
  for (let n = 0; n < N; n++) {
    const row = w.subarray(n * K, (n + 1) * K), deviation = Math.sqrt(row.reduce((s, v) => s + v * v, 0) / K);
    const free = p => 2 * (Math.floor(12 * next()) + 12 * p + 4),
      steps = Array.from({ length: planes }, (_, p) => (ladder ? free(p) : 2 ** p)),
      span = steps.reduce((a, b) => a + b);
    offset[n] = ladder ? -span / 2 : -(2 ** (planes - 1)); // ladders are symmetric: ±α each
    delta[n] = ((planes === 1 ? 1.6 : planes === 2 ? 3 : planes === 4 ? 5.4 : 8) * deviation) / span;
    if (ladder) steps.forEach((m, p) => (multiplier[p * N + n] = m));
    const levels = Array.from({ length: 2 ** planes }, (_, code) =>
      steps.reduce((sum, m, p) => sum + m * ((code >> p) & 1), offset[n]));
    for (let k = 0; k < K; k++) {
      const v = row[k] / delta[n];
      codes[n * K + k] = ladder
        ? levels.reduce((best, level, code) => (Math.abs(level - v) < Math.abs(levels[best] - v) ? code : best), 0)
        : clamp(roundEven(v) - offset[n], 0, 2 ** planes - 1);
    }
  }
  const zero = Math.round((0.28 * (2 ** bits - 1)) / 3.9); // SiLU is never below −0.28
  return { weights: { planes, codes, offset, multiplier: multiplier || undefined, delta, bias },
    activation: { bits, delta: Math.fround(3.9 / (2 ** bits - 1)), zero } };
}

/** To the bit: the integer contract. */
export function ourReference(layer, { weights, activation }) {
  const { planes, codes, offset, multiplier, delta, bias } = weights, { x, N, K } = layer, f = Math.fround;
  const m = f(1 / activation.delta), top = 2 ** activation.bits - 1 - activation.zero;
  const a = Int16Array.from(x, v => roundEven(clamp(f(v * m), -activation.zero, top)));
  const level = (n, code) => {
    let sum = offset[n];
    for (let p = 0; p < planes; p++) sum += ((code >> p) & 1) * (multiplier ? multiplier[p * N + n] : 2 ** p);
    return sum;
  };
  return (pixel, n) => {
    let sum = 0;
    products(layer, pixel, n, (i, j) => (sum += a[i] * level(Math.floor(j / K), codes[j])));
    return [f(f(f(sum) * f(activation.delta * delta[n])) + bias[n]), 0];
  };
}

// ---- theirs ----

/** int8 with a scale an output; activations u8 of step 1/64, a power of two, so that every x·64 is exact. */
export function quantizeInt8(layer) {
  const { N, K, w, bias, x } = layer, xq = { scale: 1 / 64, zero: 18 };
  const scale = Float32Array.from({ length: N }, (_, n) =>
    w.subarray(n * K, (n + 1) * K).reduce((most, v) => Math.max(most, Math.abs(v)), 0) / 127);
  const levels = Int8Array.from(w, (v, j) => roundEven(v / scale[Math.floor(j / K)]));
  const codes = Uint8Array.from(x, v => clamp(roundEven(v * 64) + xq.zero, 0, 255));
  const most = places(layer).reduce((m, [pixel, n]) => Math.max(m, Math.abs(floatReference(layer)(pixel, n)[0])), 0);
  return { codes, xq, yq: { scale: Math.fround(most / 110), zero: 128 },
    weights: { levels, scale, bias: Int32Array.from(bias, (b, n) => Math.round(b / (scale[n] * xq.scale))) } };
}

/**
 * The output code before it is rounded, v, within the range of codes. Sums below 2^24 are exact in f32; their scale
 * (two roundings) and its product (one) leave v off by 4u·|v|, and rounding by a half.
 */
export const int8Reference = (layer, { codes, xq, yq, weights }) => (pixel, n) => {
  let sum = weights.bias[n];
  products(layer, pixel, n, (i, j) => (sum += (codes[i] - xq.zero) * weights.levels[j]));
  const v = (sum * xq.scale * weights.scale[n]) / yq.scale;
  return [clamp(v, -yq.zero, 255 - yq.zero) + yq.zero, 0.5 + 4 * U * Math.abs(v)];
};

/** Blocks of 32 inputs: w = (code − 8)·scale. */
export function quantizeNBits({ N, K, w, bias }) {
  const block = 32, scale = Float32Array.from({ length: (N * K) / block }, (_, b) =>
    w.subarray(b * block, (b + 1) * block).reduce((most, v) => Math.max(most, Math.abs(v)), 0) / 7.5);
  const codes = Uint8Array.from(w, (v, j) => clamp(Math.round(v / scale[Math.floor(j / block)]) + 8, 0, 15));
  return { codes, scale, bias, w: Float32Array.from(codes, (c, j) => (c - 8) * scale[Math.floor(j / block)]) };
}

/** accuracy_level 4 lets activations be rounded to int8 by blocks of 32: each is then off by max|x| / 254. */
export const nBitsReference = (layer, { w }) => (pixel, n) => {
  const { C, x } = layer, [sum, rounding] = floatReference(layer, w)(pixel, n);
  let bound = rounding;
  for (let at = 0; at < C; at += 32) {
    const most = x.subarray(pixel * C + at, pixel * C + at + 32).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    bound += w.subarray(n * C + at, n * C + at + 32).reduce((s, v) => s + (Math.abs(v) * most) / 254, 0);
  }
  return [sum, bound];
};
