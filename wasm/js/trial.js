/** Which of a module's dot ways are fast on this machine: timed while the model is on its way. */
import { macrotask } from './task.js';

const BATCH_MS = 1; // clocks of pages may go in steps of 0.1 ms
const MOST_ROUNDS = 4096; // some milliseconds, where the clock goes in larger ones
const CYCLES = 4; // at least: the first ones run the code of the engine's quick compiler
const AGREE = 1.1;

/**
 * One batch: ns for each multiply-add. `rounds` of it are kept for the next time.
 * @param {any} x @param {number} way @param {number[]} rounds
 */
function batch(x, way, rounds) {
  for (;; rounds[way] *= 2) {
    const start = performance.now();
    const done = x.bbw_trial(way, rounds[way]);
    const ms = performance.now() - start;
    if (ms >= BATCH_MS || rounds[way] >= MOST_ROUNDS) return (ms * 1e6) / done;
  }
}

/**
 * Times of a multiply-add by each way, ns: the least of batches that are made in turn until the least two of each way
 * agree. Undefined if there is no choice, if the clock is too coarse, or if they do not agree in time.
 * @param {import('./raw.js').Engine} engine
 * @param {Record<string, number>} known from an earlier trial, by the names of ways
 * @param {{ end: number }} limit by performance.now(); may change meanwhile
 */
export async function timeWays({ x, ways }, known, limit) {
  if (ways.length < 2) return undefined;
  if (ways.every(name => name in known)) return ways.map(name => known[name]);
  const least = ways.map(() => [Infinity, Infinity]),
    rounds = ways.map(() => 32);
  for (let cycle = 1; ; cycle++) {
    for (const way of ways.keys()) {
      await macrotask();
      if (performance.now() > limit.end) return undefined;
      least[way] = [...least[way], batch(x, way, rounds)].sort((a, b) => a - b).slice(0, 2);
      if (!least[way][0]) return undefined;
    }
    if (cycle >= CYCLES && least.every(([first, second]) => second < AGREE * first)) return least.map(([ns]) => ns);
  }
}
