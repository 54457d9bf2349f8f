/** Models of elements: those with the same address share the download and the memory, and take turns in drawing. */
import { load } from './index.js';
import { orAbort } from './port.js';

const LINGER_MS = 1000; // who takes an element out of the page may be about to put it in elsewhere

/** @type {Map<string, SharedModel>} */
const byAddress = new Map();

export class SharedModel {
  #address;
  /** @type {Set<object>} */
  #holders = new Set();
  #timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);
  #loading = /** @type {Promise<import('./index.js').Model> | undefined} */ (undefined);
  #loaded = false;
  #stop = new AbortController();
  /** Of those who wait for the model. @type {Set<(progress: import('./index.js').Progress) => void>} */
  #watchers = new Set();
  /** @type {Promise<void>} the drawings so far */
  #turns = Promise.resolve();

  /** @param {string} address */
  constructor(address) {
    this.#address = address;
  }

  /**
   * The model of that address, which stays until `drop` was called by all who hold it.
   * @param {string} address
   * @param {object} holder
   */
  static hold(address, holder) {
    const shared = byAddress.get(address) ?? new SharedModel(address);
    byAddress.set(address, shared);
    clearTimeout(shared.#timer);
    shared.#holders.add(holder);
    return shared;
  }

  get loaded() {
    return this.#loaded;
  }

  /** @param {object} holder */
  drop(holder) {
    if (!this.#holders.delete(holder) || this.#holders.size) return;
    this.#timer = setTimeout(() => {
      byAddress.delete(this.#address);
      this.#stop.abort();
      this.#loading?.then(model => model.dispose(), () => {});
    }, LINGER_MS);
  }

  /**
   * Loads it, or waits with the others; the last one to give up ends the download. Failed, it can be tried again.
   * @param {import('./index.js').LoadOptions} options
   * @param {AbortSignal} signal
   * @param {(progress: import('./index.js').Progress) => void} watcher
   */
  async load(options, signal, watcher) {
    signal.throwIfAborted();
    this.#watchers.add(watcher);
    try {
      return await orAbort((this.#loading ??= this.#start(options)), signal);
    } finally {
      this.#watchers.delete(watcher);
      if (signal.aborted && !this.#watchers.size && !this.#loaded) {
        this.#loading = undefined;
        this.#stop.abort(signal.reason);
      }
    }
  }

  /** @param {import('./index.js').LoadOptions} options */
  #start(options) {
    const { signal } = (this.#stop = new AbortController());
    const loading = load(this.#address, {
      ...options,
      signal,
      onProgress: progress => this.#watchers.forEach(watcher => watcher(progress)),
    });
    loading.then(
      model => {
        if (signal.aborted) model.dispose(); // too late for anyone
        else this.#loaded = true;
      },
      () => {
        if (this.#loading === loading) this.#loading = undefined;
      },
    );
    return loading;
  }

  /**
   * Resolves when the drawings before are over; what it resolves to is to be called when the own one is.
   * @param {AbortSignal} signal
   */
  async turn(signal) {
    const before = this.#turns;
    let over = () => {};
    const own = /** @type {Promise<void>} */ (new Promise(resolve => (over = resolve)));
    this.#turns = before.then(() => own);
    try {
      await orAbort(before, signal);
      return over;
    } catch (error) {
      over();
      throw error;
    }
  }
}
