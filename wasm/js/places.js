/**
 * Where the library's own files are: beside this one, unless a bundler has moved them. Bundlers find a file, and put in
 * its new address, only where `new URL('…', import.meta.url)` and `new Worker(new URL(…` are spelled out.
 */
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

/** One more thread of a worker. @param {string} name @param {string} [address] of worker.js, as above */
export function newThread(name, address) {
  const elsewhere = address ? new URL('thread.js', address).href : remote('thread.js');
  return elsewhere
    ? new Worker(ownOrigin(elsewhere), { type: 'module', name })
    : new Worker(new URL('./thread.js', import.meta.url), { type: 'module', name });
}

/** The same in Node. @param {string} [address] */
export async function newNodeWorker(address) {
  const { Worker: Thread } = /** @type {typeof import('node:worker_threads')} */ (await ofNode('worker_threads'));
  return new Thread(address ? new URL(address) : shipped('worker.js'));
}

/**
 * A module of Node's own. By a name that bundlers for browsers do not see: they would stumble over it.
 * @param {string} name @returns {Promise<unknown>}
 */
export const ofNode = name => import(/* webpackIgnore: true */ /* @vite-ignore */ `node:${name}`);

/** Where a script lies among the files as they are shipped. @param {string} name */
const shipped = name => new URL(`js/${name}`, MODULES.simd128());

/** Its address, if the files come as they are shipped from another origin than the page's, a CDN. @param {string} name */
function remote(name) {
  const { origin, pathname } = MODULES.simd128();
  const asShipped = pathname.endsWith('/bitbrush-simd128.wasm'); // else a bundler knows where it is
  return asShipped && origin !== globalThis.origin ? shipped(name).href : undefined;
}

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
