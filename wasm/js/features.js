/** What this engine can do, by letting it validate two tiny modules. */

// A module of one function without parameters that returns a v128: magic and version, type, function, code.
const HEAD = '\0asm\x01\0\0\0' + '\x01\x05\x01\x60\0\x01\x7b' + '\x03\x02\x01\0';
const module = (/** @type {number[]} */ body) => {
  const code = [10, body.length + 4, 1, body.length + 2, 0, ...body, 0x0b];
  return new Uint8Array([...Array.from(HEAD, c => c.charCodeAt(0)), ...code]);
};
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
