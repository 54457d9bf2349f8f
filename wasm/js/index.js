/** Bitbrush in a page: load a packed model, draw with it on the CPU. Types and documentation are in index.d.ts. */
import { BitbrushError } from './errors.js';
import { detect } from './features.js';
import { Model } from './model.js';
import { addressOf, sourceOf, stopping } from './source.js';

export { BitbrushError, detect };

/** Pages that only draw never fetch what it needs. @type {typeof import('./index.js').quantize} */
export async function quantize(from, options) {
  return (await import('./quantize.js')).quantize(from, options);
}

/**
 * @param {string | URL | Blob | Response} from
 * @param {import('./index.js').LoadOptions} [options]
 */
export async function load(from, { signal, onProgress, wasm, grace } = {}) {
  signal?.throwIfAborted();
  const { simd, relaxed } = await detect();
  if (!simd) {
    throw new BitbrushError(
      'unsupported',
      'this browser has no WebAssembly SIMD: use a current Chrome, Edge, Firefox or Safari (16.4 or later)',
    );
  }
  const simd128 = new URL('../bitbrush-simd128.wasm', import.meta.url);
  const own = relaxed ? [new URL('../bitbrush-relaxed.wasm', import.meta.url), simd128] : [simd128];
  const modules = (wasm === undefined ? own : [wasm]).map(addressOf);
  return stopping(signal, async stop => {
    const model = new Model(await sourceOf(from, stop), modules, grace);
    await model.start({ signal, onProgress });
    return model;
  });
}
