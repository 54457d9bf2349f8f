/** bb_par_for of modules with threads, over worker_threads.
 *  `node tests/js/par.test.mjs --bench` prints what a round costs instead. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { build } from './common.mjs';

const module = new WebAssembly.Module(readFileSync(join(build, 'bitbrush-parcheck.wasm')));
const STACK = 65536;

/** A thread as js/thread.js is one. */
const THREAD = `
  const { parentPort, workerData: { module, memory, thread, stack } } = require('node:worker_threads');
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  exports.__stack_pointer.value = stack;
  parentPort.postMessage('ready');
  try {
    exports.bb_par_work(thread);
    parentPort.postMessage('left');
  } catch { exports.bb_par_broke() }`;

/** An instance, and `more(n)` to start that many threads and wait for them. */
function open() {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 65536, shared: true });
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  const threads = [];
  return {
    ...exports,
    async more(n) {
      for (let i = 0; i < n; i++) {
        const thread = threads.length + 1, stack = exports.__heap_base.value + thread * STACK;
        const worker = new Worker(THREAD, { eval: true, workerData: { module, memory, thread, stack } });
        threads.push(worker);
        await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
      }
    },
    left: () =>
      Promise.all(threads.map(worker => new Promise(resolve => worker.on('message', m => m === 'left' && resolve())))),
    close: () => Promise.all(threads.map(worker => worker.terminate())),
  };
}

if (process.argv.includes('--bench')) {
  console.log('items  work    µs per round with 1, 2, 3 threads, best of 30 runs of 200');
  const pool = open();
  await pool.more(2);
  for (const items of [2, 16, 64]) {
    for (const work of [0, 1000, 10000]) {
      const best = [Infinity, Infinity, Infinity];
      for (let run = 0; run < 30; run++) {
        for (const i of [0, 1, 2]) {
          const start = performance.now();
          pool.parcheck_bench(i + 1, 200, items, work);
          best[i] = Math.min(best[i], ((performance.now() - start) * 1000) / 200);
        }
      }
      const row = [String(items).padEnd(5), String(work).padEnd(6), ...best.map(us => us.toFixed(2).padStart(8))];
      console.log(row.join('  '));
    }
  }
  await pool.close();
} else {
  test('every item once and in its round, with any number of threads, there or not', async () => {
    const pool = open();
    for (const started of [0, 1, 2, 3]) {
      await pool.more(started && 1);
      for (const threads of [1, 2, 3, 4, 5]) assert.equal(pool.parcheck_test(threads, 100), 0);
    }
    await pool.close();
  });

  test('threads may come in the middle', async () => {
    const pool = open();
    const coming = pool.more(2);
    for (let run = 0; run < 20; run++) {
      assert.equal(pool.parcheck_test(3, 50), 0);
      await new Promise(setImmediate);
    }
    await coming;
    assert.equal(pool.parcheck_test(3, 50), 0);
    await pool.close();
  });

  test('a pool that stops lets its threads go, asleep or still to come', { timeout: 60000 }, async () => {
    const pool = open();
    await pool.more(2);
    assert.equal(pool.parcheck_test(3, 50), 0);
    await new Promise(resolve => setTimeout(resolve, 100)); // asleep by now, as a rule
    const left = pool.left();
    pool.parcheck_stop(3);
    await left;
    await pool.more(1);
    await pool.close();
  });

  test('a thread that sleeps is woken, and its trap is one in the caller', async () => {
    const pool = open();
    await pool.more(1);
    await new Promise(resolve => setTimeout(resolve, 100)); // asleep by now, as a rule
    assert.throws(() => pool.parcheck_trap(2), WebAssembly.RuntimeError);
    await pool.close();
  });
}
