/** Which of a module's dot ways are fast on this machine: timed while the model is on its way. */
import { macrotask } from './task.js';

const BATCH_MS = 0.95; // of the clock, more than that: pages' clocks may go in steps of 0.1 ms
const BATCH_TICKS = 3.5; // more than that, too: Firefox's goes in steps of 1 ms, and up to one late
const ROUNDS = 8; // of a call: some 0.003 to 0.03 ms
const MOST_CALLS = 4096; // 12 ms at least
const CYCLES = 4; // at least: the first ones run the code of the engine's quick compiler
const AGREE = 1.1;

/**
 * Calls of a way until the clock has gone on by more than `ms`: when that was, and the multiply-adds; undefined if it
 * does not.
 * @param {any} x @param {number} way @param {number} from @param {number} ms
 */
function runPast(x, way, from, ms) {
  for (let calls = 0, done = 0; calls < MOST_CALLS; calls++) {
    done += x.bbw_trial(way, ROUNDS);
    const now = performance.now();
    if (now - from > ms) return { now, done };
  }
}

/**
 * One batch: ns for each multiply-add, from one tick of the clock to another: whatever its steps, both ends are then as
 * exact as a call is short. Undefined if the clock is too coarse even so.
 * @param {any} x @param {number} way
 */
function batch(x, way) {
  const begun = performance.now();
  const start = runPast(x, way, begun, 0);
  const end = start && runPast(x, way, start.now, Math.max(BATCH_MS, BATCH_TICKS * (start.now - begun)));
  return end && ((end.now - start.now) * 1e6) / end.done;
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
  const least = ways.map(() => [Infinity, Infinity]);
  for (let cycle = 1; ; cycle++) {
    for (const way of ways.keys()) {
      await macrotask();
      if (performance.now() > limit.end) return undefined;
      const ns = batch(x, way);
      if (!ns) return undefined;
      least[way] = [...least[way], ns].sort((a, b) => a - b).slice(0, 2);
    }
    if (cycle >= CYCLES && least.every(([first, second]) => second < AGREE * first)) return least.map(([ns]) => ns);
  }
}
