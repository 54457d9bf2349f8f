/** A model in several files: named by a list in JSON, ….parts.json, or given by the caller in order. */
import { Download } from './download.js';
import { BitbrushError } from './errors.js';
import { checked, isDigits } from './integrity.js';

const LONGEST = 2 ** 20; // bytes of a list
const MOST = 4096; // parts

/**
 * @typedef {import('./fetch.js').Input} Input
 * @typedef {import('./intake.js').Intake} Intake
 * @typedef {import('./intake.js').Sink} Sink
 * @typedef {{ bytes: number, sha256: string, parts: { url: string, bytes: number, sha256: string }[] }} PartList
 */

/** @param {string} url */
export const isPartList = url => new URL(url).pathname.endsWith('.parts.json');

/** What an address ending in .parts.json stands for. @implements {Input} */
export class Split {
  local = false;
  /** @type {PartList} */
  #list = /** @type {any} */ (undefined); // set by start()
  /** @type {Download | undefined} of the first part, begun by start() */
  #first;
  /** @type {Download | undefined} */
  #latest;
  #store;
  #sha256;
  #timing;

  /**
   * @param {string} url of the list
   * @param {import('./cache.js').Store} [store]
   * @param {string} [sha256] of the model
   * @param {import('./fetch.js').Timing} [timing]
   */
  constructor(url, store, sha256, timing) {
    this.name = url;
    this.#store = store;
    this.#sha256 = sha256;
    this.#timing = timing;
  }

  async start() {
    await this.#readList(false);
    this.#first = this.#download(0);
    await this.#first.start();
  }

  /**
   * @param {Intake} sink
   * @param {() => number | undefined} end of the model by its header
   * @param {boolean} [anew]
   */
  async into(sink, end, anew = false) {
    if (anew) await this.#readList(true);
    const base = sink.loaded,
      { name } = sink;
    let cached = false;
    for (let i = 0; i < this.#list.parts.length; i++) {
      const download = (!anew && i === 0 && this.#first) || this.#download(i);
      sink.name = download.name;
      this.#latest = download;
      if (await this.#part(i, download, sink, anew)) cached = true;
    }
    sink.name = name;
    const bytes = sink.loaded - base,
      stop = end() ?? 0;
    if (stop - base > bytes) {
      const says = stop < Infinity ? `the model's header says ${stop - base}` : "the model's header is longer";
      throw new BitbrushError('corrupt', `${name}: its parts have ${bytes} bytes, ${says}; split the model again`);
    }
    return cached;
  }

  async keep() {
    const names = ['list', ...this.#list.parts.map(part => part.sha256)];
    if (this.#store?.writable) await this.#store.tidy(names); // parts of an older list go
  }

  async drop() {
    await this.#store?.tidy([]);
  }

  async spoil() {
    await this.#latest?.spoil(); // those before it are what their list says
  }

  /** @param {number} i */
  #download(i) {
    const { url, sha256 } = this.#list.parts[i];
    // Kept by hash: what has been kept is right, whatever the list that named it.
    return new Download(url, this.#store?.file(sha256), { trust: true, exact: true, ...this.#timing });
  }

  /**
   * @param {number} i
   * @param {Download} download
   * @param {Intake} sink
   * @param {boolean} anew
   */
  async #part(i, download, sink, anew) {
    const { bytes, sha256 } = this.#list.parts[i],
      end = sink.loaded + bytes;
    const cached = await checked({
      sink,
      sha256,
      fill: again => download.into(sink, () => end, anew || again),
      drop: () => download.drop(),
      refusal: found =>
        `${download.name}: its sha256 is ${found}, not what ${this.name} says; upload all of them again`,
    });
    await download.keep();
    return cached;
  }

  /** @param {boolean} anew @returns {Promise<void>} */
  async #readList(anew) {
    const wanted = this.#sha256;
    const options = { trust: wanted !== undefined, exact: true, ...this.#timing };
    const download = new Download(this.name, this.#store?.file('list'), options);
    const text = new Text(this.name);
    const cached = await download.into(text, () => undefined, anew);
    try {
      this.#list = checkList(String(text), this.name);
    } catch (error) {
      await download.spoil();
      throw error;
    }
    if (wanted && this.#list.sha256 !== wanted) {
      if (cached) return this.#readList(true);
      const lists = `lists parts of a model whose sha256 is ${this.#list.sha256}`;
      throw new BitbrushError('integrity', `${this.name}: ${lists}, not what integrity says; correct one of them`);
    }
    await download.keep();
  }
}

/** Parts that the caller names, in order. @implements {Input} */
export class Joined {
  #inputs;

  /** @param {Input[]} inputs @param {string} name */
  constructor(inputs, name) {
    this.#inputs = inputs;
    this.name = name;
    this.local = inputs.every(input => input.local);
  }

  async start() {
    await this.#inputs[0].start(); // one at a time: a host may allow few connections
  }

  /**
   * @param {Intake} sink
   * @param {() => number | undefined} end
   * @param {boolean} [anew]
   */
  async into(sink, end, anew) {
    const { name } = sink,
      last = this.#inputs.at(-1);
    let cached = false;
    for (const input of this.#inputs) {
      sink.name = input.name;
      if (await input.into(sink, input === last ? end : () => undefined, anew)) cached = true;
    }
    sink.name = name;
    return cached;
  }

  async keep() {
    for (const input of this.#inputs) await input.keep();
  }

  async drop() {
    for (const input of this.#inputs) await input.drop();
  }

  async spoil() {
    for (const input of this.#inputs) await input.spoil();
  }
}

/** A sink for a text. @implements {Sink} */
class Text {
  loaded = 0;
  #bytes = new Uint8Array(0);
  #name;

  /** @param {string} name */
  constructor(name) {
    this.#name = name;
  }

  /** @param {Uint8Array} bytes */
  write(bytes) {
    const end = this.loaded + bytes.length;
    if (end > LONGEST) throw listError(this.#name, `longer than ${LONGEST} bytes`);
    const all = new Uint8Array(end);
    all.set(this.#bytes.subarray(0, this.loaded));
    all.set(bytes, this.loaded);
    this.#bytes = all;
    this.loaded = end;
  }

  /** @param {number} to */
  rewind(to) {
    this.loaded = to;
  }

  /** @param {number} from @param {number} bytes */
  copy(from, bytes) {
    return this.#bytes.slice(from, from + bytes);
  }

  toString() {
    return new TextDecoder().decode(this.#bytes.subarray(0, this.loaded));
  }
}

/**
 * From an untrusted text: parts lie in the folder of their list, or below it.
 * @param {string} text
 * @param {string} url
 * @returns {PartList}
 */
export function checkList(text, url) {
  let list;
  try {
    list = JSON.parse(text);
  } catch {
    const what = text.trimStart().startsWith('<') ? 'a web page (HTML), not a list of parts' : 'not JSON';
    throw listError(url, what);
  }
  const { bytes, sha256, parts } = list ?? {};
  if (!isSize(bytes)) throw listError(url, 'its "bytes" is no size');
  if (!isDigits(sha256)) throw listError(url, 'its "sha256" is not 64 hex digits');
  if (!Array.isArray(parts) || !parts.length || parts.length > MOST)
    throw listError(url, `its "parts" is not a list of 1 to ${MOST}`);
  const checkedParts = parts.map((part, i) => checkPart(part ?? {}, i, url));
  const sum = checkedParts.reduce((all, part) => all + part.bytes, 0);
  if (sum !== bytes) throw listError(url, `its parts have ${sum} bytes, not ${bytes}`);
  return { bytes, sha256: sha256.toLowerCase(), parts: checkedParts };
}

/**
 * @param {{ file?: unknown, bytes?: unknown, sha256?: unknown }} part
 * @param {number} i
 * @param {string} url
 */
function checkPart({ file, bytes, sha256 }, i, url) {
  const folder = new URL('.', url).href;
  const at = typeof file === 'string' && file ? resolved(file, url) : '';
  if (!at.startsWith(folder) || at === folder)
    throw listError(url, `"file" of part ${i} does not name a file in the folder of the list`);
  if (!isSize(bytes)) throw listError(url, `"bytes" of part ${i} is no size`);
  if (!isDigits(sha256)) throw listError(url, `"sha256" of part ${i} is not 64 hex digits`);
  return { url: at, bytes: /** @type {number} */ (bytes), sha256: /** @type {string} */ (sha256).toLowerCase() };
}

/** @param {string} file @param {string} url */
function resolved(file, url) {
  try {
    return new URL(file, url).href;
  } catch {
    return '';
  }
}

/** @param {unknown} bytes */
const isSize = bytes => Number.isSafeInteger(bytes) && /** @type {number} */ (bytes) > 0;

/** @param {string} url @param {string} what */
const listError = (url, what) =>
  new BitbrushError('corrupt', `${url}: ${what}; bitbrush site --split writes such lists`);
