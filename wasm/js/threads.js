/** Threads for an instance on shared memory, each a worker that runs thread.js. */

/** As large as the stack that the linker gives the first instance, which runs the same code from further up. */
const STACK = 65536;
/** What a thread needs: a stack, and below it another one for a module on top. */
export const STACKS = 2 * STACK;
const START_MS = 2000;

/**
 * Starts threads 1 to count − 1. Resolves to how many there are, the caller's included; those that have not answered in
 * time are not counted, but may still come, and nothing ever waits for one.
 * @param {import('./protocol.js').StartThread} start
 * @param {Omit<import('./protocol.js').Thread, 'thread' | 'stack' | 'stackAbove'>} what
 * @param {number} stacks address where their stacks begin: (count − 1) · STACKS bytes
 * @param {number} count
 */
export async function startThreads(start, what, stacks, count) {
  let running = 1;
  const all = Array.from({ length: count - 1 }, async (_, i) => {
    const stack = stacks + (i + 1) * STACKS;
    if (await start({ ...what, thread: i + 1, stack, stackAbove: stack - STACK })) running++;
  });
  await Promise.race([Promise.allSettled(all), new Promise(resolve => setTimeout(resolve, START_MS))]);
  return running;
}
