/** Options of `bitbrush quantize`: reports, budgets, what does not go together, the same bytes whatever the threads. */
import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint, folder, ok, refused, repo } from './tool.mjs';

const FAILED = 1, USAGE = 2;
const small = join(repo, 'tests/golden/unet2d-class');
const quick = ['--images', '2', '--steps', '4', '--quiet'];
/** All that changes what a layer looks like in the file. */
const everything = ['--wbits', '3', '--abits', '4', '--ladder', 'always', '--mixed', 'kurtosis', '--range', 'mse'];

/** Quantizes the small checkpoint; { bytes, layers } with the report's rows. */
function quantized(...options) {
  const out = folder(), file = join(out, 'm.safetensors'), report = join(out, 'report.json');
  ok('quantize', small, '-o', file, ...quick, ...options, '--report', report);
  return { file, bytes: statSync(file).size, layers: JSON.parse(readFileSync(report, 'utf8')) };
}

const summedError = layers => layers.reduce((sum, l) => sum + l.output_error, 0);

test('options that do not go together are usage errors', () => {
  const out = folder(), to = ['-o', join(out, 'm.safetensors')];
  const cases = [
    [['--budget', '200000', '--wbits', '4'], [/--budget/, /--wbits/]],
    [['--ladder', 'always', '--wbits', '5'], [/--ladder/, /--wbits 4/]],
    [['--mixed', 'gain', '--wbits', '8'], [/--mixed/, /2 to 7/]],
    [['--mixed', 'kurtosis', '--wbits', '1'], /--mixed/],
    [['--report', join(out, 'm.safetensors')], /--report/],
    [['--smoothing', '1.5'], /--smoothing 1\.5/],
    [['--tables', 'dynamic'], [/--tables/, /static/]],
  ];
  for (const [options, patterns] of cases)
    refused(USAGE, patterns, ['quantize', small, ...to, ...quick, ...options], out);
  refused(FAILED, /nonexistent/, ['quantize', small, ...to, ...quick, '--report', '/nonexistent/r.md'], out);
});

test('the report has a row for every layer, as JSON and as a table', () => {
  const { layers, bytes, file } = quantized(...everything);
  assert.equal(new Set(layers.map(l => l.layer)).size, layers.length);
  assert.ok(layers.length > 40 && layers.every(l => l.outputs > 0 && l.inputs > 0 && l.bytes > 0));
  assert.ok(layers.reduce((sum, l) => sum + l.bytes, 0) < bytes);
  const low = layers.filter(l => l.wbits === 3), float = layers.filter(l => l.kind === 'float');
  assert.deepEqual(float.map(l => l.layer).sort(), ['conv_in', 'conv_out']);
  assert.ok(low.every(l => l.kind === 'ladder' && l.abits === 4 && l.fewer === l.more));
  assert.ok(low.some(l => l.more > 0), 'no layer mixes widths');
  for (const l of layers.filter(l => l.wbits)) assert.ok(l.weight_error > 0 && l.weight_error < 0.3, JSON.stringify(l));
  assert.ok(layers.some(l => l.wbits === 8 && l.abits === 8 && /shortcut/.test(l.layer)));
  const table = join(folder(), 'report.md');
  ok('quantize', small, '-o', file, ...quick, ...everything, '--report', table);
  const rows = readFileSync(table, 'utf8').split('\n').filter(line => line.startsWith('| '));
  assert.equal(rows.length, layers.length + 2);
  assert.match(rows[2], /\d+ × \d+ \| \d\/\d \|/);
});

test('--layers: what stays float, what gets 8 bits', () => {
  const count = (...options) => {
    const { layers } = quantized(...options), of = {};
    for (const l of layers) {
      const key = l.wbits ? `${l.wbits}/${l.abits}` : 'float';
      of[key] = (of[key] ?? 0) + 1;
    }
    return of;
  };
  const usual = count('--wbits', '2'), low = count('--wbits', '2', '--layers', 'all-low');
  const paper = count('--wbits', '2', '--layers', 'paper');
  assert.equal(usual.float, 2);
  assert.ok(usual['8/8'] > 2 && low['8/8'] === 4 && !low.float);
  assert.ok(paper['8/8'] === 4 && paper.float > usual['8/8'] - 2 && paper['2/8'] < low['2/8']);
});

test('a budget is kept, spent and worth it; the smallest file is named', () => {
  const out = folder(), to = join(out, 'm.safetensors');
  const errors = [];
  for (const budget of [170000, 200000, 240000]) {
    const { bytes, layers } = quantized('--budget', String(budget));
    assert.ok(bytes <= budget && bytes > 0.97 * budget, `${bytes} of ${budget}`);
    assert.ok(layers.every(l => !l.wbits || l.wbits >= 2));
    errors.push(summedError(layers));
  }
  assert.ok(errors[0] > errors[1] && errors[1] > errors[2], `${errors}`);
  const args = budget => ['quantize', small, '-o', to, ...quick, '--budget', String(budget)];
  refused(USAGE, [/1000 bytes/, /2 bits/], args(1000), out);
  const { stderr } = refused(USAGE, /\d{5}/, args(1000), out);
  const least = Number(/(\d+)$/.exec(stderr.trim())[1]);
  ok(...args(least));
  assert.equal(statSync(to).size, least);
  refused(USAGE, new RegExp(least), args(least - 1), folder());
  /* Bits chosen for the size of a uniform choice do better than it, by their own measure. */
  const four = quantized('--wbits', '4'), chosen = quantized('--budget', String(four.bytes));
  assert.ok(summedError(chosen.layers) < summedError(four.layers));
});

test('one file for every number of threads and kernel set, and every level draws it alike', () => {
  const out = folder(), files = [], hashes = new Set();
  for (const options of [['--threads', '1'], ['--threads', '3'], ['--cpu', 'scalar']]) {
    const to = join(out, 'm.safetensors');
    ok('quantize', small, '-o', to, ...quick, ...everything, ...options);
    const file = readFileSync(to);
    files.push(file.subarray(8 + Number(file.readBigUInt64LE(0))));
    const drawn = ok('generate', to, '--steps', '3', ...options, '--quiet', '--json', '-o', join(out, 'x.png'));
    hashes.add(drawn.rgba_fnv1a64);
  }
  for (const file of files) assert.ok(file.equals(files[0]));
  assert.equal(hashes.size, 1);
});

test('a checkpoint of trained weights keeps its outputs: relative output errors at 4 and 8 bits', () => {
  const out = folder(), report = join(out, 'r.json');
  const mean = wbits => {
    ok('quantize', checkpoint, '-o', join(out, 'm'), '--images', '1', '--steps', '2', '--quiet', '--wbits',
      String(wbits), '--report', report);
    const layers = JSON.parse(readFileSync(report, 'utf8')).filter(l => l.wbits);
    return summedError(layers) / layers.length;
  };
  const four = mean(4), eight = mean(8);
  /* A bit is worth a factor 4; what activations of 8 bits add keeps it below 256. */
  assert.ok(four < 0.01 && eight < four / 8, `${four} at 4 bits, ${eight} at 8`);
});

test('what the file draws is near the float model: scales and factors are undone where they belong', () => {
  const out = folder(), to = join(out, 'm.safetensors');
  for (const options of [['--smoothing', '0'], ['--smoothing', '1'], ['--tables', 'static'], ['--layers', 'all-low']]) {
    ok('quantize', small, '-o', to, ...quick, '--wbits', '8', ...options);
    const { eps_error: errors } = ok('eval', to, '--against', small, '--images', '2', '--steps', '4', '--json',
      '--quiet');
    /* 0.01 to 0.04 measured; two different networks are 1 to 2 apart, a factor of 2 in one layer's scale 0.2 and up. */
    for (const e of errors) assert.ok(e < 0.1, `${options}: ${errors}`);
  }
});
