/** One file from an address: a kept copy is used while it is current, and a download that breaks off goes on. */
import { BitbrushError } from './errors.js';
import { aboutOf, checkReply, goesOn, isSame, sameOrigin, strong } from './reply.js';

const AHEAD = 2 ** 22; // bytes
const PAUSES = [250, 1000, 3000]; // ms
const ENOUGH = 2 ** 16; // bytes: a try that brings them was not in vain
const PATIENCE = 8000; // ms

/**
 * @typedef {import('./cache.js').About} About
 * @typedef {import('./intake.js').Sink} Sink
 * @typedef {{ reply: Response, body: ReadableStream<Uint8Array> | null }} Answer
 */

export class Download {
  local = false;
  #cached = false; // some of the bytes in place are as they were kept
  #anew = false; // past all caches
  /** @type {About | undefined} the version that the bytes in place belong to */
  #about;
  /** @type {Answer | undefined} to the first request, until it is read */
  #answer;
  /** @type {Promise<void> | undefined} */
  #started;
  #kept;
  #trust;
  #exact;
  #pauses;
  #patience;

  /**
   * @param {string} url
   * @param {import('./cache.js').Kept} [kept]
   * @param {object} [options]
   * @param {boolean} [options.trust] a complete copy is used without asking the server
   * @param {boolean} [options.exact] one version is wanted: the browser's own cache shall not answer with an older one
   * @param {number[]} [options.pauses] ms, after tries that brought nothing; then it is given up
   * @param {number} [options.patience] ms for the server to say whether a copy is current
   */
  constructor(url, kept, { trust = false, exact = false, pauses = PAUSES, patience = PATIENCE } = {}) {
    this.name = url;
    this.#kept = kept;
    this.#trust = trust;
    this.#exact = exact;
    this.#pauses = pauses;
    this.#patience = patience;
  }

  /** Looks for a copy and sends the first request, whose answer is read ahead from then on. */
  start() {
    return (this.#started ??= this.#start());
  }

  async #start() {
    this.#about = await this.#kept?.about();
    if (!this.#about) this.#answer = await this.#first();
    else if (this.#about.bytes && !this.#trust) this.#answer = await this.#newer(this.#about);
  }

  /**
   * Writes the file behind what the sink has.
   * @param {Sink} sink
   * @param {() => number | undefined} end as of a Sink
   * @param {boolean} [anew] past all caches
   * @returns {Promise<boolean>} whether bytes came from the cache
   */
  async into(sink, end, anew = false) {
    const base = sink.loaded;
    this.#anew = anew;
    if (anew) this.#about = undefined;
    else await this.start();
    if (this.#about && !this.#answer && (await this.#fromCopy(sink, this.#about))) return true;
    this.#kept?.follow(sink, base);
    await this.#fetch(sink, base, end);
    await this.#kept?.flush();
    return this.#cached;
  }

  /** What has been written is right: the copy is complete. */
  async keep() {
    await this.#kept?.finish();
  }

  async drop() {
    await this.#kept?.drop();
  }

  /** What has been written is no model: a copy of it is of no use. */
  async spoil() {
    await this.#kept?.spoil();
  }

  /** @param {Sink} sink @param {About} about @returns {Promise<boolean>} whether that was all */
  async #fromCopy(sink, { bytes }) {
    const base = sink.loaded;
    for await (const part of this.#kept?.parts() ?? []) {
      sink.write(part, 'cache');
      this.#cached = true;
    }
    return bytes > 0 && sink.loaded - base === bytes;
  }

  /** @param {Sink} sink @param {number} base @param {() => number | undefined} end */
  async #fetch(sink, base, end) {
    let far = sink.loaded,
      tries = 0;
    for (;;) {
      const why = await this.#try(sink, base, end);
      const stop = end();
      if (stop === undefined ? !why : sink.loaded >= stop) return;
      if (sink.loaded >= far + ENOUGH) tries = 0;
      far = Math.max(far, sink.loaded);
      if (tries === this.#pauses.length) {
        await this.#kept?.flush(); // the next load goes on there
        throw this.#stopped(far - base, size(base, stop), why);
      }
      await new Promise(resolve => setTimeout(resolve, this.#pauses[tries]));
      tries++;
    }
  }

  /**
   * Reads one answer to its end. Returns why that came too early, if another try may help.
   * @param {Sink} sink
   * @param {number} base
   * @param {() => number | undefined} end
   * @returns {Promise<unknown>}
   */
  async #try(sink, base, end) {
    const at = sink.loaded - base,
      bytes = size(base, end());
    /** @type {Answer} */
    let answer;
    try {
      answer = this.#answer ?? (await this.#ask(at, bytes));
    } catch (why) {
      return why;
    }
    this.#answer = undefined;
    const { reply } = answer;
    if (reply.status === 206 && this.#about && goesOn(reply, this.name, this.#about, at, bytes))
      return this.#read(answer, sink, base, end);
    if (reply.status === 206 || reply.status === 416 || reply.status >= 500) {
      discard(answer);
      if (reply.status < 500) await this.#startOver(sink, base, undefined); // the file is another one
      return new Error(`the server answered ${reply.status}`);
    }
    checkReply(reply, this.name);
    await this.#startOver(sink, base, aboutOf(reply));
    return this.#read(answer, sink, base, end);
  }

  /**
   * @param {Answer} answer
   * @param {Sink} sink
   * @param {number} base
   * @param {() => number | undefined} end
   */
  async #read({ body }, sink, base, end) {
    const reader = /** @type {ReadableStream<Uint8Array>} */ (body).getReader();
    try {
      for (;;) {
        let chunk;
        try {
          chunk = await reader.read();
        } catch (why) {
          return why ?? new Error('the connection broke off');
        }
        if (chunk.done) return undefined;
        const bytes = size(base, end());
        if (bytes && sink.loaded - base + chunk.value.length > bytes)
          throw new BitbrushError('corrupt', `${this.name}: longer than the ${bytes} bytes that it should have`);
        sink.write(chunk.value, 'download');
        await this.#kept?.advance();
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  /** @param {Sink} sink @param {number} base @param {About | undefined} about */
  async #startOver(sink, base, about) {
    if (sink.loaded > base) sink.rewind(base);
    this.#cached = false;
    this.#about = about;
    await this.#kept?.replace(about);
  }

  /**
   * From position `at` on, if the server can tell whether that fits what we have; else the whole file.
   * @param {number} at
   * @param {number | undefined} bytes of the file, if known
   */
  async #ask(at, bytes) {
    const own = sameOrigin(this.name);
    const mark = at > 0 && this.#about && (own || bytes) ? strong(this.#about) : null;
    if (mark === null) return this.#get({ cache: this.#anew ? 'reload' : this.#exact ? 'no-cache' : 'default' });
    const headers = { Range: `bytes=${at}-`, ...(own && { 'If-Range': mark }) };
    return this.#get({ headers, cache: 'no-store' });
  }

  async #first() {
    let answer;
    try {
      answer = await this.#ask(0, undefined);
    } catch (cause) {
      throw new BitbrushError('network', `cannot reach ${this.name}: check the address and the connection`, {
        cause,
      });
    }
    checkReply(answer.reply, this.name);
    return answer;
  }

  /**
   * The answer with another version than that of the copy; undefined if the copy is current or the server cannot say.
   * @param {About} about
   */
  async #newer(about) {
    const { etag, modified } = about;
    const headers = new Headers(); // the browser leaves its own cache out where one of these is set
    if (sameOrigin(this.name) && etag) headers.set('If-None-Match', etag);
    else if (sameOrigin(this.name) && modified) headers.set('If-Modified-Since', modified);
    const cache = [...headers].length ? 'default' : 'no-cache';
    const stop = new AbortController(),
      timer = setTimeout(() => stop.abort(), this.#patience);
    let answer;
    try {
      answer = await this.#get({ headers, cache, signal: stop.signal });
    } catch {
      return undefined; // offline
    } finally {
      clearTimeout(timer);
    }
    const { reply } = answer;
    if (reply.status === 304 || reply.status >= 500 || (reply.ok && isSame(reply, about))) {
      discard(answer);
      return undefined;
    }
    checkReply(reply, this.name);
    return answer;
  }

  /** @param {RequestInit} options @returns {Promise<Answer>} */
  async #get(options) {
    const reply = await fetch(this.name, options);
    /** @type {TransformStream<Uint8Array, Uint8Array>} */
    const ahead = new TransformStream({}, undefined, { highWaterMark: AHEAD, size: c => c.byteLength });
    return { reply, body: reply.ok && reply.body ? reply.body.pipeThrough(ahead) : null };
  }

  /**
   * @param {number} loaded
   * @param {number | undefined} bytes of the file
   * @param {unknown} why undefined = it ended in good order, too early
   */
  #stopped(loaded, bytes, why) {
    const of = bytes ? ` of ${bytes}` : '';
    const text = `${this.name}: the download ${why ? 'broke off' : 'stopped'} after ${loaded}${of} bytes`;
    const tries = `${this.#pauses.length} more tries did not help; check the connection and try again`;
    return new BitbrushError('network', `${text}, and ${tries}`, { cause: why });
  }
}

/** @param {Answer} answer */
function discard({ reply, body }) {
  (body ?? reply.body)?.cancel().catch(() => {});
}

/** @param {number} base @param {number | undefined} end @returns {number | undefined} bytes of a file, if known */
const size = (base, end) => (end && end < Infinity ? end - base : undefined);
