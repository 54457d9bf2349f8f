/** What the commands promise when all is well: the same bytes on every kernel set, thread count and repetition. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint, checkpointWith, folder, model, ok, repo, run } from './tool.mjs';

const request = ['--label', '7', '--seed', '11', '--steps', '3'];

test('one picture is the same on every kernel set and thread count', () => {
  const out = folder(), pngs = [], sets = new Set();
  const ways = [['--cpu', 'scalar', '--threads', '1'], ['--cpu', 'avx2'], ['--cpu', 'avx512'], ['--threads', '3'], []];
  for (const options of ways) {
    const to = join(out, `${pngs.length}.png`);
    const { status, stdout, stderr } = run('generate', model, ...request, ...options, '--json', '-o', to);
    if (status === 2 && options[0] === '--cpu' && options[1] !== 'scalar') { // a CPU without that level says so
      assert.match(stderr, /--cpu/);
      continue;
    }
    assert.equal(status, 0, stderr);
    sets.add(JSON.parse(stdout).kernels);
    pngs.push(readFileSync(to));
  }
  assert.ok(sets.has('scalar'));
  for (const png of pngs) assert.deepEqual(png, pngs[0]);
  assert.deepEqual(readdirSync(out).filter(name => !name.endsWith('.png')), [], 'temporary files');
});

test('another label, seed, number of steps or guidance is another picture', () => {
  const out = folder(), seen = new Map();
  const changes = [[], ...['--label 3', '--seed 12', '--steps 4', '--guidance 1', '--sampler ddpm']
    .map(words => words.split(' '))];
  for (const change of changes) {
    const to = join(out, 'x.png');
    const { rgba_fnv1a64: hash } = ok('generate', model, ...request, ...change, '--json', '-o', to);
    assert.ok(!seen.has(hash), `${change} draws the same as ${seen.get(hash)}`);
    seen.set(hash, change);
  }
});

test("the model's own scheduler is the default, and others can be chosen by name", () => {
  const out = folder(), other = join(out, 'other.safetensors'), plain = join(out, 'plain.safetensors');
  const edit = c => ({ ...c, _class_name: 'DPMSolverMultistepScheduler', use_karras_sigmas: true });
  ok('import', checkpointWith({ 'scheduler/scheduler_config.json': edit }), '-o', other);
  ok('import', checkpoint, '-o', plain);
  assert.equal(ok('info', other, '--json').scheduler.family, 'DPM-Solver multistep');
  const draw = (from, ...options) =>
    ok('generate', from, ...request, ...options, '--json', '-o', join(out, 'x.png')).rgba_fnv1a64;
  const karras = draw(other);
  assert.equal(draw(other, '--sampler', 'dpm++-2m-karras'), karras);
  assert.equal(draw(plain, '--sampler', 'dpm++-2m-karras'), karras);
  assert.equal(draw(other, '--sampler', 'ddim'), draw(plain));
  assert.notEqual(draw(plain), karras);
  ok('eval', other, '--against', other, '--images', '1', '--steps', '4', '--sampler', 'pndm', '--json')
    .eps_error.forEach(e => assert.equal(e, 0));
});

test('import says which of two files of weights it read', () => {
  const out = folder(), at = checkpointWith(), unet = join(at, 'unet');
  const weights = readdirSync(unet).find(name => name.endsWith('.safetensors'));
  writeFileSync(join(unet, 'diffusion_pytorch_model.bin'), 'not looked at');
  const { status, stderr } = run('import', at, '-o', join(out, 'm'));
  assert.equal(status, 0, stderr);
  const [read, not] = [weights, 'diffusion_pytorch_model.bin'].map(name => join(unet, name));
  assert.equal(stderr, `bitbrush: ${read} read; ${not} not\n`);
});

test('import and quantize give the same file twice; info reads both', () => {
  const out = folder(), options = ['--images', '1', '--steps', '2', '--quiet'];
  const runs = [['import', '--dtype', 'f16'], ['quantize', '--wbits', '4', '--abits', '8', ...options]];
  for (const [command, ...args] of runs) {
    const a = join(out, `${command}-a`), b = join(out, `${command}-b`);
    ok(command, checkpoint, ...args, '-o', a);
    ok(command, checkpoint, ...args, ...(command === 'quantize' ? ['--threads', '1'] : []), '-o', b);
    const whole = readFileSync(a), head = 8 + Number(whole.readBigUInt64LE(0));
    assert.ok(whole.subarray(head).equals(readFileSync(b).subarray(head)), `${command}: the data differs`);
    const info = ok('info', a, '--json');
    assert.ok(JSON.stringify(info).includes('32'), 'the size');
  }
});

for (const wbits of [4, 8])
  test(`models/fashion-w${wbits}a8.safetensors is what its command makes, byte by byte`, () => {
    const name = `fashion-w${wbits}a8.safetensors`, to = join(folder(), name);
    ok('quantize', checkpoint, '-o', to, '--wbits', String(wbits), '--abits', '8');
    const shipped = readFileSync(join(repo, 'models', name));
    assert.ok(readFileSync(to).equals(shipped), 'run the command of models/README.md anew');
  });

test('help exits with 0 and names every option', () => {
  for (const command of ['import', 'quantize', 'generate', 'eval', 'run', 'info', 'site', 'train']) {
    const { status, stdout, stderr } = run(command, '--help');
    assert.equal(status, 0);
    assert.equal(stderr, '');
    assert.match(stdout, new RegExp(`^usage: bitbrush ${command} `));
  }
  for (const word of ['--help', 'help']) assert.match(ok(word), /quantize/);
  assert.match(ok('--version'), /^bitbrush \d+\.\d+\.\d+/);
});
