/** Modules before and as they start: their bytes, what memory they take, and one on top of another. */

import { ofNode } from './places.js';

/** In pages: of modules that import their memory, as they are linked. */
const LIMITS = { initial: 16, maximum: 65536 };
/** In the table of a module: room for its functions and those of one on top of it, as they are linked. */
const FUNCTIONS = 256;

/**
 * @param {URL | string} from
 * @param {boolean} shared whether threads shall share its memory
 */
export async function compile(from, shared) {
  const bytes = await read(new URL(from));
  const imports = setShared(bytes, shared);
  return { module: await WebAssembly.compile(bytes), imports };
}

/** @param {URL} url @returns {Promise<Uint8Array<ArrayBuffer>>} */
async function read(url) {
  if (url.protocol === 'file:') {
    // Node; its fetch knows no files
    const { readFile } = /** @type {typeof import('node:fs/promises')} */ (await ofNode('fs/promises'));
    return readFile(url);
  }
  const reply = await fetch(url);
  if (!reply.ok) throw new Error(`the server answered ${reply.status} ${reply.statusText}`);
  // Not compiled as it streams: that refuses servers that do not know the type application/wasm, and 100 kB are quick.
  return new Uint8Array(await reply.arrayBuffer());
}

export const newMemory = (/** @type {boolean} */ shared) => new WebAssembly.Memory({ ...LIMITS, shared });

/**
 * Instantiates a module on top of one that shows it its table and its functions. Returns what it shows.
 * @param {WebAssembly.Module} module
 * @param {any} base exports
 * @param {WebAssembly.Memory} memory of the base
 */
export async function instantiateOn(module, base, memory) {
  const table = base.__indirect_function_table;
  table.grow(FUNCTIONS - table.length);
  return /** @type {any} */ ((await WebAssembly.instantiate(module, { env: { ...base, memory } })).exports);
}

const IMPORTS = 2; // the section's number
const MAXIMUM = 1, // flags of limits; only memories with a maximum can be shared
  SHARED = 2;

/**
 * Makes a module that imports its memory take a shared one, or one that is not. Everything else is the same for both:
 * atomic instructions work on either. (The linker marks it shared, or it would not make data that only the first instance
 * on a memory writes there.) A memory without a maximum stays as it is. Returns whether it imports one at all.
 * @param {Uint8Array} module
 * @param {boolean} shared
 */
export function setShared(module, shared) {
  let at = 8;
  const number = () => { // LEB128
    let value = 0;
    for (let shift = 1, byte = 128; byte > 127; shift *= 128) value += ((byte = module[at++]) & 127) * shift;
    return value;
  };
  const limits = () => {
    const flags = at++;
    number();
    if (module[flags] & MAXIMUM) number();
    return flags;
  };
  const name = () => {
    const length = number();
    at += length;
  };
  const skips = [number, () => (at++, limits()), limits, () => (at += 2)]; // function, table, memory, global
  const memories = [];
  while (at < module.length) {
    const section = number(),
      end = number() + at;
    if (section !== IMPORTS) {
      at = end;
      continue;
    }
    for (let left = number(); left > 0; left--) {
      name();
      name();
      const kind = module[at++];
      if (!skips[kind]) throw new Error(`an import of the unknown kind ${kind}`);
      const flags = skips[kind]();
      if (kind === 2) memories.push(flags);
    }
    if (at !== end || memories.length !== 1) throw new Error('its imports are not those of one memory');
    const [flags] = memories;
    if (module[flags] & MAXIMUM) module[flags] = shared ? MAXIMUM | SHARED : MAXIMUM;
    return true;
  }
  return false;
}
