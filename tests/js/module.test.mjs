/** The module's border: exports.txt is the only door, nothing is imported, nothing allocates. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { exportsPath, modulePath } from './common.mjs';

const bytes = readFileSync(modulePath);
const module = new WebAssembly.Module(bytes);
const exported = WebAssembly.Module.exports(module);

test('imports nothing', () => assert.deepEqual(WebAssembly.Module.imports(module), []));

test('exports what exports.txt says, and its memory', () => {
  const listed = readFileSync(exportsPath, 'utf8').split('\n').filter(Boolean);
  assert.deepEqual(exported.map(e => e.name).sort(), [...listed, 'memory'].sort());
});

// That it does not grow its memory while drawing is in draw.test.mjs.
test('shows no allocator and no trainer', () => {
  for (const { name } of exported) assert.doesNotMatch(name, /alloc|free|sbrk|grad/);
});

test('starts with little memory', () => {
  const { memory } = new WebAssembly.Instance(module).exports;
  assert.ok(memory.buffer.byteLength <= 2 ** 20, `${memory.buffer.byteLength} bytes before any model`);
});
