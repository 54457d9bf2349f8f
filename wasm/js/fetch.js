/** From an address, a Blob, a stream or a list of these into the engine's memory. */
import { Store } from './cache.js';
import { Download } from './download.js';
import { BitbrushError } from './errors.js';
import { Intake } from './intake.js';
import { checked } from './integrity.js';

/**
 * Something to read a model from.
 * @typedef {object} Input
 * @property {string} name for messages
 * @property {boolean} local not from a network
 * @property {(sink: Intake, end: () => number | undefined, anew?: boolean) => Promise<boolean>} into
 *   writes it behind what the sink has; anew: past all caches. Returns whether bytes came from a cache
 * @property {() => Promise<void>} keep what has been written is right: copies are complete
 * @property {() => Promise<void>} drop copies, whatever they hold
 * @property {() => Promise<void>} spoil copies that hold what has been written
 * @typedef {{ input: Input, sha256?: string, close(): void }} Opened
 * @typedef {import('./cache.js').Platform & { pauses?: number[] }} Platform
 */

/**
 * The body is read ahead from now on, so that the download does not wait for the module to compile.
 * @param {import('./protocol.js').Source} source
 * @param {(warning: BitbrushError) => void} warn
 * @param {Platform} [platform]
 * @returns {Promise<Opened>}
 */
export async function open(source, warn, platform = {}) {
  if (!('url' in source)) return { input: new Local(source), sha256: source.sha256, close() {} };
  const store = source.cache ? await Store.open(source.url, warn, platform) : undefined;
  const close = () => store?.close();
  try {
    const download = new Download(source.url, store?.file('model'), platform.pauses);
    return { input: await download.start(source.sha256 !== undefined), sha256: source.sha256, close };
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

  /** @param {Extract<import('./protocol.js').Source, { name: string }>} source */
  constructor(source) {
    this.name = source.name;
    this.local = 'blob' in source || source.local;
    this.#stream = 'blob' in source ? source.blob.stream() : source.stream;
  }

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
