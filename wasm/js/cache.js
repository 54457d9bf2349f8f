/**
 * Copies of model files in the browser's Cache storage, one cache for each file: parts under their position, each with
 * its hash, and what is known about the version. Parts are saved while the file arrives: a reload goes on from there.
 */
import { BitbrushError } from './errors.js';
import { canHash, sha256 } from './integrity.js';

const PART = 2 ** 20; // bytes, at least, of all parts but the last
const PREFIX = 'bitbrush-model ';
const key = (/** @type {number | 'about'} */ part) => `https://bitbrush.invalid/${part}`; // no host has that name

/**
 * A version of a file: its validators, whether the server sends ranges of it, and its size once it is complete, else 0.
 * @typedef {{ etag: string | null, modified: string | null, ranges: boolean, bytes: number }} About
 * @typedef {{ caches?: CacheStorage, locks?: LockManager }} Platform
 */

/** All files of one model. */
export class Store {
  #url;
  #caches;
  #warn;
  /** Nobody else writes copies of this model, and the browser takes them. */
  writable = false;
  /** Lets others write. */
  close = () => {};

  /**
   * @param {string} url
   * @param {CacheStorage} caches
   * @param {(error: BitbrushError) => void} warn
   */
  constructor(url, caches, warn) {
    this.#url = url;
    this.#caches = caches;
    this.#warn = warn;
  }

  /**
   * Undefined where there is no such storage: copies are a courtesy.
   * @param {string} url
   * @param {(error: BitbrushError) => void} warn hears, at most once, why the model will not be kept
   * @param {Platform} [platform]
   */
  static async open(url, warn, platform = {}) {
    if (!/^https?:/.test(url)) return undefined;
    try {
      const { caches = globalThis.caches, locks = globalThis.navigator?.locks } = platform;
      if (globalThis.isSecureContext === false) throw new Error('that needs https or localhost');
      if (!caches || !canHash()) return undefined; // Node
      const store = new Store(url, caches, warn);
      await store.#lock(locks);
      return store;
    } catch (error) {
      warn(notKept(url, error)); // a sandboxed frame may not even look
      return undefined;
    }
  }

  /** @param {string} name of the file in the model */
  file(name) {
    return new Kept(this, this.#caches, `${nameOf(this.#url)}${name}`);
  }

  /** Forgets all files of the model but those. @param {string[]} names */
  async tidy(names) {
    const keep = names.map(name => `${nameOf(this.#url)}${name}`);
    await forget(nameOf(this.#url), this.#caches, keep).catch(() => {});
  }

  /** @param {unknown} cause */
  async refuse(cause) {
    if (!this.writable) return;
    this.writable = false;
    this.#warn(notKept(this.#url, cause));
    await this.tidy([]);
  }

  /** @param {LockManager | undefined} locks */
  async #lock(locks) {
    if (!locks) return;
    const released = new Promise(resolve => (this.close = () => resolve(undefined)));
    this.writable = await new Promise(resolve => {
      locks
        .request(nameOf(this.#url), { ifAvailable: true }, lock => {
          resolve(lock !== null);
          return lock && released;
        })
        .catch(() => resolve(false));
    });
  }
}

/** What is kept of one file. */
export class Kept {
  #store;
  #caches;
  #name;
  /** @type {Cache | undefined} */
  #cache;
  /** @type {About | undefined} the version in the cache, or that will be there with the first part saved */
  #about;
  #stale = true; // the cache holds nothing of that version
  #saved = 0; // bytes of it in the cache
  #saving = Promise.resolve();
  /** @type {import('./intake.js').Sink | undefined} */
  #sink;
  #base = 0; // of the file in the sink
  #touched = false; // read, or written to

  /**
   * @param {Store} store
   * @param {CacheStorage} caches
   * @param {string} name
   */
  constructor(store, caches, name) {
    this.#store = store;
    this.#caches = caches;
    this.#name = name;
  }

  /** Of the copy, complete or not; undefined if there is none that could be of use. */
  async about() {
    try {
      if (!(await this.#caches.has(this.#name))) return undefined;
      this.#cache = await this.#caches.open(this.#name);
      const about = readAbout(await (await this.#cache.match(key('about')))?.text());
      if (!about) return undefined;
      this.#stale = false;
      this.#about = about;
      return about;
    } catch (error) {
      await this.#store.refuse(error);
      return undefined;
    }
  }

  /** The parts from the first on, as far as they are whole; a damaged one is deleted. */
  async *parts() {
    this.#touched = true;
    for (;;) {
      const bytes = await this.#part(this.#saved);
      if (!bytes) return;
      this.#saved += bytes.length;
      yield bytes;
    }
  }

  /** @param {number} at @returns {Promise<Uint8Array | undefined>} */
  async #part(at) {
    try {
      const reply = await this.#cache?.match(key(at));
      if (!reply) return undefined;
      const bytes = new Uint8Array(await reply.arrayBuffer());
      if (bytes.length && (await sha256(bytes)) === reply.headers.get('x-sha256')) return bytes;
    } catch {
      /* cannot be read any more */
    }
    await this.#cache?.delete(key(at)).catch(() => {});
    return undefined;
  }

  /** From now on the file goes there. @param {import('./intake.js').Sink} sink @param {number} base */
  follow(sink, base) {
    this.#sink = sink;
    this.#base = base;
  }

  /** What comes next is this version, from its first byte on. @param {About | undefined} about */
  async replace(about) {
    await this.#saving;
    this.#about = about;
    this.#stale = true;
    this.#saved = 0;
  }

  /** Saves what is new, once that is a part. While it is being saved, the next may come. */
  async advance(least = PART) {
    const { writable } = this.#store,
      sink = this.#sink;
    if (!writable || !sink || !this.#about) return;
    const at = this.#base + this.#saved,
      bytes = sink.loaded - at;
    if (bytes < least) return;
    await this.#saving;
    this.#saving = this.#save(this.#saved, sink.copy(at, bytes), this.#about);
    this.#saved += bytes;
  }

  async flush() {
    await this.advance(1);
    await this.#saving;
  }

  /** The file is complete. */
  async finish() {
    if (!this.#sink || !this.#about || !this.#store.writable || this.#stale) return; // nothing has been added
    await this.#attempt(() => this.#put('about', JSON.stringify({ ...this.#about, bytes: this.#saved })));
  }

  async drop() {
    this.#stale = true;
    this.#saved = 0;
    await this.#caches.delete(this.#name).catch(() => {});
  }

  /** The bytes are worth nothing: drops the copy, if they are what it holds. */
  async spoil() {
    if (this.#touched) await this.drop();
  }

  /** @param {number} at @param {Uint8Array<ArrayBuffer>} bytes @param {About} about */
  async #save(at, bytes, about) {
    this.#touched = true;
    await this.#attempt(async () => {
      if (this.#stale) {
        await this.#caches.delete(this.#name); // readers of the old version keep what they have opened
        this.#cache = await this.#caches.open(this.#name);
        await this.#put('about', JSON.stringify(about));
        this.#stale = false;
      }
      await this.#put(at, bytes, { 'x-sha256': await sha256(bytes) });
    });
  }

  /** @param {() => Promise<void>} work */
  async #attempt(work) {
    try {
      if (this.#store.writable) await work();
    } catch (error) {
      await this.#store.refuse(error); // the quota, or storage that is switched off
    }
  }

  /**
   * @param {number | 'about'} part
   * @param {BodyInit} body
   * @param {Record<string, string>} [headers]
   */
  async #put(part, body, headers) {
    await this.#cache?.put(key(part), new Response(body, { headers }));
  }
}

/** @param {string | undefined} text @returns {About | undefined} nothing, if storage has come to harm */
function readAbout(text) {
  try {
    const about = JSON.parse(text ?? 'null');
    return Number.isSafeInteger(about?.bytes) ? about : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Forgets the copy of this model, or of all.
 * @param {string} [url]
 * @param {CacheStorage} [storage]
 * @returns {Promise<boolean>} whether there was one
 */
export async function evict(url, storage) {
  try {
    const caches = storage ?? globalThis.caches;
    return Boolean(caches) && (await forget(url === undefined ? PREFIX : nameOf(url), caches));
  } catch {
    return false; // storage is switched off
  }
}

/**
 * @param {string} start of the caches' names
 * @param {CacheStorage} caches
 * @param {string[]} [but] those
 */
async function forget(start, caches, but = []) {
  const names = (await caches.keys()).filter(name => name.startsWith(start) && !but.includes(name));
  await Promise.all(names.map(name => caches.delete(name)));
  return names.length > 0;
}

/** Of its caches the beginning, of its lock all: addresses hold no spaces. @param {string} url */
const nameOf = url => `${PREFIX}${url.split('#')[0]} `;

/** @param {string} url @param {unknown} cause */
function notKept(url, cause) {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new BitbrushError(
    'quota',
    `${url}: not kept in the browser's cache (${why}); it is used from memory, and downloaded again next time. ` +
      'Free space, or evict() models that are not used any more',
    { cause },
  );
}
