/** The library under Node: strings that are no URL are paths of files. Types and documentation are in node.d.ts. */
import { openAsBlob } from 'node:fs';
import { stat } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { BitbrushError } from './errors.js';
import * as library from './index.js';

export * from './index.js';

/** @type {typeof library.load} */
export const load = async (from, options) => library.load(await opened(from), located(options));

/** @type {typeof library.quantize} */
export const quantize = async (from, options) => library.quantize(await opened(from), located(options));

/** A file's path, if it is one or a file: URL. @param {unknown} from */
function pathOf(from) {
  const text = from instanceof URL ? from.href : from;
  if (typeof text !== 'string') return undefined;
  if (/^file:/i.test(text)) return fileURLToPath(text);
  return /^[a-z][a-z\d+.-]+:/i.test(text) ? undefined : text; // C:\… is a path
}

/**
 * Files in place of their paths; all else as it is.
 * @template T
 * @param {T} from
 * @returns {Promise<T>}
 */
async function opened(from) {
  if (Array.isArray(from)) return /** @type {any} */ (Promise.all(from.map(opened)));
  const path = pathOf(from);
  return path === undefined ? from : /** @type {any} */ (fileOf(path));
}

/** @param {string} path */
async function fileOf(path) {
  const about = await stat(path).catch(cause => {
    throw new BitbrushError('arg', `${path} cannot be read: ${cause.code}; a path starts at ${process.cwd()}`, { cause });
  });
  if (!about.isFile()) throw new BitbrushError('arg', `${path} is not a file: a model is a .safetensors file`);
  return Object.assign(await openAsBlob(path), { name: path }); // for messages
}

/**
 * Options with URLs in place of paths.
 * @template {{ wasm?: string | URL, worker?: string | URL } | undefined} T
 * @param {T} options
 * @returns {T}
 */
function located(options) {
  const urlOf = (/** @type {string | URL | undefined} */ at) => {
    const path = pathOf(at);
    return path === undefined ? at : pathToFileURL(path);
  };
  return options && { ...options, wasm: urlOf(options.wasm), worker: urlOf(options.worker) };
}
