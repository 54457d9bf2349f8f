/** The library under Node: strings that are no URL are paths of files. Types and documentation are in node.d.ts. */
import { openAsBlob } from 'node:fs';
import { stat } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { BitbrushError } from './errors.js';
import * as library from './index.js';
import { checkList } from './parts.js';

export * from './index.js';

/** @type {typeof library.load} */
export const load = async (from, options) => library.load(...(await opened(from, options)));

/** @type {typeof library.quantize} */
export const quantize = async (from, options) => library.quantize(...(await opened(from, options)));

/** @type {typeof import('./node.js').site} */
export const site = async (models, options) => (await import('./site.js')).site(models, options);

/** A file's path, if it is one or a file: URL. @param {unknown} from */
function pathOf(from) {
  const text = from instanceof URL ? from.href : from;
  if (typeof text !== 'string') return undefined;
  if (/^file:/i.test(text)) return fileURLToPath(text);
  return /^[a-z][a-z\d+.-]+:/i.test(text) ? undefined : text; // C:\… is a path
}

/**
 * A model and options with files in place of their paths; all else as it is.
 * @template T
 * @template {Located | undefined} O
 * @param {T} from
 * @param {O} options
 * @returns {Promise<[T, O]>}
 */
async function opened(from, options) {
  const path = pathOf(from);
  if (!path?.endsWith('.parts.json'))
    return [await (Array.isArray(from) ? Promise.all(from.map(file)) : file(from)), located(options)];
  const { parts, sha256 } = checkList(await (await fileOf(path)).text(), pathToFileURL(path).href);
  const files = await Promise.all(parts.map(({ url }) => file(url)));
  return [/** @type {any} */ (files), /** @type {any} */ (located({ integrity: sha256, ...options }))];
}

/** @param {unknown} from @returns {any} */
const file = from => {
  const path = pathOf(from);
  return path === undefined ? from : fileOf(path);
};

/** @param {string} path */
async function fileOf(path) {
  const about = await stat(path).catch(cause => {
    const text = `${path} cannot be read: ${cause.code}; paths are relative to ${process.cwd()}`;
    throw new BitbrushError('arg', text, { cause });
  });
  if (!about.isFile()) throw new BitbrushError('arg', `${path} is not a file: a model is a .safetensors file`);
  return Object.assign(await openAsBlob(path), { name: path }); // for messages
}

/** @typedef {{ wasm?: string | URL, worker?: string | URL, integrity?: string }} Located */
/**
 * Options with URLs in place of paths.
 * @template {Located | undefined} T
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
