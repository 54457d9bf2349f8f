/** Threads for an instance on shared memory, each a worker that runs thread.js. */
import { newThread } from './places.js';

/** As large as the stack that the linker gives the first instance, which runs the same code from further up. */
export const STACK = 65536;
const START_MS = 1000;

/** The one import of a module that can have threads, env.memory, up to the flags of its limits. */
const MEMORY = [1, 3, ...new TextEncoder().encode('env'), 6, ...new TextEncoder().encode('memory'), 2];
const MAXIMUM = 1, // a memory with a maximum; threads need one
  SHARED = 2;
const IMPORTS = 2; // the section's number

/**
 * Makes a module that imports its memory take a shared one, or one that is not. Everything else is the same for both:
 * atomic instructions work on either. Returns whether it imports a memory; one that imports nothing stays as it is.
 * (The linker marks it shared, or it would not make data that only the first instance of a memory writes there.)
 * @param {Uint8Array} module
 * @param {boolean} shared
 */
export function setShared(module, shared) {
  let at = 8;
  const number = () => { // LEB128
    let value = 0;
    for (let shift = 1, byte = 128; byte > 127; shift *= 128) value += ((byte = module[at++]) & 127) * shift;
    return value;
  };
  while (at < module.length) {
    const section = number(),
      end = number() + at;
    if (section === IMPORTS) {
      const flags = at + MEMORY.length;
      if (MEMORY.some((byte, i) => module[at + i] !== byte) || (module[flags] & ~SHARED) !== MAXIMUM)
        throw new Error('it does not import just a memory with a maximum');
      module[flags] = shared ? MAXIMUM | SHARED : MAXIMUM;
      return true;
    }
    at = end;
  }
  return false;
}

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
 * Starts threads 1 to count − 1. Resolves to how many threads there are, the caller's included; those that have not
 * answered in time are not counted, but may still come, and nothing ever waits for one.
 * @param {WebAssembly.Module} module
 * @param {WebAssembly.Memory} memory
 * @param {number} stacks address where their stacks begin: (count − 1) · STACK bytes
 * @param {number} count
 */
export async function startThreads(module, memory, stacks, count) {
  let running = 1;
  const answers = Array.from({ length: count - 1 }, async (_, i) => {
    if (await start({ module, memory, thread: i + 1, stack: stacks + (i + 1) * STACK })) running++;
  });
  await Promise.race([Promise.all(answers), new Promise(resolve => setTimeout(resolve, START_MS))]);
  return running;
}
