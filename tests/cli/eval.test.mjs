/** bitbrush eval: it goes on after a break, pairs its figures, and its columns are what they say. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { checkpoint, folder, model, ok, refused, repo, run } from './tool.mjs';

const tool = join(resolve(process.env.BB_BUILD ?? join(repo, 'build')), 'bitbrush');
const short = ['--against', checkpoint, '--steps', '2', '--traced', '2', '--resamples', '40'];
const low = join(repo, 'models/fashion-w2a4.safetensors');

/** What must be the same in every run. */
function figures(path) {
  const { seconds, kernels, ...rest } = JSON.parse(readFileSync(path, 'utf8'));
  assert.equal(typeof seconds, 'number');
  assert.equal(typeof kernels, 'string');
  return rest;
}

/** Sends the signal at the first sign of drawn pictures; resolves to [code, signal, stderr]. */
function stopped(signal, args) {
  const child = spawn(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  child.stderr.setEncoding('utf8').on('data', more => {
    text += more;
    if (/^drawing packed/m.test(text)) child.kill(signal);
  });
  return new Promise(done => child.on('close', (code, by) => done([code, by, text])));
}

test('Ctrl-C and kill keep what is drawn, and the same command goes on to the same file', async () => {
  const dir = folder(), [whole, out] = ['whole.json', 'broken.json'].map(name => join(dir, name));
  const args = ['eval', model, ...short, '--images', '24', '--threads', '1'];
  ok(...args, '-o', whole);
  assert.deepEqual(readdirSync(dir), ['whole.json']);

  const [code, , text] = await stopped('SIGINT', [...args, '-o', out]);
  assert.equal(code, 130, text);
  assert.match(text, /interrupted; finished pictures are kept in .*broken\.json\.drawn, and the same command goes on/);
  assert.ok(!existsSync(out));
  assert.equal(readdirSync(`${out}.drawn`).length, 3);

  const [, by] = await stopped('SIGKILL', [...args, '-o', out]);
  assert.equal(by, 'SIGKILL');
  const drawn = join(`${out}.drawn`, readdirSync(`${out}.drawn`)[0]);
  const { status, stderr } = run(...args, '-o', out);
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /drawing (both|float)/, 'what was finished is drawn again');
  assert.deepEqual(figures(out), figures(whole));
  assert.ok(!existsSync(drawn));
  assert.deepEqual(readdirSync(dir).sort(), ['broken.json', 'whole.json']);
});

test('kept pictures serve other evaluations; a damaged file is drawn anew', () => {
  const dir = folder(), kept = join(dir, 'kept'), out = join(dir, 'a.json');
  const args = ['eval', model, ...short, '--images', '4', '--keep', kept];
  ok(...args, '-o', out);
  const files = readdirSync(kept);
  assert.equal(files.length, 3);
  const again = run(...args, '--threads', '1', '-o', join(dir, 'b.json'));
  assert.equal(again.stderr, '', 'something is drawn again');
  assert.deepEqual(figures(join(dir, 'b.json')), figures(out));
  assert.match(run(...args.with(5, '3').with(11, '5')).stderr, /^drawing/, 'more pictures, other steps');
  for (const name of files) {
    const at = join(kept, name), bytes = readFileSync(at);
    bytes[bytes.length - 3] ^= 1;
    writeFileSync(at, bytes);
  }
  const { status, stderr } = run(...args, '-o', join(dir, 'c.json'));
  assert.equal(status, 0);
  assert.equal(stderr.match(/: damaged$/gm)?.length, 3, stderr);
  assert.deepEqual(figures(join(dir, 'c.json')), figures(out));
});

test('differences between two models are paired', () => {
  const dir = folder(), kept = join(dir, 'kept'), [a, b] = ['a.json', 'b.json'].map(name => join(dir, name));
  const common = [...short, '--images', '6', '--keep', kept, '--floor'];
  ok('eval', low, ...common, '-o', a);
  const itself = ok('eval', low, ...common, '--versus', a);
  assert.match(itself, /^PSNR to .*0\.00 \[0\.00, 0\.00\] tie$/m);
  const text = ok('eval', model, ...common, '--versus', a, '-o', b);
  assert.match(text, /^PSNR to the float.* better$/m);
  assert.match(text, /^relative epsilon error .* better$/m);
  const [x, y] = [figures(a), figures(b)], d = y.versus.difference;
  for (const key of ['psnr', 'ssim', 'eps', 'eps_first5']) {
    assert.ok(Math.abs(d[key][0] - (y.figures[key][0] - x.figures[key][0])) <= 2e-5 * Math.abs(x.figures[key][0]), key);
    assert.ok(d[key][1] <= d[key][0] && d[key][0] <= d[key][2], key);
    assert.equal(y.draws[key].length, 40);
  }
  assert.equal(y.figures.distance, undefined, 'no classifier was asked for');
  assert.ok(y.floor.psnr[0] < y.figures.psnr[0]);
  refused(2, /"images"/, ['eval', model, ...short, '--images', '5', '--keep', kept, '--versus', a, '--quiet']);
  writeFileSync(b, '{"images":');
  refused(1, /not JSON/, ['eval', model, ...common, '--versus', b, '--quiet']);
});

test('two ranks draw what one process does', t => {
  const libraries = spawnSync('ldd', [tool], { encoding: 'utf8' }).stdout ?? '';
  if (!/libmpi/.test(libraries) || spawnSync('mpirun', ['--version']).status !== 0) return t.skip('built without MPI');
  const dir = folder(), [one, two] = ['one.json', 'two.json'].map(name => join(dir, name));
  const args = ['eval', model, ...short, '--images', '11', '--threads', '1', '--quiet', '-o'];
  ok(...args, one);
  const { status, stderr } = spawnSync('mpirun',
    ['--allow-run-as-root', '--oversubscribe', '-n', '2', tool, ...args, two], { encoding: 'utf8', timeout: 600000 });
  assert.equal(status, 0, stderr);
  assert.deepEqual(figures(two), figures(one));
  return assert.deepEqual(readdirSync(dir).sort(), ['one.json', 'two.json']);
});

test('what it refuses', () => {
  const dir = folder();
  writeFileSync(join(dir, 'c.safetensors'), 'nothing');
  refused(1, /c\.safetensors/, ['eval', model, ...short, '--classifier', join(dir, 'c.safetensors'), '--quiet']);
  refused(1, /fashion-w4a8\.safetensors/, ['eval', model, ...short, '--classifier', model, '--quiet']);
  refused(2, /--real/, ['eval', '--train-classifier', join(dir, 'c')]);
  refused(1, /cannot make the folder/, ['eval', model, ...short, '--keep', join(dir, 'no', 'where'), '--quiet']);
});
