/** The same bytes natively and in WebAssembly, for every packed model and several requests. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blobOf, library, models, native, sha256 } from './common.mjs';

const { load } = await library();
assert.ok(models.length, 'no packed model in models/');

for (const { name, path } of models) {
  test(`${name}: wasm in Node = native = native scalar`, async t => {
    const model = await load(await blobOf(path));
    assert.equal(model.info.kernels, 'wasm_simd128');
    const { classes, nullLabel, trainSteps } = model.info;
    const requests = [
      { seed: 1, steps: 4 },
      { seed: '18446744073709551557', steps: 3 },
      { seed: 2, steps: 2, eta: 0.5 },
    ].map((r, i) => ({
      ...r,
      steps: Math.min(r.steps, trainSteps),
      ...(classes ? { label: i % classes } : {}),
      guidance: nullLabel === null || i === 1 ? 1 : 2.5,
    }));
    for (const request of requests) {
      const mine = await model.draw(request),
        { data, png } = native(path, request);
      assert.equal(sha256(mine.data), sha256(data), JSON.stringify(request));
      assert.deepEqual(Buffer.from(await model.png(mine)), png, 'the PNG file too');
      assert.equal(
        sha256(native(path, request, '--cpu', 'scalar').data),
        sha256(data),
        `${JSON.stringify(request)}, scalar`,
      );
      t.diagnostic(`${JSON.stringify(request)} ${sha256(data)}`);
    }
    await model.dispose();
  });
}
