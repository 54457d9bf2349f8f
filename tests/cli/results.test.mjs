/** tools/reproduce-results: its rows, what it appends and skips, and the table of it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
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
    for (const method of ['rtn', 'mse', 'efficientdm', 'mpq-dm', 'mpq-dm-v2', 'best'])
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
