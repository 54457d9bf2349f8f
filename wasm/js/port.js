/** A worker as a pair of questions and answers, in browsers and in Node. */
import { BitbrushError } from './errors.js';
import { newNodeWorker, newWorker } from './places.js';

const STUCK_MS = 1000; // slices take some 10 ms: a worker silent for this long after `cancel` is not coming back

/**
 * @typedef {{ post(message: unknown, transfer: Transferable[]): void, hold(on: boolean): void, stop(): void }} Host
 * @typedef {(p: any) => void} OnProgress of the question's own kind
 * @typedef {{ resolve(value: any): void, reject(reason: unknown): void, progress?: OnProgress }} Waiting
 * @typedef {{ signal?: AbortSignal, transfer?: Transferable[], grace?: number, progress?: OnProgress }} AskOptions
 */

/**
 * @param {string | undefined} address
 * @param {(message: any) => void} heard
 * @param {(why: string) => void} died
 * @returns {Promise<Host>}
 */
async function start(address, heard, died) {
  if (typeof Worker === 'function') {
    const worker = newWorker(address);
    worker.onmessage = event => heard(event.data);
    worker.onmessageerror = () => died('a message could not be read');
    worker.onerror = event => died(event.message || 'its script could not be loaded');
    return {
      post: (message, transfer) => worker.postMessage(message, transfer),
      hold() {},
      stop: () => worker.terminate(),
    };
  }
  const worker = await newNodeWorker(address);
  worker.on('message', heard);
  worker.on('error', error => died(String(error)));
  return {
    post: (message, transfer) => worker.postMessage(message, /** @type {any} */ (transfer)),
    hold: on => (on ? worker.ref() : worker.unref()), // an idle model does not keep the process alive
    stop: () => void worker.terminate(),
  };
}

export class Port {
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  #last = 0;
  /** @type {BitbrushError | undefined} */
  #dead;
  /** @type {Host} */
  #host = /** @type {any} */ (undefined); // set before open() returns

  /** @param {string} [address] of worker.js, where it is not beside this file */
  static async open(address) {
    const port = new Port();
    const died = (/** @type {string} */ why) =>
      port.close(new BitbrushError('worker', `the worker failed: ${why}`));
    try {
      port.#host = await start(address, message => port.#heard(message), died);
    } catch (cause) {
      throw new BitbrushError(
        'worker',
        `the worker cannot be started: ${cause instanceof Error ? cause.message : cause}`,
        { cause },
      );
    }
    port.#host.hold(false);
    return port;
  }

  get closed() {
    return this.#dead !== undefined;
  }

  /**
   * One request, one answer. When the signal fires the worker is told to stop; the promise rejects with the
   * signal's reason as soon as it has, or after a grace time by ending the worker.
   * @param {import('./protocol.js').Ask} message
   * @param {AskOptions} [options]
   * @returns {Promise<any>}
   */
  ask(message, { signal, transfer = [], grace = STUCK_MS, progress } = {}) {
    if (this.#dead) return Promise.reject(this.#dead);
    if (signal?.aborted) return Promise.reject(signal.reason);
    const id = ++this.#last;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const abort = () => {
      if (grace <= 0) return this.close();
      this.tell({ op: 'cancel', id });
      timer = setTimeout(() => this.close(), grace);
    };
    const answer = new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, progress });
      this.#host.hold(true);
      try {
        this.#host.post({ ...message, id }, transfer);
      } catch (cause) {
        this.#done(id);
        const why = cause instanceof Error ? cause.message : cause;
        reject(new BitbrushError('arg', `this cannot be sent to the worker: ${why}`, { cause }));
      }
    });
    signal?.addEventListener('abort', abort, { once: true });
    return answer.finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      signal?.throwIfAborted(); // whatever the answer was
    });
  }

  /** @param {import('./protocol.js').Tell} message */
  tell(message) {
    if (!this.#dead) this.#host.post(message, []);
  }

  /** Ends the worker; everything still asked is rejected. */
  close(reason = new BitbrushError('worker', 'the worker has been stopped')) {
    if (this.#dead) return;
    this.#dead = reason;
    this.#host.stop();
    for (const { reject } of this.#waiting.values()) reject(reason);
    this.#waiting.clear();
  }

  /** @param {number} id */
  #done(id) {
    this.#waiting.delete(id);
    if (!this.#waiting.size) this.#host.hold(false);
  }

  /** @param {import('./protocol.js').FromWorker} message */
  #heard(message) {
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return;
    if ('progress' in message) {
      try {
        waiting.progress?.(message.progress);
      } catch (error) { // of the caller's function: its reason to stop, and whoever asked ends the worker
        this.#done(message.id);
        waiting.reject(error);
      }
      return;
    }
    this.#done(message.id);
    if ('ok' in message) return waiting.resolve(message.ok);
    const error = new BitbrushError(/** @type {any} */ (message.error.code), message.error.message);
    waiting.reject(error);
    if (message.error.fatal) this.close(error);
  }
}
