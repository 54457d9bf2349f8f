/** From an address, a Blob, a stream or a list of these into the engine's memory. */
import { Store } from './cache.js';
import { Download } from './download.js';
import { BitbrushError } from './errors.js';
import { Intake } from './intake.js';
import { checked } from './integrity.js';
import { Joined, Split, isPartList } from './parts.js';

/**
 * Something to read a model from.
 * @typedef {object} Input
 * @property {string} name for messages
 * @property {boolean} local not from a network
 * @property {() => Promise<void>} start begins to read ahead
 * @property {(sink: Intake, end: () => number | undefined, anew?: boolean) => Promise<boolean>} into
 *   writes it behind what the sink has; anew: past all caches. Returns whether bytes came from a cache
 * @property {() => Promise<void>} keep what has been written is right: copies are complete
 * @property {() => Promise<void>} drop copies, whatever they hold
 * @property {() => Promise<void>} spoil copies that hold what has been written
 * @typedef {{ input: Input, sha256?: string, close(): void }} Opened
 * @typedef {{ pauses?: number[], patience?: number }} Timing as of a Download
 * @typedef {import('./cache.js').Platform & { timing?: Timing }} Platform
 */

/**
 * The body is read ahead from now on, so that the download does not wait for the module to compile.
 * @param {import('./protocol.js').Source} source
 * @param {(warning: BitbrushError) => void} warn
 * @param {Platform} [platform]
 * @returns {Promise<Opened>}
 */
export async function open(source, warn, platform = {}) {
  /** @type {Store[]} */
  const stores = [];
  const { sha256 } = source,
    { timing } = platform;
  const inputOf = async (/** @type {import('./protocol.js').Piece} */ piece) => {
    if (!('url' in piece)) return new Local(piece);
    const { url } = piece,
      store = piece.cache ? await Store.open(url, warn, platform) : undefined;
    if (store) stores.push(store);
    if (isPartList(url)) return new Split(url, store, sha256, timing);
    const exact = sha256 !== undefined;
    return new Download(url, store?.file('model'), { trust: exact, exact, ...timing });
  };
  const close = () => stores.forEach(store => store.close());
  try {
    const input = 'list' in source
      ? new Joined(await Promise.all(source.list.map(inputOf)), source.name)
      : await inputOf(source);
    await input.start();
    return { input, sha256, close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Fills the engine's memory from blobAt on, checks what came, and starts the model.
 * @param {import('./raw.js').Engine} engine
 * @param {Opened} opened
 * @param {(loaded: number, total: number, phase: import('./intake.js').Phase) => void} onProgress
 */
export async function receive(engine, { input, sha256, close }, onProgress) {
  const sink = new Intake(engine, input.name, onProgress);
  try {
    await checked({
      sink,
      sha256,
      fill: anew => input.into(sink, () => sink.end, anew),
      drop: () => input.drop(),
      refusal: found =>
        `${input.name}: its sha256 is ${found}, not what integrity says: the file was changed or damaged; ` +
        'load it from a source you trust, or correct integrity',
    });
    sink.finish(input.local);
    await input.keep();
  } catch (error) {
    if (error instanceof BitbrushError && !['network', 'space'].includes(error.code)) await input.spoil();
    throw error;
  } finally {
    close();
  }
}

/** A Blob, or a stream that can be read once. @implements {Input} */
class Local {
  #stream;

  /** @param {Exclude<import('./protocol.js').Piece, { url: string }>} piece */
  constructor(piece) {
    this.name = piece.name;
    this.local = 'blob' in piece || piece.local;
    this.#stream = 'blob' in piece ? piece.blob.stream() : piece.stream;
  }

  async start() {}

  /** @param {import('./intake.js').Sink} sink */
  async into(sink) {
    const reader = this.#stream.getReader(),
      phase = this.local ? undefined : 'download';
    try {
      for (let chunk; !(chunk = await this.#read(reader, sink.loaded)).done; ) sink.write(chunk.value, phase);
    } catch (error) {
      reader.cancel().catch(() => {});
      throw error;
    }
    return false;
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader @param {number} loaded */
  async #read(reader, loaded) {
    const { name, local } = this;
    try {
      return await reader.read();
    } catch (cause) {
      throw local
        ? new BitbrushError('arg', `${name}: the file cannot be read; has it changed? Choose it again`, { cause })
        : new BitbrushError('network', `${name}: the download broke off after ${loaded} bytes; try again`, { cause });
    }
  }

  async keep() {}
  async drop() {}
  async spoil() {}
}
