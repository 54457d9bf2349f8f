/** The wasm kernels against the scalar ones, in the module that tests/kernelcheck_wasm.c makes.
 *  BB_SEED=N takes other cases. */
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

test('the test module is built', () => assert.ok(module, `${path} is missing: cmake --build ${build}`));

test('simd128 equals scalar bit for bit', () => {
  const seed = Number(process.env.BB_SEED ?? 1), failed = kernels.kernelcheck(seed, 300);
  assert.equal(text(kernels.kernelcheck_set()), 'wasm_simd128');
  assert.equal(failed, 0, `seed ${seed}: ${failed} of ${kernels.kernelcheck_count()} differ, the first in ` +
    `${text(kernels.kernelcheck_first())} at element ${kernels.kernelcheck_first_at()}`);
  assert.ok(kernels.kernelcheck_count() > 300 * 12);
});

test('imports nothing', () => assert.deepEqual(WebAssembly.Module.imports(module), []));
