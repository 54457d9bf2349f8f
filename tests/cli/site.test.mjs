/** bitbrush site: what it writes, what it leaves alone, what it refuses, and that a break leaves the older site. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, unlinkSync,
  writeFileSync,
} from 'node:fs';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { build, decodePng, sha256, tree } from '../js/common.mjs';
import { checkpoint, editHeader, folder, model, ok, refused, repo } from './tool.mjs';

const FAILED = 1, USAGE = 2;
const tiny = join(repo, 'models/tiny.safetensors'); // 5 classes of 11×13 pixels, the last one the null class
const shell = {
  'index.html': '<!doctype html>',
  'page/app.js': 'export {};\n',
  'js/deep/er.js': '\n',
  'hosts/_headers': '/*\n',
  'hosts/.htaccess': '',
};

function put(at, files) {
  for (const [name, data] of Object.entries(files)) {
    mkdirSync(dirname(join(at, name)), { recursive: true });
    writeFileSync(join(at, name), data);
  }
  return at;
}
const page = put(folder(), shell);
const site = (out, models, ...options) => ok('site', ...[models].flat(), '-o', out, '--page', page, '--json', ...options);
const listOf = out => JSON.parse(readFileSync(join(out, 'site.json'), 'utf8'));

const metadata = path => {
  const file = readFileSync(path);
  return JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString()).__metadata__;
};

/** The entry of a model in site.json, made from its metadata. */
function entry(path, name, more = {}) {
  const meta = metadata(path), bytes = readFileSync(path), labels = JSON.parse(meta.labels ?? '[]');
  return {
    name,
    file: `models/${name}.safetensors`,
    bytes: bytes.length,
    sha256: sha256(bytes),
    bits: meta.quantization?.split(',')[0] ?? `${(Number(meta.bits_milli) / 1000).toFixed(1)} bit`,
    group: (meta.source_sha256 ?? '').slice(0, 16),
    width: Number(meta.width),
    height: Number(meta.height),
    trainSteps: Number(meta.train_steps),
    nullLabel: meta.null_label === undefined ? null : Number(meta.null_label),
    labels: Array.from({ length: Number(meta.classes) }, (_, i) => labels[i] ?? null),
    ...more,
  };
}

/** Tile i of a strip. */
function tile({ data, width }, i, w, h) {
  const row = y => Buffer.from(data.subarray(4 * (y * width + i * w), 4 * (y * width + (i + 1) * w)));
  return Buffer.concat(Array.from({ length: h }, (_, y) => row(y)));
}

test('the page, the models and site.json, and nothing else', () => {
  const out = join(folder(), 'site'), f16 = join(folder(), 'half.safetensors');
  ok('import', checkpoint, '-o', f16);
  const report = site(out, [model, f16, tiny], '--title', 'Ärger & "Spaß" \\', '--isolate', '--no-pictures');
  const half = { bits: 'f16' };
  const expected = {
    title: 'Ärger & "Spaß" \\',
    isolate: true,
    models: [entry(model, 'fashion-w4a8'), entry(f16, 'half', half), entry(tiny, 'tiny')],
  };
  assert.equal(expected.models[0].group, expected.models[1].group);
  assert.match(expected.models[0].group, /^[0-9a-f]{16}$/);
  assert.equal(readFileSync(join(out, 'site.json'), 'utf8'), JSON.stringify(expected, null, 2) + '\n');
  const files = { 'site.json': sha256(readFileSync(join(out, 'site.json'))) };
  for (const [name, data] of Object.entries(shell)) files[name.replace(/^hosts\//, '')] = sha256(Buffer.from(data));
  for (const { file, sha256: hash } of expected.models) files[file] = hash;
  assert.deepEqual(tree(out), files);
  const n = Object.keys(files).length, bytes = Object.keys(files).reduce((sum, f) => sum + statSync(join(out, f)).size, 0);
  assert.deepEqual(report, { out, models: 3, files: n, bytes, written: n, removed: 0, drawn: 0 });
});

test('the folder beside the program is the page unless told', () => {
  const out = join(folder(), 'site');
  ok('site', tiny, '-o', out, '--quiet');
  const own = tree(join(build, 'page'));
  for (const [name, hash] of Object.entries(own)) assert.equal(tree(out)[name.replace(/^hosts\//, '')], hash, name);
  assert.ok(own['index.html'] && own['bitbrush-simd128.wasm']);
});

test('class pictures are those that generate draws, for the first model of each teacher', () => {
  const out = folder(), twin = join(out, 'twin.safetensors'), to = join(out, 'one.png');
  cpSync(model, twin);
  const { drawn } = site(join(out, 'site'), [model, tiny, twin]);
  assert.equal(drawn, 2);
  const [first, second, third] = listOf(join(out, 'site')).models;
  assert.equal(first.pictures, 'models/fashion-w4a8.classes.png');
  assert.equal(third.pictures, first.pictures);
  assert.equal(second.pictures, 'models/tiny.classes.png');
  assert.deepEqual(Object.keys(first), Object.keys(entry(model, 'x', { pictures: '' })), 'order of the members');
  for (const [path, { width, height, nullLabel, pictures, labels }, shown] of [
    [tiny, second, [0, 1, 2, 3, 4]],
    [model, first, [0, 7, 10]],
  ]) {
    const strip = decodePng(readFileSync(join(out, 'site', pictures)));
    assert.deepEqual([strip.width, strip.height], [width * labels.length, height]);
    assert.deepEqual(strip.text, { Software: 'bitbrush' });
    for (const i of shown) {
      const guidance = i === nullLabel ? ['--guidance', '1'] : [];
      ok('generate', path, '--label', `${i}`, '--seed', '1', '--steps', '20', ...guidance, '-o', to);
      const { data } = decodePng(readFileSync(to));
      assert.ok(tile(strip, i, width, height).equals(Buffer.from(data)), `${path}: class ${i}`);
    }
  }
});

test('again: nothing is written; a new title is one file; another model draws anew', () => {
  const where = folder(), out = join(where, 'site'), mine = join(where, 'mine.safetensors');
  cpSync(tiny, mine);
  const strip = join(out, 'models/mine.classes.png');
  assert.equal(site(out, mine).drawn, 1);
  const before = tree(out), at = statSync(join(out, 'index.html'), { bigint: true }).mtimeNs;
  const again = site(out, mine);
  assert.deepEqual([again.written, again.removed, again.drawn], [0, 0, 0]);
  assert.deepEqual(tree(out), before);
  assert.equal(statSync(join(out, 'index.html'), { bigint: true }).mtimeNs, at);
  const titled = site(out, mine, '--title', 'x');
  assert.deepEqual([titled.written, titled.drawn, listOf(out).title], [1, 0, 'x']);
  unlinkSync(strip);
  assert.equal(site(out, mine).drawn, 1, 'pictures that are gone');
  writeFileSync(strip, 'damaged');
  assert.equal(site(out, mine).drawn, 1, 'pictures that are none');
  assert.deepEqual(tree(out), before);
  editHeader(mine, header => { header.__metadata__.seed = '21'; });
  assert.deepEqual((({ written, drawn }) => [written, drawn])(site(out, mine)), [2, 1], 'the model and site.json');
});

test("what belongs to dropped models goes, and nothing else; hosts' files are at the root", () => {
  const out = join(folder(), 'site'), models = join(out, 'models');
  site(out, [model, tiny], '--split', '100K', '--no-pictures');
  put(out, { 'CNAME': 'example.org', 'models/own.txt': 'mine', 'models/fashion-w4a8.safetensors.bak': 'mine' });
  const { removed } = site(out, tiny);
  assert.ok(removed > 20);
  assert.deepEqual(readdirSync(models).sort(),
    ['fashion-w4a8.safetensors.bak', 'own.txt', 'tiny.classes.png', 'tiny.safetensors']);
  assert.ok(existsSync(join(out, 'CNAME')) && existsSync(join(out, '.htaccess')) && !existsSync(join(out, 'hosts')));
  assert.equal(site(out, tiny, '--no-pictures').removed, 1);
});

test('a site may be made of its own models, and a site.json cannot lead outside its folder', () => {
  const where = folder(), out = join(where, 'site'), outside = join(where, 'outside.safetensors');
  site(out, [model, tiny], '--no-pictures');
  writeFileSync(outside, 'stays');
  const own = join(out, 'models/tiny.safetensors');
  const list = listOf(out);
  list.models[0].file = '../outside.safetensors';
  list.models.push({ file: 'models/../index.html', pictures: outside }, { file: 'site.json' }, { file: 7 }, 'text');
  writeFileSync(join(out, 'site.json'), JSON.stringify(list));
  site(out, own, '--split', '10K', '--no-pictures');
  assert.equal(readFileSync(outside, 'utf8'), 'stays');
  assert.ok(existsSync(join(out, 'index.html')) && existsSync(own), 'its source stays');
  assert.ok(existsSync(join(out, 'models/fashion-w4a8.safetensors')), 'no longer listed, so nobody’s');
});

test('split models: parts that join to the model, whose list names them with their hashes', () => {
  const out = join(folder(), 'site'), whole = readFileSync(model), size = 500 * 1024;
  site(out, [model, tiny], '--split', '500K', '--no-pictures');
  const [{ file, bytes }, small] = listOf(out).models;
  assert.deepEqual([file, bytes], ['models/fashion-w4a8.safetensors.parts.json', whole.length]);
  assert.equal(small.file, 'models/tiny.safetensors');
  const parts = [];
  for (let at = 0; at < whole.length; at += size) {
    const data = whole.subarray(at, at + size), name = `fashion-w4a8.safetensors.00${parts.length}`;
    parts.push({ file: name, bytes: data.length, sha256: sha256(data) });
    assert.ok(readFileSync(join(out, 'models', name)).equals(data), name);
  }
  const expected = { bytes: whole.length, sha256: sha256(whole), parts };
  assert.equal(readFileSync(join(out, file), 'utf8'), JSON.stringify(expected, null, 2) + '\n');
  assert.ok(!existsSync(join(out, 'models/fashion-w4a8.safetensors')));
  site(out, [model, tiny], '--split', '1M', '--no-pictures');
  assert.deepEqual(readdirSync(join(out, 'models')).filter(name => /\d$/.test(name)).length, 3, 'fewer parts');
  for (const option of [['--split', '0'], ['--split', '2150912'], []]) {
    site(out, [model, tiny], ...option, '--no-pictures');
    assert.deepEqual(readdirSync(join(out, 'models')), ['fashion-w4a8.safetensors', 'tiny.safetensors']);
  }
});

test('text of metadata reaches site.json as text, and no terminal', () => {
  const where = folder(), evil = join(where, 'evil.safetensors'), out = join(where, 'site');
  const labels = ['<b>"\\', 'a\u0007\b\t\n\v\f\r\u001b[2J', 'ü\u2028💡', 7];
  editHeader(tiny, header => {
    Object.assign(header.__metadata__, { labels: JSON.stringify(labels), source_sha256: '<script>'.repeat(8),
      quantization: '<i>W\n9,x' });
  }, evil);
  site(out, evil, '--no-pictures');
  const made = entry(evil, 'evil', { bits: '<i>W\n9', group: '', labels: [...labels.slice(0, 3), null, null] });
  const expected = { title: 'Bitbrush', isolate: false, models: [made] };
  assert.equal(readFileSync(join(out, 'site.json'), 'utf8'), JSON.stringify(expected, null, 2) + '\n');
});

test('bad requests: what is wrong, what to do, and no file written', () => {
  const where = folder(), out = join(where, 'site'), other = folder(), to = ['-o', out, '--page', page];
  const full = put(folder(), { 'letter.txt': 'x' }), foreign = put(folder(), { 'site.json': '{"name":"someone else\'s"}' });
  const broken = put(folder(), { 'site.json': '{"models":[' }), file = join(put(folder(), { file: 'x' }), 'file');
  const nested = put(folder(), { 'index.html': 'x', 'a/site.json': '{}' });
  const copy = name => { cpSync(tiny, join(other, name)); return join(other, name); };
  for (const [code, patterns, args] of [
    [USAGE, /MODEL/, to],
    [USAGE, /-o/, [tiny]],
    [USAGE, /-o/, [tiny, '-o', '']],
    [USAGE, [/--split 1Q/, /0 = never/], [tiny, ...to, '--split', '1Q']],
    [USAGE, /--split 1023/, [tiny, ...to, '--split', '1023']],
    [USAGE, /--split 17179869185G/, [tiny, ...to, '--split', '17179869185G']],
    [USAGE, /--split 99999999999999999999/, [tiny, ...to, '--split', '99999999999999999999']],
    [USAGE, /--split -1/, [tiny, ...to, '--split', '-1']],
    [USAGE, [/--split/, /1000 parts/], [model, ...to, '--split', '1K']],
    [USAGE, /--title/, [tiny, ...to, '--title', 'two\nlines']],
    [FAILED, [/--page/, /index\.html/, /cmake --build/], [tiny, '-o', out, '--page', other]],
    [FAILED, [/is a site, not a page/, /--page/], [tiny, '-o', out, '--page', nested]],
    [FAILED, [/letter|has files/, /new or empty/], [tiny, '-o', full, '--page', page]],
    [FAILED, [/site\.json/, /new or empty/], [tiny, '-o', foreign, '--page', page]],
    [FAILED, [/site\.json/, /new or empty/], [tiny, '-o', broken, '--page', page]],
    [FAILED, [/not a folder/], [tiny, '-o', file, '--page', page]],
    [FAILED, [/no\/such/], [tiny, '-o', join(where, 'no/such/site'), '--page', page, '--no-pictures']],
    [FAILED, [/absent/], [join(where, 'absent'), ...to]],
    [FAILED, [/models\/fashion/, /folder/, /bitbrush quantize/], [checkpoint, ...to]],
    [FAILED, [/letter\.txt/, /not a bitbrush model/], [join(put(folder(), { 'letter.txt': 'Dear Sir or Madam' }), 'letter.txt'), ...to]],
    [FAILED, [/tiny/, /different/, /rename/], [tiny, copy('Tiny.safetensors'), ...to]],
    [FAILED, [/two words/, /letters/, /rename/], [copy('two words.safetensors'), ...to]],
    [FAILED, [/letters/, /rename/], [copy('.hidden.safetensors'), ...to]],
    [FAILED, [/100 characters/, /rename/], [copy(`${'x'.repeat(101)}.safetensors`), ...to]],
  ]) {
    refused(code, patterns, ['site', ...args], where);
    for (const at of [full, foreign, broken]) assert.equal(Object.keys(tree(at)).length, 1);
  }
});

test('an empty folder, and one with hidden files only, may become a site', () => {
  const out = put(folder(), { '.git/config': 'x' });
  site(out, tiny, '--no-pictures');
  assert.ok(existsSync(join(out, '.git/config')) && existsSync(join(out, 'site.json')));
  assert.deepEqual(listOf(out), { title: 'Bitbrush', isolate: false, models: [entry(tiny, 'tiny')] });
  const own = put(folder(), { '.htaccess': 'mine' });
  refused(FAILED, [/\.htaccess/, /move it away/], ['site', tiny, '-o', own, '--page', page, '--no-pictures', '--quiet'], own);
});

test("a killed run's folder is known as ours, and the next run tidies it", () => {
  const out = put(folder(), { 'index.html': 'new', 'js/er.js.tmp.77': 'x', 'site.json.tmp.77': '{', '.htaccess': '' });
  site(out, tiny, '--no-pictures');
  put(out, { 'site.json.tmp.8': 'x', 'models/tiny.safetensors.tmp.9': 'x', 'mine.tmp.1': 'x', 'index.html.tmp.x': 'x' });
  site(out, tiny, '--no-pictures');
  const left = Object.keys(tree(out)).filter(name => name.includes('.tmp'));
  assert.deepEqual(left.sort(), ['index.html.tmp.x', 'js/er.js.tmp.77', 'mine.tmp.1'], 'names that are none of ours');
});

/** Runs until `when(text on stderr)`, then a signal; the exit code. */
async function interrupted(args, signal, when) {
  const child = spawn(join(build, 'bitbrush'), args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const timer = setTimeout(() => child.kill('SIGKILL'), 120000);
  let text = '';
  child.stderr.setEncoding('utf8').on('data', chunk => {
    if (when(text += chunk)) child.kill(signal);
  });
  const [code] = await once(child, 'exit');
  clearTimeout(timer);
  return code;
}

test('Ctrl-C while drawing: the older site, untouched; without one, nothing', async () => {
  const where = folder(), out = join(where, 'site');
  const args = ['site', model, '-o', out, '--page', page];
  assert.equal(await interrupted(args, 'SIGINT', text => /drawing/.test(text)), 130);
  assert.deepEqual(readdirSync(where), []);
  site(out, tiny, '--no-pictures');
  const before = tree(out);
  assert.equal(await interrupted(args, 'SIGTERM', text => /drawing/.test(text)), 143);
  assert.deepEqual(tree(out), before);
});

test('a file that cannot be written: the older site, untouched, and no rest', () => {
  const where = folder(), out = join(where, 'site');
  site(out, tiny, '--no-pictures');
  const before = tree(out), other = put(folder(), { ...shell, 'index.html': 'new', 'zz/last.js': 'x', 'new/x.js': 'x' });
  writeFileSync(join(out, 'zz'), 'a file where the page has a folder');
  refused(FAILED, /zz/, ['site', tiny, model, '-o', out, '--page', other, '--no-pictures', '--quiet'], where);
  rmSync(join(out, 'zz'));
  mkdirSync(join(out, 'zz/last.js'), { recursive: true });
  refused(FAILED, [/zz\/last\.js/, /folder/], ['site', tiny, model, '-o', out, '--page', other, '--no-pictures', '--quiet'],
    where);
  assert.deepEqual(tree(out), before);
  assert.ok(!existsSync(join(out, 'new')));
});
