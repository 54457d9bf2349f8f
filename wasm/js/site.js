/**
 * A static site of the page and models, in Node: the same folder, byte for byte, as `bitbrush site` writes natively.
 * Types and documentation are in node.d.ts.
 */
import { createHash } from 'node:crypto';
import { readFile, readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BitbrushError } from './errors.js';
import { load } from './node.js';
import { place } from './site-files.js';

/** @typedef {import('./site-files.js').Files} Files */
/** @typedef {import('./index.js').ModelInfo} Info */
/** @typedef {import('./node.js').SiteProgress} Progress */
/** A model of the site. @typedef {{ path: string, name: string, bytes: Buffer, sha256: string, group: string,
 *   info: Info, pictures?: string }} Entry */

const MODELS = 64;
const NAME = 100; // characters of a model's name
const CLASSES = 64; // above it there are no class pictures
const PARTS = 1000; // of one model: three digits
const SPLIT = 24 * 2 ** 20; // Cloudflare Pages takes 25 MiB a file
const PACKAGE = fileURLToPath(new URL('..', import.meta.url));

const sha256 = (/** @type {Uint8Array} */ bytes) => createHash('sha256').update(bytes).digest('hex');

/** @param {string} text @param {unknown} [cause] @returns {never} */
function refuse(text, cause) {
  throw new BitbrushError('arg', text, cause === undefined ? undefined : { cause });
}

/** @type {typeof import('./node.js').site} */
export async function site(models, options) {
  const { out, title = 'Bitbrush', split = SPLIT, isolate = false, pictures = true } = options ?? {};
  if (typeof out !== 'string' || !out) refuse('out: must be the name of a folder');
  if (!models?.length) refuse('a site needs a model: the path of a .safetensors file');
  if (models.length > MODELS) refuse(`${models[MODELS]}: a site has at most ${MODELS} models`);
  if (!(split === 0 || (Number.isSafeInteger(split) && split >= 1024)))
    refuse('split: must be bytes, from 1024; 0 = never');
  if (/[\0-\x1f\x7f]/.test(title) || Buffer.byteLength(title) > 500 || title !== Buffer.from(title).toString())
    refuse('title: must be UTF-8, one line of at most 500 bytes');
  const files = await pageFiles(options.page);
  const old = await oldSite(out);
  /** @type {Entry[]} */
  const entries = [];
  for (const path of models) entries.push(await opened(path, entries, split));
  const drawn = pictures ? await addPictures(entries, old, out, files, options.onProgress) : 0;
  for (const entry of entries) addModel(entry, split, files);
  files.set('site.json', json({ title, isolate, models: entries.map(entry => listed(entry, split)) }));
  const sources = models.map(path => resolve(path));
  const { written, removed } = await place(out, files, old ? [...old.named] : [], sources);
  const bytes = [...files.values()].reduce((sum, file) => sum + file.length, 0);
  return { out, models: entries.length, files: files.size, bytes, written, removed, drawn };
}

const json = (/** @type {unknown} */ value) => Buffer.from(`${JSON.stringify(value, null, 2)}\n`);

// ---- the page ----

/** What hosts/ holds belongs to the root of a site. @param {string} [folder] @returns {Promise<Files>} */
async function pageFiles(folder) {
  /** @type {Files} */
  const files = new Map();
  const add = async (/** @type {string} */ root, /** @type {(name: string) => boolean} */ wanted) => {
    for (const path of await readdir(root, { recursive: true }).catch(() => [])) {
      const name = path.replaceAll('\\', '/'), full = join(root, path);
      if (wanted(name) && (await stat(full)).isFile()) files.set(name.replace(/^hosts\//, ''), await readFile(full));
    }
  };
  if (folder === undefined) {
    await add(join(PACKAGE, 'shell'), () => true);
    await add(PACKAGE, name => /^js\/[^/]+\.(js|ts)$|^[^/]+\.wasm$/.test(name));
  } else await add(folder, () => true);
  if (!files.has('index.html')) {
    const where = folder ?? join(PACKAGE, 'shell');
    refuse(`${where}: no page is there (it would have an index.html); name its folder with page`);
  }
  if (files.has('site.json')) refuse(`${folder}: is a site, not a page; name the folder that it was made of`);
  return files;
}

// ---- models ----

/**
 * @param {string} path
 * @param {Entry[]} others
 * @param {number} split
 * @returns {Promise<Entry>}
 */
async function opened(path, others, split) {
  const base = path.slice(path.lastIndexOf('/') + 1), name = base.replace(/(?<=.)\.safetensors$/, '');
  const about = await stat(path).catch(cause => refuse(`${path}: cannot open: ${cause.code}`, cause));
  if (about.isDirectory())
    refuse(`${path}: a folder; a site takes model files, which the native tool's bitbrush quantize makes of it`);
  if (name.length > NAME) refuse(`${path}: the name is longer than ${NAME} characters; rename the file`);
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(name))
    refuse(`${path}: the name becomes part of an address and may have only letters, digits, '-', '_' and '.', ` +
      'first a letter or digit; rename the file');
  const same = others.find(other => other.name.toLowerCase() === name.toLowerCase());
  if (same) refuse(`${path}: has the name of ${same.path}, and a site needs different ones; rename a file`);
  const bytes = await readFile(path);
  if (split && bytes.length > split && Math.ceil(bytes.length / split) > PARTS)
    refuse(`split: ${path} would be more than ${PARTS} parts; choose a larger size`);
  const model = await load(path);
  const { info } = model;
  await model.dispose();
  const group = (info.metadata.source_sha256 ?? '').slice(0, 16);
  return { path, name, bytes, sha256: sha256(bytes), group: /^[0-9a-f]{16}$/.test(group) ? group : '', info };
}

/** @param {Entry} entry @param {number} split */
function listed({ name, bytes, sha256: hash, group, info, pictures }, split) {
  const { width, height, trainSteps, nullLabel, labels } = info;
  const file = `models/${name}.safetensors${split && bytes.length > split ? '.parts.json' : ''}`;
  const what = { name, file, bytes: bytes.length, sha256: hash, bits: bitsOf(info), group };
  return { ...what, width, height, trainSteps, nullLabel, labels, pictures };
}

/** @param {Info} info */
function bitsOf({ metadata, bits }) {
  if (metadata.quantization !== undefined) return metadata.quantization.split(',')[0];
  const thousandths = Math.round(1000 * bits), tenths = Math.floor((thousandths + 50) / 100);
  if (thousandths === 16000 || thousandths === 32000) return `f${thousandths / 1000}`;
  return `${Math.floor(tenths / 10)}.${tenths % 10} bit`;
}

/** @param {Entry} entry @param {number} split @param {Files} files */
function addModel({ name, bytes, sha256: hash }, split, files) {
  const file = `${name}.safetensors`;
  if (!split || bytes.length <= split) return void files.set(`models/${file}`, bytes);
  const parts = [];
  for (let at = 0; at < bytes.length; at += split) {
    const part = bytes.subarray(at, at + split);
    const number = String(at / split).padStart(3, '0');
    files.set(`models/${file}.${number}`, part);
    parts.push({ file: `${file}.${number}`, bytes: part.length, sha256: sha256(part) });
  }
  files.set(`models/${file}.parts.json`, json({ bytes: bytes.length, sha256: hash, parts }));
}

// ---- class pictures: a strip for the models of one teacher, drawn by the first of them ----

/**
 * @param {Entry[]} entries
 * @param {Old | undefined} old
 * @param {string} out
 * @param {Files} files
 * @param {(progress: Progress) => void} [onProgress]
 */
async function addPictures(entries, old, out, files, onProgress) {
  let drawn = 0;
  for (const entry of entries) {
    if (!entry.info.classes || entry.info.classes > CLASSES) continue;
    const artist = entries.slice(0, entries.indexOf(entry)).find(other => alike(other, entry));
    entry.pictures = artist?.pictures ?? `models/${entry.name}.classes.png`;
    if (artist) continue;
    const kept = await oldStrip(entry, old, out);
    files.set(entry.pictures, kept ?? (await strip(entry, onProgress)));
    if (!kept) drawn++;
  }
  return drawn;
}

/** @param {Entry} a @param {Entry} b */
const alike = (a, b) =>
  a.group !== '' && a.group === b.group && a.pictures !== undefined &&
  (/** @type {const} */ (['classes', 'width', 'height', 'nullLabel'])).every(key => a.info[key] === b.info[key]);

/**
 * Tile i is class i, from seed 1.
 * @param {Entry} entry
 * @param {(progress: Progress) => void} [onProgress]
 */
async function strip({ path, name, info }, onProgress) {
  const { width, height, classes, nullLabel, trainSteps } = info;
  const all = { width: width * classes, height, data: new Uint8ClampedArray(4 * width * classes * height) };
  const model = await load(path);
  try {
    for (let label = 0; label < classes; label++) {
      const guidance = nullLabel === null || label === nullLabel ? 1 : 2;
      const { data } = await model.draw({ label, seed: 1, steps: Math.min(20, trainSteps), guidance });
      for (let y = 0; y < height; y++)
        all.data.set(data.subarray(4 * width * y, 4 * width * (y + 1)), 4 * (y * all.width + label * width));
      onProgress?.({ name, done: label + 1, total: classes });
    }
    return Buffer.from(await model.png(all, { Software: 'bitbrush' }));
  } finally {
    await model.dispose();
  }
}

// ---- the site that is there ----

/** @typedef {{ models: any[], named: Set<string> }} Old named: files that site.json names, and their parts */

/**
 * A folder that holds something, but no site of ours, is refused.
 * @param {string} out
 * @returns {Promise<Old | undefined>}
 */
async function oldSite(out) {
  const about = await stat(out).catch(() => undefined);
  if (!about) return undefined;
  if (!about.isDirectory()) refuse(`${out}: not a folder; name another`);
  const foreign = (/** @type {string} */ why) =>
    refuse(`${out}: ${why}, so nothing in it is replaced; name a new or empty folder`);
  const text = await readFile(join(out, 'site.json'), 'utf8').catch(() => undefined);
  if (text === undefined) {
    // hidden files are a repository's or the system's, and nobody's site
    if ((await readdir(out)).some(name => !name.startsWith('.'))) foreign('has files, but no site.json');
    return undefined;
  }
  const { models } = parsed(text) ?? {};
  if (!Array.isArray(models)) return foreign('has a site.json that bitbrush did not write');
  const named = new Set();
  for (const file of models.flatMap(model => [model?.file, model?.pictures]).filter(isOurs)) {
    named.add(file);
    if (!file.endsWith('.parts.json')) continue;
    const { parts } = parsed(await readFile(join(out, file), 'utf8').catch(() => '')) ?? {};
    const paths = (Array.isArray(parts) ? parts : []).map(part => `models/${part?.file}`);
    for (const path of paths.filter(isOurs)) named.add(path);
  }
  return { models, named };
}

/**
 * A name in models/ as a site has them: site.json may have been edited, and nothing outside is touched.
 * @param {unknown} name
 */
const isOurs = name => typeof name === 'string' && /^models\/[^./\\][^/\\]*$/.test(name);

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * The strip that this model would draw, if it is there.
 * @param {Entry} entry
 * @param {Old | undefined} old
 * @param {string} out
 */
async function oldStrip({ name, sha256: hash, pictures, info }, old, out) {
  const model = old?.models.find(other => other?.name === name);
  if (!pictures || model?.sha256 !== hash || model.pictures !== pictures) return undefined;
  const png = await readFile(join(out, pictures)).catch(() => undefined);
  const head = Buffer.from('\x89PNG\r\n\x1a\n\0\0\0\rIHDR', 'latin1');
  const isPng = png && png.length >= 24 && png.subarray(0, 16).equals(head);
  const fits = isPng && png.readUInt32BE(16) === info.width * info.classes && png.readUInt32BE(20) === info.height;
  return fits ? png : undefined;
}
