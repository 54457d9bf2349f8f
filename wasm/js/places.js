/**
 * Where the library's own files are: beside this one, unless a bundler has moved them. Bundlers find a file, and put its
 * new address in, only where `new URL('…', import.meta.url)` and `new Worker(new URL(…` are spelled out.
 */
const here = import.meta.url;

const MODULES = {
  simd128: () => new URL('../bitbrush-simd128.wasm', import.meta.url),
  relaxed: () => new URL('../bitbrush-relaxed.wasm', import.meta.url),
  make: () => new URL('../bitbrush-make.wasm', import.meta.url),
};

/**
 * @param {(keyof typeof MODULES)[]} names
 * @param {string} [wasm] one module for all, or a folder of modules that ends in '/'
 */
export function moduleAddresses(names, wasm) {
  if (wasm === undefined) return names.map(name => MODULES[name]().href);
  return wasm.endsWith('/') ? names.map(name => new URL(`bitbrush-${name}.wasm`, wasm).href) : [wasm];
}

/** @param {string} [address] of worker.js, where it is not beside this file */
export function newWorker(address) {
  const elsewhere = address ?? remote('worker.js');
  return elsewhere
    ? new Worker(ownOrigin(elsewhere), { type: 'module', name: 'bitbrush' })
    : new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'bitbrush' });
}

/** One more thread of a worker. @param {string} name */
export function newThread(name) {
  const elsewhere = remote('thread.js');
  return elsewhere
    ? new Worker(ownOrigin(elsewhere), { type: 'module', name })
    : new Worker(new URL('./thread.js', import.meta.url), { type: 'module', name });
}

/** The same in Node. @param {string} [address] */
export async function newNodeWorker(address) {
  const { Worker: Thread } = await import(/* webpackIgnore: true */ /* @vite-ignore */ 'node:worker_threads');
  return new Thread(new URL(address ?? './worker.js', here));
}

/** The address of a file beside this one, if this one comes from another origin than the page, as from a CDN. */
const remote = (/** @type {string} */ name) =>
  here?.startsWith('http') && new URL(here).origin !== globalThis.origin ? new URL(name, here).href : undefined;

/** Blobs that stand for scripts of another origin. @type {Map<string, string>} */
const stands = new Map();

/**
 * A worker's own script must come from the page's origin, but may import from anywhere that allows it (CORS).
 * @param {string} address
 */
function ownOrigin(address) {
  if (new URL(address).origin === globalThis.origin) return address;
  let stand = stands.get(address);
  if (!stand) {
    const script = `import ${JSON.stringify(address)};`;
    stands.set(address, (stand = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }))));
  }
  return stand;
}
