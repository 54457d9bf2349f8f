/** Threads for an instance on shared memory, each a worker that runs thread.js. */
import { newThread } from './places.js';

/** As large as the stack that the linker gives the first instance, which runs the same code from further up. */
const STACK = 65536;
/** What a thread needs: a stack, and below it another one for a module on top. */
export const STACKS = 2 * STACK;
const START_MS = 1000;

/** Kept, so that no engine ends a worker for want of someone who holds it. @type {Worker[]} */
const workers = [];

/** @param {import('./protocol.js').Thread} what @returns {Promise<boolean>} whether it runs */
function start(what) {
  return new Promise(resolve => {
    try {
      const worker = newThread(`bitbrush ${what.thread}`);
      workers.push(worker);
      worker.onmessage = () => resolve(true);
      worker.onerror = event => {
        event.preventDefault(); // one thread less is no error of ours
        resolve(false);
      };
      worker.postMessage(what);
    } catch {
      resolve(false);
    }
  });
}

/**
 * Starts threads 1 to count − 1, one after the other: Firefox may never return from `new Worker` in a worker while another
 * one starts. Resolves to how many threads there are, the caller's included; those that have not answered in time are
 * not counted, but may still come, and nothing ever waits for one.
 * @param {Omit<import('./protocol.js').Thread, 'thread' | 'stack' | 'stackAbove'>} what
 * @param {number} stacks address where their stacks begin: (count − 1) · STACKS bytes
 * @param {number} count
 */
export async function startThreads(what, stacks, count) {
  let running = 1,
    late = false;
  const all = (async () => {
    for (let thread = 1; thread < count && !late; thread++) {
      const stack = stacks + thread * STACKS;
      if (await start({ ...what, thread, stack, stackAbove: stack - STACK })) running++;
    }
  })();
  await Promise.race([all, new Promise(resolve => setTimeout(resolve, START_MS))]);
  late = true;
  return running;
}
