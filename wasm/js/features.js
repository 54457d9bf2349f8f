/** What this engine can do: which instructions it knows, and whether the relaxed one gives the results we count on. */

/**
 * A module of one exported function `f`, from its type (without the 0x60) and its body.
 * @param {number[]} type @param {number[]} body
 */
function moduleOf(type, body) {
  const section = (/** @type {number} */ id, /** @type {number[]} */ ...bytes) => [id, bytes.length, ...bytes];
  return new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, 1, 0x60, ...type),
    ...section(3, 1, 0),
    ...section(7, 1, 1, 0x66, 0, 0),
    ...section(10, 1, body.length, ...body),
  ]);
}

const I32 = 0x7f,
  V128 = 0x7b;
const SIMD = moduleOf([0, 1, V128], [0, 0x41, 1, 0xfd, 0x0f, 0x0b]); // i8x16.splat(1)

// f(i8, i7, sums, times): how many of `times` relaxed dots of splat i8 and splat i7 have a lane unlike splat sums.
// prettier-ignore
const RELAXED_DOT = moduleOf([4, I32, I32, I32, I32, 1, I32], [
  1, 1, I32, // the local `count`
  0x03, 0x40, // loop
  0x20, 4, 0x41, 1, // count, 1
  0x20, 0, 0xfd, 0x11, 0x20, 1, 0xfd, 0x11, 0xfd, 0x92, 2, // i16x8.relaxed_dot_i8x16_i7x16_s(splat i8, splat i7)
  0x20, 2, 0xfd, 0x11, 0xfd, 0x37, 0xfd, 0xa3, 1, // 1 if all lanes equal splat sums, or 0
  0x6b, 0x6a, 0x21, 4, // count + (1 − that)
  0x20, 3, 0x41, 1, 0x6b, 0x22, 3, 0x0d, 0, 0x0b, // again while −−times
  0x20, 4, 0x0b,
]);

/**
 * Every pair of products of extreme operands, each `times` times: 576 · times dots.
 * @param {(i8: number, i7: number, sums: number, times: number) => number} f
 * @param {number} times
 */
function wrongDots(f, times) {
  const signed = [-128, -127, -1, 0, 1, 127],
    unsigned = [0, 1, 64, 127];
  const four = (/** @type {number} */ a, /** @type {number} */ b) => ((a & 255) | ((b & 255) << 8)) * 0x10001;
  let count = 0;
  for (const a of signed)
    for (const b of signed)
      for (const c of unsigned)
        for (const d of unsigned) count += f(four(a, b), four(c, d), ((a * c + b * d) & 0xffff) * 0x10001, times);
  return count;
}

/**
 * Whether the relaxed dot product is known and exact, in the code of the engine's quick compiler and of its
 * optimizing one: V8 has that made, on another thread, after some 13·10⁶ bytes of the quick one's code.
 */
function relaxedIsExact() {
  // Node 20's quick compiler doubles the 32-bit form of this instruction: under Node none of them is used.
  if (/** @type {any} */ (globalThis).process?.versions?.node || !WebAssembly.validate(RELAXED_DOT)) return false;
  const { f } = /** @type {any} */ (new WebAssembly.Instance(new WebAssembly.Module(RELAXED_DOT)).exports);
  return [1, 512, 512, 512, 1].every(times => wrongDots(f, times) === 0);
}

/** @type {boolean | undefined} found out once: it takes some milliseconds */
let relaxed;

/** @returns {Promise<import('./index.js').Features>} */
export async function detect() {
  const simd = typeof WebAssembly === 'object' && WebAssembly.validate(SIMD);
  relaxed ??= simd && relaxedIsExact();
  return { simd, relaxed, isolated: globalThis.crossOriginIsolated === true };
}
