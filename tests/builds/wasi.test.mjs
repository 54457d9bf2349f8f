/** The command line under node:wasi against the native one: the same files, the same text, the same exit codes. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build, models } from '../js/common.mjs';
import { runTool } from '../../tools/peers/wasi.mjs';
import { beside } from './common.mjs';

const module = beside('wasi/bitbrush.wasm');
const folder = mkdtempSync(join(tmpdir(), 'bitbrush-wasi-'));
after(() => rmSync(folder, { recursive: true }));
const repo = fileURLToPath(new URL('../..', import.meta.url));
for (const side of ['native', 'wasi']) {
  mkdirSync(join(folder, side));
  for (const { name, path } of models) cpSync(path, join(folder, side, `${name}.safetensors`));
  cpSync(join(repo, 'tests/golden/unet2d-class'), join(folder, side, 'checkpoint'), { recursive: true });
}

/** { code, out, err } of a command, by each side in its own copy of the folder. */
function run(program, args, side) {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: join(folder, side), encoding: 'utf8' });
  return { code: status, out: stdout, err: stderr };
}
const native = args => run(join(build, 'bitbrush'), args, 'native');
const runner = fileURLToPath(new URL('wasi-run.mjs', import.meta.url));
const wasi = args => run(process.execPath, ['--no-warnings', runner, module, '.', ...args], 'wasi');

/** Runs both; the named files, and what they print but for times and machines, are the same. */
function same(args, ...files) {
  const [a, b] = [native(args), wasi(args)];
  assert.equal(a.code, 0, a.err);
  assert.equal(b.code, 0, b.err);
  for (const file of files) {
    const [mine, theirs] = ['wasi', 'native'].map(side => readFileSync(join(folder, side, file)));
    assert.ok(theirs.length > 0 && mine.equals(theirs), `${file} of ${args.join(' ')} differs from the native one`);
  }
  return [a, b];
}

test('generate: the same PNG files', () => {
  for (const { name } of models) {
    const options = ['--seed', '7', '--steps', '3', '--quiet', '--json', '-o', `${name}.png`];
    const sides = same(['generate', `${name}.safetensors`, ...options], `${name}.png`);
    const [a, b] = sides.map(side => JSON.parse(side.out));
    assert.equal(b.kernels, 'wasm_simd128');
    assert.equal(b.threads, 1);
    assert.equal(b.rgba_fnv1a64, a.rgba_fnv1a64);
  }
});

test("the page's own WASI: the same as node:wasi gives", async () => {
  const { path } = models.find(m => m.name === 'tiny'), compiled = await WebAssembly.compile(readFileSync(module));
  const page = (...args) => runTool(compiled, ['bitbrush', ...args], { 'tiny.safetensors': readFileSync(path) });
  for (const words of ['info tiny.safetensors', 'info absent', 'info .', 'bench --bogus', '--help']) {
    const args = words.split(' ');
    assert.deepEqual(await page(...args), wasi(args), words);
  }
  const { code, out, err } = await page('bench', 'tiny.safetensors', '--seconds', '0', '--quiet', '--json');
  assert.deepEqual([code, err], [0, '']);
  const { machine, model } = JSON.parse(out);
  assert.deepEqual([machine.kernels, machine.threads], ['wasm_simd128', 1]);
  assert.ok(model.step_ms > 0 && model.ops.some(op => op.way.startsWith('wasm_simd128')));
  assert.equal((await page('generate', 'tiny.safetensors', '-o', 'x.png')).code, 1); // its files cannot be written
});

test('import, quantize, run: the same bytes; eval and info: the same text', () => {
  same(['import', 'checkpoint', '-o', 'float.safetensors', '--dtype', 'f16'], 'float.safetensors');
  const bits = ['--wbits', '3', '--abits', '6', '--images', '2', '--steps', '5', '--quiet'];
  same(['quantize', 'checkpoint', '-o', 'low.safetensors', ...bits], 'low.safetensors');
  const input = ['--in', 'checkpoint/golden.safetensors', '--out', 'out.safetensors', '--tap', 'mid_block'];
  same(['run', 'low.safetensors', ...input], 'out.safetensors');
  const [a, b] = same(['info', 'low.safetensors']);
  assert.equal(b.out, a.out);
  const short = ['--images', '1', '--steps', '2', '--quiet'];
  const [c, d] = same(['eval', 'low.safetensors', '--against', 'checkpoint', ...short]);
  assert.equal(d.out, c.out);
});

test('site: the same folder', () => {
  for (const side of ['native', 'wasi'])
    cpSync(join(repo, 'web/index.html'), join(folder, side, 'page/index.html'), { recursive: true });
  const out = ['site.json', 'index.html', 'models/tiny.classes.png', 'models/fashion-w4a8.safetensors.003'];
  const options = ['--page', 'page', '--split', '500K', '--quiet', '--json'];
  const models = ['tiny.safetensors', 'fashion-w4a8.safetensors'];
  // class pictures of one model are enough: the other's would take WASI's one thread long
  same(['site', models[0], '-o', 'site', ...options], ...out.slice(0, 3).map(name => `site/${name}`));
  const [a, b] = same(['site', ...models, '-o', 'site2', ...options, '--no-pictures'], ...[0, 1, 3].map(i => `site2/${out[i]}`));
  assert.deepEqual(b, a);
  assert.match(wasi(['site', 'tiny.safetensors', '-o', 'site3']).err, /--page DIR/);
});

test('help, exit codes and messages', () => {
  const training = /^ {2}(train|distill) .*\n/gm; // native only
  for (const args of [
    ['--help'],
    ['generate', '--help'],
    ['generate', 'tiny.safetensors'],
    ['generate', 'tiny.safetensors', '--seed', 'x', '-o', 'x.png'],
    ['generate', 'missing.safetensors', '-o', 'x.png'],
    ['info', 'checkpoint/config.json'],
    ['generate', 'tiny.safetensors', '-o', 'no/such/folder.png'],
    ['nonsense'],
    [],
  ]) {
    const [a, b] = [native(args), wasi(args)]
      .map(({ out, err, code }) => ({ out: out.replace(training, ''), err: err.replace(training, ''), code }));
    assert.deepEqual(b, a, args.join(' '));
  }
  assert.match(wasi(['--help']).out, /train .*not in this build/);
  assert.equal(wasi(['generate', 'tiny.safetensors', '--cpu', 'avx2', '-o', 'x.png']).code, 2);
});

test('sees no file outside its folder, and leaves no temporary one', () => {
  assert.equal(wasi(['info', '../native/tiny.safetensors']).code, 1);
  assert.deepEqual(readdirSync(join(folder, 'wasi')).filter(name => name.includes('.tmp.')), []);
});
