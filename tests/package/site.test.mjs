/** npx bitbrush site: the folder that the native tool writes, byte for byte, and what it refuses. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { build, models, tree } from '../js/common.mjs';
import { modelPath, project, run } from './common.mjs';

const folder = project();
const tiny = models.find(model => model.name === 'tiny').path;
const npx = (...args) =>
  spawnSync(join(folder, 'node_modules/.bin/bitbrush'), args, { encoding: 'utf8', timeout: 300000, cwd: folder });
const native = (...args) => run(join(build, 'bitbrush'), args, folder);

/** Both write with these arguments, each into its own folder, which may be a site already; the reports are the same. */
function both(name, ...args) {
  const outs = ['npx', 'native'].map(by => join(folder, by, name));
  for (const out of outs) mkdirSync(join(out, '..'), { recursive: true });
  const { status, stdout, stderr } = npx('site', ...args, '-o', outs[0], '--json', '--quiet');
  assert.equal(status, 0, stderr);
  const reports = [JSON.parse(stdout), JSON.parse(native('site', ...args, '-o', outs[1], '--json', '--quiet'))];
  assert.deepEqual(tree(outs[0]), tree(outs[1]), args.join(' '));
  assert.deepEqual({ ...reports[0], out: '' }, { ...reports[1], out: '' });
  return { ...reports[0], files: tree(outs[0]) };
}

test('the same bytes as the native tool', () => {
  const twin = join(folder, 'twin.safetensors');
  copyFileSync(tiny, twin);
  const { drawn, files } = both('a', tiny, '--title', 'Ärger & "Spaß" \\', '--isolate');
  assert.equal(drawn, 1);
  const some = 'index.html sw.js _headers .htaccess bitbrush-simd128.wasm js/index.js models/tiny.classes.png';
  for (const name of some.split(' '))
    assert.ok(files[name], name);
  const again = both('a', tiny, '--title', 'Ärger & "Spaß" \\', '--isolate');
  assert.deepEqual([again.written, again.drawn], [0, 0]);
  const parts = both('b', modelPath, twin, tiny, '--no-pictures', '--split', '1M');
  assert.equal(Object.keys(parts.files).filter(name => /fashion-w4a8\.safetensors\.\d{3}$/.test(name)).length, 3);
  assert.ok(parts.files['models/fashion-w4a8.safetensors.parts.json']);
  assert.equal(both('b', twin, '--no-pictures').removed, 5, 'what an older site had is removed');
});

test('the models of one teacher share their pictures', () => {
  // the same weights twice: drawn once, by the first
  const names = ['one', 'two'].map(name => join(folder, `${name}.safetensors`));
  const file = readFileSync(tiny), n = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + n).toString());
  header.__metadata__.source_sha256 = 'ab'.repeat(32);
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((64 - ((8 + text.length) % 64)) % 64, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  for (const name of names) writeFileSync(name, Buffer.concat([length, padded, file.subarray(8 + n)]));
  const { drawn } = both('c', ...names);
  assert.equal(drawn, 1);
  const { models: listed } = JSON.parse(readFileSync(join(folder, 'npx/c/site.json'), 'utf8'));
  assert.deepEqual(listed.map(model => model.pictures), Array(2).fill('models/one.classes.png'));
});

test('what it refuses, it says like the native tool', () => {
  const full = join(folder, 'full'), broken = join(folder, 'broken.safetensors');
  mkdirSync(full, { recursive: true });
  writeFileSync(join(full, 'mine.txt'), 'mine');
  writeFileSync(broken, readFileSync(tiny).subarray(0, 5000));
  const out = join(folder, 'none');
  for (const [code, pattern, ...args] of [
    [2, /-o DIR is missing/, 'site', tiny],
    [2, /expected MODEL… -o DIR/, 'site', '-o', out],
    [2, /--split 20X: must be bytes/, 'site', tiny, '-o', out, '--split', '20X'],
    [2, /unknown option|Unknown option/, 'site', tiny, '-o', out, '--nope'],
    [1, /nothing\.safetensors: cannot open/, 'site', 'nothing.safetensors', '-o', out],
    [1, /has the name of .*tiny/, 'site', tiny, tiny, '-o', out],
    [1, /broken\.safetensors/, 'site', broken, '-o', out],
    [1, /has files, but no site\.json, so nothing in it is replaced/, 'site', tiny, '-o', full],
    [1, /no page is there/, 'site', tiny, '-o', out, '--page', full],
  ]) {
    for (const [by, { status, stderr }] of Object.entries({
      npx: npx(...args),
      native: spawnSync(join(build, 'bitbrush'), args, { encoding: 'utf8', cwd: folder }),
    })) {
      assert.equal(status, code, `${by} ${args.join(' ')}: ${stderr}`);
      assert.match(stderr, pattern, by);
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
    }
  }
  assert.deepEqual(readdirSync(full), ['mine.txt']);
  assert.throws(() => readdirSync(out), /ENOENT/);
});

test('other commands are the native tool\'s', () => {
  for (const [command, pattern] of Object.entries({
    quantize: /only the native tool does that; build it from/,
    nope: /unknown command nope/,
  })) {
    const { status, stderr } = npx(command, 'x');
    assert.equal(status, 2);
    assert.match(stderr, pattern);
  }
  assert.match(npx('--help').stdout, /usage: bitbrush site/);
  assert.match(npx('--version').stdout, /^bitbrush \d+\.\d+\.\d+\n$/);
});

