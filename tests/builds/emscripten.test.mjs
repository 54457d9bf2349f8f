/** The module that Emscripten makes of the same sources draws the committed pictures, through the same loader. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { blobOf, library, listed, modulePath, models } from '../js/common.mjs';
import { fnv1a64, pictures } from '../js/golden.mjs';
import { isRelaxed, opcodesOf } from '../js/opcodes.mjs';
import { beside } from './common.mjs';

const path = beside('emscripten/bitbrush-simd128.wasm');
const bytes = readFileSync(path);
const { load } = await library();
const opened = new Map();
after(() => Promise.all([...opened.values()].map(model => model.dispose())));

/** What Emscripten's own start and stack code shows. Nothing calls it. */
const runtime = /^(__errno_location|__indirect_function_table|_initialize|stack(Alloc|Restore|Save))$/;

test('imports nothing, exports what the lists say', () => {
  const module = new WebAssembly.Module(bytes);
  assert.deepEqual(WebAssembly.Module.imports(module), []);
  const names = WebAssembly.Module.exports(module).map(e => e.name);
  const expected = ['memory', ...listed('', '-for-make', '-for-relaxed')];
  assert.deepEqual(names.filter(name => !runtime.test(name)).sort(), expected.sort());
  assert.deepEqual([...opcodesOf(bytes).keys()].filter(isRelaxed), []);
});

test('is another module than the one of clang', () => assert.ok(!bytes.equals(readFileSync(modulePath))));

for (const { model: name, request, rgba_fnv1a64: hash } of pictures) {
  test(`${name} ${JSON.stringify(request)}`, async () => {
    if (!opened.has(name)) {
      const blob = await blobOf(models.find(m => m.name === name).path);
      opened.set(name, await load(blob, { wasm: pathToFileURL(path) }));
    }
    const model = opened.get(name);
    assert.equal(model.info.kernels, 'wasm_simd128');
    assert.equal(fnv1a64((await model.draw(request)).data), hash);
  });
}
