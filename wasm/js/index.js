/** Bitbrush in a page: load a packed model, draw with it on the CPU. Types and documentation are in index.d.ts. */
import { BitbrushError } from './errors.js';
import { detect } from './features.js';
import { digitsOf } from './integrity.js';
import { Model } from './model.js';
import { moduleAddresses } from './places.js';
import { addressOf, listener, sourceOf, stopping } from './source.js';

export { BitbrushError, detect };

const THREADS = 4; // unless told: more cores than that are rarely alike, and the page has work, too

/** Pages that only draw never fetch what it needs. @type {typeof import('./index.js').quantize} */
export async function quantize(from, options) {
  return (await import('./quantize.js')).quantize(from, options);
}

/** @type {typeof import('./index.js').evict} */
export async function evict(url) {
  const address = addressOf(url);
  return (await import('./cache.js')).evict(address);
}

/**
 * @param {import('./index.js').ModelSource} from
 * @param {import('./index.js').LoadOptions} [options]
 */
export async function load(from, options = {}) {
  const { signal, onProgress, onWarning, cache = true, integrity, wasm, worker, grace, threads } = options;
  signal?.throwIfAborted();
  const sha256 = digitsOf(integrity);
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 64))
    throw new BitbrushError('arg', `threads ${threads} is not one of 1 to 64`);
  const { simd, relaxed, isolated } = await detect();
  if (!simd) {
    throw new BitbrushError(
      'unsupported',
      'this browser has no WebAssembly SIMD: use a current Chrome, Edge, Firefox or Safari (16.4 or later)',
    );
  }
  const count = isolated ? threads ?? Math.min(navigator.hardwareConcurrency, THREADS) : 1;
  const modules = moduleAddresses(relaxed ? ['simd128', 'relaxed'] : ['simd128'], addressOf(wasm)),
    script = addressOf(worker);
  return stopping(signal, async stop => {
    const model = new Model(await sourceOf(from, stop, cache, sha256), modules, script, count, grace);
    await model.start({ signal, onProgress: listener(onProgress, onWarning) });
    return model;
  });
}
