/** The tarball: what is in it, how large it is, where its names lead, and that it draws in Node. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodePng, native } from '../js/common.mjs';
import { examples, modelPath, pack, project, repo, request, run, staged, temporary, write } from './common.mjs';

const LIMIT = 160e3; // bytes of the tarball
const about = JSON.parse(readFileSync(join(staged, 'package.json'), 'utf8'));
const folder = project();

test('the tarball holds what it should and no more', () => {
  const { files } = pack(temporary());
  const known = [
    /^(package\.json|README\.md|LICENSE)$/,
    /^bitbrush-(simd128|relaxed|make)\.wasm$/,
    /^js\/[a-z-]+\.(js|d\.ts)$/,
    /^bin\/bitbrush\.mjs$/,
    /^shell\//,
  ];
  assert.deepEqual(files.filter(file => !known.some(pattern => pattern.test(file))), []);
  for (const name of ['README.md', 'LICENSE', 'js/index.js', 'js/index.d.ts', 'bitbrush-simd128.wasm'])
    assert.ok(files.includes(name), `${name} is missing`);
});

test('the tarball is small', () => {
  const { bytes } = pack(temporary());
  console.log(`tarball: ${bytes} bytes`);
  assert.ok(bytes <= LIMIT, `${bytes} bytes are more than ${LIMIT}`);
});

test('the scripts are those of the source, without comments', async () => {
  const { transformSync } = await import('esbuild');
  const program = path => transformSync(readFileSync(path, 'utf8'), { minifyWhitespace: true }).code;
  for (const [source, copy] of [['wasm/js', 'js'], ['web/page', 'shell/page']])
    for (const name of readdirSync(join(repo, source)).filter(file => file.endsWith('.js'))) {
      assert.equal(program(join(staged, copy, name)), program(join(repo, source, name)), name);
      assert.doesNotMatch(readFileSync(join(staged, copy, name), 'utf8'), /\/\*\*/, name);
    }
});

test('package.json: no dependencies, types first, every name leads to a file', () => {
  const version = /project\(bitbrush VERSION ([\d.]+)/.exec(readFileSync(join(repo, 'CMakeLists.txt'), 'utf8'))[1];
  assert.equal(about.version, version);
  assert.equal(about.type, 'module');
  for (const kind of ['dependencies', 'peerDependencies', 'optionalDependencies', 'scripts', 'private'])
    assert.equal(about[kind], undefined, kind);
  const at = path => path.replace('*', 'bitbrush-simd128');
  for (const [name, entry] of Object.entries(about.exports)) {
    const targets = typeof entry === 'string' ? { default: entry } : entry;
    if (name !== './package.json') assert.equal(Object.keys(targets)[0], 'types', name);
    for (const target of Object.values(targets)) assert.ok(existsSync(join(staged, at(target))), `${name}: ${target}`);
  }
  for (const path of [...about.sideEffects, ...Object.values(about.bin ?? {})])
    assert.ok(existsSync(join(staged, path)), path);
});

/** What a program prints in the project. */
function node(text) {
  write(folder, { 'program.js': text });
  return run(process.execPath, ['program.js'], folder);
}

test('every name is importable or resolves in Node', () => {
  const names = node(`
    import { load } from 'bitbrush';
    import * as files from 'bitbrush/node';
    const at = name => import.meta.resolve(name).split('/bitbrush/')[1];
    console.log(typeof load, Object.keys(files).sort().join(' '));
    console.log(at('bitbrush/worker'), at('bitbrush/wasm/bitbrush-make.wasm'), at('bitbrush/package.json'));`);
  assert.match(names, /^function BitbrushError detect .*load .*quantize/);
  assert.match(names, /js\/worker\.js bitbrush-make\.wasm package\.json/);
  assert.throws(() => node("import 'bitbrush/js/port.js';"), /ERR_PACKAGE_PATH_NOT_EXPORTED/);
});

test('the example for Node draws what the native tool draws', () => {
  const [text] = examples('In Node', 'js');
  node(text);
  const drawn = readFileSync(join(folder, 'boot.png'));
  const expected = native(modelPath, { ...request, steps: 20, guidance: 2 });
  assert.deepEqual(decodePng(drawn).data, expected.data);
  assert.ok(drawn.equals(expected.png), 'the file, too');
});

test('the example for a site writes one', () => {
  const [command] = examples('A whole site', 'sh');
  run('sh', ['-ec', `${command.trim()} --no-pictures`], folder, { env: { ...process.env, npm_config_offline: 'true' } });
  for (const name of ['index.html', 'site.json', 'js/index.js', 'models/fashion-w4a8.safetensors'])
    assert.ok(existsSync(join(folder, 'dist', name)), name);
});

test('bitbrush/node: what is a path, and what is said of one that leads nowhere', () => {
  const said = node(`
    import { createHash } from 'node:crypto';
    import { readFile, writeFile } from 'node:fs/promises';
    import { pathToFileURL } from 'node:url';
    import { load } from 'bitbrush/node';
    const path = 'models/fashion-w4a8.safetensors';
    const folder = 'node_modules/bitbrush/';
    for (const from of [path, pathToFileURL(path), pathToFileURL(path).href]) {
      const model = await load(from, { wasm: folder, worker: folder + 'js/worker.js' });
      console.log(model.info.width);
      await model.dispose();
    }
    const bytes = await readFile(path);
    const parts = [bytes.subarray(0, 1e6), bytes.subarray(1e6)];
    const hash = part => createHash('sha256').update(part).digest('hex');
    const listed = parts.map((part, i) => ({ file: 'm.' + i, bytes: part.length, sha256: hash(part) }));
    await Promise.all(parts.map((part, i) => writeFile('m.' + i, part)));
    await writeFile('m.parts.json', JSON.stringify({ bytes: bytes.length, sha256: hash(bytes), parts: listed }));
    for (const from of ['m.parts.json', ['m.0', pathToFileURL('m.1')]]) {
      const model = await load(from);
      console.log(model.info.bytes === bytes.length);
      await model.dispose();
    }
    await writeFile('m.1', parts[1].fill(0, 1e6));
    await load('m.parts.json').catch(error => console.log(error.code));
    for (const [from, options] of [['nowhere.safetensors'], ['models'], [path, { wasm: 'nowhere.wasm' }]])
      await load(from, options).catch(error => console.log(error.code, error.message));`);
  const lines = said.trim().split('\n');
  assert.deepEqual(lines.slice(0, 3), ['32', '32', '32']);
  assert.deepEqual(lines.splice(3, 3), ['true', 'true', 'integrity']);
  assert.match(lines[3], /^arg nowhere\.safetensors cannot be read: ENOENT/);
  assert.match(lines[4], /^arg models is not a file/);
  assert.match(lines[5], /^worker cannot start file:.*nowhere\.wasm/);
  assert.equal(lines.length, 6);
});
