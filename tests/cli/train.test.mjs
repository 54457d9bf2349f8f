/** bitbrush train: a folder that the other commands open, going on after a break, and what is refused. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { folder, ok, refused, run, tool } from './tool.mjs';

const built = !/built without training/.test(run('train').stderr);
const options = { skip: built ? false : 'built without training' };

/** IDX files of n pictures, 6×6, their left or right half white; and a network of 8×8 that takes a moment to train. */
const words = (...numbers) => Buffer.from(Uint32Array.from(numbers, n => n).buffer).swap32();
const count = 24, size = 6;
const data = folder();
for (const part of ['train', 't10k']) {
  const pixels = Buffer.alloc(count * size * size);
  for (let i = 0; i < pixels.length; i++)
    pixels[i] = (i % size < size / 2) === (Math.floor(i / size / size) % 2 === 1) ? 255 : 0;
  writeFileSync(join(data, `${part}-images-idx3-ubyte`), Buffer.concat([words(0x803, count, size, size), pixels]));
  writeFileSync(join(data, `${part}-labels-idx1-ubyte`),
    Buffer.concat([words(0x801, count), Buffer.from(Array.from({ length: count }, (_, i) => i % 2))]));
}
const network = {
  _class_name: 'UNet2DModel', sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8, 16],
  down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
  layers_per_block: 1, norm_num_groups: 2, attention_head_dim: 8, num_class_embeds: 3,
};
const config = join(data, 'config.json');
writeFileSync(config, JSON.stringify(network));

/** Two threads that wait quietly for each other, as others may be at work. */
process.env.OMP_WAIT_POLICY = 'passive';
const words_of = (out, ...more) =>
  ['train', '-o', out, '--data', data, '--config', config, '--batch', '8', '--threads', '2', '--warmup', '4', ...more];
const weights = out => readFileSync(join(out, 'unet/diffusion_pytorch_model.safetensors'));
const rows = out => readFileSync(join(out, 'train/log.csv'), 'utf8').trim().split('\n');

let whole; // 96 pictures, undisturbed
test('train makes a folder that the other commands open', options, () => {
  whole = join(folder(), 'model');
  const made = ok(...words_of(whole, '--images', '96', '--every', '40', '--json', '--quiet'));
  assert.equal(made.updates, 12);
  assert.equal(made.images, 96);
  assert.ok(made.loss > 0 && made.held_out_loss > 0 && made.seconds > 0, JSON.stringify(made));
  assert.deepEqual(readdirSync(whole).sort(), ['labels.json', 'model_index.json', 'scheduler', 'train', 'unet']);
  assert.deepEqual(readdirSync(join(whole, 'train')).sort(),
    ['log.csv', 'loss.svg', 'samples-0000005.png', 'samples-0000010.png', 'samples-0000012.png', 'state.safetensors']);
  assert.match(rows(whole)[0], /^step,images,loss,held_out_loss,/);
  assert.equal(rows(whole).length, 13);
  assert.match(rows(whole)[5], /^5,40,[\d.]+,[\d.]+,/); // a checkpoint has a held-out loss
  assert.match(rows(whole)[6], /^6,48,[\d.]+,,/);
  assert.equal(readFileSync(join(whole, 'train/samples-0000012.png')).toString('latin1', 1, 4), 'PNG');
  assert.deepEqual(JSON.parse(readFileSync(join(whole, 'labels.json'), 'utf8')), { null: 2, names: ['0', '1'] });
  const scheduler = JSON.parse(readFileSync(join(whole, 'scheduler/scheduler_config.json'), 'utf8'));
  assert.equal(scheduler.prediction_type, 'v_prediction');
  assert.equal(scheduler.beta_schedule, 'squaredcos_cap_v2');
  assert.equal(scheduler.clip_sample, false);
  const index = JSON.parse(readFileSync(join(whole, 'model_index.json'), 'utf8'));
  assert.deepEqual(index.scheduler, ['diffusers', 'DDIMScheduler']);
  const png = join(folder(), 'x.png');
  ok('generate', whole, '-o', png, '--label', '1', '--steps', '2', '--json');
  assert.ok(existsSync(png));
});

/** Runs the command until its state has been written `times` times, then sends the signal; the exit code or signal. */
function broken(args, state, times, signal) {
  return new Promise((resolve, reject) => {
    const child = spawn(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let seen = 0, before, said = '', sent = false;
    child.stderr.on('data', text => { said += text; });
    const timer = setInterval(() => {
      const now = existsSync(state) ? readFileSync(state).subarray(0, 1 << 20).toString('latin1') : '';
      const update = /\nupdate=(\d+)/.exec(now)?.[1];
      if (update !== undefined && update !== before) [before, seen] = [update, seen + 1];
      if (seen >= times && !sent) sent = child.kill(signal);
    }, 2);
    child.on('error', reject);
    child.on('exit', (code, by) => { clearInterval(timer); resolve({ code, by, said }); });
  });
}

test('a broken run goes on to the same bytes', options, async () => {
  const out = join(folder(), 'model'), state = join(out, 'train/state.safetensors');
  const args = words_of(out, '--images', '96', '--every', '8');
  const first = await broken(args, state, 3, 'SIGKILL');
  assert.equal(first.by, 'SIGKILL', first.said);
  const second = await broken(args, state, 3, 'SIGINT');
  assert.match(second.said, /going on at image \d+ of 96/);
  assert.equal(second.code, 130, second.said);
  assert.match(second.said, /the same command goes on/);
  const { status, stderr } = run(...args);
  assert.equal(status, 0, stderr);
  assert.match(stderr, /going on at image/);
  assert.ok(weights(out).equals(weights(whole)), 'other weights than of an undisturbed run');
  const numbers = rows(out).slice(1).map(row => Number(row.split(',')[0]));
  assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b), 'the log goes back and forth');
  assert.equal(new Set(numbers).size, numbers.length);
});

test('a state is for its own command; --restart begins anew', options, () => {
  const out = join(folder(), 'model');
  ok(...words_of(out, '--images', '16'));
  for (const [name, ...change] of [['--lr', '--lr', '0.1'], ['--seed', '--seed', '2'], ['--dropout', '--dropout', '0'],
    ['--prediction', '--prediction', 'epsilon'], ['--flip', '--flip'], ['--images', '--images', '24']])
    refused(2, [/state\.safetensors/, new RegExp(name), /--restart/],
      words_of(out, ...name === '--images' ? [] : ['--images', '16'], ...change, '--quiet'), out);
  const made = ok(...words_of(out, '--images', '24', '--seed', '2', '--restart', '--json', '--quiet'));
  assert.equal(made.images, 24);
  writeFileSync(join(out, 'train/state.safetensors'), 'no state');
  refused(1, /state\.safetensors/, words_of(out, '--images', '24', '--quiet'), out);
});

test('--from begins with a checkpoint, its schedule and its labels', options, () => {
  const out = join(folder(), 'model');
  const args = ['train', '-o', out, '--data', data, '--from', whole, '--warm-start-ema', '--epochs', '0.5',
    '--batch', '4', '--dtype', 'f16', '--lr', '0', '--threads', '2', '--json', '--quiet'];
  assert.equal(ok(...args).updates, 3);
  assert.ok(weights(out).length < weights(whole).length * 0.7, 'not in f16');
  assert.equal(readFileSync(join(out, 'scheduler/scheduler_config.json'), 'utf8'),
    readFileSync(join(whole, 'scheduler/scheduler_config.json'), 'utf8'));
});

test('pictures of another form are refused; every set of instructions trains', options, () => {
  const at = folder(), out = join(folder(), 'model');
  mkdirSync(join(at, 'png'));
  ok('generate', whole, '-o', join(at, 'png/a.png'), '--label', '0', '--steps', '1');
  refused(1, [/labels\.csv: line 2: .*a\.png/, /alpha/],
    ['train', '-o', out, '--data', at, '--config', config, '--images', '8', '--quiet'],
    (writeFileSync(join(at, 'labels.csv'), 'file,label\npng/a.png,left\n'), at));
  for (const cpu of ['scalar', 'avx2']) {
    const { status, stdout, stderr } =
      run(...words_of(join(folder(), 'model'), '--images', '8', `--cpu=${cpu}`, '--quiet', '--json'));
    if (status === 2 && /this CPU does not have it/.test(stderr)) continue;
    assert.equal(status, 0, stderr);
    assert.ok(JSON.parse(stdout).loss > 0);
  }
});

test('two ranks are one process with the doubled batch', options, t => {
  const libraries = spawnSync('ldd', [tool], { encoding: 'utf8' }).stdout ?? '';
  if (!/libmpi/.test(libraries) || spawnSync('mpirun', ['--version']).status !== 0) return t.skip('built without MPI');
  const one = join(folder(), 'model'), two = join(folder(), 'model');
  const same = ['--images', '32', '--bf16', 'off', '--quiet', '--json', '--threads', '1'];
  const alone = ok(...words_of(one, ...same));
  const halves = words_of(two, ...same).map((word, i, all) => all[i - 1] === '--batch' ? '4' : word);
  const { status, stdout, stderr } = spawnSync('mpirun',
    ['--allow-run-as-root', '--oversubscribe', '-n', '2', tool, ...halves], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const both = JSON.parse(stdout);
  assert.equal(both.ranks, 2);
  // Sums in another order: f32 roundings of 6e-8, which four updates of Adam do not blow up beyond this.
  for (const loss of ['loss', 'held_out_loss']) assert.ok(Math.abs(both[loss] / alone[loss] - 1) < 1e-4, loss);
});

test('usage errors name the option, failures the file', options, () => {
  const out = folder(), model = join(out, 'model');
  const base = ['train', '-o', model, '--data', data, '--config', config];
  refused(2, /-o FOLDER is missing/, ['train', '--data', data], out);
  refused(2, /--data is missing/, ['train', '-o', model], out);
  refused(2, /--config FILE .* or --from FOLDER/, ['train', '-o', model, '--data', data, '--images', '8'], out);
  refused(2, /--config FILE .* --from FOLDER/, [...base, '--from', whole, '--images', '8'], out);
  refused(2, /--images, --epochs and --budget/, base, out);
  refused(2, /--images, --epochs and --budget/, [...base, '--images', '8', '--epochs', '1'], out);
  refused(2, /--budget 2 days/, [...base, '--budget', '2 days'], out);
  refused(2, /--every 0/, [...base, '--images', '8', '--every', '0'], out);
  refused(2, /--warm-start-ema needs --from/, [...base, '--images', '8', '--warm-start-ema'], out);
  refused(2, /--prediction x/, [...base, '--images', '8', '--prediction', 'x'], out);
  const deeper = base.map(word => word === model ? join(model, 'deeper') : word);
  refused(1, /cannot make this folder/, [...deeper, '--images', '8', '--quiet'], out);
  const from = (pictures, file) => ['train', '-o', model, '--data', pictures, '--config', file, '--images', '8'];
  refused(1, /nowhere: no such/, from('/nowhere', config), out);
  refused(1, /train-images/, from(out, config), out);
  refused(1, /nowhere\.json/, from(data, '/nowhere.json'), out);
  refused(1, /holds a model already/, ['train', '-o', data, '--data', data, '--config', config, '--images', '8']);
  const other = join(folder(), 'config.json');
  for (const [change, pattern] of [[{ out_channels: 2 }, /out_channels/], [{ sample_size: 4 }, /sample_size/],
    [{ num_class_embeds: 1 }, /num_class_embeds/], [{ _class_name: 'X' }, /_class_name/]]) {
    writeFileSync(other, JSON.stringify({ ...network, ...change }));
    refused(1, [/config\.json/, pattern],
      ['train', '-o', model, '--data', data, '--config', other, '--images', '8', '--quiet'], out);
  }
});
