/** What this engine can do, by letting it validate two tiny modules. */

// (func (result v128) …): magic, version, one type () -> v128, one function, one body of `length` bytes.
const module = (/** @type {number[]} */ body) =>
  new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0,
    10, body.length + 4, 1, body.length + 2, 0, ...body, 0x0b]);
const SPLAT_1 = [0x41, 1, 0xfd, 0x0f]; // i32.const 1, i8x16.splat

/** @returns {Promise<import('./index.js').Features>} */
export async function detect() {
  const wasm = typeof WebAssembly === 'object';
  return {
    simd: wasm && WebAssembly.validate(module(SPLAT_1)),
    // i8x16.relaxed_swizzle; says that the opcode is known, not that the integer dots are exact
    relaxed: wasm && WebAssembly.validate(module([...SPLAT_1, ...SPLAT_1, 0xfd, 0x80, 2])),
    isolated: globalThis.crossOriginIsolated === true,
  };
}
