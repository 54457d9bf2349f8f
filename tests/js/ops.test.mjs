/** tools/bench-ops: which op a time belongs to, with the simd128 module in Node; and its options. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { orderOf, summarize } from '../../tools/peers/ops.mjs';
import { middle, timeOps } from '../../tools/peers/ops-run.mjs';
import { golden, modulePath, models, site } from './common.mjs';
import { readModel } from './reader.mjs';

const root = join(golden, '../..');

test('the middle half', () => {
  assert.equal(middle([]), null);
  assert.equal(middle([3]), 3);
  assert.equal(middle([1000, 2, 4, 0]), 3);
});

for (const guidance of [1, 2])
  test(`each op of the tiny model gets its time, guidance ${guidance}`, async () => {
    const { Engine } = await import(pathToFileURL(join(site, 'js/raw.js')).href);
    const { path } = models.find(m => m.name === 'tiny'), file = new Uint8Array(readFileSync(path));
    const model = readModel(file);
    const engine = await Engine.create(pathToFileURL(modulePath).href);
    const timed = timeOps(engine, file, orderOf(model.graph), { steps: 3, guidance, seconds: 0, warm: 0 });
    const s = summarize(model, timed), sum = (list, key) => list.reduce((a, b) => a + b[key], 0);
    assert.equal(s.kernels, 'wasm_simd128');
    assert.equal(s.steps, 2);
    // made at each step is what changes with the picture; the rest once, for one class and all timesteps
    for (const op of s.ops) {
      const rate = model.graph.values[model.graph.ops[op.op].value].rate;
      const right = op.runs === 'in another' ? rate === 3 : (op.runs === 'each step') === (rate === 3);
      assert.ok(right, `${op.path} of rate ${rate} runs ${op.runs}`);
    }
    assert.ok(s.ops.filter(op => op.kind === 'conv2d 3x3').every(op => op.runs === 'each step' && op.ms > 0));
    assert.ok(s.once_ms > 0 && s.step_ms > 0);
    assert.ok(Math.abs(sum(s.kinds, 'share') - 1) < 1e-9 && Math.abs(sum(s.kinds, 'ms') - s.ops_ms) < 1e-9);
    const products = s.kinds.filter(k => /^(conv|linear)/.test(k.kind));
    assert.ok(Math.abs(sum(products, 'share') - s.products_share) < 1e-9 && s.rest_share > 0);
  });

test('bench-ops tells wrong options from right ones before it installs anything', () => {
  const run = (...args) => spawnSync(join(root, 'tools/bench-ops'), args, { encoding: 'utf8' });
  const model = join(root, 'models/tiny.safetensors');
  assert.match(run('--help').stdout, /^usage: tools\/bench-ops MODEL .*--modules/);
  const cases = [['--seconds', 'x', model], ['--modules', 'avx2', model], ['--json'], ['--fast', model], [model, 'two']];
  for (const args of cases) {
    const { status, stdout, stderr } = run(...args);
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^bench-ops: /);
    assert.ok(args.some(word => word !== model && stderr.includes(word)), stderr);
  }
  assert.equal(run().status, 2);
  const absent = run('/absent/model');
  assert.deepEqual([absent.status, absent.stdout], [1, '']);
  assert.match(absent.stderr, /absent/);
});
