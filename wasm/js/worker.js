/**
 * Owns the one engine. Requests are served in order, one at a time; a step is cut into slices of a few
 * milliseconds, and between slices the event loop runs, so that `cancel` is heard.
 */
import { BitbrushError, toPlain } from './errors.js';
import { open, receive } from './fetch.js';
import { ofNode } from './places.js';
import { AGAIN, DONE, Engine } from './raw.js';
import { macrotask } from './task.js';
import { timeWays } from './trial.js';

const SLICE_MS = 8;
const TRIAL_MS = 50; // for the trial of dot ways, if the model is there before it is done

/** @type {Engine | undefined} */
let engine;
let session = 0; // number of the drawing in progress, 0 = none
let index = 0,
  total = 0;
let answered = 0; // id of the last request served; they only grow
/** @type {Set<number>} ids that shall stop */
const cancelled = new Set();
/** @type {(message: import('./protocol.js').FromWorker, transfer?: Transferable[]) => void} */
let post;

class Cancelled extends Error {}

/** Threads that the page was asked to start, by number. @type {Map<number, (runs: boolean) => void>} */
const starting = new Map();
/** @type {import('./protocol.js').StartThread} */
const startThread = what =>
  new Promise(resolve => {
    starting.set(what.thread, resolve);
    post({ start: what });
  });

/** @type {Record<string, (message: any) => any>} */
const serve = {
  async load({ id, source, modules, threads, times }) {
    const warn = (/** @type {BitbrushError} */ error) => post({ id, progress: { warning: toPlain(error) } });
    const from = open(source, warn); // while the module compiles
    from.catch(() => {});
    engine = await Engine.create(modules[0], threads, modules[1], startThread);
    const limit = { end: Infinity };
    const trial = timeWays(engine, times, limit);
    trial.catch(() => {});
    try {
      await receive(engine, await from, (loaded, all, phase) =>
        post({ id, progress: { loaded, total: all, ...(phase && { phase }) } }),
      );
    } finally {
      limit.end = performance.now() + TRIAL_MS;
    }
    const ways = engine.useTimes(await trial);
    return { ...engine.info(), ways, threads: await engine.threads };
  },

  begin({ session: number, request }) {
    if (session)
      throw new BitbrushError('busy', 'this model is drawing already: finish or abort that drawing first');
    total = ready().begin(request);
    session = number;
    index = 0;
    return total;
  },

  async step({ id, session: which, preview }) {
    if (!session || which !== session) throw new BitbrushError('worker', 'this drawing has ended');
    const e = ready();
    let ms = 0,
      status = AGAIN;
    while (status === AGAIN) {
      if (cancelled.has(id)) {
        session = 0;
        throw new Cancelled();
      }
      const start = performance.now();
      let now = start;
      while (status === AGAIN && now - start < SLICE_MS) {
        status = e.x.bbw_step(1);
        now = performance.now();
      }
      ms += now - start;
      if (status === AGAIN) await macrotask();
    }
    if (status < 0) session = 0;
    e.check(status);
    const last = status === DONE;
    /** @type {import('./protocol.js').Step} */
    const step = { index: index++, total, ms, memoryBytes: 0 };
    if (last) step.image = /** @type {any} */ (e.picture(true));
    else if (preview) step.preview = e.picture(false);
    if (last) session = 0;
    step.memoryBytes = e.memoryBytes;
    return step;
  },

  png: ({ picture, text }) => ready().png(picture, text),

  async quantize(message) {
    const { quantize } = await import('./make.js'); // pages that only draw never fetch it
    return quantize(message, progress => post({ id: message.id, progress }));
  },
};

function ready() {
  if (!engine) throw new BitbrushError('worker', 'no model is loaded');
  return engine;
}

let queue = Promise.resolve();

/** @param {import('./protocol.js').ToWorker} message */
function receiveMessage(message) {
  if (message.op === 'cancel') {
    if (message.id > answered) cancelled.add(message.id); // overtakes what waits
  } else if (message.op === 'started') {
    starting.get(message.thread)?.(message.runs);
  } else if (message.op === 'close') {
    engine?.x.bbw_threads?.(1);
    globalThis.close();
  } else queue = queue.then(() => answer(message));
}

/** @param {any} message */
async function answer(message) {
  if (message.op === 'end') {
    if (message.session === session) session = 0;
    return;
  }
  try {
    if (cancelled.has(message.id)) throw new Cancelled();
    const ok = await serve[message.op](message);
    post({ id: message.id, ok }, buffersOf(ok));
  } catch (error) {
    post({
      id: message.id,
      error: error instanceof Cancelled ? { code: 'aborted', message: 'aborted' } : toPlain(error),
    });
  }
  answered = message.id;
  cancelled.delete(answered);
}

/** Pictures move, they are not copied. @param {any} value */
function buffersOf(value) {
  const arrays = [value, value?.preview?.data, value?.image?.data];
  return arrays.filter(a => ArrayBuffer.isView(a)).map(a => /** @type {ArrayBuffer} */ (a.buffer));
}

if ('WorkerGlobalScope' in globalThis) {
  const scope = /** @type {any} */ (globalThis);
  post = (message, transfer = []) => scope.postMessage(message, transfer);
  scope.onmessage = (/** @type {MessageEvent} */ event) => receiveMessage(event.data);
} else {
  ofNode('worker_threads').then(threads => {
    const { parentPort } = /** @type {typeof import('node:worker_threads')} */ (threads),
      port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort);
    post = (message, transfer = []) => port.postMessage(message, /** @type {any} */ (transfer));
    port.on('message', receiveMessage);
  });
}
