/**
 * The committed pictures: every kernel set and thread count natively, and WebAssembly, draw the bytes whose hash stands
 * in tests/golden.json. `node tests/golden-update.mjs` rewrites the hashes, for a commit of its own.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { blobOf, library, models } from './common.mjs';
import { fnv1a64, nativeHash, pictures } from './golden.mjs';

const { load } = await library();
const ways = [[], ['--cpu=scalar'], ['--cpu=avx2'], ['--cpu=avx512'], ['--threads=1'], ['--threads=2']];
const opened = new Map(); // wasm models by path
async function wasmModel(path) {
  if (!opened.has(path)) opened.set(path, await load(await blobOf(path)));
  return opened.get(path);
}
after(() => Promise.all([...opened.values()].map(model => model.dispose())));

test('pictures are listed and differ', () => {
  assert.ok(pictures.length >= 28);
  assert.equal(new Set(pictures.map(p => p.rgba_fnv1a64)).size, pictures.length);
  assert.equal(fnv1a64(Buffer.from('foobar')), '85944171f73967e8', 'the published test vector');
});

test('every sampler that the module has draws one, and the types name the same', async () => {
  const { info } = await wasmModel(models.find(m => m.name === 'tiny').path);
  const drawn = new Set(pictures.map(p => p.request.sampler ?? 'default'));
  assert.deepEqual([...info.samplers].sort(), [...drawn, 'ddim'].sort());
  const types = readFileSync(new URL('../../wasm/js/index.d.ts', import.meta.url), 'utf8');
  const union = /type SamplerName =([^;]*);/.exec(types)[1];
  assert.deepEqual([...union.matchAll(/'([^']+)'/g)].map(m => m[1]), [...info.samplers]);
});

for (const { model: name, request, rgba_fnv1a64: hash } of pictures) {
  test(`${name} ${JSON.stringify(request)}`, async t => {
    const { path } = models.find(m => m.name === name) ?? assert.fail(`models/${name}.safetensors is missing`);
    let png;
    for (const options of ways) {
      const drawn = nativeHash(path, request, ...options);
      if (drawn.lacking) {
        t.diagnostic(`not tried: ${drawn.lacking}`);
        continue;
      }
      assert.equal(drawn.hash, hash, `native ${options}, kernels ${drawn.kernels}`);
      if (options[0]?.startsWith('--threads')) assert.equal(drawn.threads, Number(options[0].at(-1)));
      if (options[0] === '--cpu=scalar') assert.equal(drawn.kernels, 'scalar');
      png = drawn.png;
    }
    const model = await wasmModel(path),
      mine = await model.draw(request);
    assert.equal(model.info.kernels, 'wasm_simd128');
    assert.equal(fnv1a64(mine.data), hash, 'wasm in Node');
    assert.deepEqual(Buffer.from(await model.png(mine)), png, 'the PNG file too');
  });
}
