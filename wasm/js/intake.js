/** The engine's memory as the place where a model file arrives: each byte goes straight to its final place. */
import { BitbrushError } from './errors.js';
import { sha256 } from './integrity.js';

/**
 * Where a file's bytes go, in order. `end` of a file: the position behind its last byte, Infinity while more is to come
 * and nobody knows how much, undefined if the file ends where its download does.
 * @typedef {'download' | 'cache' | undefined} Phase
 * @typedef {object} Sink
 * @property {number} loaded bytes in place
 * @property {(bytes: Uint8Array, phase?: Phase) => void} write
 * @property {(to: number) => void} rewind what lies behind is forgotten
 * @property {(from: number, bytes: number) => Uint8Array<ArrayBuffer>} copy
 */

/** @implements {Sink} */
export class Intake {
  loaded = 0;
  /** Bytes of the file as its own header states them (Content-Length counts compressed bytes, or is missing); 0 until
   * that is read. */
  total = 0;
  #need = 8; // bytes of the header
  #engine;
  #onProgress;

  /**
   * @param {import('./raw.js').Engine} engine
   * @param {string} name for messages
   * @param {(loaded: number, total: number, phase: Phase) => void} onProgress
   */
  constructor(engine, name, onProgress) {
    this.#engine = engine;
    this.name = name;
    this.#onProgress = onProgress;
  }

  /** Of the file. */
  get end() {
    return this.total || (this.loaded < 8 ? undefined : Infinity);
  }

  /**
   * @param {Uint8Array} bytes
   * @param {Phase} [phase]
   */
  write(bytes, phase) {
    const engine = this.#engine,
      at = engine.blobAt + this.loaded;
    this.#fits(this.loaded + bytes.length);
    engine.reserve(at + bytes.length);
    engine.bytes(at, bytes.length).set(bytes);
    this.loaded += bytes.length;
    while (!this.total && this.loaded >= this.#need) this.#readHeader();
    this.#onProgress(this.loaded, this.total, phase);
  }

  /** @param {number} to */
  rewind(to) {
    if (to < this.#need) [this.total, this.#need] = [0, 8];
    this.loaded = to;
  }

  /**
   * @param {number} from
   * @param {number} bytes
   */
  copy(from, bytes) {
    return this.#engine.copy(this.#engine.blobAt + from, bytes);
  }

  /**
   * Of all bytes from there on. For the time of it the platform copies them: nothing that it hashes may change.
   * @param {number} from
   */
  hash(from) {
    const { memory, blobAt } = this.#engine;
    const shared = typeof SharedArrayBuffer === 'function' && memory.buffer instanceof SharedArrayBuffer;
    const count = this.loaded - from;
    return sha256(shared ? this.copy(from, count) : this.#engine.bytes(blobAt + from, count));
  }

  /** All bytes are in place: starts the model. @param {boolean} local */
  finish(local) {
    const { loaded, total, name } = this;
    if (loaded < 8) throw new BitbrushError('magic', `${name}: not a bitbrush model (${loaded} bytes)`);
    if (!total || loaded < total) {
      const of = total ? `${loaded} of ${total} bytes` : `${loaded} bytes, before the end of the header`;
      throw local
        ? new BitbrushError('corrupt', `${name}: the file is cut short after ${of}; download it again`)
        : new BitbrushError('network', `${name}: the download stopped after ${of}; try again`);
    }
    try {
      this.#engine.model();
    } catch (error) {
      throw prefixed(error, name);
    }
  }

  #readHeader() {
    const engine = this.#engine,
      more = this.#probe();
    if (more) {
      this.#need = more;
      return;
    }
    this.total = engine.x.bbw_info(8);
    this.#fits(this.loaded);
    // the one large growth: file and model block, before the bytes arrive
    engine.reserve(engine.blobAt + this.total + 64 + engine.x.bbw_info(9));
  }

  /** @param {number} end */
  #fits(end) {
    if (this.total && end > this.total)
      throw new BitbrushError('corrupt', `${this.name}: longer than its header says; download it again`);
  }

  #probe() {
    const engine = this.#engine;
    try {
      return engine.probe(this.#need, this.loaded);
    } catch (error) {
      const start = new TextDecoder().decode(this.copy(0, this.#need)).trimStart();
      if (start.startsWith('<'))
        throw new BitbrushError('magic', `${this.name}: a web page (HTML), not a model; check the address`);
      throw prefixed(error, this.name);
    }
  }
}

/**
 * @param {unknown} error
 * @param {string} name
 */
function prefixed(error, name) {
  return error instanceof BitbrushError
    ? new BitbrushError(error.code, `${name}: ${error.message}`, { cause: error })
    : error;
}
