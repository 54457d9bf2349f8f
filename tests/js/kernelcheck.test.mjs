/** The wasm kernels against the scalar ones, in the module that tests/kernelcheck_wasm.c makes.
 *  BB_SEED=N takes other cases; `node tests/js/kernelcheck.test.mjs --bench` prints throughputs instead. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from './common.mjs';

const path = join(build, 'bitbrush-kernelcheck.wasm');
const module = existsSync(path) && new WebAssembly.Module(readFileSync(path));
const { memory, ...kernels } = module ? new WebAssembly.Instance(module).exports : {};

const text = at => {
  const bytes = new Uint8Array(memory.buffer, at);
  return at ? new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0))) : null;
};

/** 10^9 units of work per second, the best of five runs of about 50 ms, after the engine has optimized.
 *  @param {(times: number) => number} run does it, returns the work */
function throughput(runTimes) {
  let best = 0;
  for (let run = 0, times = 1; run < 5; run++) {
    const start = performance.now();
    const work = runTimes(times), ms = performance.now() - start;
    if (ms < 50) {
      times *= 2;
      run = -1;
    } else best = Math.max(best, work / ms / 1e6);
  }
  return best;
}

if (process.argv.includes('--bench')) {
  for (let way = 0, name; (name = text(kernels.kernelcheck_way(way))); way++)
    console.log(`${name.padEnd(28)} ${throughput(times => kernels.kernelcheck_trial(way, times)).toFixed(2)} GMAC/s`);
  console.log(`${''.padEnd(16)} simd128     scalar    10^9 multiply-adds (conv, attention) or values per second`);
  for (let op = 0, name; (name = text(kernels.kernelcheck_bench_name(op))); op++) {
    const [fast, slow] = [0, 1].map(set => throughput(times => kernels.kernelcheck_bench(op, times, set) * times));
    console.log(`${name.padEnd(16)} ${fast.toFixed(2).padEnd(10)}  ${slow.toFixed(2)}`);
  }
} else {
  test('the test module is built', () => assert.ok(module, `${path} is missing: cmake --build ${build}`));

  test('simd128 equals scalar bit for bit', () => {
    const seed = Number(process.env.BB_SEED ?? 1), failed = kernels.kernelcheck(seed, 300);
    assert.equal(text(kernels.kernelcheck_set()), 'wasm_simd128');
    assert.equal(failed, 0, `seed ${seed}: ${failed} of ${kernels.kernelcheck_count()} differ, the first in ` +
      `${text(kernels.kernelcheck_first())} at element ${kernels.kernelcheck_first_at()}`);
    assert.ok(kernels.kernelcheck_count() > 300 * 12);
  });

  test('imports nothing', () => assert.deepEqual(WebAssembly.Module.imports(module), []));
}
