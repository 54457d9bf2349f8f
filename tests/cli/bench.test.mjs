/** bitbrush bench: what it lists, and what it refuses. Times are looked at only for being there. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { checkpoint, model, ok, refused, repo, run } from './tool.mjs';

const tiny = `${repo}models/tiny.safetensors`;
const once = ['--times', '1', '--json'], brief = ['--seconds', '0', '--quiet', '--json'];
const positive = (x, what) => assert.ok(Number.isFinite(x) && x > 0, `${what} is ${x}`);

test('kernels: every dot way and op, and layers with the way they took', () => {
  const { machine, ways, layers, ops } = ok('bench', '--cpu', 'scalar', '--only', 'sc', ...once);
  assert.ok(machine.cpu && machine.cores >= 1);
  assert.deepEqual([machine.kernels, machine.threads], ['scalar', 1]);
  assert.deepEqual([ways.map(w => w.name), layers, ops], [['scalar'], [], []]);
  const list = readFileSync(`${repo}core/kernels/ops.inc`, 'utf8');
  for (const [, name] of list.matchAll(/^BB_OP\((\w+)/gm)) {
    const op = ok('bench', '--only', name, ...once).ops.find(o => o.name === name);
    assert.match(op?.unit ?? '', name === 'attention' || name.startsWith('conv') ? /^GMAC/ : /^G values/, name);
    positive(op.rate, name);
  }
  for (const level of ['scalar', 'auto']) {
    const { layers } = ok('bench', '--cpu', level, '--only', 'linear_128_196', ...once);
    assert.deepEqual(layers.map(l => l.name.split('.')[1]),
      ['f32', 'w1a4', 'w2a4', 'w2a4_ladder', 'w3a6', 'w4a4', 'w4a8', 'w8a8']);
    for (const l of layers) {
      for (const key of ['median_ms', 'best_ms', 'gmacs', 'times_f32']) positive(l[key], `${l.name} ${key}`);
      assert.equal(l.macs, 128 * 128 * 196);
      if (l.name.endsWith('f32')) continue;
      for (const key of ['resident_gmacs', 'fraction']) positive(l[key], `${l.name} ${key}`);
      assert.ok(level === 'auto' ? l.way : l.way === 'scalar', l.way);
    }
  }
});

test('a dot way by name is taken wherever it fits', () => {
  const { ways } = ok('bench', '--only', '_', ...once);
  const named = ok('bench', '--only', 'linear_128_196.w2a4', '--way', 'scalar', ...once);
  for (const l of named.layers) assert.equal(l.way, 'scalar');
  const { ops } = ok('bench', tiny, '--all', '--way', 'scalar', ...brief).model;
  assert.deepEqual([...new Set(ops.map(op => op.way))].sort(), ['', 'scalar']);
  const tried = ok('bench', '--trial', '--only', '_', ...once).ways;
  assert.deepEqual(tried.map(w => w.name), ways.map(w => w.name));
  for (const w of tried) positive(w.cost, w.name);
  refused(2, [/--way sclar/, /scalar/, ...ways.map(w => new RegExp(w.name))], ['bench', '--way', 'sclar']);
});

test('growth: a fitted exponent a dimension, and mixed planes against their parts', () => {
  const { growth } = ok('bench', '--growth', '--only', 'silu', ...brief);
  assert.deepEqual(growth.map(g => [g.name, g.grows, g.arithmetic]), [['silu_128', 'pixels', 1]]);
  assert.deepEqual(growth[0].at, [64, 256, 1024, 4096]);
  assert.ok(Number.isFinite(growth[0].exponent));
  const { planes } = ok('bench', '--growth', '--only', 'conv3x3_96_28', ...once);
  const mixed = ['w123a4', 'w222a4', 'w123a4_ladder', 'w222a4_ladder', 'w123a8'];
  assert.deepEqual(planes.filter(p => 'times_parts' in p).map(p => p.name), mixed);
  for (const p of planes) positive(p.times_one_plane, p.name);
});

test('growth of a whole step: sizes that the model can draw, and batches', () => {
  const { growth: [sizes, batches] } = ok('bench', model, '--growth', '--times', '1', '--json');
  assert.deepEqual(sizes.points.map(p => [p.height, p.width, p.batch]), [16, 32, 64, 128].map(s => [s, s, 1]));
  assert.deepEqual(batches.points.map(p => [p.height, p.batch]), [1, 2, 4, 8].map(b => [32, b]));
  for (const p of [...sizes.points, ...batches.points]) positive(p.best_ms, `${p.width} ${p.batch}`);
  // attention's products make it more than 1 over pixels; what does not depend on pixels, less
  assert.ok(sizes.arithmetic > 1 && sizes.arithmetic < 1.5, sizes.arithmetic);
  assert.equal(batches.arithmetic, 1);
  assert.ok(Number.isFinite(sizes.exponent) && Number.isFinite(batches.exponent));
  assert.match(ok('bench', tiny, '--growth', '--times', '1'), /exponent over batch/);
});

test('a model: each op with kind, shape and time, and their sums', () => {
  for (const [file, options] of [[tiny, []], [tiny, ['--guidance', '2', '--batch', '2']], [model, ['--steps', '2']]]) {
    const { ops: count, layers } = ok('info', file, '--json');
    const { model: m } = ok('bench', file, '--all', ...options, ...brief);
    const { kinds, ops } = m;
    assert.equal(ops.length, count);
    assert.deepEqual(ops.map(op => op.op), ops.map((_, i) => i));
    assert.equal(ops.filter(op => op.way).length, layers.length, 'layers that name a way');
    for (const op of ops.filter(op => op.runs !== 'in another')) positive(op.ms, op.path);
    for (const op of ops.filter(op => op.runs === 'in another')) {
      assert.match(ops[op.in].kind, /^(conv2d|linear)/, `${op.path} is done in ${ops[op.in].path}`);
      assert.equal(ops[op.in].runs, 'each step');
    }
    // the products of all ops are those that the session counts, but for what is made once
    const each = ops.filter(op => op.runs === 'each step'), sum = (list, key) => list.reduce((s, x) => s + x[key], 0);
    assert.equal(sum(kinds, 'ops'), each.length);
    assert.equal(sum(kinds, 'macs'), sum(each, 'macs'));
    assert.equal(sum(ops, 'macs'), m.macs);
    for (const list of [kinds, each]) {
      assert.ok(Math.abs(sum(list, 'share') - 1) < 0.01);
      assert.ok(Math.abs(sum(list, 'ms') / m.ops_ms - 1) < 1e-3);
    }
    // time embeddings come once a schedule, convolutions at each step
    assert.equal(ops.find(op => op.kind === 'timestep_embedding').runs, 'once');
    assert.ok(ops.filter(op => op.kind.startsWith('conv2d')).every(op => op.runs === 'each step'));
    const products = sum(kinds.filter(k => /^(conv2d|linear)/.test(k.kind)), 'ms') / m.ops_ms;
    assert.ok(Math.abs(products - m.products_share) < 1e-3 && Math.abs(m.products_share + m.rest_share - 1) < 1e-3);
    assert.equal(m.items, options.includes('--batch') ? 4 : 1);
  }
  const apart = ok('bench', tiny, '--all', '--unfused', ...brief).model.ops;
  const fused = ok('bench', tiny, '--all', ...brief).model.ops;
  assert.ok(apart.every(op => op.runs !== 'in another'));
  const inner = fused.filter(op => op.runs === 'in another');
  assert.deepEqual([...new Set(inner.map(op => op.kind))].sort(), ['add', 'group_norm', 'silu']);
  for (const op of inner) assert.ok(op.kind === 'add' ? op.in < op.op : op.in > op.op, `${op.path} in ${fused[op.in].path}`);
  const some = ok('bench', tiny, '--top', '3', ...brief).model.ops;
  assert.equal(some.length, 3);
  assert.deepEqual(some.map(op => op.ms), some.map(op => op.ms).sort((a, b) => b - a));
  assert.equal(ok('bench', tiny, '--size', '26x22', ...brief).model.height, 26);
});

test('tables for people', () => {
  const layers = ok('bench', '--only', 'linear_128_196.w2a4', '--times', '1');
  assert.match(layers, /kernels .*threads: 1[^]*fraction[^]*linear_128_196\.w2a4 /);
  const steps = ok('bench', tiny, '--seconds', '0', '--quiet');
  assert.match(steps, /convolutions, linears and their quantization \d+\.\d %/);
  assert.match(ok('bench', '--help'), /--growth/);
  const { status, stdout } = spawnSync(`${repo}tools/bench-wasm`, ['--help'], { encoding: 'utf8' });
  assert.ok(status === 0 && /^usage: tools\/bench-wasm .*--simd128/.test(stdout));
});

test('tools/bench-train: usage', () => {
  const bench = (...args) => spawnSync(`${repo}tools/bench-train`, args, { encoding: 'utf8' });
  assert.match(bench('--help').stdout, /^usage: tools\/bench-train .*--python/);
  for (const args of [['--batch', '16,0'], ['--rounds', '0'], ['--threads', 'x'], ['--bogus']]) {
    const { status, stderr } = bench(...args);
    assert.equal(status, 2, args.join(' '));
    assert.ok(stderr.includes(args[0]) && stderr.includes('usage'), stderr);
  }
});

test('usage', () => {
  const cases = [
    [['--bogus'], /--bogus/], [['--seconds', '-1'], /--seconds -1/], [['--seconds', 'x'], /--seconds x/],
    [['--times', '0'], /--times 0/], [['--threads', '0'], /--threads 0/], [['--cpu', 'sse'], /--cpu sse/],
    [['--steps', '3'], /MODEL/], [['--only', 'nothing like that'], /nothing like that/],
    [['--growth', '--only', 'nope'], /nope/], [[tiny, '--growth', '--batch', '2'], /--batch/],
    [[tiny, '--times', '1'], /--times/],
    [[tiny, '--steps', '1'], /--steps 1/], [[tiny, '--size', '0x4'], /--size/], [[tiny, tiny], /tiny/],
    [[tiny, '--top', '0'], /--top/], [[tiny, '--only', 'nope'], /nope/],
  ];
  for (const [args, pattern] of cases) refused(2, pattern, ['bench', ...args]);
  refused(1, /absent/, ['bench', '/absent/model']);
  refused(1, /27|26|size|pixels/i, ['bench', model, '--size', '27x3']);
  assert.equal(run('bench', checkpoint, '--seconds', '0', '--steps', '2', '--quiet').status, 0);
});
