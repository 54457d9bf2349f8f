/**
 * One wasm instance and its memory, and nothing else: door.h as methods. JavaScript is the allocator. From
 * __heap_base up lie the model file, the model block, the session's workspace and the out area (pictures, PNG):
 *
 *     | stack, data | data of a module on top | stacks of more threads | blob … | model | workspace | out |
 *
 * Memory only ever grows; views are made anew after every call because growing detaches them, or leaves them short
 * where threads share the memory. Shared bytes are copied before they leave: decoders and transfers refuse them.
 */
import { BitbrushError, codeOf } from './errors.js';
import { compile, instantiateOn, newMemory } from './module.js';
import { STACKS, startThreads } from './threads.js';

const PAGE = 65536;
const ERR_SHORT = -33;
export const DONE = 1,
  AGAIN = 2;
export const align = (/** @type {number} */ at) => Math.ceil(at / 64) * 64;

/** Memory below the model at least, so that it has room for the data of one more module. */
const BELOW = 2 ** 19;

export class Engine {
  /**
   * @param {WebAssembly.Instance} instance
   * @param {WebAssembly.Memory} [memory] if the instance has none of its own
   */
  constructor(instance, memory) {
    /** What the module shows, and what those on top of it do. */
    this.x = /** @type {any} */ (instance.exports);
    /** @type {WebAssembly.Memory} */
    this.memory = memory ?? this.x.memory;
    this.stacksAt = this.blobAt = this.modelEnd = this.outAt = 0; // modelEnd: where the workspace may start
    /** How many threads draw, once they have started. */
    this.threads = Promise.resolve(1);
    /** Names of the dot ways. */
    this.ways = this.#names(this.x.bbw_way_name);
    this.#layOut(0);
  }

  /**
   * @param {URL | string} url of the module
   * @param {number} [threads] at most, if it is a module that can have threads; more than 1 in isolated pages only
   * @param {URL | string} [ways] of bitbrush-relaxed.wasm, which goes on top of it, or does not: a host may lack it, or
   *   answer with a page in its place
   * @param {import('./protocol.js').StartThread} [start] for more threads than one
   */
  static create(url, threads = 1, ways = undefined, start = async () => false) {
    const shared = threads > 1,
      more = ways === undefined ? undefined : compile(ways, shared).catch(() => undefined); // both at once
    return starting(url, async () => {
      const { module, imports } = await compile(url, shared);
      const memory = imports ? newMemory(shared) : undefined;
      const engine = new this(await WebAssembly.instantiate(module, memory && { env: { memory } }), memory);
      const above = (await more)?.module;
      const added = above && (await engine.addWays(above));
      if (shared && memory) engine.#start(start, { module, memory, above: added ? above : undefined }, threads);
      return engine;
    });
  }

  /** @param {WebAssembly.Module} module @returns {Promise<boolean>} whether its ways are there from now on */
  async addWays(module) {
    try {
      await this.add(module);
      this.x.bbr_add();
      this.ways = this.#names(this.x.bbw_way_name);
      return true;
    } catch {
      return false;
    }
  }

  /** Puts a module on top of this one, before anything else; there is room for one. @param {WebAssembly.Module} module */
  async add(module) {
    this.reserve(BELOW);
    const exports = await instantiateOn(module, this.x, this.memory);
    if (exports.bbw_build() !== this.x.bbw_info(10))
      throw new Error('it is of another build than the module below it: serve those of one release, and reload the page');
    this.x = { ...this.x, ...exports };
    this.#layOut(0);
  }

  #layOut(/** @type {number} */ stacks) {
    this.stacksAt = align(this.x.__heap_base.value);
    this.blobAt = this.modelEnd = this.outAt = this.stacksAt + stacks;
  }

  /**
   * @param {import('./protocol.js').StartThread} start
   * @param {Omit<import('./protocol.js').Thread, 'table' | 'thread' | 'stack' | 'stackAbove'>} what
   * @param {number} count
   */
  #start(start, what, count) {
    this.#layOut((count - 1) * STACKS);
    this.reserve(this.blobAt);
    this.x.bbw_threads(count);
    const table = this.x.__indirect_function_table.length;
    this.threads = startThreads(start, { ...what, table }, this.stacksAt, count);
  }

  get memoryBytes() {
    return this.memory.buffer.byteLength;
  }
  bytes(/** @type {number} */ at, /** @type {number} */ n) {
    return new Uint8Array(this.memory.buffer, at, n);
  }
  /** A copy that outlives the next call. */
  copy(/** @type {number} */ at, /** @type {number} */ n) {
    return this.bytes(at, n).slice();
  }

  /** Makes memory reach at least `end`. */
  reserve(/** @type {number} */ end) {
    const missing = Math.ceil((end - this.memoryBytes) / PAGE);
    if (missing <= 0) return;
    try {
      this.memory.grow(missing);
    } catch {
      const mb = Math.ceil(end / 2 ** 20);
      throw new BitbrushError(
        'space',
        `this model needs ${mb} MB of memory, more than the browser gives: close other tabs or take a smaller model`,
      );
    }
  }

  /** Throws what a negative status means. */
  check(/** @type {number} */ status) {
    if (status < 0) throw new BitbrushError(codeOf(status), this.string(this.x.bbw_error()));
    return status;
  }

  // Pointers and sizes come back as signed numbers; `>>> 0` makes those from 2 GB up positive again.
  string(/** @type {number} */ pointer) {
    const at = pointer >>> 0;
    const all = new Uint8Array(this.memory.buffer);
    return new TextDecoder().decode(all.slice(at, all.indexOf(0, at)));
  }

  /**
   * Looks at the first n of the bytes loaded so far. Returns how many it needs to see, or 0 when `info` is known.
   * @param {number} n
   * @param {number} loaded
   */
  probe(n, loaded) {
    const scratch = align(this.blobAt + loaded),
      size = this.x.bbw_probe_scratch(n) >>> 0;
    this.reserve(scratch + size);
    const status = this.x.bbw_probe(this.blobAt, n, scratch, size);
    const need = this.x.bbw_info(7);
    if (status === ERR_SHORT && need > n) return need;
    this.check(status);
    return 0;
  }

  /** The whole file is at blobAt: check it and build the index behind it. */
  model() {
    const bytes = this.x.bbw_info(8),
      size = this.x.bbw_info(9),
      at = align(this.blobAt + bytes);
    this.reserve(at + size);
    this.check(this.x.bbw_model(this.blobAt, bytes, at, size));
    this.modelEnd = align(at + size);
  }

  /** Copies bytes behind the model and all appended so far. @param {Uint8Array} data @returns {number} their address */
  append(data) {
    const at = this.modelEnd;
    this.reserve(at + data.length);
    this.bytes(at, data.length).set(data);
    this.modelEnd = align(at + data.length);
    return at;
  }

  /**
   * Lets sessions choose among the dot ways by these times of theirs. Returns them in words.
   * @param {number[]} [times] positive
   */
  useTimes(times) {
    if (!times) return [];
    const at = this.modelEnd;
    this.reserve(at + 4 * times.length);
    new Float32Array(this.memory.buffer, at, times.length).set(times);
    this.check(this.x.bbw_way_times(at));
    return times.map((ns, i) => ({ name: this.ways[i], ns })).sort((a, b) => a.ns - b.ns);
  }

  /** @returns {Omit<import('./index.js').ModelInfo, 'threads' | 'ways'>} */
  info() {
    const f = (/** @type {number} */ i) => this.x.bbw_info(i);
    const metadata = this.metadata();
    const nullLabel = f(4) < 0 ? null : f(4);
    return {
      width: f(0),
      height: f(1),
      channels: f(2),
      classes: f(3),
      nullLabel,
      trainSteps: f(5),
      bits: f(6) / 1000,
      bytes: f(8),
      kernels: this.string(this.x.bbw_kernels()),
      samplers: this.samplers(),
      labels: labelsOf(metadata, f(3)),
      metadata,
    };
  }

  /** Names by bb_sampler. */
  samplers() {
    return /** @type {import('./index.js').SamplerName[]} */ (this.#names(this.x.bbw_sampler_name));
  }

  /** @param {((number: number) => number) | undefined} nameOf a function of the door, 0 past the last name */
  #names(nameOf) {
    const names = [];
    for (let at; (at = nameOf?.(names.length)); ) names.push(this.string(at));
    return names;
  }

  /** The file's __metadata__: strings from an untrusted file, so show them as text only. */
  metadata() {
    const length = Number(new DataView(this.memory.buffer).getBigUint64(this.blobAt, true));
    let header;
    try {
      header = JSON.parse(new TextDecoder().decode(this.copy(this.blobAt + 8, length)));
    } catch (cause) {
      throw new BitbrushError('corrupt', 'the header is not valid JSON', { cause });
    }
    /** @type {Record<string, string>} */
    const out = {};
    for (const [key, value] of Object.entries(header?.__metadata__ ?? {}))
      if (typeof value === 'string') out[key] = value;
    return out;
  }

  /**
   * Starts a drawing. Returns how many evaluations of the model it takes.
   * @param {import('./protocol.js').PlainRequest} r
   */
  begin(r) {
    const { x } = this,
      sampler = this.samplers().indexOf(r.sampler);
    this.check(x.bbw_session_size(0, 0, 1, r.steps, sampler, r.guidance, r.eta));
    const size = x.bbw_session_bytes() >>> 0,
      width = x.bbw_info(0),
      height = x.bbw_info(1);
    this.outAt = align(this.modelEnd + size);
    this.reserve(this.outAt + align(4 * width * height) + (x.bbw_png_scratch(width, height) >>> 0) + PAGE);
    this.check(x.bbw_session(this.modelEnd, size));
    if (x.bbw_info(3) > 0) this.check(x.bbw_condition(0, r.label));
    new DataView(this.memory.buffer).setBigUint64(this.outAt, BigInt(r.seed), true);
    this.check(x.bbw_begin(this.outAt, 0));
    return /** @type {number} */ (x.bbw_stat(1));
  }

  /** @param {boolean} final */
  picture(final) {
    const { x } = this,
      width = x.bbw_info(0),
      height = x.bbw_info(1);
    this.check(final ? x.bbw_decode(0, this.outAt) : x.bbw_preview(0, this.outAt));
    return { width, height, data: new Uint8ClampedArray(this.copy(this.outAt, 4 * width * height).buffer) };
  }

  /**
   * PNG bytes, the same as the native tool's. Uses the out area, so it may run between drawings and steps.
   * @param {{ width: number, height: number, data: Uint8ClampedArray }} picture
   * @param {Record<string, string>} text
   */
  png({ width, height, data }, text) {
    const { x } = this;
    if (!(width > 0 && height > 0 && Number.isInteger(width) && Number.isInteger(height)))
      throw new BitbrushError('arg', `png: ${width}×${height} is not a size in whole pixels`);
    if (data?.length !== 4 * width * height)
      throw new BitbrushError(
        'arg',
        `png: data has ${data?.length ?? 'no'} bytes; ${width}×${height} pixels are ${4 * width * height}`,
      );
    if (/\0/.test(Object.entries(text).flat().join('')))
      throw new BitbrushError('arg', 'png: a text with the character NUL, which ends a text in the file');
    const strings = new TextEncoder().encode(
      Object.entries(text)
        .map(([key, value]) => `${key}\0${value}\0`)
        .join(''),
    );
    const textAt = align(Math.max(this.outAt, this.modelEnd) + data.length);
    const scratch = align(textAt + strings.length),
      size = x.bbw_png_scratch(width, height) >>> 0;
    this.reserve(scratch + size);
    const pixels = Math.max(this.outAt, this.modelEnd);
    this.bytes(pixels, data.length).set(data);
    this.bytes(textAt, strings.length).set(strings);
    this.check(x.bbw_png(pixels, width, height, textAt, strings.length, scratch, size));
    return this.copy(x.bbw_png_at() >>> 0, x.bbw_png_bytes() >>> 0);
  }
}

/**
 * Does it; an error then says which module did not start.
 * @template T
 * @param {URL | string} url @param {() => Promise<T>} start
 */
export async function starting(url, start) {
  try {
    return await start();
  } catch (cause) {
    const text = `cannot start ${url}: ${cause instanceof Error ? cause.message : cause}`;
    throw new BitbrushError('worker', text, { cause });
  }
}

/**
 * Class names from the metadata, `null` where there is none.
 * @param {Record<string, string>} metadata
 * @param {number} classes
 */
function labelsOf(metadata, classes) {
  let names = [];
  try {
    const parsed = JSON.parse(metadata.labels ?? '[]');
    names = Array.isArray(parsed) ? parsed : Array.isArray(parsed?.names) ? parsed.names : [];
  } catch {
    /* names are a courtesy: a model without them draws by number */
  }
  return Array.from({ length: classes }, (_, i) => (typeof names[i] === 'string' ? names[i] : null));
}
