/** `bitbrush distill`: what it refuses, presets, a start of one's own, going on after a kill, two processes. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { folder, model, ok, refused, repo, run } from './tool.mjs';

const FAILED = 1, USAGE = 2;
const small = join(repo, 'tests/golden/unet2d-class');
const tool = join(resolve(process.env.BB_BUILD ?? join(repo, 'build')), 'bitbrush');
const bits = ['--wbits', '3', '--abits', '4', '--images', '1'];
const sampled = ['--steps', '4', '--null-label', '10', '--quiet'], quantized = [...bits, ...sampled];
const training = ['--trajectories', '4', '--batch', '2', '--threads', '1'], quick = [...quantized, ...training];
const untrained = /built without training/;
const skip = untrained.test(run('distill', small, '-o', '/nonexistent/x').stderr) && 'built without training';
const bytes = path => readFileSync(path).toString('base64');
const updates = text => text.match(/(\d+) updates/)[1];

test('options that make no sense are usage errors, files that do not fit are named', { skip }, () => {
  const out = folder(), to = ['-o', join(out, 'm.safetensors')];
  for (const [options, patterns] of [
    [['--method', 'magic'], [/--method magic/, /mpq-dm-v2/]],
    [['--budget', 'soon'], [/--budget soon/, /10m/]],
    [['--ladder', 'always', '--wbits', '5'], /--ladder/],
    [['--strip', join(out, 'm.safetensors')], /--strip/],
    [['--batch', '0'], /--batch 0/],
    [['--from', model], [/--wbits/, /--from/]],
  ])
    refused(USAGE, patterns, ['distill', small, ...to, ...quick, ...options], out);
  refused(FAILED, [/--from/, /another checkpoint/], ['distill', small, ...to, ...sampled, '--from', model], out);
  refused(FAILED, /is quantized/, ['distill', model, ...to, '--quiet'], out);
  writeFileSync(join(out, 'm.safetensors.distill'), 'something else');
  refused(FAILED, /m\.safetensors\.distill/, ['distill', small, ...to, ...quick, '--updates', '4'], out);
});

test('--method list has a column for every method and a source for every row', { skip }, () => {
  const rows = ok('distill', '--method', 'list').trimEnd().split('\n');
  assert.match(rows[0], /rtn +mse +efficientdm +mpq-dm +mpq-dm-v2 +source/);
  assert.ok(rows.length > 8 && rows.slice(1).every(row => row.trim().split(/ {2,}/).length === 7), rows.join('\n'));
});

test('without training it is what quantize makes, and --from begins there', { skip }, () => {
  const out = folder(), start = join(out, 'start'), made = join(out, 'made');
  const both = ['--range', 'minmax', '--refit', '0', '--compensation', '0', '--smoothing', '0', '--tables', 'static',
    '--ladder', 'never', '--guidance', '2', ...quantized];
  ok('quantize', small, '-o', start, ...both);
  const plain = ok('distill', small, '-o', made, '--method', 'rtn', ...quick, '--json');
  assert.equal(plain.updates, 0);
  assert.equal(plain.held_out.before, plain.held_out.after);
  const planes = file => file.subarray(8 + Number(file.readBigUInt64LE(0)));
  assert.deepEqual(planes(readFileSync(made)), planes(readFileSync(start)));
  const trained = ok('distill', small, '-o', made, '--from', start, ...sampled, ...training, '--updates', '8', '--json');
  assert.equal(trained.updates, 8);
  assert.equal(trained.held_out.before, plain.held_out.before);
  assert.ok(trained.flipped > 0 && trained.checks.length > 2);
  assert.deepEqual(readdirSync(out).sort(), ['made', 'start']);
});

test('a budget says how many updates it is', { skip }, () => {
  const out = folder(), made = join(out, 'm'), again = join(out, 'n');
  const first = ok('distill', small, '-o', made, ...quick, '--budget', '1s');
  ok('distill', small, '-o', again, ...quick, '--updates', updates(first));
  const data = path => bytes(path).length;
  assert.equal(data(made), data(again));
});

/** Starts it, and kills it as soon as a state is there. */
async function killed(args, state) {
  const child = spawn(tool, args, { stdio: 'ignore' });
  const ended = new Promise(done => child.on('exit', done));
  while (!existsSync(state) && child.exitCode === null) await new Promise(tick => setTimeout(tick, 5));
  child.kill('SIGKILL');
  await ended;
  return child.signalCode === 'SIGKILL';
}

test('killed, it goes on where it was and makes the same file', { skip }, async () => {
  const out = folder(), whole = join(out, 'whole'), broken = join(out, 'broken');
  const args = (to, ...more) => ['distill', small, '-o', to, ...quick, '--updates', '40', ...more];
  ok(...args(whole));
  assert.ok(await killed(args(broken, '--save-every', '0'), `${broken}.distill`), 'it had ended already');
  copyFileSync(`${broken}.distill`, join(out, 'kept'));
  refused(FAILED, [/broken\.distill/, /another distillation/], args(broken, '--seed', '5'), out);
  ok(...args(broken));
  assert.ok(!existsSync(`${broken}.distill`));
  const planes = path => readFileSync(path).subarray(8 + Number(readFileSync(path).readBigUInt64LE(0)));
  assert.deepEqual(planes(broken), planes(whole));
});

test('two processes are one with the doubled batch, to rounding', { skip }, t => {
  if (spawnSync('mpirun', ['--version']).status !== 0) return t.skip('no mpirun');
  const out = folder();
  let n = 0;
  const alone = args => run('distill', small, '-o', join(out, `${n++}`), ...args, '--json', '--batch', '4');
  const pair = args => spawnSync('mpirun', ['--allow-run-as-root', '--oversubscribe', '-n', '2', tool,
    'distill', small, '-o', join(out, `${n++}`), ...args, '--json', '--batch', '2'],
  { encoding: 'utf8', timeout: 600000 });
  /* Without learning the losses of eight updates are those of the pictures and steps drawn. */
  const still = ['--lr', '--scale-rate', '--step-rate', '--zero-rate', '--float-rate'].flatMap(rate => [rate, '0']);
  const drawn = [...quick.filter(word => word !== '--quiet'), ...still, '--updates', '8', '--checks', '1'];
  const losses = text => [...text.matchAll(/training, error ([0-9.]+)/g)].map(m => m[1]);
  const two = pair(drawn), one = alone(drawn);
  if (/no MPI/.test(two.stderr)) return t.skip('built without MPI');
  assert.equal(two.status, 0, two.stderr);
  assert.ok(losses(one.stderr).length > 3, one.stderr);
  assert.deepEqual(losses(two.stderr), losses(one.stderr));
  /* One update: sums in another order push few codes over an edge, other gradients do not agree so well. Later ones
     would not tell: on this network, which was never trained, each flipped code grows. */
  const learnt = [...quick, '--updates', '1', '--checks', '1'];
  const ratio = result => JSON.parse(result.stdout).held_out.ratio, after = ratio(alone(learnt));
  const half = ok('distill', small, '-o', join(out, 'half'), ...learnt, '--json').held_out.ratio;
  assert.ok(Math.abs(ratio(pair(learnt)) / after - 1) < 4e-4, `${after}`);
  assert.ok(Math.abs(half / after - 1) > 1e-3, `half the pictures: ${half}, all: ${after}`);
});
