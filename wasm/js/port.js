/** A worker as a pair of questions and answers, in browsers and in Node. */
import { BitbrushError } from './errors.js';
import { newNodeWorker, newThread, newWorker } from './places.js';

const STUCK_MS = 1000; // slices take some 10 ms: a worker silent for this long after `cancel` is not coming back

/**
 * @typedef {{ post(message: unknown, transfer: Transferable[]): void, hold(on: boolean): void, stop(): void }} Host
 * @typedef {(p: any) => void} OnProgress of the question's own kind
 * @typedef {{ resolve(value: any): void, reject(reason: unknown): void }} Answer
 * @typedef {Answer & { progress?: OnProgress, grace?: number }} Waiting grace: once its asker has gone
 * @typedef {{ signal?: AbortSignal, transfer?: Transferable[], grace?: number, progress?: OnProgress }} AskOptions
 */

/**
 * A thread that the worker asked for.
 * @param {import('./protocol.js').Thread} what
 * @param {string | undefined} address of worker.js
 * @param {(runs: boolean) => void} tell at least once
 * @returns {Worker[]} none if it cannot be
 */
function startThread(what, address, tell) {
  try {
    const thread = newThread(`bitbrush ${what.thread}`, address);
    thread.onmessage = () => tell(true);
    thread.onerror = event => {
      event.preventDefault(); // one thread less is no error of ours
      tell(false);
    };
    thread.postMessage(what);
    return [thread];
  } catch {
    tell(false);
    return [];
  }
}

/**
 * @param {string | undefined} address
 * @param {(message: any) => void} heard
 * @param {(why: string) => void} died
 * @returns {Promise<Host>}
 */
async function start(address, heard, died) {
  if (typeof Worker === 'function') {
    const worker = newWorker(address),
      all = [worker]; // kept, too, so that no engine ends a thread for want of someone who holds it
    worker.onmessage = ({ data }) => {
      if (!('start' in data)) return heard(data);
      const { thread } = data.start;
      all.push(...startThread(data.start, address, runs => worker.postMessage({ op: 'started', thread, runs })));
    };
    worker.onmessageerror = () => died('a message could not be read');
    worker.onerror = event => died(event.message || 'its script could not be loaded');
    return {
      post: (message, transfer) => worker.postMessage(message, transfer),
      hold() {},
      stop: () => all.forEach(one => one.terminate()),
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
  /** In the order in which the worker serves them. @type {Map<number, Waiting>} */
  #waiting = new Map();
  #last = 0;
  /** Ends the worker if it does not let go of the question in its hands. @type {ReturnType<typeof setTimeout>} */
  #timer = /** @type {any} */ (undefined);
  /** What resolves once nobody's questions are out of the way. @type {(() => void)[]} */
  #patient = [];
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
   * One request, one answer. When the signal fires the promise rejects with its reason at once, whatever the worker is
   * doing; the worker is told to stop, and ended if it is at this request and has not stopped after a grace time.
   * @param {import('./protocol.js').Ask} message
   * @param {AskOptions} [options]
   * @returns {Promise<any>}
   */
  ask(message, { signal, transfer = [], grace = STUCK_MS, progress } = {}) {
    if (this.#dead) return Promise.reject(this.#dead);
    if (signal?.aborted) return Promise.reject(signal.reason);
    const id = ++this.#last;
    const abort = () => this.#leave(id, grace, signal?.reason);
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
      signal?.removeEventListener('abort', abort);
      signal?.throwIfAborted(); // whatever the answer was
    });
  }

  /** Whether the worker still has what was aborted to let go of; a question asked now may end with it. */
  get leaving() {
    for (const { grace } of this.#waiting.values()) if (grace !== undefined) return true;
    return false;
  }

  /** Resolves when it is not `leaving` any more, or closed. @returns {Promise<void>} */
  left() {
    return new Promise(resolve => (this.leaving ? this.#patient.push(resolve) : resolve()));
  }

  /**
   * @param {number} id
   * @param {number} grace
   * @param {unknown} reason
   */
  #leave(id, grace, reason) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    waiting.reject(reason);
    waiting.progress = undefined;
    waiting.grace = grace;
    this.tell({ op: 'cancel', id });
    if (this.#waiting.keys().next().value === id) this.#hurry();
  }

  /** If nobody waits for what the worker has in its hands, it has until the end of the grace time. */
  #hurry() {
    clearTimeout(this.#timer);
    const [first] = this.#waiting.values();
    if (first?.grace === undefined) return;
    if (first.grace <= 0) this.close();
    else this.#timer = setTimeout(() => this.close(), first.grace);
  }

  /** @param {import('./protocol.js').Tell} message */
  tell(message) {
    if (!this.#dead) this.#host.post(message, []);
  }

  /**
   * Ends the worker; everything still asked is rejected. A worker with threads shall do that itself, if it still listens:
   * threads that sleep notice for seconds only what wakes them, and hold the memory.
   */
  close(reason = new BitbrushError('worker', 'the worker has been stopped'), threads = 1) {
    if (this.#dead) return;
    if (threads > 1) this.tell({ op: 'close' });
    this.#dead = reason;
    if (threads > 1) setTimeout(this.#host.stop, STUCK_MS);
    else this.#host.stop();
    clearTimeout(this.#timer);
    for (const { reject } of this.#waiting.values()) reject(reason);
    this.#waiting.clear();
    this.#tellPatient();
  }

  /** @param {number} id */
  #done(id) {
    this.#waiting.delete(id);
    if (!this.#waiting.size) this.#host.hold(false);
    this.#hurry();
    this.#tellPatient();
  }

  #tellPatient() {
    if (!this.leaving) for (const resolve of this.#patient.splice(0)) resolve();
  }

  /** @param {import('./protocol.js').Reply} message */
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

/**
 * Waits no longer than the signal allows; the work itself goes on for the others who wait for it.
 * @template T
 * @param {Promise<T>} work
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
export function orAbort(work, signal) {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    if (signal.aborted) abort();
  });
}
