/** tools/reproduce-results: its rows, what it appends and skips, and the table of it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { test } from 'node:test';
import { folder, repo } from './tool.mjs';

const build = resolve(process.env.BB_BUILD ?? join(repo, 'build'));
const script = (...args) => spawnSync(process.execPath, [join(repo, 'tools/reproduce-results'), ...args],
  { encoding: 'utf8' });

/** A folder of 16 test pictures of 28 × 28 in IDX files. */
function idx() {
  const dir = folder(), n = 16, pixels = Buffer.alloc(n * 784);
  for (let i = 0; i < pixels.length; i++) pixels[i] = i * i % 251;
  const head = Buffer.from([0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28]);
  const labels = Array.from({ length: n }, (_, i) => i % 10);
  writeFileSync(join(dir, 't10k-images-idx3-ubyte'), Buffer.concat([head, pixels]));
  writeFileSync(join(dir, 't10k-labels-idx1-ubyte'), Buffer.from([0, 0, 8, 1, 0, 0, 0, n, ...labels]));
  return dir;
}

test('the rows of the comparison', () => {
  const { stdout, status } = script('--list', '--build', build, '--out', join(folder(), 'r.json'));
  assert.equal(status, 0);
  const names = stdout.trim().split('\n');
  for (const bits of ['w4a4', 'w3a6', 'w2a4'])
    for (const method of ['rtn', 'mse', 'efficientdm', 'mpq-dm', 'mpq-dm-v2'])
      assert.ok(names.includes(`${method}/${bits}`));
  assert.equal(names.filter(name => /-no-/.test(name)).length, 8);
  assert.equal(new Set(names).size, names.length);
  assert.equal(script('--only', 'nothing', '--build', build).status, 2);
  assert.equal(script('--images', 'many').status, 2);
});

test('a row whose recipe changed is to be made anew', () => {
  const out = join(folder(), 'r.json'), list = (...args) =>
    script('--list', '--only', 'rtn/w4a4', '--build', build, '--out', out, ...args).stdout.trim();
  const { rows } = JSON.parse(readFileSync(join(repo, 'models/results.json'), 'utf8'));
  const row = rows.find(({ method, bits }) => method === 'rtn' && bits === 'w4a4');
  const write = changed => writeFileSync(out, JSON.stringify({ rows: [{ ...row, ...changed }] }));
  write({});
  assert.equal(list(), 'rtn/w4a4 (made)');
  assert.equal(list('--budget', '20m'), 'rtn/w4a4');
  write({ preset: row.preset.replace('--range minmax', '--range p2.4') });
  assert.equal(list(), 'rtn/w4a4');
  write({ teacher: '0123456789abcdef' });
  assert.equal(list(), 'rtn/w4a4');
});

const skip = !existsSync(join(repo, 'models/fashion-classifier.safetensors'));

test('a row is made once, and stands in the table', { skip }, () => {
  const out = join(folder(), 'r.json'), at = folder();
  const args = ['--only', 'shipped/w8a8', '--images', '4', '--real', idx(), '--build', build, '--out', out];
  const first = script(...args);
  assert.equal(first.status, 0, first.stderr);
  const { rows: [row, ...more] } = JSON.parse(readFileSync(out, 'utf8'));
  assert.equal(more.length, 0);
  assert.equal(row.method, 'shipped');
  assert.equal(row.bits, 'w8a8');
  for (const key of ['eps_error', 'kid', 'accuracy', 'psnr', 'bytes', 'minutes', 'images', 'seed', 'seconds', 'ssim',
    'precision', 'recall'])
    assert.equal(typeof row[key], 'number', key);
  for (const key of ['distance_teacher', 'distance']) {
    assert.equal(row[key].length, 3, key);
    assert.ok(row[key][1] <= row[key][0] && row[key][0] <= row[key][2], key);
  }
  assert.match(row.commit, /^[0-9a-f]{12}$|^unknown$/);
  const again = script(...args);
  assert.equal(again.status, 0);
  assert.equal(again.stderr, '', 'the row is made again');
  assert.equal(JSON.parse(readFileSync(out, 'utf8')).rows.length, 1);
  assert.match(script('--table', '--out', out).stdout, /\| W8A8, 4 pictures [^]*\| shipped \|/);
  writeFileSync(join(at, 'bad.json'), '{}');
  const bad = script('--table', '--out', join(at, 'bad.json'));
  assert.equal(bad.status, 1);
  assert.match(bad.stderr, /bad\.json/);
});

test('rows are compared by the resamples kept beside the results', { skip }, () => {
  const out = join(folder(), 'r.json');
  const intervals = { distance_teacher: 2, distance: 5, eps: 1, psnr: 20, accuracy: 0.5 };
  const args = ['--only', 'shipped/w8a8', '--images', '4', '--real', idx(), '--build', build, '--out', out];
  const keys = Object.keys(intervals), resamples = join(dirname(out), 'resamples');
  // Five resamples each: mse is 1 lower in all, but for `distance`, where the difference is 1 ± 2.
  const words = of => Buffer.from(Uint16Array.from(of).buffer).toString('base64');
  const keep = (method, lower, last) => writeFileSync(join(resamples, `${method}-w4a4-4.json`), JSON.stringify(
    Object.fromEntries(keys.map(key => [key, [intervals[key] - lower, 0, 0.5,
      words(key === 'distance' ? last : [7, 8, 9, 10, 11].map(x => x - 2 * lower))]]))));
  const row = (method, lower) => ({ method, bits: 'w4a4', images: 4, intervals:
    Object.fromEntries(keys.map(key => [key, [intervals[key] - lower]])) });
  const compared = () => JSON.parse(readFileSync(out, 'utf8')).rows.find(({ method }) => method === 'mse');
  const run = rows => {
    writeFileSync(out, JSON.stringify({ rows }));
    const { status, stderr } = script(...args);
    assert.equal(status, 0, stderr);
  };
  mkdirSync(resamples);
  keep('rtn', 0, [10, 10, 10, 10, 10]);
  keep('mse', 1, [4, 6, 8, 10, 12]);
  run([row('rtn', 0), row('mse', 1)]);
  assert.equal(compared().versus.method, 'rtn');
  assert.deepEqual(compared().versus.psnr, [-1, -1, -1]);
  assert.deepEqual(compared().versus.distance, [-1, -2.9, 0.9]);
  assert.deepEqual(compared().order, { distance_teacher: 'better', distance: 'tie', eps: 'better', psnr: 'worse',
    accuracy: 'worse' });
  const kept = JSON.parse(readFileSync(join(resamples, 'shipped-w8a8-4.json'), 'utf8'));
  const made = JSON.parse(readFileSync(out, 'utf8')).rows.find(({ method }) => method === 'shipped');
  assert.equal(Number(kept.psnr[0].toPrecision(6)), made.psnr);
  const bytes = Buffer.from(kept.psnr[3], 'base64'), draws = new Uint16Array(new Uint8Array(bytes).buffer);
  const at = draws.map(x => x).sort()[25] * kept.psnr[2] + kept.psnr[1];
  assert.ok(Math.abs(at - made.intervals.psnr[1]) < 0.5, `${at} is not the low end ${made.intervals.psnr[1]}`);
  const { versus, order } = compared();
  run([row('rtn', 0), row('mse', 2)]); // the resamples are of another model than the row
  assert.equal(compared().versus, undefined);
  writeFileSync(join(resamples, 'rtn-w4a4-4.json'), '{}');
  run([row('rtn', 0), { ...row('mse', 1), versus, order }]); // said when there were resamples, and still so
  assert.deepEqual(compared().versus, versus);
  run([row('rtn', 0.5), { ...row('mse', 1), versus, order }]); // rtn was made anew
  assert.equal(compared().versus, undefined);
  assert.equal(compared().order, undefined);
});
